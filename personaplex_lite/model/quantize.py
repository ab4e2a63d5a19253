"""Weight-only int8 and int4: the numbers on disk and in memory shrink, the arithmetic stays floating point.

What departs from the textbook: no calibration, no quantised activations. At batch 1 a frame's time is the
time to read the weights, so fewer bytes are faster even though each is turned back into a number before it is
used. int8: one scale for each output row. int4: groups of 32 inputs, each with a scale and a middle (4-bit
numbers two to a byte, 5 bits a weight in all). Embeddings, norms and heads stay as they are.

Kernels are torch's own: on a CPU its packed matrix products (bf16 inside), on a GPU one kernel that
`torch.compile` fuses from the plain formula, which any card of compute capability 7.5 can run.

Shapes: o outputs, i inputs, g = i / 32 groups.
"""
from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 32                     # inputs that share an int4 scale
KINDS = ("int8", "int4")


def quantise(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """A float matrix [o, i] -> (q, scale), as files hold them.

    int8 : q int8 [o, i], scale bf16 [o];                weight ~ q · scale
    int4 : q uint8 [o, i / 2], input 2j in the low half of byte j; scale bf16 [g, o, 2] = (step, middle);
           weight ~ (q - 8) · step + middle
    Raises ValueError if i is not a multiple of 32 (int4).
    """
    w = weight.float()
    if kind == "int8":
        scale = (w.abs().amax(1).clamp(min=1e-12) / 127).bfloat16()
        return (w / scale.float()[:, None]).round().clamp(-128, 127).to(torch.int8), scale
    o, i = w.shape
    if i % GROUP:
        raise ValueError(f"int4 needs inputs in multiples of {GROUP}, got {i}")
    groups = w.view(o, -1, GROUP)
    low, high = groups.aminmax(dim=-1)
    step = ((high - low).clamp(min=1e-12) / 15).bfloat16()
    middle = (low + 8 * step.float()).bfloat16()
    q = ((groups - middle.float()[..., None]) / step.float()[..., None] + 8).round().clamp(0, 15)
    q = q.to(torch.uint8).view(o, i // 2, 2)
    return q[..., 0] | q[..., 1] << 4, torch.stack([step, middle], -1).transpose(0, 1).contiguous()


def dequantise(q: Tensor, scale: Tensor) -> Tensor:
    """The matrix bf16 [o, i] that (q, scale) stand for."""
    if q.dtype == torch.int8:
        return q.to(scale.dtype) * scale[:, None]
    q = _unpacked(q).unflatten(1, (-1, GROUP))
    step, middle = scale.transpose(0, 1).unsqueeze(-2).unbind(-1)              # [o, g, 1]
    return ((q.to(scale.dtype) - 8) * step + middle).flatten(1)


def _unpacked(q: Tensor) -> Tensor:
    """The two 4-bit numbers of each byte side by side: [o, i / 2] -> [o, i]."""
    return torch.stack([q & 15, q >> 4], -1).flatten(1)


class QuantLinear(nn.Module):
    """A bias-free linear map [o, i], or `parts` of them ([parts, o, i], depth.PerStep), quantised."""

    def __init__(self, kind: str, out: int, inner: int, parts: int = 1):
        super().__init__()
        if kind not in KINDS or inner % GROUP or out % 16:
            raise ValueError(f"cannot hold [{out}, {inner}] as {kind}: {' or '.join(KINDS)}, "
                             f"inputs in multiples of {GROUP}, outputs of 16")
        self.kind, self.shape = kind, (out, inner)
        eight = kind == "int8"
        self.register_buffer("q", torch.empty(parts, out, inner if eight else inner // 2,
                                              dtype=torch.int8 if eight else torch.uint8))
        shape = (parts, out) if eight else (parts, inner // GROUP, out, 2)
        self.register_buffer("scale", torch.empty(shape, dtype=torch.bfloat16))

    def _apply(self, move, recurse=True):
        """Change the device only: the scales are bf16, whatever type the model takes."""
        super()._apply(move, recurse)
        self.scale = self.scale.bfloat16()
        return self

    def fill(self, weight: Tensor, part: int = 0) -> None:
        """Quantise a float matrix [o, i] into place."""
        self.put(*quantise(weight, self.kind), part)

    @torch.no_grad()
    def put(self, q: Tensor, scale: Tensor, part: int = 0) -> None:
        """Take (q, scale) as `quantise` gives them; on a CPU int4 is laid out as torch's kernel wants it."""
        if self.kind == "int4" and self.q.device.type == "cpu":
            q = torch.ops.aten._convert_weight_to_int4pack_for_cpu(_unpacked(q).int(), 1)
        self.q[part].copy_(q)
        self.scale[part].copy_(scale)

    def at(self, part: int, x: Tensor) -> Tensor:
        """x [..., i] -> [..., o], by one of the parts, in the type of x."""
        rows = x.flatten(0, -2)
        return product(self.kind, rows, self.q[part], self.scale[part]).to(x.dtype).unflatten(0, x.shape[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Linear; with several parts as depth.PerStep: x [k, n, i] -> [k, n, o]."""
        if self.q.shape[0] == 1:
            return self.at(0, x)
        return torch.stack([self.at(k, row) for k, row in enumerate(x)])


def product(kind: str, x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """x [n, i] times a quantised matrix -> [n, o]."""
    if x.device.type != "cpu":
        return _fused()(x, q, scale.view(torch.int16))
    x = x.bfloat16().contiguous()
    if kind == "int8":
        return torch._weight_int8pack_mm(x, q, scale)
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, q, GROUP, scale)


def formula(x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """The same in plain words, scaled before the sum lest fp16 overflow; the GPU kernel is fused from it."""
    return F.linear(x, dequantise(q, scale.float()).to(x.dtype))


def _from_bits(x: Tensor, q: Tensor, bits: Tensor) -> Tensor:
    """`formula`, its bf16 scales passed as int16 bits: torch compiles nothing that takes bf16 on a T4."""
    return formula(x, q, (bits.int() << 16).view(torch.float32))


@cache
def _fused():
    torch._dynamo.config.cache_size_limit = 64      # a kernel for each of nine shapes; 8 is where it gives up
    return torch.compile(_from_bits, dynamic=False)


def prepare(model: nn.Module, kind: str) -> None:
    """Replace the linear maps of an LM's two transformers by empty quantised ones, on the same device."""
    from .depth import PerStep
    for owner in [*model.temporal.modules(), *model.depth.modules()]:
        for name, child in list(owner.named_children()):
            if isinstance(child, (nn.Linear, PerStep)) and name != "heads":
                *parts, out, inner = child.weight.shape
                with child.weight.device:
                    setattr(owner, name, QuantLinear(kind, out, inner, *parts))
