"""The whole recipe, very small: clips, codec, codes, dialogues, language model; a broken run goes on."""
import json
from random import Random

import numpy as np
import pytest
import torch

from personaplex_lite.checkpoint import load_lm, load_mimi
from personaplex_lite.config import LMConfig, MimiConfig, from_dict
from personaplex_lite.grid import delay
from personaplex_lite.text import Text
from recipe import clips, codec, dialogue, lm, tokenizer, world

pytest.importorskip("hibari", reason="needs the [train] extra: pip install -e '.[train]'")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Some ninety clips, six steps of codec, their codes."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("training")
    specs = clips.inventory("train", 60, 30, seed=1)
    voices = {s.voice: s for s in specs if s.side == "voice"}
    clips.build(root / "clips", [s for s in specs if s.side != "voice"] + list(voices.values()), workers=1)
    codec.train(root / "clips", root / "codec", steps=6, free=3)
    mimi = load_mimi(root / "codec/mimi.safetensors",
                     from_dict(MimiConfig, json.loads((root / "codec/mimi.json").read_text())))
    dialogue.encode_clips(root / "clips", mimi, root / "encoded/train")
    dialogue.encode_backgrounds(mimi, root / "encoded", seconds=20)
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


def test_dialogues_are_laid_out_as_a_conversation_runs(data):
    """Prompt phases, start of each word in the text row, nothing learnt in the prompt."""
    text = Text(data / "lm/tokenizer.model")
    with np.load(data / "encoded/rooms.npz") as rooms:
        config = lm.lite_lm(len(text), rooms["silence"].tolist(), rooms["sine"].tolist())
    dialogues = dialogue.Dialogues(dialogue.Library(data / "encoded/train"), text, config)
    rng, heard = Random(3), 0
    for _ in range(12):
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
            assert 0 <= first - round(words[0].start / 0.08) <= 4, "text leads its sound by about two frames"
            heard += 1
        assert delay(torch.from_numpy(talk.frames)[None], config).shape == (1, 17, 241)
    assert heard >= 6


def test_answers_can_be_copied_from_the_role():
    """Every fact that an answer needs stands in the role text, word for word."""
    for seed in range(50):
        rng = Random(seed)
        facts = world.make_facts(rng, "train")
        role = world.role_text(facts, rng).split()
        for kind in ("open", "close", "name", "company", "price"):
            item = rng.choice(list(facts.prices)) if kind == "price" else None
            fixed = world.ANSWERS[kind].split()
            facts_said = [w for w in world.answer(kind, facts, item).split() if w not in fixed]
            assert set(facts_said) - {"afternoon", "evening"} <= set(role)


def test_held_out_facts_never_meet_in_training():
    for seed in range(200):
        train, test = (world.make_facts(Random(seed), split) for split in ("train", "test"))
        assert not any(world.held_out(i, p, world.PRICES) for i, p in train.prices.items())
        assert all(world.held_out(i, p, world.PRICES) for i, p in test.prices.items())
        assert not world.held_out(train.company, train.name, world.NAMES)
    for train, test in (q.values() for q in world.QUESTIONS.values()):
        assert not set(train) & set(test)
