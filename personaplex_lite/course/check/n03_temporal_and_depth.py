"""Checks of notebook 03: one frame by hand, the delay, the text row, the guess of the user."""
from __future__ import annotations

import torch

from ...model import sampling
from ...model.config import tiny
from ...model.grid import undelay
from ...model.lm import LM
from ...talk.reply import Trace
from .common import call, check, expect, same

__all__ = ["sum_of_rows", "dice", "slanted", "written", "surprised"]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@check
@torch.no_grad()
def sum_of_rows(embed):
    """embed(lm, column int64 [17]) -> float [d]"""
    config = tiny()[0]
    lm, g = LM(config), _generator()
    full = torch.randint(0, config.audio_vocab, (config.rows,), generator=g)
    same(call(embed, lm, full), lm.embed(full[None])[0], "the sum for a full column", 1e-4)
    for row, name in ((5, "an audio row"), (0, "the text row")):
        column = full.clone()
        column[row] = -1
        same(call(embed, lm, column), lm.embed(column[None])[0], f"the sum with -1 in {name}", 1e-4)
    return "and as it is a sum, a row that is missing costs nothing but its own information"


@check
def dice(draw):
    """draw(logits [V], temperature, top_k, noise [V]) -> token"""
    g, v = _generator(), 40
    ids, drawn = torch.arange(v)[None], []
    for temperature, top_k in ((0, 5), (0.7, v), (0.7, 4), (2.0, v), (1.0, 1)):
        for t in range(60):
            logits, step, seed = 2 * torch.randn(v, generator=g), torch.tensor([t]), torch.tensor([1])
            noise = sampling.exponential(seed, step, 0, ids)[0]
            wanted = int(sampling.sample(logits[None], temperature, top_k, seed, step, 0))
            drawn.append(int(call(draw, logits, temperature, top_k, noise)))
            expect(drawn[-1] == wanted, f"temperature {temperature}, top-k {top_k} of {v}: draw {t} differs")
    return "and nothing is rolled: noise is a hash of seed, step, row and token, so talks can be replayed"


@check
def slanted(undo):
    """undo(columns [rows, T], delays) -> [rows, T - largest delay]"""
    g = _generator()
    for delays in ((0, 0, 1, 1), (0, 2, 1, 3, 0), (0, 0, 0)):
        columns = torch.randint(0, 99, (len(delays), 9), generator=g)
        config = tiny()[0].__class__(delays=delays)
        wanted = undelay(columns[None], config, 0)[0, :, :9 - max(delays)]
        same(call(undo, columns, delays), wanted, f"with the delays {list(delays)} the result")
    return "and this one delayed frame is why the model answers 80 ms later than it thinks"


class _Pieces:
    """A tokenizer that cuts words into letters, three at a time."""
    pad, epad = 3, 0

    def encode(self, word: str) -> list[int]:
        return [100 + sum(map(ord, word[i:i + 3])) for i in range(0, len(word), 3)]


@check
def written(script):
    """script(text, sentence, every) -> tokens"""
    text = _Pieces()
    for sentence, every in (("we are", 4), ("our refrigerator is cold", 5), ("unbelievable", 3)):
        wanted = []
        for word in sentence.split():
            pieces = text.encode(word)
            wanted += [text.epad, *pieces, *[text.pad] * max(0, every - 1 - len(pieces))]
        row = [int(token) for token in call(script, text, sentence, every)]
        expect(len(row) == len(wanted),
               f"{sentence!r} with {every} tokens a word takes {len(wanted)} frames, yours {len(row)}")
        same(row, wanted, f"the row of {sentence!r}")
    return "this is a text-to-speech system, hidden in a model that was never meant to be one"


@check
def surprised(surprise):
    """surprise(trace) -> float"""
    g = _generator()
    for _ in range(3):
        logits = 2 * torch.randn(1, 16, 32, generator=g)
        target = torch.randint(0, 32, (1, 17), generator=g)
        empty = torch.zeros(1, 1)
        guessed = torch.randint(0, 32, (1, 17), generator=g)
        trace = Trace(guessed, target, guessed, empty, empty, logits, {})
        p = torch.softmax(logits[0, 8:], -1)[torch.arange(8), target[0, 9:]]
        same(float(call(surprise, trace)), float(-p.log().mean()), "the surprise", 1e-4)
    return "who guesses blindly among n codes is surprised by log n; more means it was confidently wrong"
