"""Weight-only int8 and int4: the numbers on disk and in memory shrink, the arithmetic stays floating point.

What departs from the textbook: no calibration, no quantised activations. At batch 1 a frame's time is the
time to read the weights, so fewer bytes are faster even though each is turned back into a number before it is
used. int8: one scale for each output row. int4: groups of 32 inputs, each with a scale and a middle (4-bit
numbers two to a byte, 5 bits a weight in all). Embeddings, norms and heads stay as they are.

On a CPU the kernels are torch's own packed matrix products (bf16 inside). For a GPU `kernels/` brings some,
and puts them into `FAST`; without them the plain formula is right, and slow.

Shapes: o outputs, i inputs, g = i / 32 groups.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 32                     # inputs that share an int4 scale
KINDS = ("int8", "int4")
FAST: dict[str, Callable] = {}      # device type -> product(kind, x, q, scale), where there is a better one
TINY = 1e-12                   # the least span of a scale: a row of zeros must not divide by zero


def quantise(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """A float matrix [o, i] -> (q, scale), as files hold them.

    int8 : q int8 [o, i], scale bf16 [o];                weight ~ q · scale
    int4 : q uint8 [o, i / 2], input 2j in the low half of byte j; scale bf16 [g, o, 2] = (step, middle);
           weight ~ (q - 8) · step + middle
    Raises ValueError if i is not a multiple of 32 (int4).
    """
    weight = weight.float()
    if kind == "int4":
        return _to_int4(weight)
    # The largest number of a row becomes 127.
    largest = weight.abs().amax(1)
    scale = (largest.clamp(min=TINY) / 127).bfloat16()
    # Divide by the scale as it is stored, so that its own rounding does no harm.
    q = weight / scale.float()[:, None]
    return q.round().clamp(-128, 127).to(torch.int8), scale


def _to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`quantise` for "int4"."""
    outputs, inputs = weight.shape
    if inputs % GROUP:
        raise ValueError(f"int4 needs inputs in multiples of {GROUP}, got {inputs}")
    # Sixteen levels from the lowest number of a group to the highest; level 8 is the middle.
    groups = weight.view(outputs, -1, GROUP)                        # [o, g, 32]
    low, high = groups.aminmax(dim=-1)
    span = (high - low).clamp(min=TINY)
    step = (span / 15).bfloat16()                                   # [o, g]
    middle = (low + 8 * step.float()).bfloat16()
    # Again by the numbers as they are stored.
    away = groups - middle.float()[..., None]
    levels = away / step.float()[..., None] + 8
    q = levels.round().clamp(0, 15).to(torch.uint8)
    # Two numbers to a byte; groups before outputs, as torch's kernel wants the scales.
    pairs = q.view(outputs, inputs // 2, 2)
    packed = pairs[..., 0] | pairs[..., 1] << 4
    scale = torch.stack([step, middle], -1)                         # [o, g, 2]
    return packed, scale.transpose(0, 1).contiguous()


def dequantise(q: Tensor, scale: Tensor) -> Tensor:
    """The matrix [o, i] that (q, scale) stand for, in the type of scale."""
    if q.dtype == torch.int8:
        return q.to(scale.dtype) * scale[:, None]
    levels = _unpacked(q).unflatten(1, (-1, GROUP))                            # [o, g, 32]
    scale = scale.transpose(0, 1).unsqueeze(-2)                                # [o, g, 1, 2]
    step, middle = scale.unbind(-1)
    groups = (levels.to(scale.dtype) - 8) * step + middle
    return groups.flatten(1)


def _unpacked(q: Tensor) -> Tensor:
    """The two 4-bit numbers of each byte side by side: [o, i / 2] -> [o, i]."""
    low = q & 15
    high = q >> 4
    return torch.stack([low, high], -1).flatten(1)


class QuantLinear(nn.Module):
    """A bias-free linear map [o, i], or `parts` of them ([parts, o, i], depth.PerStep), quantised.

    Raises ValueError for a kind or a shape that the kernels do not take.
    """

    def __init__(self, kind: str, out: int, inner: int, parts: int = 1):
        super().__init__()
        if kind not in KINDS or inner % GROUP or out % 16:
            raise ValueError(f"cannot hold [{out}, {inner}] as {kind}: {' or '.join(KINDS)}, "
                             f"inputs in multiples of {GROUP}, outputs of 16")
        self.kind = kind
        self.shape = (out, inner)
        if kind == "int8":
            q = torch.empty(parts, out, inner, dtype=torch.int8)
            scale = torch.empty(parts, out, dtype=torch.bfloat16)
        else:
            q = torch.empty(parts, out, inner // 2, dtype=torch.uint8)
            scale = torch.empty(parts, inner // GROUP, out, 2, dtype=torch.bfloat16)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)

    def _apply(self, move, recurse=True):
        """Change the device only: the scales are bf16, whatever type the model takes."""
        super()._apply(move, recurse)
        self.scale = self.scale.bfloat16()
        return self

    def fill(self, weight: Tensor, part: int = 0) -> None:
        """Quantise a float matrix [o, i] into place."""
        q, scale = quantise(weight, self.kind)
        self.put(q, scale, part)

    @torch.no_grad()
    def put(self, q: Tensor, scale: Tensor, part: int = 0) -> None:
        """Take (q, scale) as `quantise` gives them; on a CPU int4 is laid out as torch's kernel wants it."""
        if self.kind == "int4" and self.q.device.type == "cpu":
            levels = _unpacked(q).int()
            q = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
        self.q[part].copy_(q)
        self.scale[part].copy_(scale)

    def at(self, part: int, x: Tensor) -> Tensor:
        """x [..., i] -> [..., o], by one of the parts, in the type of x."""
        rows = x.flatten(0, -2)
        y = product(self.kind, rows, self.q[part], self.scale[part])
        return y.to(x.dtype).unflatten(0, x.shape[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Linear; with several parts as depth.PerStep: x [k, n, i] -> [k, n, o]."""
        if self.q.shape[0] == 1:
            return self.at(0, x)
        results = [self.at(part, rows) for part, rows in enumerate(x)]
        return torch.stack(results)


def product(kind: str, x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """x [n, i] times a quantised matrix -> [n, o]."""
    device = x.device.type
    if device in FAST:
        return FAST[device](kind, x, q, scale)
    if device != "cpu":
        return formula(x, q, scale)
    x = x.bfloat16().contiguous()
    if kind == "int8":
        return torch._weight_int8pack_mm(x, q, scale)
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, q, GROUP, scale)


def formula(x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """The same in plain words, scaled before the sum lest fp16 overflow."""
    weight = dequantise(q, scale.float())
    return F.linear(x, weight.to(x.dtype))


def prepare(model: nn.Module, kind: str) -> None:
    """Replace the linear maps of an LM's two transformers by empty quantised ones, on the same device."""
    from .depth import PerStep
    owners = [*model.temporal.modules(), *model.depth.modules()]
    for owner in owners:
        for name, child in list(owner.named_children()):
            if name == "heads" or not isinstance(child, (nn.Linear, PerStep)):
                continue
            *parts, out, inner = child.weight.shape      # parts: none, or the number of steps
            with child.weight.device:
                quantised = QuantLinear(kind, out, inner, *parts)
            setattr(owner, name, quantised)
