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


def per_step(k: int, out: int, inner: int) -> nn.Parameter:
    """One linear map for each step."""
    return nn.Parameter(torch.randn(k, out, inner) * inner ** -0.5)


class DepthLayer(nn.Module):
    def __init__(self, k: int, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.in_proj, self.out_proj = per_step(k, 3 * dim, dim), per_step(k, dim, dim)
        self.linear_in, self.linear_out = per_step(k, 2 * hidden, dim), per_step(k, dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """All steps at once, teacher-forced: x [k, n, D], k may be fewer than the weights have."""
        k = len(x)
        qkv = torch.bmm(self.norm1(x), self.in_proj[:k].mT).unflatten(-1, (3, self.heads, -1))
        q, key, v = qkv.permute(2, 1, 3, 0, 4).unbind(0)      # [k, n, 3, h, e] -> three [n, h, k, e]
        y = F.scaled_dot_product_attention(q, key, v, is_causal=True)
        x = x + torch.bmm(y.permute(2, 0, 1, 3).flatten(2), self.out_proj[:k].mT)
        gate, value = torch.bmm(self.norm2(x), self.linear_in[:k].mT).chunk(2, -1)
        return x + torch.bmm(F.silu(gate) * value, self.linear_out[:k].mT)

    def step(self, x: Tensor, k: int, keys: Tensor, values: Tensor, first: int) -> Tensor:
        """Step k alone: x [n, D]; writes keys, values [n, h, steps, e] of this frame; sees first..k."""
        q, key, v = F.linear(self.norm1(x), self.in_proj[k]).unflatten(-1, (3, self.heads, -1)).unbind(1)
        keys[:, :, k], values[:, :, k] = key, v
        y = F.scaled_dot_product_attention(q[:, :, None], keys[:, :, first:k + 1], values[:, :, first:k + 1])
        x = x + F.linear(y.flatten(1), self.out_proj[k])
        gate, value = F.linear(self.norm2(x), self.linear_in[k]).chunk(2, -1)
        return x + F.linear(F.silu(gate) * value, self.linear_out[k])


class Depth(nn.Module):
    def __init__(self, config: LMConfig):
        super().__init__()
        c, k, dim = config.depth, config.depth_steps, config.depth.dim
        self.steps = k
        self.inputs = per_step(k, dim, config.temporal.dim)
        self.text_embed = nn.Parameter(torch.randn(config.text_vocab + 1, dim) * 0.1)
        self.audio_embed = nn.Parameter(torch.randn(k - 1, config.audio_vocab + 1, dim) * 0.1)
        self.layers = nn.ModuleList(DepthLayer(k, dim, c.heads, c.hidden) for _ in range(c.layers))
        self.heads = per_step(k, config.audio_vocab, dim)

    def forward(self, hidden: Tensor, text: Tensor, audio: Tensor) -> Tensor:
        """Teacher-forced logits of the first k steps.

        hidden [n, d]; text int64 [n]; audio int64 [n, k] (the last step's token is only a target, never read)
        -> [n, k, audio_vocab]
        """
        k = audio.shape[1]
        previous = torch.stack([embed(self.text_embed, text)] +
                               [embed(self.audio_embed[i], audio[:, i]) for i in range(k - 1)])   # [k, n, D]
        x = F.linear(hidden, self.inputs[:k].flatten(0, 1)).unflatten(-1, (k, -1)).transpose(0, 1) + previous
        for layer in self.layers:
            x = layer(x)
        return torch.bmm(x, self.heads[:k].mT).transpose(0, 1)

    def sample(self, hidden: Tensor, text: Tensor, forced: Tensor, draw: Callable[[int, Tensor], Tensor],
               steps: int | None = None, ring: str = "exact") -> Tensor:
        """Draw one frame, step by step; returns what was drawn, int64 [n, steps].

        hidden [n, d]; text int64 [n]; forced int64 [n, steps]: what later steps are told (-2: the draw);
        draw(step, logits float32 [n, audio_vocab]) -> int64 [n]. ring="official" hides step 0 from the very
        last step, as the official code's cache does.
        """
        steps = steps or self.steps
        n, dim, heads = len(hidden), self.inputs.shape[1], self.layers[0].heads
        cache = hidden.new_empty(len(self.layers), 2, n, heads, steps, dim // heads)
        drawn, x = [], embed(self.text_embed, text)
        for k in range(steps):
            x = x + F.linear(hidden, self.inputs[k])
            first = 1 if ring == "official" and k == self.steps - 1 else 0
            for i, layer in enumerate(self.layers):
                x = layer.step(x, k, *cache[i], first)
            drawn.append(draw(k, F.linear(x, self.heads[k]).float()))
            if k + 1 < steps:
                told = torch.where(forced[:, k] == UNGIVEN, drawn[-1], forced[:, k])
                x = embed(self.audio_embed[k], told)
        return torch.stack(drawn, 1)


def embed(table: Tensor, tokens: Tensor) -> Tensor:
    """Rows of a table; the token -1 (no input) is a row of zeros."""
    return F.embedding(tokens.clamp(min=0), table) * (tokens >= 0).unsqueeze(-1).to(table.dtype)
