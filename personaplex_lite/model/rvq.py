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
        self._stamp = None       # what the cached entries were made of
        self._cached = None

    @property
    def entries(self) -> Tensor:
        """[bins, d], made again whenever the sums change."""
        return self._current()[0]

    def _current(self) -> tuple[Tensor, Tensor]:
        """The entries and their squared lengths [bins]; the sums' version counters tell when they are old."""
        total = self.embedding_sum
        stamp = (total.data_ptr(), total._version, self.cluster_usage._version)
        if self._stamp != stamp:
            usage = self.cluster_usage.clamp(min=1e-5)
            entries = total / usage[:, None]
            squares = entries.square().sum(-1)
            self._cached = (entries, squares)
            self._stamp = stamp
        return self._cached

    def encode(self, x: Tensor) -> Tensor:
        """Nearest entry of each vector: x [..., d] -> int64 [...]."""
        entries, squares = self._current()
        # |x - e|² = |x|² - 2 x·e + |e|², and |x|² is the same for all.
        distances = squares - 2 * x @ entries.T
        return distances.argmin(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """int64 [...] -> their entries [..., d]."""
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
        rest = self.input_proj(latent)
        codes = []
        for book in self.codebooks[:use]:
            code = book.encode(rest)
            codes.append(code)
            rest = rest - book.decode(code)
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [b, q, t] -> [b, t, dim], what the entries add up to."""
        total = 0
        for book, code in zip(self.codebooks, codes.unbind(1)):
            total = total + book.decode(code)
        return self.output_proj(total)


class SplitRVQ(nn.Module):
    """One semantic codebook beside seven acoustic ones (Moshi paper, section 3.3.3)."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        self.use = config.codebooks
        self.semantic = ResidualQuantizer(config, 1)
        self.acoustic = ResidualQuantizer(config, config.codebooks_stored - 1)

    def encode(self, latent: Tensor) -> Tensor:
        """latent [b, t, dim] -> int64 [b, q, t]; row 0 is the semantic one."""
        semantic = self.semantic.encode(latent, 1)
        acoustic = self.acoustic.encode(latent, self.use - 1)
        return torch.cat([semantic, acoustic], 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [b, q, t], any q from 1 -> latent [b, t, dim]"""
        latent = self.semantic.decode(codes[:, :1])
        if codes.shape[1] == 1:
            return latent
        return latent + self.acoustic.decode(codes[:, 1:])
