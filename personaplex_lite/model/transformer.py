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
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TransformerConfig
from .state import State, keep, slot


@dataclass(frozen=True, eq=False)
class KVState(State):
    """What one transformer remembers: a ring of keys and values for every layer."""
    k: Tensor = slot(row_dim=1)   # [layers, b, h, c, d] ring of rotated keys
    v: Tensor = slot(row_dim=1)   # [layers, b, h, c, d]
    pos: Tensor = slot(-1)        # [b, c] the step that each slot holds, -1 while empty
    kept: Tensor | None = slot()  # [b] int64: so many first steps are never overwritten, if asked for
    chunk: int = 1                # most steps written at once
    official: bool = False        # hide the oldest slot of a full ring, as the official code does

    def claim(self, positions: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor]:
        """Book slots for steps `positions` [b, n]; return their (row, slot) index pair."""
        batch, n = positions.shape
        if n > self.chunk:
            raise ValueError(f"this state takes chunks of at most {self.chunk} steps, got {n}")
        length = self.pos.shape[1]
        slots = positions % length
        # Kept slots stay as they are: once the ring is full, its rest goes round behind them.
        if self.kept is not None:
            kept = self.kept[:, None]
            behind = kept + (positions - kept) % (length - kept)
            slots = torch.where(positions < length, slots, behind)
        rows = torch.arange(batch, device=positions.device)[:, None]
        where = (rows, slots)
        self.pos[where] = keep(active, positions, self.pos[where])
        return where

    def pin(self, rows: Tensor | None, frames: Tensor) -> None:
        """Never overwrite the first `frames` int64 [b] steps, where `rows` bool [b] is true (None: anywhere).

        Only for a state made with pinning=True; fewer steps than the ring has slots.
        """
        self.kept.copy_(keep(rows, frames, self.kept))

    def used(self, positions: Tensor) -> int:
        """Slots up to the last one in use; all of them where finding out would wait for the device."""
        length = self.pos.shape[1]
        if positions.device.type != "cpu":
            return length
        return min(length, int(positions.max()) + 1)

    def write(
        self,
        layer: int,
        where: tuple[Tensor, Tensor],
        used: int,
        k: Tensor,
        v: Tensor,
        active: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Store k, v [b, n, h, d] of one layer; return the ring's used part, [b, h, used, d] of both."""
        keys = self.k[layer]
        values = self.v[layer]
        rows, slots = where
        if active is not None:
            k = keep(active, k, keys[rows, :, slots])
            v = keep(active, v, values[rows, :, slots])
        keys[rows, :, slots] = k
        values[rows, :, slots] = v
        return keys[:, :, :used], values[:, :, :used]


class RMSNorm(nn.Module):
    """Scale to unit mean square, in float32 whatever comes in."""

    def __init__(self, dim: int, eps: float = 1e-8):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = F.rms_norm(x.float(), self.alpha.shape, self.alpha.float(), self.eps)
        return y.to(x.dtype)


class Linear(nn.Linear):
    """Without bias. On a CPU torch takes two to four rows twice as fast as columns."""

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[:-1]
        few = 2 <= shape.numel() <= 4
        if not few or x.is_cuda or x.dtype != torch.float32:
            return super().forward(x)
        columns = x.flatten(0, -2).T
        y = self.weight @ columns
        return y.T.unflatten(0, shape)


class View(NamedTuple):
    """What a chunk's queries see, and by which angles."""
    rope: tuple[Tensor, Tensor]
    mask: Tensor                                  # [b, 1, n, keys] bool
    near: tuple[Tensor, Tensor] | None = None     # angles towards the pinned keys
    pinned: Tensor | None = None                  # [b, 1, 1, keys] bool


def rope_table(positions: Tensor, config: TransformerConfig) -> tuple[Tensor, Tensor]:
    """cos and sin [b, n, 1, d/2] float32 of each step's angles."""
    dim = config.dim // config.heads
    # Pair i of a head turns by max_period^(-2i / d) a step: the first fastest.
    even = torch.arange(0, dim, 2, device=positions.device)
    speed = config.max_period ** (-even.float() / dim)
    angle = positions[..., None, None].float() * speed
    return angle.cos(), angle.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of x [b, n, h, d] by their step's angles, in float32."""
    cos, sin = table
    pairs = x.float().unflatten(-1, (-1, 2))
    a, b = pairs.unbind(-1)                       # [b, n, h, d/2]
    turned_a = a * cos - b * sin
    turned_b = a * sin + b * cos
    turned = torch.stack([turned_a, turned_b], -1).flatten(-2)
    return turned.to(x.dtype)


class Attention(nn.Module):
    """Queries, keys and values by one map; rotated, compared, mixed and mapped back."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(dim, 3 * dim, bias=False)    # rows: q, k, v; each head by head
        self.out_proj = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, view: View, store=None) -> Tensor:
        """x [b, n, dim] -> same; store(k, v) puts them in the ring and returns what is in it."""
        heads = self.heads
        qkv = self.in_proj(x)
        qkv = qkv.unflatten(-1, (3 * heads, -1))                         # [b, n, 3h, d]
        # Queries and keys are turned by the angles of their steps.
        turned = rotate(qkv[:, :, :2 * heads], view.rope)
        q, k = turned.chunk(2, dim=2)                                    # [b, n, h, d]
        v = qkv[:, :, 2 * heads:]
        # What can be seen: the ring, or x itself.
        if store is None:
            keys = k.transpose(1, 2)                                     # [b, h, keys, d]
            values = v.transpose(1, 2)
        else:
            keys, values = store(k, v)
        # Pinned keys are looked at from nearer by.
        near = None
        if view.near is not None:
            near = rotate(qkv[:, :, :heads], view.near)
            near = near.transpose(1, 2)
        y = attend(q.transpose(1, 2), keys, values, view, near)          # [b, h, n, d]
        return self.out_proj(y.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, view: View, near: Tensor | None) -> Tensor:
    """q [b, h, n, d] over k, v [b, h, keys, d] -> [b, h, n, d]; near: q as the pinned keys see it."""
    if near is None and (q.shape[2] > 2 or q.is_cuda):
        return F.scaled_dot_product_attention(q, k, v, view.mask)
    # In plain words, which for few queries on a CPU is 2-6 x faster.
    scores = q @ k.mT                                      # [b, h, n, keys]
    if near is not None:
        scores = torch.where(view.pinned, near @ k.mT, scores)
    scores = scores.float() * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~view.mask, -1e30)
    weights = torch.softmax(scores, -1)
    return weights.to(v.dtype) @ v


class GatedMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.linear_in = Linear(dim, 2 * hidden, bias=False)   # first half is squashed, second multiplies
        self.linear_out = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear_in(x)
        gate, value = y.chunk(2, dim=-1)
        return self.linear_out(F.silu(gate) * value)


class MLP(nn.Module):
    """Two maps with a GELU between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.linear1 = Linear(dim, hidden, bias=False)
        self.linear2 = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear1(x)
        return self.linear2(F.gelu(y))


class Layer(nn.Module):
    """Pre-norm attention and MLP. Mimi's has LayerNorm, GELU and a learned scale on each branch."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        dim = config.dim
        lm = config.kind == "lm"
        norm = RMSNorm if lm else nn.LayerNorm
        mlp = GatedMLP if lm else MLP
        self.norm1 = norm(dim)
        self.attn = Attention(dim, config.heads)
        self.norm2 = norm(dim)
        self.mlp = mlp(dim, config.hidden)
        self.scale1 = None if lm else nn.Parameter(torch.full((dim,), config.layer_scale))
        self.scale2 = None if lm else nn.Parameter(torch.full((dim,), config.layer_scale))

    def forward(self, x: Tensor, view: View, store=None) -> Tensor:
        """x [b, n, dim] -> same."""
        seen = self.attn(self.norm1(x), view, store)
        if self.scale1 is not None:
            seen = seen * self.scale1
        x = x + seen
        thought = self.mlp(self.norm2(x))
        if self.scale2 is not None:
            thought = thought * self.scale2
        return x + thought


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
        some first steps may be kept for good (`KVState.pin`).
        """
        size = self.config
        weight = next(self.parameters())
        slots = size.context
        if ring == "exact":
            slots += chunk - 1
        head_dim = size.dim // size.heads
        k = weight.new_zeros(size.layers, batch, size.heads, slots, head_dim)
        v = torch.zeros_like(k)
        pos = weight.new_full((batch, slots), -1, dtype=torch.int64)
        kept = weight.new_zeros(batch, dtype=torch.int64) if pinning else None
        return KVState(k, v, pos, kept, chunk, official=ring == "official")

    def visible(self, query: Tensor, key: Tensor, official: bool) -> Tensor:
        """Mask [b, 1, n, c]: key steps at or before the query's own, and no older than the context."""
        q = query[:, :, None]
        k = key[:, None, :]
        # The official code counts the context from the chunk's end, and one short.
        last = query[:, -1:, None] + 1 if official else q
        past = (k >= 0) & (k <= q)
        recent = k > last - self.config.context
        return (past & recent)[:, None]

    def forward(self, x: Tensor, t: Tensor, state: KVState | None = None,
                active: Tensor | None = None) -> Tensor:
        """x [b, n, dim] -> same; rows that are not active [b] leave no trace in the state."""
        new = torch.arange(x.shape[1], device=x.device)
        query = t[:, None] + new                                            # [b, n]
        if state is None:
            rope = rope_table(query, self.config)
            mask = self.visible(query, query, official=False)
            view = View(rope, mask)
            for layer in self.layers:
                x = layer(x, view)
            return x
        # Book the same slots in every layer, see what can be seen, then pass through.
        where = state.claim(query, active)
        used = state.used(query)
        view = self._view(query, state, used)
        for number, layer in enumerate(self.layers):
            store = partial(state.write, number, where, used, active=active)
            x = layer(x, view, store)
        return x

    def _view(self, query: Tensor, state: KVState, used: int) -> View:
        """Pinned steps stay in sight, and seem to lie just before the oldest step that is remembered: no
        distance between a query and a key is ever longer than the ring.
        """
        pos = state.pos[:, :used]
        mask = self.visible(query, pos, state.official)
        rope = rope_table(query, self.config)
        if state.kept is None:
            return View(rope, mask)
        pinned = (pos >= 0) & (pos < state.kept[:, None])
        pinned = pinned[:, None, None]                                      # [b, 1, 1, keys]
        nearest = query.clamp(max=state.pos.shape[1] - 1)
        near = rope_table(nearest, self.config)
        return View(rope, mask | pinned, near, pinned)
