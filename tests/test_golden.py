"""Our arithmetic against the official code's, on random weights: integers equal, floats within 3e-4.

The arrays come from tests/goldens, and from every folder named in PERSONAPLEX_GOLDENS (separated by ":").
Sizes are read from each folder's json, never assumed; tests/goldens/README.md says how every array was made.
"""
import hashlib
import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import personaplex_lite as pp
from personaplex_lite.model.config import NO_INPUT
from personaplex_lite.model.grid import delay, undelay
from personaplex_lite.talk.persona import Voice, lay_out
from personaplex_lite.talk.session import Session
from personaplex_lite.weights.names import lm_names

HERE = Path(__file__).parent / "goldens"
FOLDERS = [HERE, *map(Path, filter(None, os.environ.get("PERSONAPLEX_GOLDENS", "").split(":")))]
TOLERANCE = 3e-4
pytestmark = pytest.mark.golden


def has(*names):
    """The folders that hold these files (a set may have only one of the two models)."""
    found = [f for f in FOLDERS if all((f / n).exists() for n in names)]
    return pytest.mark.parametrize("folder", found, ids=[f"golden-{f.name}" for f in found])


lm_folders, mimi_folders = has("lm_goldens.json"), has("mimi_goldens.json")


@cache
def arrays(folder, model):
    return load_file(str(folder / f"{model}_goldens.safetensors"))


@cache
def about(folder, model):
    return json.loads((folder / f"{model}_goldens.json").read_text())


@cache
def lm_of(folder):
    info = about(folder, "lm")
    config = pp.LMConfig.from_official(info["config"])
    config = replace(config, silence=tuple(info["silence_tokens"]), sine=tuple(info["sine_tokens"]))
    model = pp.checkpoint.load_lm(folder / "lm.safetensors", config)
    return model, config


def close(ours, theirs, what):
    """Equal shapes, and differences (the largest is printed) within the tolerance where theirs is no NaN."""
    ours, theirs = ours.float(), theirs.float()
    assert ours.shape == theirs.shape, f"{what}: {list(ours.shape)} against {list(theirs.shape)}"
    both = ~theirs.isnan()
    difference = (ours[both] - theirs[both]).abs().max().item() if both.any() else 0.0
    print(f"{what}: largest difference {difference:.1e}")
    assert difference <= TOLERANCE, f"{what}: {difference}"


def equal(ours, theirs, what):
    ours, theirs = ours.long(), theirs.long()
    assert ours.shape == theirs.shape, f"{what}: {list(ours.shape)} against {list(theirs.shape)}"
    assert torch.equal(ours, theirs), f"{what}: {(ours != theirs).sum()} of {theirs.numel()} integers differ"


def talk(model, config):
    """A greedy session without sound, the official ring, all depth steps, everything recorded."""
    agent = SimpleNamespace(lm=model, mimi=None, text=None, device=torch.device("cpu"),
                            voice=lambda v: v, sampling=pp.SamplingConfig.greedy())
    return Session(agent, [pp.Persona()], predict_user=True, trace=True, ring="official", progress=False)


