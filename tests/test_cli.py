"""The command line on a stand-in checkpoint of random weights, and the questions that ship."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from personaplex_lite import Voice, cli
from personaplex_lite.model import config
from personaplex_lite.model.lm import LM
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.talk.text import Text
from personaplex_lite.training import tokenizer, world
from personaplex_lite.weights import sizes
from personaplex_lite.weights.writer import save

ENTRIES = json.loads((cli.QUESTIONS / "questions.json").read_text())
QUESTION = str(cli.QUESTIONS / ENTRIES[0]["file"])


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """A folder that `load` reads: tiny sizes, all voices the questions ask for, nothing sensible to say."""
    folder = tmp_path_factory.mktemp("standin")
    lm, mimi = config.tiny()
    temporal = replace(lm.temporal, context=200)
    words = Text(tokenizer.train(folder / "tokenizer.model", lines=2000))
    lm = replace(lm, temporal=temporal, text_vocab=len(words))
    torch.manual_seed(0)
    for name, model in {"lm": LM(lm), "mimi": Mimi(mimi)}.items():
        for tensor in model.state_dict().values():
            tensor.normal_(0, 0.05)
        save(model, folder / f"{name}.safetensors")
    about = {"lm": sizes.to_dict(lm), "mimi": sizes.to_dict(mimi), "sampling": {"text_top_k": 5}}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "voices").mkdir()
    for voice in {entry["voice"] for entry in ENTRIES}:
        Voice(torch.randint(0, 32, (8, 5))).save(folder / f"voices/{voice}.safetensors")
    return str(folder)


def refused(capsys, *argv) -> str:
    """Run a command that must fail: its one sentence."""
    assert cli.main([str(arg) for arg in argv]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("personaplex-lite: ") and "Traceback" not in said
    return said


def test_run_writes_the_answer(standin, tmp_path, capsys):
    out = tmp_path / "new" / "reply.wav"
    asked = ["run", QUESTION, "-o", str(out), "--role", "you are anna", "--checkpoint", standin]
    assert cli.main([*asked, "--voice", ENTRIES[0]["voice"], "--seed", "3"]) == 0
    assert capsys.readouterr().out.strip()
    info = soundfile.info(out)
    assert info.samplerate == 24_000 and info.duration > soundfile.info(QUESTION).duration


def test_run_is_repeatable(standin, tmp_path):
    for name in ("a.wav", "b.wav"):
        out = str(tmp_path / name)
        assert cli.main(["run", QUESTION, "-o", out, "--greedy", "--checkpoint", standin]) == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_talk_tells_where_everything_is(standin, tmp_path, capsys):
    pytest.importorskip("matplotlib").use("Agg")
    assert cli.main(["talk", "price", "-o", str(tmp_path), "--checkpoint", standin]) == 0
    said = capsys.readouterr().out
    for path in (tmp_path / "reply.wav", tmp_path / "talk.wav", tmp_path / "reply.png"):
        assert path.stat().st_size > 1000 and str(path) in said
    asked = next(entry for entry in ENTRIES if entry["kind"] == "price")
    assert asked["text"] in said and asked["role"] in said and "real time on" in said and "make lab" in said
    assert soundfile.info(tmp_path / "talk.wav").channels == 2


def test_mistakes_are_one_sentence(standin, tmp_path, capsys):
    there = "--checkpoint", standin
    assert "no sound file" in refused(capsys, "run", tmp_path / "none.wav", *there)
    (tmp_path / "text.wav").write_text("hello")
    assert "not a sound file" in refused(capsys, "run", tmp_path / "text.wav", *there)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 24_000)
    assert "empty" in refused(capsys, "run", tmp_path / "empty.wav", *there)
    assert ENTRIES[0]["voice"] in refused(capsys, "run", QUESTION, "--voice", "NOBODY", *there)
    assert "must end in" in refused(capsys, "run", QUESTION, "-o", tmp_path / "reply.txt", *there)
    assert "no checkpoint" in refused(capsys, "run", QUESTION, "--checkpoint", tmp_path)
    assert "shorten the role" in refused(capsys, "run", QUESTION, "--role", "hello " * 300, *there)
    assert "there are open, price" in refused(capsys, "talk", "weather", *there)
    assert "train data" in refused(capsys, "train", "encode", "--data", tmp_path)


def test_a_silent_question_is_noted_and_answered(standin, tmp_path, capsys):
    soundfile.write(tmp_path / "silent.wav", np.zeros(4800), 24_000)
    there = ["--checkpoint", standin, "-o", str(tmp_path / "reply.wav")]
    assert cli.main(["run", str(tmp_path / "silent.wav"), *there]) == 0
    assert "note: " in (said := capsys.readouterr().err) and "silent" in said and ".py" not in said


@pytest.mark.parametrize("argv", [[], ["sing"], ["train"], ["run", QUESTION, "--loud"]])
def test_wrong_usage_exits_with_2(argv):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2


@pytest.mark.parametrize("option, says", [(["--seed", "9" * 30], "whole number"),
                                          (["--seed", "x"], "whole number"),
                                          (["--seed", "9" * 5000], "whole number"),
                                          (["--role", "\udcff\udcfe"], "not UTF-8")])
def test_an_unfit_option_is_one_short_sentence_before_any_work(capsys, option, says):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", QUESTION, *option])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in said and len(said) < 200


def test_talk_into_a_file_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert "give -o the name of a folder" in refused(capsys, "talk", "-o", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_questions_are_sound_and_held_out():
    assert {"open", "price", "name", "company", "close", "unknown"} == {entry["kind"] for entry in ENTRIES}
    for entry in ENTRIES:
        info = soundfile.info(cli.QUESTIONS / entry["file"])
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
        assert 2 <= info.duration <= 4
        texts = [phrasing.format(item=item) for phrasing in world.phrasings(entry["kind"], "test")
                 for item in world.ITEMS]
        assert entry["text"] in texts
        if entry["kind"] != "unknown":
            assert all(entry["role"].split().count(word) == 1 for word in entry["expect"])
    assert sum(path.stat().st_size for path in cli.QUESTIONS.iterdir()) < 1_200_000
