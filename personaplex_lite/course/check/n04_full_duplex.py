"""Checks of notebook 04: who has the floor, floor transfers, where two futures part, several futures."""
from __future__ import annotations

from itertools import groupby

import numpy as np
import torch

from .common import NotYet, call, check, expect, same

__all__ = ["floor_time", "floor_transfers", "first_difference", "several_futures"]

MADE_UP = [("11110000", "00001110"), ("1111100000", "0001110011"), ("0000", "0000"),
           ("110011001100", "000100000111"), ("0001110000", "1100000110"), ("11100", "00111")]


def _rows(pair) -> list[np.ndarray]:
    return [np.array([c == "1" for c in side]) for side in pair]


def _speech(talk) -> list[np.ndarray]:
    from ...audio import RATE
    from ...viz import speaking
    return [speaking(np.asarray(pcm), RATE) for pcm in (talk.user, talk.pcm)]


@check
def floor_time(floor, talk):
    """floor(user, agent) bool [t] -> seconds of user only, agent only, both, nobody. talk : a Reply."""
    for pair in MADE_UP:
        seen = list(zip(*pair))
        wanted = [0.08 * seen.count(state) for state in (("1", "0"), ("0", "1"), ("1", "1"), ("0", "0"))]
        same(call(floor, *_rows(pair)), wanted, f"the result for user {pair[0]}, agent {pair[1]}", 1e-6)
    you, it, both, nobody = floor(*_speech(talk))
    return f"above, in seconds: you {you:.1f}, the agent {it:.1f}, both {both:.1f}, nobody {nobody:.1f}"


@check
def floor_transfers(transfers, talk):
    """transfers(user, agent) bool [t] -> seconds, for each run of the agent after one of the user."""
    for pair in MADE_UP:
        wanted = _transfers(*pair)
        got = [float(x) for x in call(transfers, *_rows(pair))]
        case = f"user {pair[0]}, agent {pair[1]}"
        expect(len(got) == len(wanted), f"{case}: there are {len(wanted)} transfers, yours gives {len(got)}")
        same(got, wanted, f"the list for {case}", 1e-6)
    gaps = [f"{gap:+.2f}" for gap in transfers(*_speech(talk))]
    return f"above they are {', '.join(gaps) or 'none'}, where people leave about +0.20"


def _transfers(user: str, agent: str) -> list[float]:
    """Counted letter by letter, without spans."""
    def runs(row):
        at, found = 0, []
        for letter, same_ones in groupby(row):
            n = len(list(same_ones))
            found += [(at, at + n)] if letter == "1" else []
            at += n
        return found
    gaps = []
    for begin, _ in runs(agent):
        latest = [end for start, end in runs(user) if start < begin]
        gaps += [0.08 * (begin - latest[-1])] if latest else []
    return gaps


@check
def first_difference(parting, calm, rude):
    """parting(a, b) numpy int [rows, t] -> column. calm, rude : Replies that begin at the same moment."""
    g = np.random.default_rng(4)
    for at, row in ((0, 2), (5, 0), (5, 3), (11, 3), (None, None)):
        a = g.integers(0, 50, (4, 12))
        b = a.copy()
        if at is not None:
            b[row, at] += 1
            b[:, at + 2:] += 1
        got = int(call(parting, a, b))
        wanted = 12 if at is None else at
        expect(at is not None or got == wanted, f"two futures of 12 frames, all the same: yours says {got}")
        expect(got == wanted, f"two futures that part in row {row} of frame {at}: yours says {got}")
    rows = calm.config.agent
    n = parting(calm.codes[rows], rude.codes[rows])
    return (f"above, the agent's voice is another from frame {n} on; before frame 1 it cannot be, "
            "for a column is read one step after it was heard")


@check
@torch.no_grad()
def several_futures(futures):
    """futures(chat, seeds, pieces) -> int64 [seeds, 8, pieces], chat unchanged"""
    chat, pieces = _tiny_talk()
    then, calls = chat.state.snapshot(), list(chat.calls)
    seeds, wanted = [5, 6, 5], []
    for seed in seeds:
        other = chat.fork(seed=seed)
        wanted.append(torch.stack([other.step(piece).codes for piece in pieces], 1)[chat.config.agent])
    got = call(futures, chat, seeds, pieces)
    now = chat.state.tensors()
    if chat.calls != calls or any(not torch.equal(now[name], then[name]) for name in then):
        raise NotYet("chat is not where it was: it has lived one of the futures itself")
    same(got, torch.stack(wanted), "what you give back", 0)
    return "the first and third, with one seed, agree to the last code: a seed is a future"


def _tiny_talk():
    """A conversation with random weights, a few frames old, and what it will hear next."""
    from ...agent import Agent
    from ...model.config import tiny
    from ...model.lm import LM
    from ...model.mimi import Mimi
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm, mimi = (kind(config) for kind, config in zip((LM, Mimi), tiny()))
        pieces = list(0.1 * torch.randn(10, mimi.config.frame_size))
    chat = Agent(lm.eval(), mimi.eval()).chat(progress=False)
    for piece in pieces[:5]:
        chat.step(piece)
    return chat, pieces[5:]
