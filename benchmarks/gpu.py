"""The whole frame on a GPU: heard, thought and spoken, captured in one graph, against what reading costs.

    python -m benchmarks.gpu          writes docs/gpu.md: card, table, goals; without a CUDA card one sentence

Random weights are made on the card, so nothing is downloaded. Eager and captured frames, PyPI's `moshi`
(where `python -m benchmarks.speed setup` put it) and a plain read of the card's memory take turns in one run.
A frame includes the copy of its sound to the host, as a conversation needs it.
"""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from statistics import median
from timeit import timeit

import torch

from benchmarks.fullsize import official
from benchmarks.pipe import OFFICIAL, PINS
from benchmarks.report import ratio, spread, write
from benchmarks.speed import gb_read, turns
from personaplex_lite import Agent, Persona
from personaplex_lite.evaluation.page import table
from personaplex_lite.model.config import LMConfig, MimiConfig, personaplex_7b
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.model.units import FRAME_SAMPLES
from personaplex_lite.weights.checkpoint import empty_lm

KINDS = ("bf16", "int8", "int4")
BATCHES = (1, 16)           # conversations at once
READ = 2**30                # bytes that the plain read sums
ROUNDS = 9                  # turns of each side
FRAMES = 10                 # in a turn
HEAD = ("conversations", "weights", "whole frame", "ms", "ms to read the weights", "times that")


@torch.no_grad()
def random_agent(lm: LMConfig, mimi: MimiConfig, kind: str, device: str) -> Agent:
    """A model of noise on the device, in bf16 (fp16 on cards without it), its maps quantised if asked for."""
    plain = device == "cpu" or torch.cuda.get_device_capability()[0] >= 8
    model = empty_lm(lm, torch.bfloat16 if plain else torch.float16, None if kind == "bf16" else kind)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            low, high = (-127, 128) if tensor.dtype == torch.int8 else (0, 256)
            tensor.random_(low, high)
        elif name.endswith(("alpha", "scale")):
            tensor.fill_(1 if name.endswith("alpha") else 1e-3)
        else:
            tensor.normal_(std=tensor.shape[-1] ** -0.5)
    return Agent(model, Mimi(mimi).to(device).eval().requires_grad_(False))


def frames_of(agent: Agent, rows: int, captured: bool) -> Callable[[], torch.Tensor]:
    """One call, one frame of `rows` conversations -> their tokens [rows, 17] on the host."""
    chat = agent.chat([Persona()] * rows, seed=list(range(rows)), progress=False)
    sound = 0.1 * torch.randn(rows, agent.mimi.config.frame_size, generator=torch.Generator().manual_seed(0))
    if not captured:
        chat._round = chat.sampling, chat._listen_and_speak
    for _ in range(agent.lm.config.max_delay + 2):
        chat.step(sound)
    return lambda: chat.step(sound).codes.view(rows, -1)


def moshi_frames(lm: LMConfig, rows: int, device: str) -> Callable[[], torch.Tensor]:
    """The official package's frame, with its own CUDA graphs and all of its depth steps."""
    sys.path.insert(0, str(OFFICIAL))
    from moshi.models import LMGen, loaders
    model = loaders.get_moshi_lm(None, loaders._lm_kwargs | official(lm), device=device, dtype=torch.bfloat16)
    codec = loaders.get_mimi(None, device=device)
    gen = LMGen(model)
    for part in (codec, gen):
        part.streaming_forever(rows)
    sound = 0.1 * torch.randn(rows, 1, FRAME_SAMPLES)
    nobody = torch.zeros(rows, 0, 1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def frame() -> torch.Tensor | None:
        codec.encode(sound.to(device))
        told = gen.step(nobody)
        return None if told is None else codec.decode(told[:, 1:9].clamp(min=0)).cpu()
    return frame


class Call:
    """Something to time, as a side of `speed.turns`."""

    def __init__(self, label: str, call: Callable):
        self.label, self.call = label, call

    def ask(self, do: str, n: int) -> list[dict[str, float]]:
        return [{"ms": 1e3 * timeit(self.call, number=1)} for _ in range(n)]


def measure(lm: LMConfig, mimi: MimiConfig, kind: str, rows: int, device: str, rounds: int, frames: int,
            read: int = READ) -> tuple[dict[str, list[float]], float, str]:
    """-> ms by what ran ("read": of the weights a frame reads), GB of them, why moshi is missing or "".
    Raises AssertionError if the captured frame says anything else than the eager one.
    """
    agent = random_agent(lm, mimi, kind, device)
    why = ""
    calls = {"captured": frames_of(agent, rows, True), "eager": frames_of(agent, rows, False)}
    for _ in range(5):
        assert torch.equal(*(call() for call in calls.values())), "the graph says something else"
    try:
        if kind == "bf16":
            calls["moshi"] = moshi_frames(lm, rows, device)
    except (ImportError, RuntimeError) as error:
        why = f"not measured: {str(error).splitlines()[0]}"
    gb = gb_read(lm, kind)
    numbers = torch.ones(read // 4, device=device)
    calls["read"] = lambda: float(numbers.sum())
    sides = [Call(*item) for item in calls.items()]
    took = {name: stages["ms"] for name, stages in turns(sides, rounds, frames).items()}
    took["read"] = [ms * gb * 1e9 / read for ms in took["read"]]        # as if it had read the weights
    return took, gb, why


def run(device: str) -> str:
    """Both tables: every kind of weights, one conversation and many; the goals."""
    lm, mimi = personaplex_7b()
    rows, goals = [HEAD], []
    for kind in KINDS:
        for n in BATCHES:
            took, gb, why = measure(lm, mimi, kind, n, device, ROUNDS, FRAMES)
            floor = f"{median(took['read']):.2f} ({gb:.2f} GB)"
            rows += [(n, kind, what, spread(ms, 2), floor, spread(ratio(ms, took["read"]), 2))
                     for what, ms in took.items() if what != "read"]
            rows += [(n, kind, "moshi", why, "", "")] if why else []
            if kind == "bf16":
                goals += reached(took, n)
            print(table(HEAD, *rows[-3:]), flush=True)
            torch.cuda.empty_cache()
    return table(*rows) + "\n" + table(("goal", "wanted", "measured", ""), *goals)


def reached(took: dict[str, list[float]], rows: int) -> list[tuple]:
    """The goals that these rows speak about: what, wanted, measured, met."""
    mine = took["captured"]
    found = [("a frame, of reading the weights", 1.35, median(ratio(mine, took["read"])))]
    if rows > 1:
        found = [(f"{rows} conversations, ms a frame", 40, median(mine))]
    elif "moshi" in took:
        found.append(("a frame, of moshi's", 0.33, median(ratio(mine, took["moshi"]))))
    return [(what, f"≤ {most}", f"{value:.2f}", "met" if value <= most else "**missed**")
            for what, most, value in found]


def main() -> None:
    if not torch.cuda.is_available():
        return print("No CUDA card here: run this on a machine that has one; docs/gpu.md stays as it is.")
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                            capture_output=True, text=True).stdout.split("\n")[0]
    about = (f"{date.today()}, {torch.cuda.get_device_name()}, driver {driver}, torch {torch.__version__}, "
             f"{PINS[0]}. Median of {ROUNDS} turns and, in brackets, where eight in ten lay.\n\n")
    write("gpu", "Speed on a GPU", about + run("cuda"))


if __name__ == "__main__":
    main()
