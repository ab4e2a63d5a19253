"""Will it fit? Counted from the sizes alone, before anything is downloaded or loaded.

There is no table of sizes that grows old: the model and what it remembers of a talk are built without memory
(on the "meta" device), in each type, and what they would take is added up.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch

from ..model import quantize
from ..model.config import LMConfig, MimiConfig
from ..model.mimi import Mimi
from .checkpoint import empty_lm
from .hub import KNOWN, Files, fetch, look
from .names import tensors_of

FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WEIGHTS = (*FLOATS, *quantize.KINDS)
WORKING = 600_000_000     # bytes, an estimate: torch's libraries, a GPU's context, one frame's activations
LARGE = 2e9               # bytes of an LM's file from which on 16 bits a weight are enough


@dataclass(frozen=True)
class Need:
    """Bytes that one kind of weights takes on the device: both models, and what the talks remember."""
    weights: str
    model: int
    talks: int

    @property
    def total(self) -> int:
        return self.model + self.talks + WORKING

    def fits(self, free: int | None) -> bool:
        return free is None or self.total < free


@dataclass(frozen=True)
class Plan:
    """What each kind of weights needs, and what is free: bytes by device, None where nobody tells."""
    title: str
    needs: list[Need]
    free: dict[str, int | None]
    best: tuple[str, str] | None     # (device, weights): GPUs first, then the most exact weights

    def __str__(self) -> str:
        heads = []
        for device, room in self.free.items():
            known = "?" if room is None else f"{room / 1e9:.1f}"
            heads.append(f"{device} ({known} free)")
        lines = [self.title]
        lines.append(f"  weights      model    talks  working      all   {'   '.join(heads)}")
        for need in self.needs:
            sizes = (need.model, need.talks, WORKING, need.total)
            line = f"  {need.weights:9}" + "".join(f"{size / 1e9:9.2f}" for size in sizes)
            for head, room in zip(heads, self.free.values()):
                answer = "fits" if need.fits(room) else "no"
                line += "   " + answer.ljust(len(head))
            lines.append(line.rstrip())
        best = "nothing"
        if self.best:
            device, weights = self.best
            best = f"device={device!r}, weights={weights!r}"
        lines.append(f"  best that fits: {best}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Plan: {' '.join(self.best or ['nothing fits'])}>"


def plan(source: str | PathLike[str], weights: str | None = None, context: int | None = None,
         conversations: int = 1) -> Plan:
    """Print, and return, what a checkpoint would take here, for every kind of weights and every device.

    source : as for `load`; the known hub ids need no network, others are downloaded. weights : this kind.
    context : frames that a talk remembers (the model's own). Raises ValueError, and as `load`.
    """
    check_kind(weights)
    kinds = WEIGHTS
    if source in KNOWN:
        lm, mimi = KNOWN[source]()
    else:
        files = look(fetch(source))
        lm = files.lm_config
        mimi = files.mimi_config
        if files.lm.weights:
            kinds = (files.lm.weights,)          # converted: it cannot become another
    needs = [count(lm, mimi, kind, context, conversations) for kind in kinds]
    free = free_memory()
    frames = shorten(lm, context).temporal.context
    title = f"{source}: {conversations} at once of {frames} frames (80 ms); GB"
    made = Plan(title, needs, free, _best(needs, free, weights))
    print(made)
    return made


def _best(needs: list[Need], free: dict[str, int | None], weights: str | None) -> tuple[str, str] | None:
    """The first (device, weights) that fits: GPUs first, then the most exact weights; or only these."""
    for device in reversed(free):
        kinds = (weights,) if weights else (half(device), *quantize.KINDS)
        for need in needs:
            if need.weights in kinds and need.fits(free[device]):
                return device, need.weights
    return None


def check_kind(weights: str | None) -> None:
    """Raise ValueError unless there are such weights; None is left to us."""
    if weights not in (None, *WEIGHTS):
        raise ValueError(f"weights={weights!r}: one of {', '.join(WEIGHTS)}")


def choose(files: Files, device: str) -> str:
    """The weights of a checkpoint when nobody asks for others: as converted, 16 bits if large, f32 if not."""
    if files.lm.weights:
        return files.lm.weights
    return half(device) if files.lm.size > LARGE else "f32"


def count(lm: LMConfig, mimi: MimiConfig, weights: str, context: int | None = None, talks: int = 1) -> Need:
    """What the weights and so many conversations take, to the byte."""
    lm = shorten(lm, context)
    if weights in FLOATS:
        model = empty_lm(lm, FLOATS[weights], None)
    else:
        model = empty_lm(lm, torch.bfloat16, weights)
    with torch.device("meta"):
        codec = Mimi(mimi)
        states = [model.new_state(talks), codec.new_ears(talks), codec.new_mouth(talks)]
    tensors = [*tensors_of(model).values(), *tensors_of(codec).values()]
    size = sum(tensor.nbytes for tensor in tensors)
    return Need(weights, size, sum(state.nbytes for state in states))


def shorten(lm: LMConfig, context: int | None) -> LMConfig:
    """The same model, remembering `context` frames. Raises ValueError unless 1 <= context <= its own."""
    if context is None:
        return lm
    longest = lm.temporal.context
    if not 1 <= context <= longest:
        raise ValueError(f"context={context}: this model remembers 1 to {longest} frames")
    return replace(lm, temporal=replace(lm.temporal, context=context))


def ensure(lm: LMConfig, mimi: MimiConfig, weights: str, device: str, context: int | None = None) -> None:
    """Raise MemoryError, saying what would fit, unless the weights and one conversation fit on the device."""
    numbered = device == "cpu" or ":" in device
    free = free_memory().get(device if numbered else f"{device}:0")
    need = count(lm, mimi, weights, context)
    if free is None or need.fits(free):
        return
    smaller = []
    for kind in quantize.KINDS:
        other = count(lm, mimi, kind, context)
        if kind != weights and other.fits(free):
            smaller.append(f"weights={kind!r} needs {other.total / 1e9:.1f}")
    raise MemoryError(f"weights={weights!r} needs {need.total / 1e9:.1f} GB on {device}, "
                      f"{free / 1e9:.1f} are free: {', '.join(smaller) or 'give a smaller context='}")


def free_memory() -> dict[str, int | None]:
    """Bytes by device; None where nobody tells."""
    free: dict[str, int | None] = {"cpu": None}
    tells = Path("/proc/meminfo")                # Linux only
    if tells.exists():
        found = re.search(r"MemAvailable: +(\d+)", tells.read_text())
        if found:
            free["cpu"] = int(found[1]) * 1024
    for number in range(torch.cuda.device_count()):
        room, _ = torch.cuda.mem_get_info(number)
        free[f"cuda:{number}"] = room
    return free


def half(device: str | torch.device) -> str:
    """The 16-bit type to compute in: bf16, but fp16 on GPUs without it (before compute capability 8.0)."""
    gpu = torch.device(device).type == "cuda"
    if gpu and torch.cuda.get_device_capability(device) < (8, 0):
        return "fp16"
    return "bf16"
