"""The causal transformer that serves Mimi and the temporal model.

What departs from the textbook: keys are rotated before they are stored, so a ring of keys never needs
rotating again; each ring slot carries the step it holds (`pos`), and the mask is made from those steps alone.
That is why one set of lines runs offline, streaming, in any chunk size, with rows at different times.

Ring length = context + chunk - 1: with fewer slots the first query of a chunk loses keys to the last. The
official code has fewer (`ring="official"`: context slots, the oldest hidden); ask for that to reproduce its
numbers.

Shapes: b conversations, n new steps, c ring slots, h heads, d dims of a head.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TransformerConfig
from .state import State, keep, slot


@dataclass(frozen=True, eq=False)
class KVState(State):
    k: Tensor = slot(row_dim=1)   # [layers, b, h, c, d] ring of rotated keys
    v: Tensor = slot(row_dim=1)   # [layers, b, h, c, d]
    pos: Tensor = slot(-1)        # [b, c] the step that each slot holds, -1 while empty
    kept: Tensor | None = slot()  # [b] int64: so many first steps are never overwritten, if asked for
    chunk: int = 1                # most steps written at once
    official: bool = False        # hide the oldest slot of a full ring, as the official code does

    def claim(self, positions: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor]:
        """Book slots for steps `positions` [b, n]; return their (row, slot) index pair."""
        b, n = positions.shape
        if n > self.chunk:
            raise ValueError(f"this state takes chunks of at most {self.chunk} steps, got {n}")
        slots = self.pos.shape[1]
        at = positions % slots
        if self.kept is not None:                 # the rest of the ring goes round behind the kept slots
            kept = self.kept[:, None]
            at = torch.where(positions < slots, at, kept + (positions - kept) % (slots - kept))
        where = torch.arange(b, device=positions.device)[:, None], at
        self.pos[where] = keep(active, positions, self.pos[where])
        return where

    def used(self, positions: Tensor) -> int:
        """Slots up to the last one in use; all of them where finding out would wait for the device."""
        slots = self.pos.shape[1]
        return slots if positions.device.type != "cpu" else min(slots, int(positions.max()) + 1)

    def write(self, layer: int, where, used: int, k: Tensor, v: Tensor,
              active: Tensor | None) -> tuple[Tensor, Tensor]:
        """Store k, v [b, n, h, d] of one layer; return the ring's used part, [b, h, used, d] of both."""
        rows, slots = where
        for ring, new in ((self.k[layer], k), (self.v[layer], v)):
            ring[rows, :, slots] = new if active is None else keep(active, new, ring[rows, :, slots])
        return self.k[layer][:, :, :used], self.v[layer][:, :, :used]


class RMSNorm(nn.Module):
    """Scale to unit mean square, in float32 whatever comes in."""

    def __init__(self, dim: int, eps: float = 1e-8):
        super().__init__()
        self.alpha, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.alpha.shape, self.alpha.float(), self.eps).to(x.dtype)


class Linear(nn.Linear):
    """Without bias. On a CPU torch takes two to four rows twice as fast as columns."""
    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or x.dtype != torch.float32 or not 2 <= x.shape[:-1].numel() <= 4:
            return super().forward(x)
        return (self.weight @ x.flatten(0, -2).T).T.unflatten(0, x.shape[:-1])


class View(NamedTuple):
    """What a chunk's queries see, and by which angles."""
    rope: tuple[Tensor, Tensor]
    mask: Tensor                                  # [b, 1, n, keys] bool
    near: tuple[Tensor, Tensor] | None = None     # angles towards the pinned keys
    pinned: Tensor | None = None                  # [b, 1, 1, keys] bool


def rope_table(positions: Tensor, config: TransformerConfig) -> tuple[Tensor, Tensor]:
    """cos and sin [b, n, 1, d/2] float32 of each step's angles."""
    d = config.dim // config.heads
    inverse = config.max_period ** (-torch.arange(0, d, 2, device=positions.device).float() / d)
    angle = positions[..., None, None].float() * inverse
    return angle.cos(), angle.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of x [b, n, h, d] by their step's angles, in float32."""
    cos, sin = table
    real, imag = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([real * cos - imag * sin, real * sin + imag * cos], -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(dim, 3 * dim, bias=False)    # rows: q, k, v; each head by head
        self.out_proj = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, view: View, store=None) -> Tensor:
        """x [b, n, dim] -> same; store(k, v) puts them in the ring and returns what is in it."""
        qkv = self.in_proj(x).unflatten(-1, (3 * self.heads, -1))                 # [b, n, 3h, d]
        turned, v = rotate(qkv[:, :, :2 * self.heads], view.rope), qkv[:, :, 2 * self.heads:]
        q, k = turned.chunk(2, dim=2)                                               # [b, n, h, d]
        k, v = store(k, v) if store else (k.transpose(1, 2), v.transpose(1, 2))    # [b, h, keys, d]
        near = rotate(qkv[:, :, :self.heads], view.near).transpose(1, 2) if view.near else None
        return self.out_proj(attend(q.transpose(1, 2), k, v, view, near).transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, view: View, near: Tensor | None) -> Tensor:
    """q [b, h, n, d] over k, v [b, h, keys, d] -> [b, h, n, d]; near: q as the pinned keys see it."""
    if near is None and (q.shape[2] > 2 or q.is_cuda):
        return F.scaled_dot_product_attention(q, k, v, view.mask)
    scores = q @ k.mT                                      # few queries on a CPU: 2-6 x faster in plain words
    if near is not None:
        scores = torch.where(view.pinned, near @ k.mT, scores)
    scores = scores.float() * q.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(~view.mask, -1e30), -1).to(v.dtype) @ v


class GatedMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.linear_in = Linear(dim, 2 * hidden, bias=False)   # first half is squashed, second multiplies
        self.linear_out = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.linear_in(x).chunk(2, dim=-1)
        return self.linear_out(F.silu(gate) * value)


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.linear1 = Linear(dim, hidden, bias=False)
        self.linear2 = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(x)))


class Layer(nn.Module):
    """Pre-norm attention and MLP. Mimi's has LayerNorm, GELU and a learned scale on each branch."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        dim, lm = config.dim, config.kind == "lm"
        self.norm1 = RMSNorm(dim) if lm else nn.LayerNorm(dim)
        self.attn = Attention(dim, config.heads)
        self.norm2 = RMSNorm(dim) if lm else nn.LayerNorm(dim)
        self.mlp = GatedMLP(dim, config.hidden) if lm else MLP(dim, config.hidden)
        self.scale1 = None if lm else nn.Parameter(torch.full((dim,), config.layer_scale))
        self.scale2 = None if lm else nn.Parameter(torch.full((dim,), config.layer_scale))

    def forward(self, x: Tensor, view: View, store=None) -> Tensor:
        a = self.attn(self.norm1(x), view, store)
        x = x + (a if self.scale1 is None else a * self.scale1)
        m = self.mlp(self.norm2(x))
        return x + (m if self.scale2 is None else m * self.scale2)


class Transformer(nn.Module):
    """x = transformer(x, t, state): x [b, n, dim], t [b] int64 the step of x[:, 0] in each row.

    state=None is the offline model: the same lines, attending over x itself.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def new_state(self, batch: int, chunk: int = 1, ring: str = "exact", pinning: bool = False) -> KVState:
        """Empty memory. ring: "exact" (a stream equals the offline model for ever) or "official"; pinning:
        some first steps may be kept for good (`KVState.kept`).
        """
        c, w = self.config, next(self.parameters())
        slots = c.context + (chunk - 1 if ring == "exact" else 0)
        k = w.new_zeros(c.layers, batch, c.heads, slots, c.dim // c.heads)
        pos = torch.full((batch, slots), -1, dtype=torch.int64, device=w.device)
        kept = torch.zeros(batch, dtype=torch.int64, device=w.device) if pinning else None
        return KVState(k, torch.zeros_like(k), pos, kept, chunk, ring == "official")

    def visible(self, query: Tensor, key: Tensor, official: bool) -> Tensor:
        """Mask [b, 1, n, c]: key steps at or before the query's own, and no older than the context."""
        q, k = query[:, :, None], key[:, None, :]
        floor = query[:, -1:, None] + 1 if official else q      # official: from the chunk's end, one short
        return ((k >= 0) & (k <= q) & (k > floor - self.config.context))[:, None]

    def forward(self, x: Tensor, t: Tensor, state: KVState | None = None,
                active: Tensor | None = None) -> Tensor:
        query = t[:, None] + torch.arange(x.shape[1], device=x.device)                   # [b, n]
        if state is None:
            view = View(rope_table(query, self.config), self.visible(query, query, False))
            for layer in self.layers:
                x = layer(x, view)
            return x
        where, used = state.claim(query, active), state.used(query)
        view = self._view(query, state, used)
        for i, layer in enumerate(self.layers):
            x = layer(x, view, lambda k, v, i=i: state.write(i, where, used, k, v, active))
        return x

    def _view(self, query: Tensor, state: KVState, used: int) -> View:
        """Pinned steps stay in sight, and seem to lie just before the oldest step that is remembered: no
        distance between a query and a key is ever longer than the ring.
        """
        pos = state.pos[:, :used]
        mask = self.visible(query, pos, state.official)
        if state.kept is None:
            return View(rope_table(query, self.config), mask)
        pinned = ((pos >= 0) & (pos < state.kept[:, None]))[:, None, None]
        near = query.clamp(max=state.pos.shape[1] - 1)
        return View(rope_table(query, self.config), mask | pinned, rope_table(near, self.config), pinned)
