"""Drawing a token: temperature, top-k, and dice that belong to the conversation.

What departs from the textbook: no generator object. The noise for one candidate token is a hash of (seed,
step, row, token), so a conversation draws the same tokens alone or in a batch, on any device, after a save
and restore, and nothing waits for the device. The draw itself is the official one: the largest p / Exp(1)
among the top k.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .config import SamplingConfig

_MULTIPLIERS = (-7046029254386353131, -4417276706812531889, 7046029288634856825)


def exponential(seed: Tensor, t: Tensor, rows: Tensor, size: int) -> Tensor:
    """Exp(1) noise float32 [b, r, size]: for every token of `rows` int64 [r], at steps t [b], seeds [b]."""
    token = torch.arange(size, device=t.device) + (rows << 32)[:, None]
    x = (seed * _MULTIPLIERS[0] + t * _MULTIPLIERS[1])[:, None, None] + token * _MULTIPLIERS[2]
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):   # splitmix64
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return -torch.log((((x >> 41) & 0x7FFFFF) + 0.5) / (1 << 23))     # 23 bits: never rounded up to 1


def sample(logits: Tensor, temperature: float, top_k: int, noise: Callable[[], Tensor]) -> Tensor:
    """logits float32 [b, V] -> tokens int64 [b]; noise() [b, V] is asked for unless temperature 0: argmax."""
    if temperature == 0:
        return logits.argmax(-1)
    p, ids = torch.softmax(logits / temperature, -1).topk(min(top_k, logits.shape[-1]))
    best = (p / noise().gather(-1, ids)).argmax(-1, keepdim=True)
    return ids.gather(-1, best)[:, 0]


class Dice:
    """Draws the tokens of one step, text first; keeps the codes' logits when somebody wants to look."""

    def __init__(self, sampling: SamplingConfig, seed: Tensor, t: Tensor, keep: bool):
        self.sampling, self.seed, self.t, self.keep = sampling, seed, t, keep
        self.logits, self._noise = [], None

    def text(self, logits: Tensor) -> Tensor:
        s, row = self.sampling, torch.zeros(1, dtype=torch.int64, device=logits.device)
        return sample(logits, s.text_temperature, s.text_top_k,
                      lambda: exponential(self.seed, self.t, row, logits.shape[-1])[:, 0])

    def __call__(self, k: int, logits: Tensor) -> Tensor:
        """The code of depth step k."""
        if self.keep:
            self.logits.append(logits)
        s = self.sampling
        return sample(logits, s.audio_temperature, s.audio_top_k, lambda: self._audio(logits.shape[-1])[:, k])

    def _audio(self, size: int) -> Tensor:
        """The noise of all 16 rows at once [b, 16, size]: one hash, not sixteen."""
        if self._noise is None:
            rows = torch.arange(1, 17, device=self.t.device)
            self._noise = exponential(self.seed, self.t, rows, size)
        return self._noise
