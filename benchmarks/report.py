"""A page of measurements: tables, goals met and missed, and rows that say why something was not measured.

Everything below a mark in the page is written anew by the command; what stands above it stays.
"""
from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import date
from statistics import median, quantiles
from typing import Any

import torch

from benchmarks.pipe import PINS, ROOT, Side
from personaplex_lite.evaluation import origin
from personaplex_lite.evaluation.page import replace, table


def spread(values: list[float], digits: int = 1) -> str:
    """The median, and where eight in ten values lay."""
    low = high = values[0]
    if len(values) > 1:
        low, *_, high = quantiles(values, n=10, method="inclusive")
    return f"{median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratio(ours: list[float], theirs: list[float]) -> list[float]:
    """Ours over theirs, turn by turn."""
    return [a / b for a, b in zip(ours, theirs)]


def write(name: str, title: str, text: str) -> None:
    """Put text below the mark of docs/NAME.md."""
    path = ROOT / "docs" / f"{name}.md"
    if not path.exists():
        path.write_text(f"# {title}\n\n", encoding="utf-8")
    replace(path, f"<!-- what follows is written by python -m benchmarks.{name} -->", text)


class Report:
    """The page as it grows: sections, goals, what loading took, profiles."""

    def __init__(self, rounds: int, frames: int, threads: int):
        self.rounds = rounds
        self.frames = frames
        self.threads = threads
        self.sections: list[str] = []
        self.goals: list[tuple] = []
        self.memory: list[tuple] = []
        self.profiles: list[tuple] = []
        self.began = origin.load()

    def start(self, stack: ExitStack, name: str, *args: Any, needs: float = 1,
              threads: int = 0) -> Side | None:
        """A side; where it cannot be had (missing, `needs` GB of memory), None and a row that says why."""
        try:
            free = int(origin.found(r"MemAvailable:\s+(\d+)", "/proc/meminfo")) / 1e6
            if free < needs:
                raise RuntimeError(f"needs {needs:g} GB of memory, {free:.0f} are free")
            return stack.enter_context(Side(name, threads or self.threads, *args))
        except RuntimeError as error:
            missing = "No module" in str(error) and not name.startswith("ours")
            why = "`python -m benchmarks.speed setup` installs it" if missing else str(error).splitlines()[0]
            who, *model = name.split()
            what = " ".join([*model, *map(str, args[2:])])
            self.memory.append((what, who, f"not measured: {why}", "", ""))
            return None

    def loaded(self, side: Side) -> None:
        """What loading a side took: a row."""
        who, model, weights = side.label.split()
        self.memory.append((f"{model} {weights}", who, f"{side.loaded['seconds']:.1f}",
                            f"{side.loaded['most']:.2f}", f"{side.ask('memory'):.2f}"))

    def section(self, title: str, text: str) -> None:
        """A part of the page, shown at once."""
        self.sections.append(f"## {title}\n\n{text}")
        print(self.sections[-1], flush=True)

    def goal(self, what: str, value: float, most: float, unit: str) -> None:
        """A goal, and whether it is met: a row."""
        met = "met" if value <= most else "**missed**"
        self.goals.append((what, f"≤ {most:g} {unit}", f"{value:.2f} {unit}", met))

    def profile(self, side: Side, what: str) -> None:
        """Where a side's time goes: a row."""
        seen = side.ask("profile", n=6)
        top = ", ".join(f"{name} {ms:.1f} ({n} ×)" for name, ms, n in seen["top"])
        self.profiles.append((what, f"{seen['ms']:.0f}", seen["calls"], top))

    def page(self) -> str:
        """Everything so far."""
        about = (f"{date.today()}, {origin.cpu()}, {os.cpu_count()} cores, "
                 f"torch {torch.__version__}, {self.threads} threads, {PINS[0]}, {PINS[2]}. "
                 f"Load average {self.began:.1f} before, {origin.load():.1f} after. "
                 f"Cells: the median of {self.rounds} turns and, in brackets, where eight in ten lay.\n")
        goals = table(("goal", "wanted", "measured", ""), *self.goals)
        memory = table(("model", "side", "load, s", "GB at most while loading", "GB after it ran"),
                       *self.memory)
        profiles = table(("frame", "ms, profiled", "operator calls", "most time: ms (calls)"), *self.profiles)
        told = "The file was in the page cache. Memory: resident, over what the process held before.\n"
        how = "The fastest of six frames under torch.profiler; each operator's own milliseconds.\n"
        return "\n".join([about, "## Goals\n", goals, *self.sections, "## Loading and memory\n", memory, told,
                          "## Where our time goes\n", profiles, how])
