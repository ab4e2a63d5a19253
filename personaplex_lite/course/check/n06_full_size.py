"""Checks of `06_full_size`: parameters counted, a tensor read, weights in 4 bits, the bytes of a frame."""
from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ...model.config import LMConfig, moshiko, tiny
from ...model.depth import Depth, PerStep
from ...model.transformer import Transformer
from .common import call, check, expect

__all__ = ["depth_count", "tensor_read", "int4_groups", "frame_bytes"]


@check
def depth_count(answer):
    """answer : LMConfig -> numbers in its depth transformer. Against the model itself, on the meta device."""
    small = replace(tiny()[0], depth_steps=5, text_vocab=77)
    models = {"a tiny model": small, "Moshi's own, of 8 steps,": moshiko()[0], "the 7B": LMConfig()}
    for name, config in models.items():
        with torch.device("meta"):
            wanted = sum(p.numel() for p in Depth(config).parameters())
        got = int(call(answer, config))
        side = "more" if got < wanted else "fewer"
        expect(got == wanted, f"{name} has {abs(wanted - got):,} {side} than your {got:,}")
    return f"{wanted:,}, a sixth of the 7B; the text head alone is a tenth of that"


@check
def tensor_read(answer, path):
    """answer : path, name -> tensor. On a file of all types, then on every tensor of the file at `path`."""
    kinds = torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int8
    made = {f"t{i}": (torch.arange(24) * 3 - 30).view(2, 3, 4)[..., i // 2:].to(kind).contiguous()
            for i, kind in enumerate(kinds)}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "made.safetensors")
        save_file(made, file)
        found = {name: call(answer, file, name) for name in made}
    for name, wanted in made.items():
        compare_tensors(found[name], wanted, f"a tensor of {wanted.dtype}")
    whole = load_file(path)
    for name, wanted in whole.items():
        compare_tensors(call(answer, path, name), wanted, name)
    return f"all {len(whole)} tensors, bit for bit as the library; it maps the file instead of reading it"


def compare_tensors(got, wanted, what: str) -> None:
    expect(torch.is_tensor(got), f"{what}: give a tensor, not {type(got).__name__}")
    expect(got.dtype == wanted.dtype, f"{what} came as {got.dtype}")
    shapes = list(got.shape), list(wanted.shape)
    expect(got.shape == wanted.shape, f"{what} has the shape {shapes[0]}, expected {shapes[1]}")
    expect(torch.equal(got, wanted), f"{what} has the right shape and type, but was read from other bytes")


@check
def int4_groups(answer):
    """answer : w float [o, i], size -> float [o, i]: at most 16 values in a group, all as near as can be."""
    dice = torch.Generator().manual_seed(0)
    for size in (8, 32, 16):
        loud = torch.rand(24, 64 // size, generator=dice).repeat_interleave(size, 1)
        w = torch.randn(24, 64, generator=dice) * loud
        got = call(answer, w.clone(), size)
        expect(torch.is_tensor(got) and got.shape == w.shape, f"give a matrix of the shape {list(w.shape)}")
        before, after = w.view(24, -1, size), got.view(24, -1, size)
        values = max(len(group.unique()) for group in after.flatten(0, 1))
        expect(values <= 16, f"with groups of {size}, one holds {values} different values")
        reach = (before.amax(-1) - before.amin(-1)) / 30                       # half a step
        over = float(((before - after).abs().amax(-1) / reach).max())
        expect(over < 1.01, f"with groups of {size}, some weight is {over:.2f} times as far off as it must")
        ends = [(f(before) - f(after)).abs().max() for f in (lambda x: x.amax(-1), lambda x: x.amin(-1))]
        expect(max(ends) < 1e-3, "the largest and the smallest weight of a group should stay what they are")
    return "no weight is off by more than half a step of its own group"


@check
def frame_bytes(answer):
    """answer : LMConfig, bits -> bytes that a frame reads. Against the model's own maps, those of 8 steps."""
    few = replace(LMConfig(), text_vocab=128_000, temporal=replace(LMConfig().temporal, layers=3))
    models = {"the 7B": LMConfig(), "Moshi's own": moshiko()[0], "one of three layers and many words": few}
    for name, config in models.items():
        with torch.device("meta"):
            temporal, depth = Transformer(config.temporal), Depth(config)
        steps = sum(m.weight[:8].numel() for m in depth.modules() if isinstance(m, PerStep))
        tall = sum(p.numel() for p in temporal.parameters() if p.ndim == 2)
        mouths = depth.heads.weight[:8].numel()
        for bits in (16, 8, 5):
            heads = mouths + config.text_vocab * config.temporal.dim
            wanted = (tall + steps - mouths) * bits / 8 + heads * 2
            got = float(call(answer, config, bits))
            expect(abs(got - wanted) < 1e-3 * wanted, f"{name} at {bits} bits reads "
                   f"{wanted / got if got else 0:.3f} times as much as your {got / 1e9:.3f} GB")
    return "at 16 bits the 7B wants 184 GB a second, before it has done anything else"
