"""Drawing a token: temperature, top-k, and dice that belong to the conversation.

What departs from the textbook: no generator object. The noise for one candidate token is a hash of (seed,
step, row, token), so a conversation draws the same tokens alone or in a batch, on any device, after a save
and restore, and nothing waits for the device. The draw itself is the official one: the largest p / Exp(1)
among the top k.
"""
from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .config import SamplingConfig

# Large odd numbers (as int64) that spread seeds, steps and candidates over all 64 bits.
SEED_FACTOR = -7046029254386353131
STEP_FACTOR = -4417276706812531889
CANDIDATE_FACTOR = 7046029288634856825
SPLITMIX = (                      # (shift, factor) of each round
    (30, -4658895280553007687),
    (27, -7723592293110705685),
    (31, 1),
)


def exponential(seed: Tensor, t: Tensor, row: int, ids: Tensor) -> Tensor:
    """Exp(1) noise float32 [b, n] for candidates ids [b, n] of a row, at steps t [b], with seeds seed [b]."""
    moment = seed * SEED_FACTOR + t * STEP_FACTOR
    candidate = ids + (row << 32)
    x = moment[:, None] + candidate * CANDIDATE_FACTOR
    # splitmix64 makes noise of it.
    for shift, factor in SPLITMIX:
        x = (x ^ _shifted(x, shift)) * factor
    # The upper 23 bits, so that the number is never rounded up to 1, become uniform, then exponential.
    uniform = (_shifted(x, 41) + 0.5) / (1 << 23)
    return -torch.log(uniform)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits with zeros coming in from the left: torch's own repeats the sign."""
    ones = (1 << (64 - bits)) - 1
    return (x >> bits) & ones


def sample(logits: Tensor, temperature: float, top_k: int, seed: Tensor, t: Tensor, row: int) -> Tensor:
    """logits float32 [b, V] -> tokens int64 [b]; temperature 0 is argmax."""
    if temperature == 0:
        return logits.argmax(-1)
    count = min(top_k, logits.shape[-1])
    p = torch.softmax(logits / temperature, -1)
    p, ids = p.topk(count)                            # [b, count]
    noise = exponential(seed, t, row, ids)
    best = (p / noise).argmax(-1, keepdim=True)
    return ids.gather(-1, best)[:, 0]


@dataclass
class Dice:
    """Draws the code of depth step k; keeps the logits when somebody wants to look."""
    sampling: SamplingConfig
    seed: Tensor                 # [b] int64
    t: Tensor                    # [b] int64: the step
    keep: bool
    logits: list[Tensor] = field(default_factory=list)      # of each step so far, [b, V]

    def __call__(self, k: int, logits: Tensor) -> Tensor:
        """logits float32 [b, V] of depth step k -> tokens int64 [b]."""
        if self.keep:
            self.logits.append(logits)
        row = 1 + k
        temperature = self.sampling.audio_temperature
        top_k = self.sampling.audio_top_k
        return sample(logits, temperature, top_k, self.seed, self.t, row)
