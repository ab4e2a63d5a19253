"""How the judges count: sentences in, numbers out; no model, no sound."""

from types import SimpleNamespace

import pytest

from personaplex_lite.evaluation import judges as judge
from personaplex_lite.training import world


@pytest.mark.parametrize("heard, meant", [
    ("The bread costs $4.", "the bread costs four dollars"),
    ("The novel costs 12 dollars!", "the novel costs twelve dollars"),
    ("We open at 8:00 in the morning", "we open at eight in the morning"),
    ("It's 8 a.m., isn't it?", "it is eight am isnt it"),
    ("Sorry, I don't know that.", "sorry i do not know that"),
    ("The fountain costs $50.00 dollars", "the fountain costs fifty dollars"),
    ("42 well-known 7up 555", "forty two well known seven up five five five"),
    ("OK, I’m Anna", "okay i am anna"),
    ("…", ""),
])
def test_spelling_does_not_count(heard, meant):
    assert judge.normalise(heard) == meant.split()
    assert judge.normalise(meant) == meant.split(), "what is normal stays as it is"


def test_everything_the_world_says_is_normal_already():
    assert [judge.normalise(w) for w in world.vocabulary()] == [[w] for w in world.vocabulary()]


def test_compounds_take_the_other_sides_spelling():
    said = "this is sunny book shop with a toothbrush".split()
    assert judge.respell("this is sunny bookshop with a tooth brush".split(), said) == said
    assert judge.respell("a book and a shop".split(), said) == "a book and a shop".split()


@pytest.mark.parametrize("said, heard, counts", [
    ("a b c", "a b c", (0, 0, 0, 0)),
    ("a b c", "a x c", (1, 1, 0, 0)),
    ("a b c", "a c", (1, 0, 1, 0)),
    ("a b c", "a b x c", (1, 0, 0, 1)),
    ("a b c", "", (3, 0, 3, 0)),
    ("", "a b", (2, 0, 0, 2)),
    ("the cat sat down", "a cat down there", (3, 1, 1, 1)),
])
def test_alignment(said, heard, counts):
    assert judge.align(said.split(), heard.split()) == counts


def test_word_errors_are_counted_over_the_whole_corpus():
    figures = judge.speech_figures([("we open at eight", "We open at 8."), ("", "hm"),
                                    ("my name is anna", "my name Hannah so")])
    assert figures["word error rate"] == {"value": 3 / 8, "n": 8}       # is, anna, hm
    assert figures["words understood"]["value"] == 6 / 8
    assert judge.speech_figures([])["word error rate"] == {"value": None, "n": 0}


def test_wilson():
    assert judge.wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert judge.wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert judge.wilson(20, 20)[1] == pytest.approx(1) and judge.wilson(0, 0) == (0, 1)


FACTS = world.Facts("anna", "sunny book shop", "eight", "six", {"novel": "twelve", "atlas": "four"},
                    "we are closed on monday")


@pytest.mark.parametrize("kind, item, said, verdict", [
    ("price", "novel", "the novel costs twelve dollars", True),
    ("price", "novel", "the novel costs four dollars", False),
    ("price", "novel", "the atlas costs twelve dollars", False),
    ("price", "novel", "the novel costs twelve dollars the atlas costs four dollars", False),
    ("price", "novel", "sorry i do not know that the novel costs twelve dollars", False),
    ("price", "novel", "the novel i do not know sorry", False),
    ("open", None, "we open at eight in the morning", True),
    ("open", None, "we close at eight in the evening", False),
    ("open", None, "we open at eighteen", False),
    ("close", None, "we close at six in the evening", True),
    ("name", None, "my name is anna", True),
    ("name", None, "my name is hannah", False),
    ("company", None, "this is sunny book shop", True),
    ("company", None, "this is sunny bike shop", False),
    ("rule", None, "please note that we are closed on monday", True),
    ("rule", None, "please note that we are closed on sunday", False),
    ("unknown", "bread", "sorry i do not know that", True),
    ("unknown", "bread", "the bread i do not know sorry", True),
    ("unknown", "bread", "the bread costs four dollars", False),
    ("unknown", None, "", False),
])
def test_what_is_right(kind, item, said, verdict):
    assert judge.right(said, judge.wanted(kind, FACTS, item)) is verdict


@pytest.mark.parametrize("kind", ["price", "open", "close", "name", "company", "rule", "unknown"])
def test_the_worlds_own_answers_are_right(kind):
    from random import Random
    rng = Random(0)
    for _ in range(50):
        facts = world.make_facts(rng, "test")
        _, item, _, reply = world.exchange(facts, rng, "test", kind)
        assert judge.right(reply, judge.wanted(kind, facts, item)), reply


def test_every_kind_is_asked_of_every_voice():
    """Lest one voice's slips look like one kind's: once, each kind met one voice only."""
    from personaplex_lite.evaluation import questions
    voices = [f"voice {i}" for i in range(8)]
    assert len({questions.pair(i, voices) for i in range(7 * 8)}) == 7 * 8
    assert {voice for _, voice in (questions.pair(i, voices) for i in range(35))} == {*voices}


def test_words_stay_inside_the_voice():
    assert judge._inside(0.2, 1.4, [(0.5, 1.0), (3.0, 4.0)]) == (0.5, 1.0)
    assert judge._inside(2.0, 2.8, [(0.5, 1.0), (3.0, 4.0)]) == (3.0, 3.0)


def test_marks_are_met_or_not():
    from personaplex_lite.evaluation import report as evaluate
    figures = {"turn taking: TOR": {"value": 0.96, "n": 50}, "pause: TOR": {"value": 0.3, "n": 20},
               "story: TOR": {"value": None, "n": 0}}
    met = {line["figure"]: line["met"] for line in evaluate.marks(figures)}
    assert met["turn taking: TOR"] is True and met["pause: TOR"] is False
    assert met["story: TOR"] is None and met["codec: speaker similarity"] is None


def test_a_missing_package_says_how_to_get_it():
    with pytest.raises(ModuleNotFoundError, match=r"needs the package 'nosuchjudge'.*eval"):
        judge.need("nosuchjudge")


def test_questions_without_an_answer_are_not_early():
    from personaplex_lite.evaluation import report as evaluate

    def answer(kind, right, start, onset, text):
        return SimpleNamespace(question=SimpleNamespace(kind=kind, end=2.0), right=right, start=start,
                               onset=onset, text=text)
    answers = [answer("name", True, 2.2, 2.4, "my name is anna"), answer("name", False, 1.0, None, "we"),
               answer("open", False, None, None, "")]
    figures = evaluate.answer_figures(answers)
    assert (figures["right"]["value"], figures["right"]["n"]) == (round(1 / 3, 4), 3)
    assert figures["right, name"]["value"] == 0.5 and figures["right, price"]["value"] is None
    assert figures["early"]["value"] == figures["no word"]["value"] == round(1 / 3, 4)
    assert figures["seconds until text, median"] == {"value": -0.4, "n": 2}
