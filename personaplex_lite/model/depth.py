"""The depth transformer: a hidden vector and a text token become a frame's codes, codebook by codebook.

What departs from the textbook: its "time" is the rows of a single frame, and every step has weights of its
own (only the norms are shared), stacked here as [steps, out, in]. It has no position embedding, no final
norm, and forgets everything after the frame. Steps 9-16 guess the user's codes: with a real user they can be
left out, since no earlier step sees them.

Shapes: n frames, k steps, D depth dims, d temporal dims.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import UNGIVEN, LMConfig
from .transformer import RMSNorm


class PerStep(nn.Module):
    """One linear map for each step: weight [steps, out, in]."""

    def __init__(self, steps: int, out: int, inner: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(steps, out, inner) * inner ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The first k steps at once: x [k, n, in] -> [k, n, out]."""
        return torch.bmm(x, self.weight[:len(x)].mT)

    def at(self, k: int, x: Tensor) -> Tensor:
        """Step k alone: x [n, in] -> [n, out]."""
        return F.linear(x, self.weight[k])


class DepthLayer(nn.Module):
    def __init__(self, k: int, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.in_proj, self.out_proj = PerStep(k, 3 * dim, dim), PerStep(k, dim, dim)
        self.linear_in, self.linear_out = PerStep(k, 2 * hidden, dim), PerStep(k, dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """All steps at once, teacher-forced: x [k, n, D], k may be fewer than the weights have."""
        qkv = self.in_proj(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, key, v = qkv.permute(2, 1, 3, 0, 4).unbind(0)      # [k, n, 3, h, e] -> three [n, h, k, e]
        y = F.scaled_dot_product_attention(q, key, v, is_causal=True)
        x = x + self.out_proj(y.permute(2, 0, 1, 3).flatten(2))
        gate, value = self.linear_in(self.norm2(x)).chunk(2, -1)
        return x + self.linear_out(F.silu(gate) * value)

    def step(self, x: Tensor, k: int, cache: Tensor, first: int) -> Tensor:
        """Step k alone: x [n, D]; writes keys and values to cache [2, n, h, steps, e]; sees first..k."""
        q, *new = self.in_proj.at(k, self.norm1(x)).unflatten(-1, (3, self.heads, 1, -1)).unbind(1)
        for kept, one in zip(cache, new):
            kept[:, :, k] = one[:, :, 0]
        key, v = cache[:, :, :, first:k + 1]
        x = x + self.out_proj.at(k, F.scaled_dot_product_attention(q, key, v).flatten(1))
        gate, value = self.linear_in.at(k, self.norm2(x)).chunk(2, -1)
        return x + self.linear_out.at(k, F.silu(gate) * value)


class Depth(nn.Module):
    def __init__(self, config: LMConfig):
        super().__init__()
        c, k, dim = config.depth, config.depth_steps, config.depth.dim
        self.steps = k
        self.inputs = PerStep(k, dim, config.temporal.dim)
        self.text_embed = nn.Parameter(torch.randn(config.text_vocab + 1, dim) * 0.1)
        self.audio_embed = nn.Parameter(torch.randn(k - 1, config.audio_vocab + 1, dim) * 0.1)
        self.layers = nn.ModuleList(DepthLayer(k, dim, c.heads, c.hidden) for _ in range(c.layers))
        self.heads = PerStep(k, config.audio_vocab, dim)

    def forward(self, hidden: Tensor, text: Tensor, audio: Tensor) -> Tensor:
        """Teacher-forced logits of the first k steps.

        hidden [n, d]; text int64 [n]; audio int64 [n, k] (the last step's token is only a target, never read)
        -> [n, k, audio_vocab]
        """
        k = audio.shape[1]
        previous = torch.stack([embed(self.text_embed, text)] +
                               [embed(self.audio_embed[i], audio[:, i]) for i in range(k - 1)])   # [k, n, D]
        x = self.inputs(hidden.expand(k, -1, -1)) + previous
        for layer in self.layers:
            x = layer(x)
        return self.heads(x).transpose(0, 1)

    def sample(self, hidden: Tensor, text: Tensor, forced: Tensor, draw: Callable[[int, Tensor], Tensor],
               steps: int | None = None, ring: str = "exact") -> Tensor:
        """Draw one frame, step by step; returns what was drawn, int64 [n, steps].

        hidden [n, d]; text int64 [n]; forced int64 [n, steps]: what later steps are told (-2: the draw);
        draw(step, logits float32 [n, audio_vocab]) -> int64 [n]. ring="official" hides step 0 from the very
        last step, as the official code's cache does.
        """
        steps = steps or self.steps
        n, dim, heads = len(hidden), self.text_embed.shape[1], self.layers[0].heads
        cache = hidden.new_empty(len(self.layers), 2, n, heads, steps, dim // heads)
        drawn, x = [], embed(self.text_embed, text)
        for k in range(steps):
            x = x + self.inputs.at(k, hidden)
            first = 1 if ring == "official" and k == self.steps - 1 else 0
            for i, layer in enumerate(self.layers):
                x = layer.step(x, k, cache[i], first)
            drawn.append(draw(k, self.heads.at(k, x).float()))
            if k + 1 < steps:
                told = torch.where(forced[:, k] == UNGIVEN, drawn[-1], forced[:, k])
                x = embed(self.audio_embed[k], told)
        return torch.stack(drawn, 1)


def embed(table: Tensor, tokens: Tensor) -> Tensor:
    """Rows of a table; the token -1 (no input) is a row of zeros."""
    return F.embedding(tokens.clamp(min=0), table) * (tokens >= 0).unsqueeze(-1).to(table.dtype)
