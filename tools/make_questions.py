"""Speak the questions of data/questions: `.venv/bin/python tools/make_questions.py`. Needs the [train] extra.

Six questions, one a kind, in phrasings and with facts that no training clip or dialogue has (split "test").
The same every time; questions.json says for each wav who is asked and which words a right answer must hold.
"""
from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np

from personaplex_lite import audio
from personaplex_lite.training import speech, world

OUT = Path(__file__).resolve().parents[1] / "data" / "questions"
KINDS = ["open", "price", "name", "company", "close", "unknown"]
QUIET = np.zeros(round(0.35 * audio.RATE), np.float32)      # before and after the question
SEED = 7


def expected(kind: str, facts: world.Facts, item: str | None) -> list[str]:
    """The words without which an answer is wrong."""
    facts_of = {"open": facts.opens, "close": facts.closes, "name": facts.name, "company": facts.company,
                "price": facts.prices.get(item), "unknown": "not know"}
    return facts_of[kind].split()


def draw(kind: str, rng: Random) -> dict:
    """A question that is not over at once, whose answer stands in the role exactly once: no lucky guesses."""
    while True:
        facts = world.make_facts(rng, "test")
        item = rng.choice(list(facts.prices)) if kind == "price" else None
        text, role = world.question(kind, rng, "test", item), world.role_text(facts, rng)
        words = expected(kind, facts, item)
        clear = kind == "unknown" or all(role.split().count(word) == 1 for word in words)
        if clear and len(text) >= 29:
            return {"kind": kind, "text": text, "role": role, "expect": words,
                    "answer": world.answer(kind, facts, item)}


def entries() -> list[dict]:
    """What questions.json holds; "user" and "seed" say how the wav was spoken."""
    return [{"file": f"{kind}.wav", **draw(kind, Random(SEED + index)),
             "voice": list(speech.AGENT_VOICES)[index % 4], "user": list(speech.USER_VOICES)[index],
             "seed": 2_000_001 + index} for index, kind in enumerate(KINDS)]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    made = entries()
    for entry in made:
        spoken = speech.synth(entry["text"], entry["user"], entry["seed"]).pcm
        path = audio.write(OUT / entry["file"], np.concatenate([QUIET, spoken, QUIET]))
        print(f"{path.stat().st_size / 48_000:4.1f} s  {entry['text']}\n       {entry['role']}")
    (OUT / "questions.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
