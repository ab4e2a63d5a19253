"""Checks of notebook 09: distances, losses, stopping, low rank."""
from __future__ import annotations

import math

import numpy as np
import torch

from .common import call, check, expect

__all__ = ["spectral_distance", "weighted_loss", "early_stopping", "choices", "squeeze"]


def _log_spectrum(sound) -> np.ndarray:
    """The notebook's spectrum (512 samples, every 128, ends mirrored) without torch, then its logarithm."""
    x = np.pad(np.asarray(sound, np.float64), 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    pieces = np.lib.stride_tricks.sliding_window_view(x, 512)[::128]
    return np.log(np.maximum(np.abs(np.fft.rfft(pieces * window, axis=1)), 0.01))


@check
def spectral_distance(answer) -> str:
    dice = torch.Generator().manual_seed(0)
    loud = torch.randn(6000, generator=dice) * torch.linspace(0, 0.3, 6000)
    other = torch.randn(6000, generator=dice) * 0.02
    for a, b, what in ((loud, 0 * loud, "a noise and silence"), (loud, other, "two noises"),
                       (loud, -loud, "a sound and the same upside down")):
        wanted = np.abs(_log_spectrum(a) - _log_spectrum(b)).mean()
        got = call(answer, a, b)
        expect(np.ndim(got) == 0, "the distance is one number, yours has a shape")
        expect(math.isfinite(got), f"for {what} it is {float(got)}: what does the logarithm make of 0?")
        off = float(got) - wanted
        expect(abs(off) < 2e-3, f"the distance between {what}: yours is {float(got):.3g}, {off:+.2g} off")
    return "upside down is no distance at all now; phase is the decoder's own business"


@check
def weighted_loss(answer) -> str:
    from ...training.lm import cross_entropy
    dice = torch.Generator().manual_seed(1)
    logits, target = 3 * torch.randn(40, 7, generator=dice), torch.randint(7, (40,), generator=dice)
    cases = {"equal weights": torch.ones(40), "many weights 0": (torch.arange(40) % 3 == 0).float(),
             "weights of all sizes": 3 * torch.rand(40, generator=dice)}
    for what, weight in cases.items():
        got = call(answer, logits, target, weight)
        wanted = float(cross_entropy(logits, target, weight))
        expect(np.ndim(got) == 0, "the loss is one number, yours has a shape")
        off = float(got) - wanted
        expect(abs(off) < 1e-4, f"with {what} the loss is {float(got):.4g} by yours, {off:+.2g} off; "
               "have −log p and weight the same shape?")
    return "with all weights alike this is torch's own cross_entropy"


@check
def early_stopping(answer) -> str:
    curves = [([5, 4, 3, 2, 1], 2, 4), ([5, 3, 4, 4.5, 2], 2, 1), ([5, 3, 4, 4.5, 2], 3, 4),
              ([1, 2, 3], 9, 0), ([4, 3, 3.5, 2.5, 3, 3.1, 0.5], 2, 3), ([2, 2, 2, 1], 2, 0)]
    for losses, patience, wanted in curves:
        got = call(answer, losses, patience)
        expect(int(got) == got, "an index is a whole number")
        expect(got == wanted, f"{losses} with patience {patience}: yours keeps {got}, which is not the one")
    return "and patience is one more number that may not be tuned on what you report"


@check
def choices(answer) -> str:
    for n, what in ((1, "certainty"), (2, "a coin"), (6, "a die"), (256, "the whole codebook")):
        got = float(call(answer, math.log(n)))
        expect(abs(got - n) < 1e-6 * n, f"{what} has the loss {math.log(n):.2f}; yours makes {got:.3g} of it")
    return ("its name is perplexity; the first codec's last .81 nats of 42 phoneme classes feel like "
            f"{math.exp(0.81):.1f}")


@check
def squeeze(answer) -> str:
    dice = torch.Generator().manual_seed(2)
    for out, inner, rank in ((12, 20, 3), (30, 8, 1), (10, 10, 10)):
        difference = torch.randn(out, inner, generator=dice)
        got = call(answer, difference.clone(), rank)
        expect(isinstance(got, (tuple, list)) and len(got) == 2, "return two matrices, B and A")
        shapes = [list(x.shape) for x in got]
        expect(shapes == [[out, rank], [rank, inner]],
               f"for {out} × {inner} at rank {rank} the shapes are {shapes[0]} and {shapes[1]}")
        left = torch.linalg.matrix_norm(difference - got[0] @ got[1])
        s = torch.linalg.svdvals(difference)
        expect(left <= s[rank:].norm() + 1e-3 * s[0],
               f"for {out} × {inner} at rank {rank}, {left / s.norm():.0%} of the difference are left over, "
               "and another pair leaves less")
    return "and that is the best there is (Eckart and Young, 1936)"
