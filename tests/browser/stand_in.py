"""An agent of random weights, a few milliseconds a frame: for tests that are not about what it says."""

from dataclasses import replace

import torch

import personaplex_lite as pp
from personaplex_lite.model.lm import LM
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.places import LITE
from personaplex_lite.talk.text import Text

torch.set_num_threads(1)


def agent() -> pp.Agent:
    text = Text(LITE / "tokenizer.model")
    lm, mimi = pp.config.tiny()
    torch.manual_seed(0)
    models = [m.eval().requires_grad_(False) for m in (LM(replace(lm, text_vocab=len(text))), Mimi(mimi))]
    return pp.Agent(*models, text, {"NATF0": LITE / "voices" / "NATF0.safetensors"})
