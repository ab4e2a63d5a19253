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
    """The temporal transformer with its embeddings and text head; `depth` is the second transformer."""

    def __init__(self, config: LMConfig):
        super().__init__()
        self.config = config
        dim = config.temporal.dim
        # One row more than there are tokens: the start token.
        text = torch.randn(config.text_vocab + 1, dim)
        audio = torch.randn(config.rows - 1, config.audio_vocab + 1, dim)
        self.text_embed = nn.Parameter(text * 0.25)
        self.audio_embed = nn.Parameter(audio * 0.25)
        self.temporal = Transformer(config.temporal)
        self.out_norm = RMSNorm(dim)
        self.text_head = nn.Linear(dim, config.text_vocab, bias=False)
        self.depth = Depth(config)

    def embed(self, columns: Tensor) -> Tensor:
        """columns int64 [..., 17], -1 = no input -> [..., d], the sum of 17 embeddings."""
        text = columns[..., 0]
        tokens = columns[..., 1:]
        # The 16 audio tables as one long table: each row's tokens begin where its own table does.
        entries = self.audio_embed.shape[1]
        rows = torch.arange(tokens.shape[-1], device=tokens.device)
        ids = tokens.clamp(min=0) + rows * entries
        heard = (tokens >= 0).to(self.audio_embed.dtype)
        # Look up and add in one kernel; "no input" counts nothing.
        audio = F.embedding_bag(
            ids.flatten(0, -2),
            self.audio_embed.flatten(0, 1),
            mode="sum",
            per_sample_weights=heard.flatten(0, -2),
        )
        return audio.view(*text.shape, -1) + embed(self.text_embed, text)

    def hidden(self, columns: Tensor) -> Tensor:
        """Offline: columns [b, t, 17] from the first on -> hidden [b, t, d]."""
        x = self.embed(columns)
        start = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return self.out_norm(self.temporal(x, start))

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher-forced over a delayed grid [b, 17, 1 + t] (`grid.delay`). Returns, for columns 1..t: hidden
        [b, t, d], text logits [b, t, text_vocab], audio logits [b, t, depth_steps, audio_vocab].
        """
        columns = grid.transpose(1, 2)
        hidden = self.hidden(columns[:, :-1])
        # The depth model sees each column's own text, and its codes up to the one it guesses.
        target = columns[:, 1:]
        text = target[..., 0]
        codes = target[..., 1:1 + self.config.depth_steps]
        frames = hidden.flatten(0, 1)                                  # [n, d], n = b · t
        audio = self.depth(frames, text.flatten(), codes.flatten(0, 1))
        audio = audio.unflatten(0, text.shape)
        return hidden, self.text_head(hidden).float(), audio.float()

    def new_state(self, batch: int = 1, ring: str = "exact", pinning: bool = False) -> KVState:
        """Empty memory of the temporal transformer, which takes one column at a time."""
        return self.temporal.new_state(batch, 1, ring, pinning)

    def step(self, x: Tensor, t: Tensor, state: KVState,
             active: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Live: x [b, d] (an embedded column), t int64 [b] -> hidden [b, d], text logits float32 [b, V]."""
        y = self.temporal(x[:, None], t, state, active)
        hidden = self.out_norm(y)[:, 0]
        return hidden, self.text_head(hidden).float()
