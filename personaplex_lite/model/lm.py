"""The language model: a column of 17 tokens in, a hidden vector and text logits out; depth.py does the codes.

What departs from the textbook: one step reads 17 tokens (their embeddings are summed) and writes 17. The
text head speaks first (the "inner monologue"); the codes of the same frame are conditioned on its token.

Shapes: b conversations, t columns, d dims.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LMConfig
from .depth import Depth, embed
from .transformer import KVState, RMSNorm, Transformer


class LM(nn.Module):
    def __init__(self, config: LMConfig):
        super().__init__()
        self.config, d = config, config.temporal.dim
        self.text_embed = nn.Parameter(torch.randn(config.text_vocab + 1, d) * 0.25)
        self.audio_embed = nn.Parameter(torch.randn(config.rows - 1, config.audio_vocab + 1, d) * 0.25)
        self.temporal = Transformer(config.temporal)
        self.out_norm = RMSNorm(d)
        self.text_head = nn.Linear(d, config.text_vocab, bias=False)
        self.depth = Depth(config)

    def embed(self, columns: Tensor) -> Tensor:
        """columns int64 [..., 17], -1 = no input -> [..., d], the sum of 17 embeddings."""
        tokens = columns[..., 1:]
        tables = torch.arange(tokens.shape[-1], device=tokens.device) * self.audio_embed.shape[1]
        flat = (tokens.clamp(min=0) + tables).flatten(0, -2)
        heard = (tokens >= 0).to(self.audio_embed.dtype).flatten(0, -2)
        audio = F.embedding_bag(flat, self.audio_embed.flatten(0, 1), mode="sum", per_sample_weights=heard)
        return audio.view(*tokens.shape[:-1], -1) + embed(self.text_embed, columns[..., 0])

    def hidden(self, columns: Tensor) -> Tensor:
        """Offline: columns [b, t, 17] from the first on -> hidden [b, t, d]."""
        start = torch.zeros(len(columns), dtype=torch.int64, device=columns.device)
        return self.out_norm(self.temporal(self.embed(columns), start))

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher-forced over a delayed grid [b, 17, 1 + t] (`grid.delay`). Returns, for columns 1..t: hidden
        [b, t, d], text logits [b, t, text_vocab], audio logits [b, t, depth_steps, audio_vocab].
        """
        columns = grid.transpose(1, 2)
        h, then = self.hidden(columns[:, :-1]), columns[:, 1:]
        audio = self.depth(h.flatten(0, 1), then[..., 0].flatten(),
                           then[..., 1:1 + self.config.depth_steps].flatten(0, 1))
        return h, self.text_head(h).float(), audio.unflatten(0, h.shape[:2]).float()

    def new_state(self, batch: int = 1, ring: str = "exact", pinning: bool = False) -> KVState:
        return self.temporal.new_state(batch, 1, ring, pinning)

    def step(self, x: Tensor, t: Tensor, state: KVState,
             active: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Live: x [b, d] (an embedded column), t int64 [b] -> hidden [b, d], text logits float32 [b, V]."""
        h = self.out_norm(self.temporal(x[:, None], t, state, active))[:, 0]
        return h, self.text_head(h).float()
