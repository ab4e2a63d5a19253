"""Checks of `01_codec_tokens`."""
from __future__ import annotations

import math

import torch

from ...model.config import tiny
from ...model.rvq import ResidualQuantizer
from .common import call, check, expect

__all__ = ["better_codes", "code_entropy", "codec_bitrate", "residual_codes"]


def dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number(got) -> float:
    expect(isinstance(got, int | float) or getattr(got, "ndim", 1) == 0, "give one number")
    return float(got)


@check
def codec_bitrate(answer):
    for codebooks, bins, rate in ((1, 2, 1), (8, 256, 12.5), (8, 2048, 12.5), (4, 1024, 75), (3, 1000, 10)):
        wanted = rate * codebooks * math.log(bins) / math.log(2)
        got = number(call(answer, codebooks, bins, rate))
        expect(abs(got - wanted) < 1e-3 * wanted,
               f"{codebooks} codebook(s) of {bins} values, {rate} frames a second: yours says {got:.4g}, "
               f"which is too {'much' if got > wanted else 'little'}")
    return "and the 7B's codec, 8 codebooks of 2048, makes 1100 bits a second: a telephone takes 64 000"


@check
def residual_codes(answer):
    """Against the package's quantiser with random weights; each codebook is half as wide as the last."""
    config = tiny()[1]
    part = ResidualQuantizer(config, 4)
    for i, book in enumerate(part.codebooks):
        book.embedding_sum.copy_(torch.randn(book.embedding_sum.shape, generator=dice(i)) * 0.5 ** i)
    part.input_proj.weight.data.copy_(torch.eye(*part.input_proj.weight.shape))
    latent = torch.randn(1, 50, config.dim, generator=dice(9))
    with torch.no_grad():
        wanted, x = part.encode(latent, 4)[0], part.input_proj(latent)[0]
        books = [book.entries.clone() for book in part.codebooks]
        given = x.clone()
        got = call(answer, x, books)
    expect(torch.is_tensor(got) and not got.is_floating_point(), "codes are integers in one tensor")
    expect(torch.equal(x, given), "your function has changed its input x: make a new tensor for the rest")
    expect(got.shape == wanted.shape,
           f"the codes have the shape {list(got.shape)}, expected {list(wanted.shape)}")
    for k in range(len(books)):
        share = float((got[k] == wanted[k]).float().mean())
        expect(share == 1, f"codebook {k + 1} agrees in {share:.0%} of the frames"
               + (", the ones before it in all" if k else ""))
    return "the package's own codes; within a quantiser, each codebook only sees what the ones before it left"


@check
def code_entropy(answer):
    skewed = torch.tensor([0, 0, 0, 0, 1, 1, 2, 7])                   # 1/2, 1/4, 1/8, 1/8
    cases = (("one code all the time", torch.full((40,), 3), 0.0),
             ("a fair coin", torch.arange(1000) % 2, 1.0),
             ("256 codes, all alike", torch.arange(2560) % 256, 8.0),
             ("shares 1/2, 1/4, 1/8, 1/8", skewed, 1.75))
    for name, codes, wanted in cases:
        got = number(call(answer, codes))
        expect(got == got, f"{name}: yours says nan, which is not a number")
        expect(abs(got - wanted) < 1e-3, f"{name}: yours says {got:.2f} bits, "
                                         f"too {'many' if got > wanted else 'few'}")
    return "a code that can be foreseen carries little, and the language model's work is to foresee it"


@check
def better_codes(answer):
    """Against a search over plain lists; room for 125 chains is room for all there are."""
    books = [torch.randn(5, 3, generator=dice(i)) for i in range(3)]
    points, gained = torch.randn(20, 3, generator=dice(7)) * 1.5, 0
    for x in points:
        left = {}
        for width in (1, 4, 125):
            got = call(answer, x, books, width)
            expect(torch.is_tensor(got) and got.shape == (3,), "three codebooks must give three codes: "
                   "fill in the cell above, if you have not")
            wanted = chain(x, books, width)
            kind = "the greedy loop's codes" if width == 1 else f"the best of {width} chains"
            expect(got.tolist() == wanted, f"with width {width} it does not find {kind}")
            left[width] = float((x - sum(book[c] for book, c in zip(books, wanted))).square().sum())
        gained += left[125] < left[1] - 1e-6
    return f"in {gained} of {len(points)} cases the greedy loop had missed a better chain"


def chain(x: torch.Tensor, books: list, width: int) -> list[int]:
    kept = [(0.0, [], x)]
    for entries in books:
        tried = [([*codes, i], rest - e) for _, codes, rest in kept for i, e in enumerate(entries)]
        tried = [(float(rest.square().sum()), codes, rest) for codes, rest in tried]
        kept = sorted(tried, key=lambda candidate: candidate[0])[:width]
    return kept[0][1]