class Recording:
    """Everything a session shows, call by call, laid out as the goldens are."""

    def __init__(self, session):
        self.session, self.rows, self.out = session, [], []

    def step(self, **forced):
        self.add(lambda: self.session.step(**forced))

    def add(self, call):
        session = self.session
        before = {}
        original = session.grid.target

        def spy(state, t):
            here = session.grid._at(t[:, None].expand(-1, session.config.rows))
            before["cells"], before["given"] = state.cells[here][0].clone(), state.given[here][0].clone()
            return original(state, t)
        session.grid.target = spy
        frame = call()
        session.grid.target = original
        self.rows.append((session.last, before["cells"], before["given"]))
        self.out.append(torch.full((session.config.rows,), -1) if frame is None else frame.codes)

    def check(self, g, case, sub, forwards):
        def rows(get):
            return torch.stack([get(*row) for row in self.rows])[forwards]
        def want(name):
            return g[f"{case}.{name}"][forwards]
        audio = rows(lambda last, *_: last.audio_logits[0])
        ours = {"transformer_out": rows(lambda last, *_: last.hidden[0]),
                "text_logits": rows(lambda last, *_: last.text_logits[0]),
                "audio_logits_sub": audio[..., sub],
                "audio_lse": audio.logsumexp(-1), "audio_max": audio.amax(-1),
                "model_input": rows(lambda last, *_: last.column[0]),
                "sampled": rows(lambda last, *_: last.sampled[0])}
        present = [n for n in ours if f"{case}.{n}" in g]
        assert {"transformer_out", "text_logits", "audio_lse", "sampled"} <= set(present)
        for name in present:
            (close if ours[name].is_floating_point() else equal)(ours[name], want(name), f"{case} {name}")
        if f"{case}.target" in g:
            given = rows(lambda last, cells, given: given)
            equal(given, want("provided"), f"{case} provided")
            equal(rows(lambda last, cells, given: cells) * given, want("target") * given, f"{case} target")
        for name in (n for n in g if n.startswith(f"{case}.audio_logits_full_")):
            row = int(name.rsplit("_", 1)[1])
            close(self.rows[row][0].audio_logits[0], g[name], name)
        equal(torch.stack(self.out), g[f"{case}.out_tokens"], f"{case} out_tokens")
        if f"{case}.final_cache" in g:
            equal(self.session.state.grid.cells[0], g[f"{case}.final_cache"], f"{case} final_cache")


def sub_columns(folder):
    """Which of the audio logits were kept: the json says "columns 0,2,4,...", a step apart."""
    kept = next(t.shape[-1] for n, t in arrays(folder, "lm").items() if n.endswith("audio_logits_sub"))
    first, second = map(int, re.findall(r"\d+", str(about(folder, "lm")["sub_columns"]))[:2])
    return first + (second - first) * torch.arange(kept)


@lm_folders
@pytest.mark.parametrize("case", ["a", "a2"])
def test_teacher_forced(folder, case):
    (model, config), g = lm_of(folder), arrays(folder, "lm")
    codes, k = g[f"{case}.codes"], config.depth_steps
    with torch.no_grad():
        hidden, text, audio = model(delay(codes, config))
    above = text.new_zeros(*audio.shape[:2], 1, audio.shape[-1])           # stands in for the text row
    audio = undelay(torch.cat([above, audio], 2).transpose(1, 2), config, float("nan"))[:, 1:]
    close(hidden, g[f"{case}.transformer_out"], f"{case} transformer_out")
    close(text[:, None], g[f"{case}.text_logits"], f"{case} text_logits")
    nan = audio.isnan().any(-1)
    expected = g[f"{case}.audio_lse"].isnan()
    equal(nan, expected, f"{case} places without a forward")
    close(audio.logsumexp(-1), g[f"{case}.audio_lse"], f"{case} audio_lse")
    if f"{case}.audio_logits_sub" in g:
        close(audio[..., sub_columns(folder)], g[f"{case}.audio_logits_sub"], f"{case} audio_logits_sub")
    equal(~nan & (codes[:, 1:1 + k] != NO_INPUT), g[f"{case}.audio_mask"], f"{case} audio_mask")
    equal(codes[:, :1] != NO_INPUT, g[f"{case}.text_mask"], f"{case} text_mask")


@lm_folders
def test_b_listening(folder):
    (model, config), g = lm_of(folder), arrays(folder, "lm")
    r = Recording(talk(model, config))
    for user in g["b.user_codes"]:
        r.step(user=user)
    r.check(g, "b", sub_columns(folder), slice(1, None))


