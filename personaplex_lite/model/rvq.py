"""Residual vector quantisation: a vector becomes a short list of codebook entries.

What departs from the textbook: two quantisers stand side by side on the *same* latent. The first has one
codebook (semantic: what is said), the other seven (acoustic: how it sounds); the second does not see the
first's residual. Entries are stored as running sums and counts, as training keeps them.

Shapes: b rows, t frames, q codebooks, d entry dims.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import MimiConfig


class Codebook(nn.Module):
    """`bins` entries; entry = embedding_sum / usage, so that training can average into it."""

    def __init__(self, bins: int, dim: int):
        super().__init__()
        self.register_buffer("embedding_sum", torch.randn(bins, dim))
        self.register_buffer("cluster_usage", torch.ones(bins))
        self.register_buffer("initialized", torch.ones(1))   # stored by the official files, not used
        self._cached = None

    @property
    def entries(self) -> Tensor:
        """[bins, d], made again whenever the sums change."""
        return self._current()[0]

    def _current(self) -> tuple[Tensor, Tensor]:
        """The entries and their squared lengths [bins]; the sums' version counters tell when they are old."""
        stamp = self.embedding_sum.data_ptr(), self.embedding_sum._version, self.cluster_usage._version
        if self._cached is None or self._cached[0] != stamp:
            entries = self.embedding_sum / self.cluster_usage.clamp(min=1e-5)[:, None]
            self._cached = stamp, (entries, entries.square().sum(-1))
        return self._cached[1]

    def encode(self, x: Tensor) -> Tensor:
        """Nearest entry of each vector: x [..., d] -> int64 [...]."""
        entries, squares = self._current()
        return (squares - 2 * x @ entries.T).argmin(-1)          # |x|² is the same for all

    def decode(self, codes: Tensor) -> Tensor:
        return self.entries[codes]


class ResidualQuantizer(nn.Module):
    """Project down, then let each codebook describe what the ones before it left over."""

    def __init__(self, config: MimiConfig, codebooks: int):
        super().__init__()
        self.input_proj = nn.Linear(config.dim, config.codebook_dim, bias=False)
        self.output_proj = nn.Linear(config.codebook_dim, config.dim, bias=False)
        self.codebooks = nn.ModuleList(Codebook(config.bins, config.codebook_dim) for _ in range(codebooks))

    def encode(self, latent: Tensor, use: int) -> Tensor:
        """latent [b, t, dim] -> codes [b, use, t] by the first `use` codebooks."""
        rest, codes = self.input_proj(latent), []
        for book in self.codebooks[:use]:
            codes.append(book.encode(rest))
            rest = rest - book.decode(codes[-1])
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [b, q, t] -> [b, t, dim]"""
        return self.output_proj(sum(book.decode(c) for book, c in zip(self.codebooks, codes.unbind(1))))


class SplitRVQ(nn.Module):
    """One semantic codebook beside seven acoustic ones (Moshi paper, section 3.3.3)."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        self.use = config.codebooks
        self.semantic = ResidualQuantizer(config, 1)
        self.acoustic = ResidualQuantizer(config, config.codebooks_stored - 1)

    def encode(self, latent: Tensor) -> Tensor:
        """latent [b, t, dim] -> int64 [b, q, t]; row 0 is the semantic one."""
        return torch.cat([self.semantic.encode(latent, 1), self.acoustic.encode(latent, self.use - 1)], 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [b, q, t], any q from 1 -> latent [b, t, dim]"""
        latent = self.semantic.decode(codes[:, :1])
        return latent + self.acoustic.decode(codes[:, 1:]) if codes.shape[1] > 1 else latent
