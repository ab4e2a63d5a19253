"""Weights in and out: official names for every size, and files that are not what they should be."""

import json
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import personaplex_lite as pp
from personaplex_lite.model.lm import LM
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.weights import sizes
from personaplex_lite.weights.checkpoint import CheckpointError, load_lm, load_mimi, official_tensors
from personaplex_lite.weights.names import check_bijection, lm_names, mimi_names
from personaplex_lite.weights.writer import save

FULL = json.loads((Path(__file__).parent / "names_full.json").read_text())
LMS = {"personaplex_lm_dep_q16": pp.config.personaplex_7b, "moshiko_lm_dep_q8": pp.config.moshiko}


def compare(model, table, full):
    """Names, shapes and counts, and nothing of the model left without an official home."""
    assert {name: list(place.shape) for name, place in table.items()} == full["tensors"]
    assert len(table) == full["count"]
    assert sum(prod(p.shape) for p in table.values()) == full["total_elements"]
    assert sum(p.numel() for p in model.parameters()) == full["parameter_elements"]
    check_bijection(model, table)
    assert all(list(t.shape) == full["tensors"][n] for n, t in official_tensors(model).items())


@pytest.mark.fullsize
@pytest.mark.parametrize("name", LMS)
def test_full_size_language_models(name):
    config = LMS[name]()[0]
    assert config == pp.LMConfig.from_official(FULL[name]["config"])
    with torch.device("meta"):
        model = LM(config)
    compare(model, lm_names(config), FULL[name])


@pytest.mark.fullsize
def test_full_size_codec():
    config = pp.config.personaplex_7b()[1]
    assert config == pp.MimiConfig.from_official(FULL["mimi"]["config"]) == pp.config.moshiko()[1]
    with torch.device("meta"):
        model = Mimi(config)
    compare(model, mimi_names(config), FULL["mimi"])


def test_other_official_designs_are_refused():
    config = FULL["personaplex_lm_dep_q16"]["config"]
    with pytest.raises(ValueError, match="gating.*relu.*supported"):
        pp.LMConfig.from_official({**config, "gating": "relu"})


def test_config_round_trip():
    for config in (*pp.config.tiny(), *pp.config.personaplex_7b()):
        data = json.loads(json.dumps(sizes.to_dict(config)))
        assert sizes.from_dict(type(config), data) == config


@pytest.fixture
def files(tiny_agent, tmp_path):
    save(tiny_agent.lm, tmp_path / "lm.safetensors")
    save(tiny_agent.mimi, tmp_path / "mimi.safetensors")
    return tmp_path


def test_round_trip(tiny_agent, files):
    for model, load, name in ((tiny_agent.lm, load_lm, "lm"), (tiny_agent.mimi, load_mimi, "mimi")):
        again = load(files / f"{name}.safetensors", model.config)
        ours, theirs = model.state_dict(), again.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
        assert not again.training and not any(p.requires_grad for p in again.parameters())
        assert not any(p.is_meta for p in [*again.parameters(), *again.buffers()])


def test_loaded_models_talk_alike(tiny_agent, files, sounds):
    config = tiny_agent.lm.config, tiny_agent.mimi.config
    again = replace(tiny_agent, lm=load_lm(files / "lm.safetensors", config[0]),
                    mimi=load_mimi(files / "mimi.safetensors", config[1]))
    one, two = tiny_agent.chat(seed=4), again.chat(seed=4)
    for sound in sounds[:10, 0]:
        a, b = one.step(sound), two.step(sound)
        assert a is b is None or (torch.equal(a.codes, b.codes) and torch.equal(a.pcm, b.pcm))


def test_other_types(tiny_agent, files, sounds):
    save(tiny_agent.lm, files / "half.safetensors", torch.bfloat16)
    assert load_file(str(files / "half.safetensors"))["out_norm.alpha"].dtype == torch.bfloat16
    lm = load_lm(files / "half.safetensors", tiny_agent.lm.config, dtype=torch.bfloat16)
    session = replace(tiny_agent, lm=lm).chat()
    assert [session.step(sound) for sound in sounds[:3, 0]][2].codes.shape == (17,)


