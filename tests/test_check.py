"""The machinery of the learner's checks: one line whatever the answer is; a wrong one is never right."""

import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from personaplex_lite.course import check as course_checks
from personaplex_lite.course.check.common import NotYet, call, check, expect, same

MODULES = [importlib.import_module(f"personaplex_lite.course.check.{path.stem}")
           for path in sorted(Path(course_checks.__file__).parent.glob("n[0-9]*.py"))]
CHECKS = [(module, name) for module in MODULES for name in module.__all__]
JUNK = [None, "x", 0, float("nan"), [], lambda *a, **k: None, lambda *a: a, object()]

@check
def doubles(answer):
    """A check as the notebooks have them."""
    same(call(answer, np.arange(4.0)), 2 * np.arange(4.0), "the result")
    return "twice as much"


def verdict(capsys, checker, *answers):
    """What a check prints: always one line."""
    assert checker(*answers) is None
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and not said.err
    return said.out.strip()


def test_right(capsys):
    assert verdict(capsys, doubles, lambda x: 2 * x) == "right: twice as much"
    assert verdict(capsys, doubles, lambda x: torch.tensor(2 * x)) == "right: twice as much"
    assert verdict(capsys, doubles, lambda x: [0, 2, 4, 6]) == "right: twice as much"


@pytest.mark.parametrize("answer, why", [
    (None, "fill in"),
    (..., "fill in"),
    (lambda x: None, "returns nothing"),
    (lambda x: ..., "returns nothing"),
    (lambda x: 1 / 0, "ZeroDivisionError"),
    (lambda x: x.no_such_name, "AttributeError"),
    (lambda: 1, "TypeError"),
    (7, "TypeError"),
    ("a word", "TypeError"),
    (lambda x: 2 * x[:3], r"shape \[3\], expected \[4\]"),
    (lambda x: 2 * x[None], r"shape \[1, 4\], expected \[4\]"),
    (lambda x: 1.0, r"shape \[\], expected \[4\]"),
    (lambda x: 2 * x + 0.5, r"0.5 off at \[0\]"),
    (lambda x: 2 * x + [0, 0, 3, 0], r"3 off at \[2\]"),
    (lambda x: 2 * x + [0, np.nan, 0, 0], r"off at \[1\]"),
    (lambda x: 2 * x + [0, 0, 0, np.inf], r"off at \[3\]"),
    (lambda x: x * np.nan, "off"),
    (lambda x: ["a", "b", "c", "d"], "cannot be compared"),
    (lambda x: [[1], [2, 3]], "cannot be compared"),
    (lambda x: {"a": 1}, "shape"),
    (lambda x: np.array([None] * 4), "nan off"),
    (lambda x: torch.zeros(4, dtype=torch.bfloat16), "off at|cannot be compared"),
    (lambda x: 2j * x, "off at|cannot be compared"),
], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_not_yet(capsys, answer, why):
    said = verdict(capsys, doubles, answer)
    assert said.startswith("not yet: ") and re.search(why, said), said


def test_one_missing_answer_of_several(capsys):
    both = check(lambda a, b: expect(a == b, "they differ") or "the same")
    assert verdict(capsys, both, 1, 1) == "right: the same"
    assert verdict(capsys, both, 1, 2) == "not yet: they differ"
    assert verdict(capsys, both, 1, None).startswith("not yet: fill in")
    assert verdict(capsys, both, 1).startswith("not yet: ")                # too few


def test_an_error_in_the_check_itself_is_never_right(capsys):
    broken = check(lambda answer: {}[answer])
    assert verdict(capsys, broken, 1).startswith("not yet: ")


def test_numbers_are_not_compared_too_strictly_or_too_loosely():
    same(1.0, 1.0 + 1e-6, "a number")
    same([], np.zeros(0), "nothing")
    same(torch.tensor([True, False]), [1, 0], "bits")
    same(torch.ones(2, requires_grad=True), [1, 1], "a tensor that learns")
    for wrong in (1 + 1e-4, np.nan, -np.inf):
        with pytest.raises(NotYet, match="off"):
            same(wrong, 1.0, "a number")
    with pytest.raises(NotYet, match="shape"):
        same([], 0, "nothing")


def test_a_check_keeps_its_name_and_docstring():
    assert doubles.__name__ == "doubles" and doubles.__doc__


def test_every_name_belongs_to_one_notebook():
    names = [name for _, name in CHECKS]
    assert names and len(names) == len(set(names))
    assert all(getattr(course_checks, name) is getattr(module, name) for module, name in CHECKS)


@pytest.mark.parametrize("module, name", CHECKS, ids=[name for _, name in CHECKS])
@pytest.mark.filterwarnings("ignore")
def test_no_check_raises_or_takes_junk(capsys, module, name):
    checker = getattr(module, name)
    takes = [p for p in inspect.signature(checker).parameters.values() if p.default is p.empty]
    for junk in JUNK:
        assert verdict(capsys, checker, *[junk] * len(takes)).startswith("not yet: "), junk


# What people answer, right and wrong, in the three notebooks that are about nothing but the conversation.

SAID = SimpleNamespace(text="we open at eleven", codes=np.zeros((17, 20), int),
                       config=SimpleNamespace(silence=[0] * 8))
OLD, NEW = "we close at nine and open at seven", "we close at nine and open at eleven"
TALK = SimpleNamespace(user=np.r_[np.ones(48_000), np.zeros(48_000)],
                       pcm=np.r_[np.zeros(67_200), np.ones(28_800)])
VALUES = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1])
FOUND = ["we", "at", "open", "eleven"]
BLAH = [("blah", i * 0.25, i * 0.25 + 0.2) for i in range(60)]


