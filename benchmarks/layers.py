"""Random layers of the 7B's shapes, quantised by us, torchao and bitsandbytes: error, time of a product.

    pip install --no-deps --target PEERS torchao bitsandbytes
    PYTHONPATH=PEERS python -m benchmarks.layers     docs/layers.json, and its table in docs/quantize.md

What departs from the textbook: no library is asked what it supports. Each is tried here, and where it cannot,
its own reason stands in the table. The sides take turns, so a busy machine slows them alike.
"""
from __future__ import annotations

import argparse
import json
import math
import time
from statistics import median

import torch
from torch import nn

from personaplex_lite.evaluation.origin import about
from personaplex_lite.evaluation.page import put, table
from personaplex_lite.model import quantize
from personaplex_lite.model.config import LMConfig
from personaplex_lite.places import DOCS


def makers() -> dict:
    """name -> (float matrix -> module that takes bf16), of every library that is here."""
    def ours(kind):
        def make(w):
            module = quantize.QuantLinear(kind, *w.shape)
            module.fill(w)
            return module
        return make

    def linear(w, cls=nn.Linear, **options):
        module = cls(w.shape[1], w.shape[0], bias=False, **options)
        module.weight.data.copy_(w)
        return module

    def torchao(config, **options):
        def make(w):
            from torchao import quantization
            model = nn.Sequential(linear(w).bfloat16())
            quantization.quantize_(model, getattr(quantization, config)(**options))
            return model
        return make

    def bitsandbytes(name, **options):
        def make(w):
            import bitsandbytes
            return linear(w, getattr(bitsandbytes.nn, name), **options).to("cpu").eval()
        return make
    four = "Int4WeightOnlyConfig"
    return {"bf16": lambda w: linear(w).bfloat16(), "ours int8": ours("int8"), "ours int4": ours("int4"),
            "torchao int8": torchao("Int8WeightOnlyConfig"),
            "torchao int4": torchao(four, group_size=32),
            "torchao int4 tiles": torchao(four, group_size=32, int4_packing_format="tile_packed_to_4d"),
            "bitsandbytes int8": bitsandbytes("Linear8bitLt", has_fp16_weights=False, threshold=6.0),
            "bitsandbytes nf4": bitsandbytes("Linear4bit", quant_type="nf4", compute_dtype=torch.bfloat16)}


def matrices() -> dict[str, list[tuple[int, int]]]:
    """[o, i] of every map in one temporal and one depth layer (a single depth step) of the 7B."""
    return {name: [(3 * c.dim, c.dim), (c.dim, c.dim), (2 * c.hidden, c.dim), (c.dim, c.hidden)]
            for name, c in (("temporal", LMConfig().temporal), ("depth", LMConfig().depth))}


def drawn(shape, heavy: bool) -> torch.Tensor:
    """Weights of standard deviation 0.02: normal, or Student's t with 4 degrees of freedom."""
    w = torch.randn(shape)
    if heavy:
        w /= (sum(torch.randn(shape).square_() for _ in range(4)) / 4).sqrt_() * math.sqrt(2)
    return w * 0.02


@torch.no_grad()
def layers(rounds: int) -> dict:
    """Relative output error of whole layers' maps, and ms of one [1, i] product, sides taking turns."""
    found = {}
    for layer, heavy in (("temporal", False), ("temporal", True), ("depth", False), ("depth", True)):
        label = f"{layer}, {'heavy tails' if heavy else 'normal'}"
        for shape in matrices()[layer]:
            w, x, sides = drawn(shape, heavy), torch.randn(4, shape[1]).bfloat16(), {}
            want = x.float() @ w.T
            for name, make in makers().items():
                entry = found.setdefault(name, {}).setdefault(label, {"off": 0.0, "all": 0.0, "ms": 0.0})
                try:
                    module = make(w)
                    entry["off"] += (module(x).float() - want).square().sum().item()
                    entry["all"] += want.square().sum().item()
                    sides[name] = module, []
                except Exception as error:            # a library that cannot: its reason is the result
                    entry["why"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            for i in range(rounds + 1):
                for name in list(sides)[::(-1) ** i]:
                    began = time.perf_counter()
                    sides[name][0](x[:1])
                    sides[name][1].append(1e3 * (time.perf_counter() - began))
            for name, (_, took) in sides.items():
                found[name][label]["ms"] += median(took[1:])
        print(label, {n: f[label] for n, f in found.items()}, flush=True)
    return found


def page(data: dict) -> str:
    """Table of what the layers found."""
    found, info = data["found"], data["about"]
    rows = [("side", *(f"{label}: {what}" for label in found["bf16"] for what in ("error", "time / bf16")))]
    for name, labels in found.items():
        cells = []
        for label, f in labels.items():
            gone = "does not run" if "why" in f else None
            cells += [gone or f"{100 * math.sqrt(f['off'] / f['all']):.2f} %",
                      gone or f"{f['ms'] / found['bf16'][label]['ms']:.2f}"]
        rows.append((name, *cells))
    why = {f"- {n}: `{f['why']}`" for n, labels in found.items() for f in labels.values() if "why" in f}
    return (f"{info['date']}, {info['cpu']}, {info['threads']} thread(s), "
            f"load {info['load']} (others were at work), {info['versions']}\n\n{table(*rows)}\n"
            + "\n".join(sorted(why)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of the clock")
    data = {"about": about(), "found": layers(parser.parse_args().rounds)}
    (DOCS / "layers.json").write_text(json.dumps(data, indent=1) + "\n")
    put(DOCS / "quantize.md", "layers", page(data))


if __name__ == "__main__":
    main()
