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
        self.stride = stride
        self.pad = pad
        self.memory = kernel - stride
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        inputs = c_in * kernel
        nn.init.normal_(self.weight, std=inputs ** -0.5)

    def new_state(self, batch: int) -> ConvState:
        """Empty memory for `batch` conversations."""
        c_in = self.weight.shape[1]
        past = self.weight.new_zeros(batch, c_in, self.memory)
        started = past.new_zeros(batch, dtype=torch.bool)
        return ConvState(past, started)

    def forward(self, x: Tensor, state: ConvState | None = None, active: Tensor | None = None) -> Tensor:
        """x : [b, c_in, n] -> [b, c_out, ceil(n / stride)].

        With a state, n is a multiple of the stride: ValueError otherwise.
        """
        missing = -x.shape[-1] % self.stride
        if state is not None and missing:
            raise ValueError(f"a stream comes in multiples of {self.stride} steps, got {x.shape[-1]}")
        past = self._before(x, state)
        # Offline, the last window may want more than there is; a stream remembers its end.
        if state is None:
            x = F.pad(x, (0, missing), mode=self.pad)
            return self._convolve(torch.cat([past, x], dim=-1))
        x = torch.cat([past, x], dim=-1)
        end = x[..., x.shape[-1] - self.memory:]
        state.past.copy_(keep(active, end, state.past))
        if self.pad == "replicate":
            begun = torch.ones_like(state.started)
            state.started.copy_(keep(active, begun, state.started))
        return self._convolve(x)

    def _before(self, x: Tensor, state: ConvState | None) -> Tensor:
        """[b, c_in, k - s]: the inputs that came before x, or what stands for them at the beginning."""
        first = x[..., :1]
        repeats = self.pad == "replicate"
        if state is None:
            edge = first.expand(-1, -1, self.memory)
            return edge if repeats else torch.zeros_like(edge)
        if repeats:
            started = state.started[:, None, None]
            return torch.where(started, state.past, first)
        return state.past

    def _convolve(self, x: Tensor) -> Tensor:
        """[b, c_in, memory + n] -> [b, c_out, n / stride], nothing padded."""
        kernel = self.weight.shape[-1]
        if x.shape[-1] > FEW * self.stride + self.memory:
            return F.conv1d(x, self.weight, self.bias, self.stride)
        # Few steps: lay the windows side by side, then one matrix product.
        windows = x.unfold(-1, kernel, self.stride)           # [b, c, n, k]
        flat = windows.transpose(1, 2).flatten(2)             # [b, n, c · k]
        y = F.linear(flat, self.weight.flatten(1), self.bias)
        return y.transpose(1, 2)


class CausalConvTranspose1d(nn.Module):
    """Upsampling convolution; each input spreads over `kernel` outputs, `stride` of which are new."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1, bias: bool = True):
        super().__init__()
        self.stride = stride
        self.groups = groups
        self.c_out = c_out
        self.memory = kernel - stride
        self.weight = nn.Parameter(torch.empty(c_in, c_out // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        inputs = kernel // stride * c_in / groups
        nn.init.normal_(self.weight, std=inputs ** -0.5)

    def new_state(self, batch: int) -> ConvTransposeState:
        """Empty memory for `batch` conversations."""
        tail = self.weight.new_zeros(batch, self.c_out, self.memory)
        return ConvTransposeState(tail)

    def forward(self, x: Tensor, state: ConvTransposeState | None = None,
                active: Tensor | None = None) -> Tensor:
        """x : [b, c_in, n] -> [b, c_out, n · stride]"""
        n = x.shape[-1] * self.stride
        y = self._spread(x)
        # Earlier inputs reach into the first outputs; the last outputs wait for later inputs.
        if state is not None:
            y[..., :self.memory] += state.tail
            unfinished = y[..., n:]
            state.tail.copy_(keep(active, unfinished, state.tail))
        y = y[..., :n]
        # The bias comes once a sample, so after the overlap.
        if self.bias is None:
            return y
        return y + self.bias[:, None]

    def _spread(self, x: Tensor) -> Tensor:
        """Each input over its `kernel` outputs, added up: [b, c_in, n] -> [b, c_out, n · stride + memory]."""
        many = x.shape[-1] > FEW
        halves = self.memory == self.stride
        if many or not halves or self.groups > 1:
            return F.conv_transpose1d(x, self.weight, None, self.stride, groups=self.groups)
        # Few steps: one matrix product gives each input's two halves, a stride long each.
        weight = self.weight.flatten(1).mT
        z = F.linear(x.mT, weight)
        z = z.unflatten(-1, (self.c_out, 2, self.stride))
        first, second = z.unbind(3)                           # [b, n, c, stride]
        # A second half lies on top of the next input's first half.
        y = F.pad(first, (0, 0, 0, 0, 0, 1))                  # [b, n + 1, c, stride]
        y[:, 1:] += second
        return y.transpose(1, 2).flatten(2)