def test_every_fault_is_listed_at_once(tiny_agent, files):
    tensors = load_file(str(files / "lm.safetensors"))
    del tensors["out_norm.alpha"], tensors["emb.3.weight"]
    tensors |= {"stranger": torch.zeros(1), "friend": torch.zeros(1), "emb.0.weight": torch.zeros(2, 3),
                "text_linear.weight": tensors["text_linear.weight"].T.contiguous()}
    save_file(tensors, str(files / "bad.safetensors"))
    with pytest.raises(CheckpointError) as error:
        load_lm(files / "bad.safetensors", tiny_agent.lm.config)
    said = str(error.value)
    assert "missing: emb.3.weight, out_norm.alpha" in said and "extra: friend, stranger" in said
    assert "misshapen: emb.0.weight is [2, 3], should be [33, 32]" in said
    assert "text_linear.weight is [32," in said


def test_another_models_file(tiny_agent, files):
    lm, mimi = tiny_agent.lm.config, tiny_agent.mimi.config
    for load, config, other in ((load_lm, lm, "mimi"), (load_mimi, mimi, "lm")):
        with pytest.raises(CheckpointError, match="does not hold this model.*missing: .*extra: "):
            load(files / f"{other}.safetensors", config)
    larger = replace(tiny_agent.mimi.config, codebooks_stored=9)
    with pytest.raises(CheckpointError, match=r"missing: quantizer.rvq_rest.vq.layers.7"):
        load_mimi(files / "mimi.safetensors", larger)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files(tiny_agent, files, keep):
    path = files / "lm.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a whole safetensors file.*download or copy it again"):
        load_lm(path, tiny_agent.lm.config)


def test_files_of_another_kind(tiny_agent, files):
    torch.save({"a": torch.zeros(3)}, files / "weights.pt")
    (files / "notes.safetensors").write_text("these are not the weights that you are looking for")
    for name in ("weights.pt", "notes.safetensors"):
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            load_mimi(files / name, tiny_agent.mimi.config)
    for nothing in (files / "nowhere.safetensors", files):
        with pytest.raises(FileNotFoundError, match="no weights at"):
            load_lm(nothing, tiny_agent.lm.config)


def folder(agent, files):
    """A checkpoint as `pp.load` wants it."""
    about = {"lm": sizes.to_dict(agent.lm.config), "mimi": sizes.to_dict(agent.mimi.config)}
    (files / "config.json").write_text(json.dumps(about))
    (files / "tokenizer.model").write_bytes(agent.text.path.read_bytes())
    (files / "voices").mkdir()
    pp.Voice(codes=torch.zeros(8, 4, dtype=torch.int64)).save(files / "voices" / "anna.safetensors")
    return files


def test_load_a_folder(tiny_agent, files):
    agent = pp.load(folder(tiny_agent, files))
    assert agent.chat(pp.Persona("anna", "you")).step(torch.zeros(8, dtype=torch.int64)).t == 0
    assert list(agent.voices) == ["anna"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"lm": 3, "mimi": {}}', '{"lm": {"dim": 3}, "mimi": {}}'])
def test_load_refuses_a_broken_config(tiny_agent, files, text):
    (folder(tiny_agent, files) / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a config of this project"):
        pp.load(files)


def test_load_says_what_is_missing(tiny_agent, files):
    with pytest.raises(FileNotFoundError, match="no checkpoint in .* config.json"):
        pp.load(files)
    folder(tiny_agent, files)
    with pytest.raises(ValueError, match="weights='x'.*f32"):
        pp.load(files, weights="x")
    (files / "tokenizer.model").write_text("nonsense")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        pp.load(files)
    (files / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        pp.load(files)
    (files / "mimi.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights at .*mimi"):
        pp.load(files)