@lm_folders
@pytest.mark.parametrize("case", ["c_codes", "c_pt"])
def test_prompted(folder, case):
    """The hybrid prompt from codes, and from an official voice file."""
    (model, config), g = lm_of(folder), arrays(folder, "lm")
    codes, role = g["c_codes.voice_codes"], g["c_codes.text_prompt_tokens"].flatten().tolist()
    n = len(codes)
    if case == "c_codes":
        prompt = lay_out(codes, role, config)
    else:
        voice = Voice.load(folder / "voice_prompt.pt")
        close(voice.embeddings, g["c_codes.pt_embeddings"], "pt_embeddings")
        equal(voice.cache, g["c_codes.pt_cache"], "pt_cache")
        spoken = torch.full((len(voice.embeddings) + 1, config.codebooks), config.audio_vocab)
        prompt = lay_out(spoken, role, config, voice)
    session = talk(model, config)
    r, advance = Recording(session), session._advance
    session._advance = lambda *args, **options: r.add(lambda: advance(*args, **options))
    session.read([prompt], progress=False)
    del session._advance
    for user in g["c_codes.user_codes"]:
        r.step(user=user)
    if case == "c_codes":
        r.check(g, case, sub_columns(folder), slice(1, None))
        return
    early = slice(1, n)
    hidden = torch.stack([row[0].hidden[0] for row in r.rows])[early]
    logits = torch.stack([row[0].text_logits[0] for row in r.rows])[early]
    close(hidden, g["c_codes.transformer_out"][early], "voice hidden")
    close(logits, g["c_codes.text_logits"][early], "voice text")
    r.out[:n] = g["c_pt.out_tokens"][:n]           # there the official depth transformer saw dummy tokens
    r.check(g, case, sub_columns(folder), slice(n, None))


@lm_folders
@pytest.mark.parametrize("case", ["d", "d2"])
def test_forced(folder, case):
    (model, config), g = lm_of(folder), arrays(folder, "lm")
    def given(name, i):
        value = g[f"{case}.{name}"][i]
        return None if (value == -9).all() else value
    r = Recording(talk(model, config))
    for i in range(len(g[f"{case}.out_tokens"])):
        r.step(user=given("user_codes", i), agent=given("moshi_codes", i), text=given("text_tokens", i))
    r.check(g, case, sub_columns(folder), slice(1, None))


