"""The checks of 00_hear_it: which words of a role come back, counting columns, reading the grid."""
from __future__ import annotations

import numpy as np

from .common import call, check, expect, same

__all__ = ["role_words", "columns_of", "pale_share"]


@check
def role_words(before, after, reply, found):
    """before, after : a role, and it changed. found : the words of `after` that were said in `reply`."""
    old, new = before.split(), after.split()
    expect(old != new, "the role is still as it was")
    changed = [(a, b) for a, b in zip(old, new) if a != b]
    expect(len(old) == len(new) and len(changed) == 1, "change one word of the role, and only one")
    found, said = set(found), set(reply.text.split())
    expect(found <= said, f"{sorted(found - said)} cannot be found in the reply")
    expect(found <= set(new), f"{sorted(found - set(new))} cannot be found in the role")
    missing = said & set(new) - found
    expect(not missing, f"{len(missing)} more of the role's words came back")
    word = changed[0][1]
    come = "came back" if word in found else "did not come back: lite was not asked for it, or got it wrong"
    return f"{len(found)} of its words are in the reply, and your {word!r} {come}"


@check
def columns_of(answer):
    """answer : number of samples -> number of columns."""
    for samples in (1920, 3840, 1, 1919, 1921, 24_000, 57_000):
        got = call(answer, samples)
        same(got, -(-samples // 1920), f"the number of columns for {samples:,} samples", 0)
    return "and a second is not a whole number of columns: there are 12.5 in it"


@check
def pale_share(answer, reply):
    """answer : codes int [17, t], silence int [8] -> share of the agent's voice cells that are silence."""
    dice, silence = np.random.default_rng(0), np.arange(10, 18)
    codes = dice.integers(100, 200, (17, 30))
    for row, cells in ((1, 12), (4, 7), (8, 20), (9, 30), (16, 5)):
        codes[row, :cells] = silence[(row - 1) % 8]
    codes[1, 12:] = silence[1]                                # another row's silence is none here
    wanted, user, early = ((codes[top:top + 8] == silence[:, None]).mean() for top in (1, 9, 0))
    got = float(call(answer, codes, silence))
    expect(0 <= got <= 1, f"a share lies between 0 and 1, yours is {got:.4g}")
    expect(abs(got - user) > 1e-6, "these are the user's rows")
    expect(abs(got - early) > 1e-6, "your eight rows begin with the text")
    same(got, wanted, "the share in a made-up grid of 30 columns")
    share = call(answer, reply.codes, np.array(reply.config.silence))
    return f"{share:.0%} of its voice cells above are silence; each row has a code of its own for it"
