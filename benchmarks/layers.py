"""Random layers of the 7B's shapes, quantised by us, torchao and bitsandbytes: error, time of a product.

    pip install --no-deps --target PEERS torchao bitsandbytes
    PYTHONPATH=PEERS python -m benchmarks.layers     docs/layers.json, and its table in docs/quantize.md

No library is asked what it supports. Each is tried here, and where it cannot, its own reason stands in the
table. The sides take turns, so a busy machine slows them alike.
"""
from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from personaplex_lite.evaluation.origin import about
from personaplex_lite.evaluation.page import put, table
from personaplex_lite.model import quantize
from personaplex_lite.model.config import LMConfig
from personaplex_lite.places import DOCS

Maker = Callable[[Tensor], nn.Module]           # a float matrix [o, i] -> a module that takes bf16
LAYERS = (("temporal", False), ("temporal", True), ("depth", False), ("depth", True))     # which, heavy tails
ROWS = 4                                        # of input on which the error is measured


def linear(weight: Tensor, cls: type[nn.Linear] = nn.Linear, **options: object) -> nn.Linear:
    """A float matrix as a linear map of any library's class."""
    outputs, inputs = weight.shape
    module = cls(inputs, outputs, bias=False, **options)
    module.weight.data.copy_(weight)
    return module


def ours(kind: str) -> Maker:
    """Our own quantised map."""
    def make(weight: Tensor) -> nn.Module:
        module = quantize.QuantLinear(kind, *weight.shape)
        module.fill(weight)
        return module
    return make


def torchao(config: str, **options: object) -> Maker:
    """A map quantised by torchao, which changes a model in place."""
    def make(weight: Tensor) -> nn.Module:
        from torchao import quantization
        model = nn.Sequential(linear(weight).bfloat16())
        quantization.quantize_(model, getattr(quantization, config)(**options))
        return model
    return make


def bitsandbytes(name: str, **options: object) -> Maker:
    """A map of bitsandbytes, which is quantised as it goes to its device."""
    def make(weight: Tensor) -> nn.Module:
        import bitsandbytes
        return linear(weight, getattr(bitsandbytes.nn, name), **options).to("cpu").eval()
    return make


def makers() -> dict[str, Maker]:
    """Every side by its name; one whose library is missing fails as it makes."""
    four = "Int4WeightOnlyConfig"
    return {"bf16": lambda weight: linear(weight).bfloat16(),
            "ours int8": ours("int8"),
            "ours int4": ours("int4"),
            "torchao int8": torchao("Int8WeightOnlyConfig"),
            "torchao int4": torchao(four, group_size=32),
            "torchao int4 tiles": torchao(four, group_size=32, int4_packing_format="tile_packed_to_4d"),
            "bitsandbytes int8": bitsandbytes("Linear8bitLt", has_fp16_weights=False, threshold=6.0),
            "bitsandbytes nf4": bitsandbytes("Linear4bit", quant_type="nf4", compute_dtype=torch.bfloat16)}


def matrices() -> dict[str, list[tuple[int, int]]]:
    """[o, i] of every map in one temporal and one depth layer (a single depth step) of the 7B."""
    sizes = LMConfig()
    found = {}
    for name, c in (("temporal", sizes.temporal), ("depth", sizes.depth)):
        found[name] = [(3 * c.dim, c.dim), (c.dim, c.dim), (2 * c.hidden, c.dim), (c.dim, c.hidden)]
    return found


def drawn(shape: tuple[int, int], heavy: bool) -> Tensor:
    """Weights of standard deviation 0.02: normal, or Student's t with 4 degrees of freedom."""
    weight = torch.randn(shape)
    if heavy:
        squares = sum(torch.randn(shape).square_() for _ in range(4))
        weight /= (squares / 4).sqrt_() * math.sqrt(2)
    return weight * 0.02


@torch.no_grad()
def layers(rounds: int) -> dict[str, dict]:
    """Relative output error of whole layers' maps, and ms of one [1, i] product, sides taking turns."""
    found: dict[str, dict] = {name: {} for name in makers()}
    for layer, heavy in LAYERS:
        label = f"{layer}, {'heavy tails' if heavy else 'normal'}"
        for entries in found.values():
            entries[label] = {"off": 0.0, "all": 0.0, "ms": 0.0}
        for shape in matrices()[layer]:
            weight = drawn(shape, heavy)
            x = torch.randn(ROWS, shape[1]).bfloat16()
            sides = made(weight, x, {name: entries[label] for name, entries in found.items()})
            for name, ms in timed(sides, x[:1], rounds).items():
                found[name][label]["ms"] += ms
        print(label, {name: entries[label] for name, entries in found.items()}, flush=True)
    return found


def made(weight: Tensor, x: Tensor, entries: dict[str, dict]) -> dict[str, nn.Module]:
    """One matrix by every side that can; its entry gains the squares of the error and of the output."""
    want = x.float() @ weight.T
    sides = {}
    for name, make in makers().items():
        try:
            module = make(weight)
            entries[name]["off"] += (module(x).float() - want).square().sum().item()
            entries[name]["all"] += want.square().sum().item()
            sides[name] = module
        except Exception as error:            # a library that cannot: its reason is the result
            entries[name]["why"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return sides


def timed(sides: dict[str, nn.Module], x: Tensor, rounds: int) -> dict[str, float]:
    """Median ms of one product of each side; they take turns, to and fro, after one round to warm up."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name in list(sides)[::(-1) ** i]:
            began = time.perf_counter()
            sides[name](x)
            took[name].append(1e3 * (time.perf_counter() - began))
    return {name: median(ms[1:]) for name, ms in took.items()}


def page(data: dict) -> str:
    """Table of what the layers found."""
    found, info = data["found"], data["about"]
    plain = found["bf16"]
    rows = [("side", *(f"{label}: {what}" for label in plain for what in ("error", "time / bf16")))]
    reasons = set()
    for name, labels in found.items():
        cells = []
        for label, entry in labels.items():
            if "why" in entry:
                reasons.add(f"- {name}: `{entry['why']}`")
                cells += ["does not run", "does not run"]
                continue
            error = math.sqrt(entry["off"] / entry["all"])
            cells += [f"{100 * error:.2f} %", f"{entry['ms'] / plain[label]['ms']:.2f}"]
        rows.append((name, *cells))
    told = "\n".join(sorted(reasons))
    return (f"{info['date']}, {info['cpu']}, {info['threads']} thread(s), "
            f"load {info['load']} (others were at work), {info['versions']}\n\n{table(*rows)}\n{told}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of the clock")
    data = {"about": about(), "found": layers(parser.parse_args().rounds)}
    (DOCS / "layers.json").write_text(json.dumps(data, indent=1) + "\n")
    put(DOCS / "quantize.md", "layers", page(data))


if __name__ == "__main__":
    main()