@lm_folders
def test_e_widened_moshi(folder, tmp_path):
    """A checkpoint with half the depth steps, widened by the official copy."""
    (_, config), g = lm_of(folder), arrays(folder, "lm")
    half, full = config.depth_steps // 2, load_file(str(folder / "lm.safetensors"))
    def kept(name):
        parts = name.split(".")
        if parts[0] in ("depformer_in", "linears", "depformer_emb"):
            return int(parts[1]) < half
        return not (parts[0] == "depformer" and "gating" in parts and int(parts[4]) >= half)
    cut = {n: t[:len(t) // 2].clone() if n.startswith("depformer.layers") and "self_attn" in n else t
           for n, t in full.items() if kept(n)}
    save_file(cut, str(tmp_path / "moshi.safetensors"))
    with pytest.raises(pp.CheckpointError, match="missing"):
        pp.checkpoint.load_lm(tmp_path / "moshi.safetensors", config)
    model = pp.checkpoint.load_lm(tmp_path / "moshi.safetensors", config, widen=True)
    hashes = find(about(folder, "lm"), "sha256_float32_le")
    ours = pp.checkpoint.official_tensors(model)
    for name, digest in hashes.items():
        raw = ours[name].contiguous().numpy().astype("<f4").tobytes()
        assert hashlib.sha256(raw).hexdigest() == digest, name
    r = Recording(talk(model, config))
    for user in g["e.user_codes"]:
        r.step(user=user)
    r.check(g, "e", sub_columns(folder), slice(1, None))


def find(tree, key):
    """The first value of `key` anywhere in a json."""
    if isinstance(tree, dict):
        if key in tree:
            return tree[key]
        return next((v for child in tree.values() if (v := find(child, key)) is not None), None)
    return None


@lm_folders
def test_own_depth_steps(folder, tmp_path):
    """The half-depth file runs as it is, with its own steps: equal to the first steps of the full model."""
    (model, config), full = lm_of(folder), load_file(str(folder / "lm.safetensors"))
    half = config.depth_steps // 2
    small = replace(config, depth_steps=half, depth=replace(config.depth, context=half))
    shapes = {n: p.shape for n, p in lm_names(small).items()}
    cut = {n: full[n].reshape(-1)[:int(np.prod(s))].reshape(s).contiguous() for n, s in shapes.items()}
    save_file(cut, str(tmp_path / "moshi.safetensors"))
    moshi = pp.checkpoint.load_lm(tmp_path / "moshi.safetensors", small)
    h = torch.randn(3, config.temporal.dim)
    audio = torch.randint(0, config.audio_vocab, (3, half))
    text = torch.randint(0, config.text_vocab, (3,))
    with torch.no_grad():
        close(moshi.depth(h, text, audio), model.depth(h, text, audio), "half the depth steps")
    session = talk(moshi, small)
    session.predict_user = False
    with pytest.raises(ValueError, match="user"):
        session.step()
    session.step(user=torch.zeros(config.codebooks, dtype=torch.int64))


@cache
def mimi_of(folder):
    config = pp.MimiConfig.from_official(about(folder, "mimi")["config"])
    return pp.checkpoint.load_mimi(folder / "mimi.safetensors", config)


class Watch:
    """What the parts of Mimi put out while it runs."""

    def __init__(self, mimi):
        self.seen = {}
        parts = ("encoder", "encoder_transformer", "downsample", "upsample", "decoder_transformer")
        self.hooks = [getattr(mimi, n).register_forward_hook(
            lambda m, i, o, n=n: self.seen.setdefault(n, []).append(o)) for n in parts]

    def all(self, name):
        x = [o.mT if "transformer" in name else o for o in self.seen[name]]
        return torch.cat(x, -1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


@mimi_folders
def test_mimi_ns(folder):
    mimi, g = mimi_of(folder), arrays(folder, "mimi")
    with Watch(mimi) as w:
        codes = mimi.encode(g["pcm"])
        pcm = mimi.decode(g["ns.codes"])
    equal(codes, g["ns.codes"], "ns codes")
    for ours, theirs in (("encoder", "seanet_out"), ("encoder_transformer", "enc_tr_out"),
                         ("downsample", "latent"), ("upsample", "upsampled"),
                         ("decoder_transformer", "dec_tr_out")):
        close(w.all(ours), g[f"ns.{theirs}"], f"ns {theirs}")
    close(mimi.rvq.decode(codes).mT, g["ns.quantized"], "ns quantized")
    close(pcm, g["ns.pcm_out"], "ns pcm_out")


@mimi_folders
def test_mimi_odd(folder):
    """A sound that is not a whole number of frames."""
    mimi, g = mimi_of(folder), arrays(folder, "mimi")
    hop = mimi.config.hop
    steps = g["odd.seanet_out"].shape[-1]
    samples = 50_000 if -(-50_000 // hop) == steps else steps * hop - hop // 2
    with Watch(mimi) as w:
        codes = mimi.encode(g["pcm"][..., :samples])
    equal(codes, g["odd.codes"], "odd codes")
    close(w.all("encoder"), g["odd.seanet_out"], "odd seanet_out")
    close(w.all("downsample"), g["odd.latent"], "odd latent")


@mimi_folders
def test_mimi_st(folder):
    """Frame by frame, with the official ring that forgets one key too early."""
    mimi, g = mimi_of(folder), arrays(folder, "mimi")
    ears, mouth = mimi.new_ears(ring="official"), mimi.new_mouth(ring="official")
    with Watch(mimi) as w:
        codes = torch.cat([mimi.encode(x, ears) for x in g["pcm"].split(mimi.config.frame_size, -1)], -1)
        pcm = torch.cat([mimi.decode(x, mouth) for x in g["st.codes"].split(1, -1)], -1)
    equal(codes, g["st.codes"], "st codes")
    for ours, theirs in (("encoder", "seanet_out"), ("downsample", "latent"),
                         ("decoder_transformer", "dec_tr_out")):
        close(w.all(ours), g[f"st.{theirs}"], f"st {theirs}")
    close(pcm, g["st.pcm_out"], "st pcm_out")


@mimi_folders
def test_mimi_decode(folder):
    mimi, g = mimi_of(folder), arrays(folder, "mimi")
    close(mimi.decode(g["st.codes"]), g["st.codes_decoded_ns"], "codes decoded at once")


@mimi_folders
def test_mimi_exact_ring_streams_as_offline(folder):
    """With our ring the stream never drifts from the offline model, window full or not."""
    mimi, g = mimi_of(folder), arrays(folder, "mimi")
    ears = mimi.new_ears()
    codes = torch.cat([mimi.encode(x, ears) for x in g["pcm"].split(mimi.config.frame_size, -1)], -1)
    equal(codes, g["ns.codes"], "exact ring codes")
