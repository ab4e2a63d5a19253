"""The closed little world `lite` lives in: who works where, what it costs, how people ask and are answered.

Pure text, lower case, no punctuation, seeded by `random.Random`. Many facts, few sentences: the model has to
copy a name, a price or an hour out of its role text, so those combine freely while the templates stay few.
One in ten (item, price) and (name, company) pairs, and three phrasings a question, are held out for testing.

    rng = random.Random(0)
    facts = make_facts(rng, "train")
    role_text(facts, rng)                   # you are anna and you work at sunny bakery we open at eight ...
    question("price", rng, "train", "bread")             # how much does the bread cost
    answer("price", facts, "bread")                      # the bread costs four dollars
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from zlib import crc32

with open(Path(__file__).with_suffix(".json"), encoding="utf-8") as file:
    _ALL = json.load(file)
BUSINESSES, NAMES, PRICES = _ALL["businesses"], _ALL["names"], _ALL["prices"]     # businesses: what they sell
OPENS, CLOSES, ADJECTIVES = _ALL["opens"], _ALL["closes"], _ALL["adjectives"]
# An indirect question is any of ASKING before any of INDIRECT.
QUESTIONS, ASKING, INDIRECT = _ALL["questions"], _ALL["asking"], _ALL["indirect"]
ANSWERS, ROLES, HOURS, VOICE_SENTENCES = (_ALL[n] for n in ("answers", "roles", "hours", "voice_sentences"))
ITEMS = [item for items in BUSINESSES.values() for item in items]
COMPANIES = [f"{adjective} {business}" for business in BUSINESSES for adjective in ADJECTIVES]
RULES, MURMURS, LEADS, BARGES, CHANGES, AGAIN, STORY, STORY_ENDS, STORY_ANSWER, TALKS = (
    _ALL[n] for n in "rules murmurs leads barges changes again story story_ends story_answer talks".split())
KINDS = list(QUESTIONS)


@dataclass(frozen=True)
class Facts:
    """What one agent knows; prices: item -> price word, in the order of the role text."""
    name: str
    company: str
    opens: str
    closes: str
    prices: dict[str, str]
    rule: str = ""


def held_out(anchor: str, choice: str, choices: list[str]) -> bool:
    """Whether the pair belongs to the test split: every tenth choice, from a stable place for each anchor."""
    return (crc32(anchor.encode()) + choices.index(choice)) % 10 == 0


def choices_for(anchor: str, choices: list[str], split: str) -> list[str]:
    """The members of `choices` that may go together with `anchor` in this split; never empty."""
    return [choice for choice in choices if held_out(anchor, choice, choices) == (split == "test")]


def make_facts(rng: Random, split: str = "train") -> Facts:
    """Draw an agent: every (name, company) and (item, price) pair belongs to `split`."""
    company = rng.choice(COMPANIES)
    items = BUSINESSES[company.split(" ", 1)[1]]
    items = rng.sample(items, rng.choice([2, 3]))
    prices = {item: rng.choice(choices_for(item, PRICES, split)) for item in items}
    name = rng.choice(choices_for(company, NAMES, split))
    return Facts(name, company, rng.choice(OPENS), rng.choice(CLOSES), prices, rng.choice(RULES))


def role_text(facts: Facts, rng: Random) -> str:
    """What the agent is told before the call."""
    hours = rng.choice(HOURS).format(opens=facts.opens, closes=facts.closes)
    prices = " ".join(f"{item} costs {price} dollars" for item, price in facts.prices.items())
    text = rng.choice(ROLES).format(name=facts.name, company=facts.company, hours=hours, prices=prices,
                                    rule=facts.rule)
    return " ".join(text.split())


@cache
def phrasings(kind: str, split: str = "train") -> list[str]:
    """The sentences a user has for `kind`; test users only use the held-out ones, training users never do.

    Training users also ask indirectly ("could you tell me ..."), and begin or end with a small word.
    """
    known, held = QUESTIONS[kind]["train"], QUESTIONS[kind]["test"]
    if split == "test":
        return held
    if kind not in INDIRECT:
        return known
    plain = [*known, *(f"{ask} {what}" for ask in ASKING for what in INDIRECT[kind])]
    dressed = [f"{before} {text}" for text in plain for before in ("hello", "okay", "and", "hi")]
    dressed += [f"{text} please" for text in plain]
    return sorted(text for text in {*plain, *dressed} if not any(h in text for h in held))


def question(kind: str, rng: Random, split: str = "train", item: str | None = None) -> str:
    """What the user says. An unknown fact with an item is a price question nobody can answer."""
    if kind == "unknown" and item:
        kind = "price"
    return rng.choice(phrasings(kind, split)).format(item=item)


def unknown_item(facts: Facts, rng: Random) -> str:
    """An item that the role text does not price."""
    return rng.choice([item for item in ITEMS if item not in facts.prices])


def answer(kind: str, facts: Facts, item: str | None = None) -> str:
    """What the agent says. A price that the role does not hold is not known, after the thing has been named
    as if there were one: once it stands in the text row, it can be looked up in the role like any word.
    """
    if item and item not in facts.prices:
        kind = "unpriced"
    daytime = "afternoon" if facts.closes in ("two", "three", "four", "five") else "evening"
    return ANSWERS[kind].format(name=facts.name, company=facts.company, opens=facts.opens,
                                closes=facts.closes, daytime=daytime, item=item, rule=facts.rule,
                                price=facts.prices.get(item))


def exchange(facts: Facts, rng: Random, split: str = "train",
             kind: str | None = None) -> tuple[str, str | None, str, str]:
    """One turn each: (kind, item or None, what the user says, what the agent answers)."""
    kind = kind or rng.choice(KINDS)
    item = None
    if kind == "price":
        item = rng.choice(list(facts.prices))
    elif kind == "unknown" and rng.random() < 0.6:
        item = unknown_item(facts, rng)
    return kind, item, question(kind, rng, split, item), answer(kind, facts, item)


@cache
def vocabulary() -> list[str]:
    """Every word anyone can say, sorted."""
    texts = [*ITEMS, *COMPANIES, *NAMES, *PRICES, *OPENS, *CLOSES, *VOICE_SENTENCES, "afternoon evening"]
    texts += [*ANSWERS.values(), *ROLES, *HOURS, "costs dollars"]
    texts += [text for sides in (*QUESTIONS.values(), AGAIN) for side in sides.values() for text in side]
    texts += [*RULES, *MURMURS, *LEADS, *BARGES, *CHANGES, *STORY, *STORY_ENDS, STORY_ANSWER, *ASKING]
    texts += [text for whats in INDIRECT.values() for text in whats]
    for talk in TALKS.values():
        texts += [*talk["roles"], talk["hello"], *sum(talk["pairs"], [])]
    return sorted({word for text in texts for word in text.split() if "{" not in word})


def text_corpus(n: int, seed: int = 0) -> list[str]:
    """`n` lines of the train split for a tokenizer: role texts, questions, answers and voice sentences."""
    rng = Random(seed)
    lines = list(VOICE_SENTENCES)
    while len(lines) < n:
        facts = make_facts(rng)
        lines += [role_text(facts, rng), *exchange(facts, rng)[2:]]
        talk = rng.choice(list(TALKS.values()))
        lines += [rng.choice(talk["roles"]), *rng.choice(talk["pairs"]), rng.choice(STORY), rng.choice(LEADS)]
    return lines[:n]
