"""Causal convolutions that give the same numbers all at once or piece by piece.

What departs from the textbook: padding is only on the left, and it *is* the state. A convolution of kernel k
and stride s remembers its last k - s inputs; a transposed one remembers the last k - s outputs it has not
finished. Offline is the same code starting from an empty memory.

Shapes: b conversations, c channels, n steps.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .state import State, keep, slot

FEW = 16      # steps: up to here one matrix product is faster than the convolution kernels (5 x, at 2 steps)


@dataclass(frozen=True, eq=False)
class ConvState(State):
    past: Tensor = slot()      # [b, c, k - s]: the inputs that the next window still needs
    started: Tensor = slot()   # [b] bool: false until the first input, for padding that repeats it


@dataclass(frozen=True, eq=False)
class ConvTransposeState(State):
    tail: Tensor = slot()      # [b, c, k - s]: outputs that the next input will add to


class CausalConv1d(nn.Module):
    """Convolution over the past. Offline, the end is padded until the last window is full.

    pad : "constant" (zeros) or "replicate" (the first value stands for all that came before it).
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, bias: bool = True,
                 pad: str = "constant"):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.stride, self.pad, self.memory = stride, pad, kernel - stride
        nn.init.normal_(self.weight, std=(c_in * kernel) ** -0.5)

    def new_state(self, batch: int) -> ConvState:
        w = self.weight
        return ConvState(w.new_zeros(batch, w.shape[1], self.memory),
                         torch.zeros(batch, dtype=torch.bool, device=w.device))

    def forward(self, x: Tensor, state: ConvState | None = None, active: Tensor | None = None) -> Tensor:
        """x : [b, c_in, n] -> [b, c_out, ceil(n / stride)]; with a state, n is a multiple of the stride."""
        missing = -x.shape[-1] % self.stride
        if state is None:
            edge = x[..., :1].expand(-1, -1, self.memory)
            past = edge if self.pad == "replicate" else torch.zeros_like(edge)
            x = F.pad(x, (0, missing), mode=self.pad)
        else:
            if missing:
                raise ValueError(f"a stream comes in multiples of {self.stride} steps, got {x.shape[-1]}")
            past = state.past
            if self.pad == "replicate":
                past = torch.where(state.started[:, None, None], past, x[..., :1])
        x = torch.cat([past, x], dim=-1)
        if state is not None:
            state.past.copy_(keep(active, x[..., x.shape[-1] - self.memory:], state.past))
            if self.pad == "replicate":
                state.started.copy_(keep(active, torch.ones_like(state.started), state.started))
        if x.shape[-1] > FEW * self.stride + self.memory:
            return F.conv1d(x, self.weight, self.bias, self.stride)
        windows = x.unfold(-1, self.weight.shape[-1], self.stride).transpose(1, 2)       # [b, n, c, k]
        return F.linear(windows.flatten(2), self.weight.flatten(1), self.bias).transpose(1, 2)


class CausalConvTranspose1d(nn.Module):
    """Upsampling convolution; each input spreads over `kernel` outputs, `stride` of which are new."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_in, c_out // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.stride, self.groups, self.c_out, self.memory = stride, groups, c_out, kernel - stride
        nn.init.normal_(self.weight, std=(kernel // stride * c_in / groups) ** -0.5)

    def new_state(self, batch: int) -> ConvTransposeState:
        return ConvTransposeState(self.weight.new_zeros(batch, self.c_out, self.memory))

    def forward(self, x: Tensor, state: ConvTransposeState | None = None,
                active: Tensor | None = None) -> Tensor:
        """x : [b, c_in, n] -> [b, c_out, n · stride]"""
        n = x.shape[-1] * self.stride
        y = self._spread(x)
        if state is not None:
            y[..., :self.memory] += state.tail
            state.tail.copy_(keep(active, y[..., n:], state.tail))
        y = y[..., :n]
        return y if self.bias is None else y + self.bias[:, None]     # once a sample, so after the overlap

    def _spread(self, x: Tensor) -> Tensor:
        """Each input over its `kernel` outputs, added up: [b, c_in, n] -> [b, c_out, n · stride + memory]."""
        if self.groups > 1 or x.shape[-1] > FEW or self.memory != self.stride:
            return F.conv_transpose1d(x, self.weight, None, self.stride, groups=self.groups)
        z = F.linear(x.mT, self.weight.flatten(1).mT).unflatten(-1, (self.c_out, 2, self.stride))
        y = F.pad(z[:, :, :, 0], (0, 0, 0, 0, 0, 1))                  # [b, n + 1, c, stride]
        y[:, 1:] += z[:, :, :, 1]
        return y.transpose(1, 2).flatten(2)
