"""How people ask, in the second generation: a small grammar, with whole families of phrasing held out.

    phrasings("price", "train")      # ["how much is the {item}", "um what's the price of the {item}", ...]

asking.json holds for each kind of question families, a family some patterns; "(what's|what is) your name
(again|)" stands for four sentences. A test user's families, openers, closers and slips are his own: no
training heard them, so that understanding is measured and not a list.
"""
from __future__ import annotations

import json
import re
from functools import cache
from itertools import product
from pathlib import Path
from random import Random

GRAMMAR = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
KINDS = list(GRAMMAR["kinds"])
DRESSES = 3                                     # dressed sentences for each plain one


def expand(pattern: str) -> list[str]:
    """Every sentence of a pattern; brackets hold alternatives, of which one may be nothing."""
    parts = [part.split("|") for part in re.split(r"[()]", pattern)]
    return [" ".join("".join(chosen).split()) for chosen in product(*parts)]


@cache
def plain(kind: str, split: str) -> tuple[str, ...]:
    """The bare sentences of all families of a split, in their order, each once; none is in both splits."""
    patterns = [pattern for family in GRAMMAR["kinds"][kind][split].values() for pattern in family]
    sentences = dict.fromkeys(text for pattern in patterns for text in expand(pattern))
    held = {*plain(kind, "test")} if split == "train" else set()
    return tuple(text for text in sentences if text not in held)


def dress(text: str, rng: Random, split: str) -> str:
    """What people put around a question: a greeting, a filler, a false start, politeness."""
    openers, closers, slips = (GRAMMAR[name][split] for name in ("openers", "closers", "slips"))
    way = rng.random()
    # a false start: the first words twice, with a slip between them
    if way < 0.2 and text.count(" ") > 2:
        begun = text.split()[:rng.choice([1, 2])]
        if "{item}" not in begun:
            return " ".join([*begun, rng.choice(slips), text])
    before = rng.choice(openers) if way < 0.8 else ""
    after = rng.choice(closers) if way > 0.6 else ""
    return f"{before} {text} {after}".strip()


@cache
def phrasings(kind: str, split: str = "train") -> list[str]:
    """Bare and dressed sentences of a kind, sorted; the same ones every time."""
    bare = plain(kind, split)
    rng = Random(f"{kind} {split}")
    dressed = [dress(text, rng, split) for text in bare for _ in range(DRESSES)]
    return sorted({*bare, *dressed})


@cache
def words() -> list[str]:
    """Every word of training users, sorted; what only test users say is letters to the tokenizer."""
    texts = [text for name in ("openers", "closers", "slips") for text in GRAMMAR[name]["train"]]
    texts += [text for kind in KINDS for text in plain(kind, "train")]
    return sorted({word for text in texts for word in text.split() if "{" not in word})
