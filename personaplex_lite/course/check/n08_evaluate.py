"""The checks of 08_evaluate: the take-over rule, the time to yield, a cheat, an interval."""
from __future__ import annotations

import numpy as np

from .common import NotYet, call, check, expect

__all__ = ["take_over_rule", "yield_seconds", "perfect_cheat", "interval_ends"]


@check
def take_over_rule(answer):
    """answer : words (text, start, end) each -> 1 or 0."""
    from ...evaluation.duplex import bench as duplex_bench
    long, far = [("well", 2.0, 3.0)], [("mm-hmm", 0.5, 0.8), ("yeah", 6.0, 6.3)]
    many = [(word, i / 5, i / 5 + 0.1) for i, word in enumerate("abcd")]
    cases = [[], [("yeah", 2.0, 2.3)], long, far, many, many[:3]]
    wrong = [case for case in cases if call(answer, case) != duplex_bench.take_over(case).value]
    if wrong:
        wanted = "a" if duplex_bench.take_over(wrong[0]).value else "no"
        raise NotYet(f"{len(wrong)} of {len(cases)} cases differ, the first is {wrong[0]}: "
                     f"that is {wanted} take-over")
    return "and mind one case: two murmurs far apart are a take-over, too"


@check
def yield_seconds(answer, segments, begin):
    """answer : segments, second -> seconds or None. segments, begin : a talk, measured when all is right."""
    from ...evaluation.duplex import bench as duplex_bench
    talks = [([(1, 3)], 2), ([(1, 3), (3.25, 5)], 2), ([(1, 3), (3.5, 5)], 2), ([(1, 3)], 4),
             ([(0.5, 1), (1.3125, 3)], 0.75),
             ([(1, 3), (3.2, 5), (5.1, 6), (8, 9)], 2)]
    for heard, second in talks:
        wanted = duplex_bench.yield_time(heard, second).value
        got = answer(heard, second) if wanted is None else call(answer, heard, second)
        agree = got is wanted if None in (got, wanted) else abs(got - wanted) < 1e-6
        expect(agree, f"speech at {heard}, cut in on at {second}: not {got}")
    took = answer(segments, begin)
    return "in the talk above: " + ("it was silent just then" if took is None else f"{took:.2f} s")


@check
def perfect_cheat(words):
    """words : (text, start, end) each, against a user who speaks from 0 to 6 s and from 8 to 10 s."""
    from ...evaluation.duplex import bench as duplex_bench
    expect(all(len(word) == 3 for word in words), "each word is (text, start, end)")
    turn = duplex_bench.turn_taking(words, 6.0)
    cut = duplex_bench.user_interruption([word for word in words if word[1] >= 10], 10.0)
    spoken = [(start, end) for _, start, end in words]
    figures = [value.value for value in (turn["TOR"], turn["latency"], cut["TOR"], cut["latency"])]
    expect(figures == [1, 0, 1, 0], f"take-over, latency, take-over, latency are {figures}")
    on = duplex_bench.yield_time(spoken, 8.0).value
    over = duplex_bench.overlap_share([(0, 6), (8, 10)], spoken).value
    expect(over >= 0.5, f"officially perfect, but pleasant: only {over:.0%} of its words are over the user")
    held = "was silent at second 8" if on is None else f"spoke on for {on:.1f} s"
    return f"officially perfect, and it {held} and over the user for {over:.0%} of its words"


@check
def interval_ends(answer, values):
    """answer : float [n] -> (low, high). values : float [n]. Dice are dice: either end may be 0.05 off."""
    from ...evaluation.duplex import bench as duplex_bench
    mean = duplex_bench.mean([duplex_bench.Value(float(x)) for x in values])
    got = np.asarray(call(answer, values), float)
    if got.shape != (2,):
        raise NotYet(f"two numbers are wanted, low and high; yours has the shape {list(got.shape)}")
    for end, mine, wanted in zip(("lower", "upper"), got, (mean.low, mean.high)):
        side = "low" if mine < wanted else "high"
        expect(abs(mine - wanted) <= 0.05, f"the {end} end, {mine:.2f}, is too {side}")
    return f"{mean.value:.2f}, and with {len(values)} files anything from {mean.low:.2f} to {mean.high:.2f}"
