"""Seeds that measuring uses, and that training never drew: each range has its one home here."""
from __future__ import annotations

FRESH = 2_000_000           # of the synthesiser: training stays below
DEVELOPMENT = 100           # of questions by which choices are made; a model is reported on others
VOICES = 3_000_000          # of the synthesiser: the voices that ship
STIMULI = 5_000_000         # of the synthesiser: data/duplex_mini


def call(seed: int, index: int) -> int:
    """The seed of one call of a set: up to a thousand calls, and no set meets another."""
    return 1000 * seed + index


def fresh(seed: int, index: int) -> int:
    """The synthesiser's seed for one sentence of a set."""
    return FRESH + call(seed, index)
