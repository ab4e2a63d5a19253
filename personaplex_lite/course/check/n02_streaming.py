"""Checks of `02_streaming`."""
from __future__ import annotations

from types import SimpleNamespace

import torch

from ...model.config import TransformerConfig
from ...model.conv import CausalConv1d
from ...model.transformer import Transformer, View, attend
from .common import call, check, expect, same

__all__ = ["keys_and_values", "ring_attention", "ring_length", "stream_convolution"]


@check
def stream_convolution(answer):
    """Against the package's convolution over the whole."""
    sizes = (7, 1, 20), (7, 1, 2), (8, 4, 4), (8, 4, 12), (4, 2, 2), (2, 2, 6), (1, 1, 5)
    for kernel, stride, size in sizes:
        conv = CausalConv1d(1, 1, kernel, stride, bias=False).requires_grad_(False)
        x = torch.randn(60, generator=torch.Generator().manual_seed(kernel))
        case = f"kernel {kernel}, stride {stride}, pieces of {size}"
        past, wanted = torch.zeros(kernel - stride), conv(x[None, None])[0, 0]
        for n, piece in enumerate(x.split(size)):
            got = call(answer, piece, conv.weight[0, 0], past, stride)
            expect(isinstance(got, tuple | list) and len(got) == 2,
                   "return two things: the outputs and the past")
            y, past = got
            place = f"{case}, piece {n + 1}: the output"
            same(y, wanted[n * size // stride:][:len(piece) // stride], place)
            expect(len(past) == kernel - stride,
                   f"{case}: the past that is returned has {len(past)} steps, expected {kernel - stride}")
    return "whatever the size of the pieces, nothing shows where the cuts were"


@check
def ring_attention(answer):
    """Against the package's attention over all steps at once, with the mask of its offline model."""
    d, n = 6, 40
    for context, slots, start in ((8, 8, 0), (8, 13, 0), (8, 8, 1003), (5, 9, 1003), (1, 3, 0)):
        model = Transformer(TransformerConfig(8, 1, 1, 8, context))
        q, k, v = torch.randn(3, n, d, generator=torch.Generator().manual_seed(slots))
        steps = torch.arange(start, start + n)[None]
        mask = model.visible(steps, steps, False)
        wanted = attend(q[None, None], k[None, None], v[None, None], View((q, q), mask), None)[0, 0]
        ring = SimpleNamespace(k=torch.zeros(slots, d), v=torch.zeros(slots, d), pos=torch.full((slots,), -1))
        for i in range(n):
            got = call(answer, q[i].clone(), k[i].clone(), v[i].clone(), start + i, ring, context)
            same(got, wanted[i], f"context {context}, {slots} slots, step {i + 1} of {n}: the result")
    return f"{n} steps through rings of a few slots, as if all had been seen at once"


@check
def ring_length(answer):
    """Rings of that length, and of one less, are gone round several times: does a query miss a key?"""
    for context, chunk in ((4, 1), (4, 2), (10, 2), (10, 5), (50, 2), (3, 7), (3000, 1)):
        slots = call(answer, context, chunk)
        expect(isinstance(slots, int) and slots > 0, "give a whole number of slots")
        case = f"context {context}, chunks of {chunk}, {slots} slots"
        expect(slots >= chunk, f"{case}: a chunk does not even fit in")
        gone, short = missed(context, chunk, slots), slots - 1
        expect(not gone, f"{case}: the first step of a chunk misses {gone} key(s)")
        expect(short < chunk or missed(context, chunk, short), f"{case}: it works, but fewer would do")
    return "so Mimi, which takes two steps of 25 Hz a frame, needs one slot more than its context"


def missed(context: int, chunk: int, slots: int) -> int:
    """Keys that the first query of the last chunk wants and does not find, by going round the ring."""
    ring = {}
    rounds = 2 * max(context, slots) // chunk + 2
    for t in range(rounds * chunk):
        ring[t % slots] = t
    first = (rounds - 1) * chunk
    return len(set(range(first - context + 1, first + 1)) - set(ring.values()))


@check
def keys_and_values(answer):
    for layers, context, dim in ((1, 10, 16), (3, 7, 32), (2, 50, 8)):
        state = Transformer(TransformerConfig(dim, layers, 2, 8, context)).new_state(1)
        wanted, got = state.k.nbytes + state.v.nbytes, call(answer, layers, context, dim, 4)
        off = "more" if got < wanted else "less"
        expect(got == wanted, f"{layers} layer(s), {context} steps, dim {dim}, float32: yours says {got}, "
                              f"the ring of that model takes {off}")
    got = call(answer, 2, 10, 8, 2)
    expect(2 * got == call(answer, 2, 10, 8, 4), "bfloat16 must take half of float32")
    return "and the 7B's ring, 32 layers, 3000 steps of 4096 numbers in bfloat16, takes 1.57 GB"
