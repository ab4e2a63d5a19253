"""What both trainings share: folders to resume from, learning rate, averaged weights, several processes.

`torchrun --nproc-per-node N -m personaplex_lite train …` starts N processes; each draws its own batches (the
rank is in the seed) and gradients are averaged before every update.
"""
from __future__ import annotations

import atexit
import ctypes
import json
import math
import os
import time
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start() -> tuple[int, int, torch.device]:
    """(rank, world size, device) of this process; joins the others if torchrun started it."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)     # its threads, left to the exit, may abort it
    if not cuda:
        keep_memory()
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    return rank, world, device


def keep_memory() -> None:
    """Tell glibc to keep freed memory: the page faults of getting it again cost more than the arithmetic."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):      # not glibc
        return
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):  # mmap threshold, trim, top pad
        mallopt(option, value)


@torch.no_grad()
def average_gradients(model: nn.Module, world: int) -> None:
    if world == 1:
        return
    params = [p for p in model.parameters() if p.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    flat = average(torch.cat([g.flatten() for g in grads]))
    for p, piece in zip(params, flat.split([g.numel() for g in grads])):
        p.grad = piece.view_as(p)


def average(x: Tensor) -> Tensor:
    """The mean of x over all processes, in place; x itself if there is only one."""
    if dist.is_initialized():
        dist.all_reduce(x)
        x /= dist.get_world_size()
    return x


def same(x: Tensor) -> Tensor:
    """What the first process holds, in place, for all."""
    if dist.is_initialized():
        dist.broadcast(x, 0)
    return x


def update(model: nn.Module, adam: torch.optim.Optimizer, loss: Tensor, lr: float, world: int) -> None:
    """One step of the optimiser, on gradients averaged over all processes and clipped to norm 1."""
    adam.zero_grad()
    loss.backward()
    average_gradients(model, world)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in adam.param_groups:
        group["lr"] = lr
    adam.step()


def cosine(step: int, total: int, peak: float, warmup: int = 100, floor: float = 0.05) -> float:
    """Learning rate at a step: linear warm-up, then a half cosine down to floor · peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    x = (step - warmup) / max(1, total - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, x))))


class Average:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float = 0.999):
        self.decay, self.mean = decay, {n: p.detach().clone() for n, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        params = dict(model.named_parameters())
        new = [params[n].detach() for n in self.mean]
        torch._foreach_lerp_(list(self.mean.values()), new, 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        return self.mean

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        for n, mean in self.mean.items():
            mean.copy_(saved[n])

    @torch.no_grad()
    def applied(self, model: nn.Module) -> nn.Module:
        """A copy of the model with the averaged weights."""
        model = deepcopy(model)
        for n, p in model.named_parameters():
            p.copy_(self.mean[n])
        return model


Saved = nn.Module | torch.optim.Optimizer | Average          # what has a state to keep


class Run:
    """A training folder: `last.pt` to resume from, `log.jsonl` with one line per report."""

    def __init__(self, folder: Path | str, rank: int = 0):
        self.folder, self.rank, self.began = Path(folder), rank, time.time()
        self.folder.mkdir(parents=True, exist_ok=True)

    def resume(self, **parts: Saved) -> int:
        """Load every part from `last.pt`; return the step to go on from (0 for a new run)."""
        path = self.folder / "last.pt"
        if not path.exists():
            return 0
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        return saved["step"]

    def save(self, step: int, **parts: Saved) -> None:
        if self.rank == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save(state | {"step": step}, self.folder / "last.tmp")
            os.replace(self.folder / "last.tmp", self.folder / "last.pt")     # never half a file

    def log(self, **numbers: float | str | Tensor) -> None:
        if self.rank == 0:
            plain = {k: round(float(v), 5) if isinstance(v, (float, Tensor)) else v
                     for k, v in numbers.items()}
            with open(self.folder / "log.jsonl", "a") as file:
                file.write(json.dumps(plain | {"seconds": round(time.time() - self.began, 1)}) + "\n")