def interval(values, ends=(2.5, 97.5)):
    picks = np.random.default_rng(1).integers(len(values), size=(2000, len(values)))
    return np.percentile(values[picks].mean(1), ends)


def until_silence(segments, begin, breath=0.3):
    until = None
    for start, end in segments:
        if start <= begin < end or (until is not None and start - until < breath):
            until = end
    return None if until is None else until - begin


def took_turn(words):
    return int(bool(words) and (len(words) > 3 or words[-1][2] - words[0][1] >= 1))


def reaction(user, agent):
    end = np.flatnonzero(user)[-1]
    return np.flatnonzero(agent[end + 1:])[0] * 0.08


def late(arrivals, slack, frame=80):
    return int((arrivals > arrivals[0] + slack + frame * np.arange(len(arrivals))).sum())


@pytest.mark.parametrize("name, answers, right", [
    ("role_words", (OLD, NEW, SAID, FOUND), True),
    ("role_words", (OLD, OLD, SAID, ["we", "at", "open"]), False),              # nothing changed
    ("role_words", (OLD, NEW.replace("nine", "ten"), SAID, FOUND), False),      # two words changed
    ("role_words", (OLD, NEW, SAID, ["eleven"]), False),
    ("role_words", (OLD, NEW, SAID, FOUND + ["nine"]), False),
    ("role_words", (OLD, NEW, SAID, NEW.split()), False),
    ("columns_of", (lambda n: -(-n // 1920),), True),
    ("columns_of", (lambda n: n // 1920,), False),
    ("columns_of", (lambda n: n // 1920 + 1,), False),
    ("columns_of", (lambda n: n / 1920,), False),
    ("columns_of", (lambda n: round(n / 1920),), False),
    ("pale_share", (lambda c, s: (c[1:9] == s[:, None]).mean(), SAID), True),
    ("pale_share", (lambda c, s: (c[0:8] == s[:, None]).mean(), SAID), False),
    ("pale_share", (lambda c, s: (c[9:] == s[:, None]).mean(), SAID), False),
    ("pale_share", (lambda c, s: np.isin(c[1:9], s).mean(), SAID), False),
    ("pale_share", (lambda c, s: (c[1:9] == s[:, None]).all(0).mean(), SAID), False),
    ("pale_share", (lambda c, s: (c[1:9] == s[:, None]).sum(), SAID), False),
    ("pale_share", (lambda c, s: (c[1:9] == s).mean(), SAID), False),
    ("lost_share", (lambda work: max(0, 1 - 80 / work),), True),
    ("lost_share", (lambda work: 1 - 80 / work,), False),
    ("lost_share", (lambda work: max(0, work / 80 - 1),), False),
    ("lost_share", (lambda work: float("nan"),), False),
    ("reaction_time", (reaction, TALK), True),
    ("reaction_time", (lambda u, a: reaction(u, a) / 0.08, TALK), False),       # frames, not seconds
    ("reaction_time", (lambda u, a: reaction(u, a) + 0.08, TALK), False),
    ("reaction_time", (lambda u, a: (np.flatnonzero(a)[0] - np.flatnonzero(u)[-1] - 1) * 0.08, TALK), False),
    ("gap_count", (late,), True),
    ("gap_count", (lambda arrivals, slack: late(arrivals, 0),), False),
    ("gap_count", (lambda arrivals, slack: late(arrivals, slack, 81),), False),
    ("gap_count", (lambda arrivals, slack: int((np.diff(arrivals) > 80 + slack).sum()),), False),
    ("take_over_rule", (took_turn,), True),
    ("take_over_rule", (lambda words: int(len(words) > 3),), False),
    ("take_over_rule", (lambda words: int(bool(words)),), False),
    ("take_over_rule", (lambda words: int(len(words) >= 3 or took_turn(words)),), False),
    ("take_over_rule", (lambda words: int(words[-1][2] - words[0][1] >= 1),), False),
    ("yield_seconds", (until_silence, [(1, 3)], 2), True),
    ("yield_seconds", (until_silence, [(1, 3)], 4), True),
    ("yield_seconds", (lambda s, b: until_silence(s, b, 0), [(1, 3)], 2), False),
    ("yield_seconds", (lambda s, b: until_silence(s, b, 9), [(1, 3)], 2), False),
    ("yield_seconds", (lambda s, b: until_silence(s, b) or 0, [(1, 3)], 2), False),
    ("yield_seconds", (lambda s, b: s[-1][1] - b, [(1, 3)], 2), False),
    ("perfect_cheat", (BLAH,), True),
    ("perfect_cheat", (BLAH[30:],), False),                                     # begins too late
    ("perfect_cheat", (BLAH[:30],), False),                                     # stops too soon
    ("perfect_cheat", ([("hello", 6, 8), ("hello", 10, 12)],), False),          # polite and punctual
    ("perfect_cheat", ([],), False),
    ("interval_ends", (interval, VALUES), True),
    ("interval_ends", (lambda v: interval(v, (5, 50)), VALUES), False),
    ("interval_ends", (lambda v: (v.min(), v.max()), VALUES), False),
    ("interval_ends", (lambda v: v.mean(), VALUES), False),
    ("interval_ends", (lambda v: interval(v)[::-1], VALUES), False),
])
@pytest.mark.filterwarnings("ignore")
def test_right_and_wrong_answers(capsys, name, answers, right):
    said = verdict(capsys, getattr(course_checks, name), *answers)
    assert said.startswith("right: " if right else "not yet: "), said
