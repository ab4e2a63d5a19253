"""Without Triton at hand: torch.compile makes a kernel of the plain formula (`quantize.formula`)."""
from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..model.quantize import formula

SHAPES = 64         # kernels that may be compiled: one for each shape of a matrix; torch gives up at 8


def product(kind: str, x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """x [n, i] times a quantised matrix -> [n, o]."""
    return _compiled()(x, q, scale.view(torch.int16))


def from_bits(x: Tensor, q: Tensor, bits: Tensor) -> Tensor:
    """The formula, its bf16 scales passed as int16 bits: torch compiles nothing that takes bf16 on a T4."""
    # A bf16 number is the upper half of a float32.
    scale = (bits.int() << 16).view(torch.float32)
    return formula(x, q, scale)


@cache
def _compiled():
    torch._dynamo.config.cache_size_limit = SHAPES
    # dynamo counts for each thread, and the live widget works in one of its own
    options = {"coordinate_descent_tuning": True}
    return torch.compile(from_bits, dynamic=False, options=options)
