"""Will it fit? Counted from the sizes alone, before anything is downloaded or loaded.

What departs from the textbook: no table of constants that grows old. The model and its memory of a talk are
built without memory (on the "meta" device), in each type, and what they would take is added up.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..model import quantize
from ..model.config import LMConfig, MimiConfig
from ..model.mimi import Mimi
from .checkpoint import empty_lm, stored_weights
from .hub import KNOWN, fetch, look
from .names import tensors_of

FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WEIGHTS = (*FLOATS, *quantize.KINDS)
WORKING = 600_000_000     # bytes, an estimate: torch's libraries, a GPU's context, one frame's activations


@dataclass(frozen=True)
class Need:
    """Bytes on the device: both models; what the talks remember; the rest."""
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
        free = [f"{d} ({'?' if b is None else f'{b / 1e9:.1f}'} free)" for d, b in self.free.items()]
        lines = [self.title, f"  weights      model    talks  working      all   {'   '.join(free)}"]
        for n in self.needs:
            sizes = "".join(f"{size / 1e9:9.2f}" for size in (n.model, n.talks, WORKING, n.total))
            fits = [("fits" if n.fits(b) else "no").ljust(len(h)) for h, b in zip(free, self.free.values())]
            lines.append(f"  {n.weights:9}{sizes}   {'   '.join(fits)}".rstrip())
        best = "device={!r}, weights={!r}".format(*self.best) if self.best else "nothing"
        return "\n".join([*lines, f"  best that fits: {best}"])

    def __repr__(self) -> str:
        return f"<Plan: {' '.join(self.best or ['nothing fits'])}>"


def plan(source, weights: str | None = None, context: int | None = None, conversations: int = 1) -> Plan:
    """Print, and return, what a checkpoint would take here, for every kind of weights and every device.

    source : as for `load`; the known hub ids need no network, others are downloaded. weights : this kind.
    context : frames that a talk remembers (the model's own). Raises ValueError, and as `load`.
    """
    if weights not in (None, *WEIGHTS):
        raise ValueError(f"weights={weights!r}: one of {', '.join(WEIGHTS)}")
    if source in KNOWN:
        (lm, mimi), stored = KNOWN[source](), None
    else:
        files = look(fetch(source))
        lm, mimi, stored = files.lm_config, files.mimi_config, stored_weights(files.lm)
    needs = [count(lm, mimi, kind, context, conversations) for kind in ((stored,) if stored else WEIGHTS)]
    free = free_memory()
    fitting = [(device, n.weights) for device in reversed(free) for n in needs if n.fits(free[device])
               and n.weights in ([weights] if weights else [half(device), *quantize.KINDS])]
    title = f"{source}: {conversations} at once of {shorten(lm, context).temporal.context} frames (80 ms); GB"
    made = Plan(title, needs, free, next(iter(fitting), None))
    print(made)
    return made


def count(lm: LMConfig, mimi: MimiConfig, weights: str, context: int | None = None, talks: int = 1) -> Need:
    """What the weights and so many conversations take, to the byte."""
    floats = FLOATS.get(weights)
    model = empty_lm(shorten(lm, context), floats or torch.bfloat16, None if floats else weights)
    with torch.device("meta"):
        codec = Mimi(mimi)
        states = [model.new_state(talks), codec.new_ears(talks), codec.new_mouth(talks)]
    size = sum(t.nbytes for part in (model, codec) for t in tensors_of(part).values())
    return Need(weights, size, sum(state.nbytes for state in states))


def shorten(lm: LMConfig, context: int | None) -> LMConfig:
    """The same model, remembering `context` frames. Raises ValueError unless 1 <= context <= its own."""
    if context is not None and not 1 <= context <= lm.temporal.context:
        raise ValueError(f"context={context}: this model remembers 1 to {lm.temporal.context} frames")
    return replace(lm, temporal=replace(lm.temporal, context=context or lm.temporal.context))


def ensure(lm: LMConfig, mimi: MimiConfig, weights: str, device: str, context: int | None = None) -> None:
    """Raise MemoryError, saying what would fit, unless the weights and one conversation fit on the device."""
    where = device if ":" in device or device == "cpu" else f"{device}:0"
    need, free = count(lm, mimi, weights, context), free_memory().get(where)
    if not need.fits(free):
        others = [count(lm, mimi, kind, context) for kind in quantize.KINDS if kind != weights]
        less = [f"weights={n.weights!r} needs {n.total / 1e9:.1f}" for n in others if n.fits(free)]
        raise MemoryError(f"weights={weights!r} needs {need.total / 1e9:.1f} GB on {device}, "
                          f"{free / 1e9:.1f} are free: {', '.join(less) or 'give a smaller context='}")


def free_memory() -> dict[str, int | None]:
    """Bytes by device; None where nobody tells."""
    lines = Path("/proc/meminfo").read_text() if Path("/proc/meminfo").exists() else ""
    cpu = re.search(r"MemAvailable: +(\d+)", lines)
    gpus = {f"cuda:{i}": torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())}
    return {"cpu": int(cpu[1]) * 1024 if cpu else None, **gpus}


def half(device) -> str:
    """The 16-bit type to compute in: bf16, but fp16 on GPUs without it (before compute capability 8.0)."""
    old = torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return "fp16" if old else "bf16"
