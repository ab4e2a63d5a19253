"""Products of one to sixteen rows with int8 and int4 matrices on a GPU: each weight is read once, as stored.

At batch 1 a frame costs the time to read its weights. Left to itself, torch writes the whole matrix in 16
bits and reads it again: five bytes for each weight of one. Here a program takes a few outputs, walks along
their inputs, turns small numbers into floats in registers and adds up in float32.

Shapes: n rows, o outputs, i inputs, g = i / 32 groups. Scales come as the int16 bits of bf16 numbers, because
a T4 has no bf16. Never run on a GPU: checked in Triton's interpreter, compiled for sm_75, 80, 90 and 120.
"""
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 16          # rows of one call; more go in several
ONE = {"int8": (4, 512), "int4": (4, 256)}          # one row: outputs and inputs that a program holds at once
MANY = (32, 64)                                     # two rows and more, for the tensor cores


def product(kind: str, x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """x [n, i] (fp16, bf16 or f32) times a quantised matrix -> [n, o] in the type of x; see `quantize`."""
    outputs = q.shape[0]
    x = x.contiguous()
    y = x.new_empty(len(x), outputs)
    bits = scale.view(torch.int16)
    for begin in range(0, len(x), MOST_ROWS):
        part = slice(begin, begin + MOST_ROWS)
        _launch(kind, x[part], q, bits, y[part])
    return y


def _launch(kind: str, x: Tensor, q: Tensor, bits: Tensor, y: Tensor) -> None:
    rows, inputs = x.shape
    outputs = len(q)
    if rows == 1:
        block, step = ONE[kind]
        kernel = one_row_int8 if kind == "int8" else one_row_int4
        kernel[(triton.cdiv(outputs, block),)](x, q, bits, y, inputs, outputs, BLOCK=block, STEP=step)
        return
    block, step = MANY
    kernel = rows_int8 if kind == "int8" else rows_int4
    grid = (triton.cdiv(outputs, block),)
    kernel[grid](x, q, bits, y, rows, inputs, outputs, ROWS=MOST_ROWS, BLOCK=block, STEP=step)


@triton.jit
def as_float(bits):
    """The int16 bits of a bf16 number -> float32: bf16 is the upper half."""
    return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def one_row_int8(x, q, bits, y, inputs, outputs, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """y[o] = scale[o] · Σ x[i] q[o, i]"""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = o < outputs
    total = tl.zeros([BLOCK, STEP], tl.float32)
    for begin in range(0, inputs, STEP):
        i = begin + tl.arange(0, STEP)
        inside = i < inputs
        weight = tl.load(q + o[:, None] * inputs + i[None], mask=real[:, None] & inside[None], other=0)
        value = tl.load(x + i, mask=inside, other=0)
        total += weight.to(tl.float32) * value.to(tl.float32)[None]
    scale = as_float(tl.load(bits + o, mask=real, other=0))
    result = tl.sum(total, 1) * scale
    tl.store(y + o, result.to(y.dtype.element_ty), mask=real)


@triton.jit
def one_row_int4(x, q, bits, y, inputs, outputs, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """y[o] = Σ over groups of step · Σ (q - 8) x + middle · Σ x; byte j holds input 2j low, 2j + 1 high."""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = o < outputs
    HALF: tl.constexpr = STEP // 2
    GROUPS: tl.constexpr = STEP // 32
    total = tl.zeros([BLOCK, GROUPS], tl.float32)
    for begin in range(0, inputs, STEP):
        j = begin // 2 + tl.arange(0, HALF)
        inside = j < inputs // 2
        even = tl.load(x + 2 * j, mask=inside, other=0).to(tl.float32)
        odd = tl.load(x + 2 * j + 1, mask=inside, other=0).to(tl.float32)
        pair = tl.load(q + o[:, None] * (inputs // 2) + j[None], mask=real[:, None] & inside[None], other=0)
        low = (pair & 15).to(tl.float32) - 8.0
        high = (pair >> 4).to(tl.float32) - 8.0
        levels = low * even[None] + high * odd[None]
        # sums within a group of 32 inputs, 16 bytes
        levels = tl.sum(tl.reshape(levels, [BLOCK, GROUPS, 16]), 2)
        values = tl.sum(tl.reshape(even + odd, [GROUPS, 16]), 1)
        g = begin // 32 + tl.arange(0, GROUPS)
        known = real[:, None] & (g < inputs // 32)[None]
        place = bits + (g[None] * outputs + o[:, None]) * 2
        step = as_float(tl.load(place, mask=known, other=0))
        middle = as_float(tl.load(place + 1, mask=known, other=0))
        total += step * levels + middle * values[None]
    tl.store(y + o, tl.sum(total, 1).to(y.dtype.element_ty), mask=real)


@triton.jit
def rows_int8(x, q, bits, y, rows, inputs, outputs, ROWS: tl.constexpr, BLOCK: tl.constexpr,
              STEP: tl.constexpr):
    """The same for up to ROWS rows, by the tensor cores; small integers are exact in 16 bits."""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, ROWS)
    real = o < outputs
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for begin in range(0, inputs, STEP):
        i = begin + tl.arange(0, STEP)
        inside = i < inputs
        value = tl.load(x + n[:, None] * inputs + i[None], mask=(n < rows)[:, None] & inside[None], other=0)
        weight = tl.load(q + o[None] * inputs + i[:, None], mask=real[None] & inside[:, None], other=0)
        total = tl.dot(value, weight.to(value.dtype), total, input_precision="ieee")
    scale = as_float(tl.load(bits + o, mask=real, other=0))
    result = total * scale[None]
    place = y + n[:, None] * outputs + o[None]
    tl.store(place, result.to(y.dtype.element_ty), mask=(n < rows)[:, None] & real[None])


@triton.jit
def rows_int4(x, q, bits, y, rows, inputs, outputs, ROWS: tl.constexpr, BLOCK: tl.constexpr,
              STEP: tl.constexpr):
    """The same for up to ROWS rows; each group's numbers are scaled before they are multiplied."""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, ROWS)
    real = o < outputs
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for begin in range(0, inputs, STEP):
        i = begin + tl.arange(0, STEP)
        inside = i < inputs
        value = tl.load(x + n[:, None] * inputs + i[None], mask=(n < rows)[:, None] & inside[None], other=0)
        known = real[None] & inside[:, None]
        byte = tl.load(q + o[None] * (inputs // 2) + (i // 2)[:, None], mask=known, other=0)
        level = ((byte >> ((i % 2) * 4)[:, None].to(tl.uint8)) & 15).to(tl.float32) - 8.0
        place = bits + ((i // 32)[:, None] * outputs + o[None]) * 2
        step = as_float(tl.load(place, mask=known, other=0))
        middle = as_float(tl.load(place + 1, mask=known, other=0))
        weight = level * step + middle
        total = tl.dot(value, weight.to(value.dtype), total, input_precision="ieee")
    place = y + n[:, None] * outputs + o[None]
    tl.store(place, total.to(y.dtype.element_ty), mask=(n < rows)[:, None] & real[None])
