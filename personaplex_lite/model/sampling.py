"""Drawing a token: temperature, top-k, and dice that belong to the conversation.

What departs from the textbook: no generator object. The noise for one candidate token is a hash of (seed,
step, row, token), so a conversation draws the same tokens alone or in a batch, on any device, after a save
and restore, and nothing waits for the device. The draw itself is the official one: the largest p / Exp(1)
among the top k.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .config import SamplingConfig

_MULTIPLIERS = (-7046029254386353131, -4417276706812531889, 7046029288634856825)


def exponential(seed: Tensor, t: Tensor, row: int, ids: Tensor) -> Tensor:
    """Exp(1) noise float32 [b, n] for candidates ids [b, n] of a row, at steps t [b], with seeds seed [b]."""
    candidate = ids + (row << 32)
    x = (seed * _MULTIPLIERS[0] + t * _MULTIPLIERS[1])[:, None] + candidate * _MULTIPLIERS[2]
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):   # splitmix64
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return -torch.log((((x >> 41) & 0x7FFFFF) + 0.5) / (1 << 23))     # 23 bits: never rounded up to 1


def sample(logits: Tensor, temperature: float, top_k: int, seed: Tensor, t: Tensor, row: int) -> Tensor:
    """logits float32 [b, V] -> tokens int64 [b]; temperature 0 is argmax."""
    if temperature == 0:
        return logits.argmax(-1)
    p, ids = torch.softmax(logits / temperature, -1).topk(min(top_k, logits.shape[-1]))
    best = (p / exponential(seed, t, row, ids)).argmax(-1, keepdim=True)
    return ids.gather(-1, best)[:, 0]


class Dice:
    """Draws the code of depth step k; keeps the logits when somebody wants to look."""

    def __init__(self, sampling: SamplingConfig, seed: Tensor, t: Tensor, keep: bool):
        self.sampling, self.seed, self.t, self.keep, self.logits = sampling, seed, t, keep, []

    def __call__(self, k: int, logits: Tensor) -> Tensor:
        if self.keep:
            self.logits.append(logits)
        s = self.sampling
        return sample(logits, s.audio_temperature, s.audio_top_k, self.seed, self.t, 1 + k)
