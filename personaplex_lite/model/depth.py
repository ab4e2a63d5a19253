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
        scale = inner ** -0.5
        self.weight = nn.Parameter(torch.randn(steps, out, inner) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """The first k steps at once: x [k, n, in] -> [k, n, out]."""
        weight = self.weight[:len(x)]
        return torch.bmm(x, weight.mT)

    def at(self, k: int, x: Tensor) -> Tensor:
        """Step k alone: x [n, in] -> [n, out]."""
        return F.linear(x, self.weight[k])


class DepthLayer(nn.Module):
    """Pre-norm attention and SwiGLU over the steps of one frame, e dims a head."""

    def __init__(self, k: int, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1 = RMSNorm(dim)
        self.norm2 = RMSNorm(dim)
        self.in_proj = PerStep(k, 3 * dim, dim)          # rows: q, k, v; each head by head
        self.out_proj = PerStep(k, dim, dim)
        self.linear_in = PerStep(k, 2 * hidden, dim)     # SwiGLU: first half is squashed, second multiplies
        self.linear_out = PerStep(k, dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """All steps at once, teacher-forced: x [k, n, D], k may be fewer than the weights have."""
        # Each step looks at itself and the steps before it.
        qkv = self.in_proj(self.norm1(x))
        qkv = qkv.unflatten(-1, (3, self.heads, -1))              # [k, n, 3, h, e]
        qkv = qkv.permute(2, 1, 3, 0, 4)                          # [3, n, h, k, e]
        q, key, value = qkv.unbind(0)
        seen = F.scaled_dot_product_attention(q, key, value, is_causal=True)
        seen = seen.permute(2, 0, 1, 3)                           # [k, n, h, e]
        x = x + self.out_proj(seen.flatten(2))
        # Then each thinks for itself.
        y = self.linear_in(self.norm2(x))
        gate, value = y.chunk(2, -1)
        return x + self.linear_out(F.silu(gate) * value)

    def step(self, x: Tensor, k: int, cache: Tensor, first: int) -> Tensor:
        """Step k alone: x [n, D]; writes keys and values to cache [2, n, h, steps, e]; sees first..k."""
        qkv = self.in_proj.at(k, self.norm1(x))
        qkv = qkv.unflatten(-1, (3, self.heads, 1, -1))           # [n, 3, h, 1, e]
        q, key, value = qkv.unbind(1)
        # Remember this step, look at all that may be seen.
        keys, values = cache                                      # two [n, h, steps, e]
        keys[:, :, k:k + 1] = key
        values[:, :, k:k + 1] = value
        visible = slice(first, k + 1)
        seen = F.scaled_dot_product_attention(q, keys[:, :, visible], values[:, :, visible])
        x = x + self.out_proj.at(k, seen.flatten(1))
        y = self.linear_in.at(k, self.norm2(x))
        gate, value = y.chunk(2, -1)
        return x + self.linear_out.at(k, F.silu(gate) * value)


class Depth(nn.Module):
    """Step 0 reads the text token and gives code 0; step k reads code k - 1 and gives code k."""

    def __init__(self, config: LMConfig):
        super().__init__()
        size = config.depth
        dim = size.dim
        steps = config.depth_steps
        self.steps = steps
        self.inputs = PerStep(steps, dim, config.temporal.dim)
        # One row more than there are tokens: the start token.
        text = torch.randn(config.text_vocab + 1, dim)
        audio = torch.randn(steps - 1, config.audio_vocab + 1, dim)
        self.text_embed = nn.Parameter(text * 0.1)
        self.audio_embed = nn.Parameter(audio * 0.1)
        layers = (DepthLayer(steps, dim, size.heads, size.hidden) for _ in range(size.layers))
        self.layers = nn.ModuleList(layers)
        self.heads = PerStep(steps, config.audio_vocab, dim)

    def forward(self, hidden: Tensor, text: Tensor, audio: Tensor) -> Tensor:
        """Teacher-forced logits of the first k steps.

        hidden [n, d]; text int64 [n]; audio int64 [n, k] (the last step's token is only a target, never read)
        -> [n, k, audio_vocab]
        """
        steps = audio.shape[1]
        # Each step is told the token before its own: the text, then the codes.
        told = [embed(self.text_embed, text)]
        for k in range(steps - 1):
            code = audio[:, k]
            told.append(embed(self.audio_embed[k], code))
        same = hidden.expand(steps, -1, -1)           # [k, n, d]
        x = self.inputs(same) + torch.stack(told)     # [k, n, D]
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
        heads = self.layers[0].heads
        head_dim = self.text_embed.shape[1] // heads
        # Keys and values of this frame alone.
        cache = hidden.new_empty(len(self.layers), 2, len(hidden), heads, steps, head_dim)
        drawn = []
        told = embed(self.text_embed, text)
        for k in range(steps):
            # What is to be said, and the token before this one, become one code.
            x = told + self.inputs.at(k, hidden)
            hides_first = ring == "official" and k == self.steps - 1
            for layer, remembered in zip(self.layers, cache):
                x = layer.step(x, k, remembered, first=int(hides_first))
            logits = self.heads.at(k, x)
            code = draw(k, logits.float())
            drawn.append(code)
            # The next step is told this code, or the one that is known already.
            if k + 1 < steps:
                known = forced[:, k]
                code = torch.where(known == UNGIVEN, code, known)
                told = embed(self.audio_embed[k], code)
        return torch.stack(drawn, 1)


def embed(table: Tensor, tokens: Tensor) -> Tensor:
    """Rows of a table; the token -1 (no input) is a row of zeros."""
    rows = F.embedding(tokens.clamp(min=0), table)
    heard = (tokens >= 0).unsqueeze(-1)
    return rows * heard.to(table.dtype)
