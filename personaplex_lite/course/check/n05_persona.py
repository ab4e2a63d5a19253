"""Checks of `05_persona`: the prompt, a voice's pitch, the time until it is forgotten, what a ring holds."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ...model.config import LMConfig, tiny
from ...model.transformer import Transformer
from ...talk.persona import lay_out
from .common import call, check, expect

__all__ = ["persona_layout", "voice_pitch", "persona_seconds", "ring_holds"]


@check
def persona_layout(answer):
    """answer : codes [8, n], words, config -> int64 [17, p]. Against `persona.lay_out`, two models' codes."""
    dice = torch.Generator().manual_seed(0)
    big, small = LMConfig(), tiny()[0]
    for config, n, words in ((big, 24, [7, 8, 9]), (small, 5, list(range(10, 30))), (big, 0, [5])):
        codes = torch.randint(0, config.audio_vocab, (8, n), generator=dice)
        wanted = lay_out(codes.T, words, config).tokens.T
        got = call(answer, codes.clone(), list(words), config)
        told = f"for {n} frames of voice and {len(words)} token(s)"
        expect(torch.is_tensor(got) and not got.is_floating_point(), "give one tensor of integers")
        shapes = list(got.shape), list(wanted.shape)
        expect(got.shape == wanted.shape, f"{told} it has the shape {shapes[0]}, expected {shapes[1]}")
        parts = (config.user, "the user's rows"), (config.agent, "the agent's rows"), ([0], "the text row")
        for rows, what in parts:
            wrong = (got[rows] != wanted[rows]).any(0).nonzero().flatten().tolist()
            first = (wrong or [0])[0]
            expect(not wrong, f"{told}, {len(wrong)} column(s) of {what} are wrong, the first is {first}")
    return "pp's own prompt, token for token; somebody without a voice just begins with six frames of silence"


@check
def voice_pitch(answer):
    """answer : float [n] at 24 kHz -> Hz. On made-up voices, weaker than their overtones."""
    t = np.arange(1920) / 24_000
    for hertz in (80, 110, 160, 220, 300, 390):
        louds = (0.1, 0.3, 0.2, 0.1)
        pcm = sum(loud * np.sin(2 * np.pi * hertz * (i + 1) * t + i) for i, loud in enumerate(louds))
        got = float(call(answer, pcm.astype(np.float32)))
        expect(abs(got - hertz) < 0.03 * hertz,
               f"a voice of {hertz} Hz with strong overtones has {got:.0f} Hz by yours")
    return "and yours is not fooled by overtones, which are often louder than the pitch itself"


@check
def persona_seconds(answer):
    """answer : voice seconds, role tokens, context -> seconds until a persona's first step is overwritten."""
    cases = ("lite", 2, 33, 500), ("the 7B", 10, 400, 3000), ("a small one", 4, 8, 100)
    for model, voice, tokens, context in cases:
        codes = torch.zeros(int(voice * 12.5), 8, dtype=torch.int64)
        wanted = (context - len(lay_out(codes, [5] * tokens, LMConfig()))) * 0.08
        got = float(call(answer, voice, tokens, context))
        side = "long" if got > wanted else "short"
        expect(-0.005 < got - wanted < 0.085,             # the prompt's first frame may be counted or not
               f"for {model} ({voice} s of voice, {tokens} tokens, {context} slots) it is "
               f"{abs(got - wanted):.2f} s too {side}")
    return "a long role costs twice: seconds before you may speak, and seconds at the end"


@check
def ring_holds(answer):
    """answer : t, slots, kept -> the steps held, in order. Against the memory of a real transformer."""
    config = tiny()[0].temporal
    for slots, kept in ((8, 0), (8, 3), (12, 6), (5, 1)):
        state = Transformer(replace(config, context=slots)).new_state(1, pinning=True)
        for t in range(3 * slots):
            state.claim(torch.tensor([[t]]), None)
            if t + 1 == kept:
                state.pin(None, torch.tensor([kept]))
            got, wanted = list(call(answer, t, slots, kept)), sorted(state.pos[state.pos >= 0].tolist())
            told = f"after step {t}, {slots} slots, {kept} kept"
            expect(len(got) == len(wanted), f"{told}: the ring holds {len(wanted)} steps, yours {len(got)}")
            wrong = [i for i, (a, b) in enumerate(zip(got, wanted)) if a != b]
            expect(not wrong, f"{told}: entry {(wrong or [0])[0]} of {got} is wrong")
    return "that is `KVState.claim`: one line of arithmetic, and nothing is ever moved"
