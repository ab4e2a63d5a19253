"""The checks of 07_live: frames lost, the time to react, gaps in the sound."""
from __future__ import annotations

import numpy as np

from .common import call, check, expect, same

__all__ = ["lost_share", "reaction_time", "gap_count"]


def simulate(work: float, room: int = 3, frames: int = 4000) -> float:
    """ms of work for a frame, frames that may wait -> share lost."""
    waiting, free, lost = [], 0.0, 0
    for now in range(0, 80 * frames, 80):
        waiting.append(now)
        while waiting and free <= now:
            free = max(free, waiting.pop(0)) + work
        lost += len(waiting[:-room])
        del waiting[:-room]
    return lost / frames


@check
def lost_share(answer):
    """answer : ms of work for a frame -> share of frames that are lost in the long run."""
    for work in (40, 80, 100, 160, 400):
        got, wanted = float(call(answer, work)), simulate(work)
        side = "more" if wanted > got else "fewer"
        expect(abs(got - wanted) <= 0.01, f"with {work} ms of work {side} than {got:.4g} are lost")
    return "half as fast as needed, and every second word is gone"


@check
def reaction_time(answer, talk):
    """answer : user bool [t], agent bool [t] -> seconds. talk : a Reply, measured when all is right."""
    from ...audio import RATE
    from ...viz import speaking
    for user, agent, frames in (("110000", "000011", 2), ("0110000", "0000001", 3), ("101000", "110100", 0)):
        sides = [np.array([c == "1" for c in side]) for side in (user, agent)]
        same(call(answer, *sides), frames * 0.08, f"the reaction for user {user}, agent {agent}", 1e-6)
    user, agent = (speaking(np.asarray(pcm), RATE) for pcm in (talk.user, talk.pcm))
    if not user.any() or not agent[np.flatnonzero(user)[-1] + 1:].any():
        return "above, the agent said nothing after you"
    return f"above, the agent took {answer(user, agent):.1f} of a second (people take 0.2)"


@check
def gap_count(answer):
    """answer : arrivals float [n] in ms, slack in ms -> frames that came too late."""
    arrivals = 80 * np.arange(750) + 30 + np.random.default_rng(0).gamma(2, 12, 750)    # as in a home network
    for slack in (0, 20, 60, 100):
        wanted = int((arrivals - 80 * np.arange(750) > arrivals[0] + slack).sum())
        same(call(answer, arrivals, slack), wanted, f"the number of gaps with {slack} ms in hand", 0)
    return "the widget starts with 60, and takes 40 more after each gap that it hears"
