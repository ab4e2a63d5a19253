"""Make data/duplex_mini: stimuli in Full-Duplex-Bench's layout (.venv/bin/python -m tools.make_duplex_mini).

The five folders have the official names, but nobody here comes from Candor or ICC: all voices are hibari's
([train] extra). Held out from `lite`'s training: the synthesiser's seeds, facts and questions of the test
split, and around them sentences of our own. Sound is 16 kHz IMA ADPCM, to fit into 3 MB. Beside the official
files each sample has persona.json, the role that the agent is given, and an interruption says what a right
answer holds (`want`). --times 10 --out FOLDER makes ten times as many, for narrower intervals.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from personaplex_lite.audio import RATE, resample
from personaplex_lite.evaluation.judges import wanted
from personaplex_lite.training import speech, world

OUT = Path(__file__).resolve().parents[1] / "data" / "duplex_mini"
COUNTS = {"candor_pause_handling": 6, "synthetic_pause_handling": 6, "candor_turn_taking": 8,
          "icc_backchannel": 4, "synthetic_user_interruption": 8}
SEED, FRESH = 31, 5_000_000         # of the texts; of the synthesiser: training stays below 2 000 000
KINDS = ("price", "open", "close", "name", "company")
USERS = [name for name, voice in speech.USER_VOICES.items() if getattr(voice, "engine", "hibari") == "hibari"]
FRIEND = "you enjoy having a good conversation"
CUTS_IN = 1.7                       # seconds after the greeting, when its answer is under way

LEADS = ["good morning i stand right here in front of your door and",
         "hello i read about you in the paper last week and",
         "i walk by your place every morning and today",
         "hello my friend gave me this number and told me to call so",
         "i hope this is not a bad moment but my sister wants to visit you so",
         "hello it is me again from this morning and"]
TALES = [("last summer we rented a small boat", "and sailed along the coast for a week"),
         ("my grandfather had a clock on the wall", "that was always ten minutes late"),
         ("i think the best part of my trip", "was the little village in the hills"),
         ("every time i try to bake a cake", "something goes wrong with the oven"),
         ("we wanted to see the castle on the hill", "but it was closed for the winter"),
         ("there was a man on the train", "who carried a very large mirror"),
         ("my first car was a little blue one", "and it never started when it was cold")]
STORIES = [["last winter we lost our cat for three days", "we looked in the cellar and under the stairs",
            "my father even climbed onto the roof", "then an old lady rang the bell",
            "she had found it asleep in her laundry", "we thanked her with a box of chocolates",
            "the cat ate two bowls of fish", "it had not missed us at all"],
           ["when i was ten we moved to a farm", "there were geese in the yard and they hated me",
            "each morning i had to run to the gate", "one day i brought them some corn",
            "from then on they walked me to school", "they waited outside until the last lesson",
            "my teacher could not believe it", "i still miss those birds today"],
           ["we tried to paint the kitchen last week", "first the ladder was too short",
            "then my uncle stepped into the bucket", "he left yellow steps all over the house",
            "my aunt laughed until she cried", "we cleaned until it was midnight",
            "the bucket is still in the garden", "and in the end the wall is white again"],
           ["on monday the elevator in our house stopped", "there were five of us and a large dog",
            "nobody had a phone that worked", "so we sang songs to pass the time",
            "a boy knew every word of them", "the dog joined in at the end",
            "after an hour the doors opened again", "and we were sorry that it was over"]]
GREETINGS = ["good day to you", "hello is this the right number", "good morning it is me",
             "hi i am glad you answer", "hello do you have a minute"]


class Take:
    """One recording that is being put together: sound float32 [n] at 24 kHz, words with their times."""

    def __init__(self, user: str, seed: int):
        self.user, self.seed, self.sound, self.words = user, seed, np.zeros(0, np.float32), []

    @property
    def now(self) -> float:
        return len(self.sound) / RATE

    def wait(self, seconds: float) -> None:
        self.sound = np.pad(self.sound, (0, round(seconds * RATE)))

    def say(self, text: str) -> tuple[float, float]:
        """Speak -> when its first word begins and its last one ends."""
        said = speech.synth(text, self.user, self.seed)
        words = [(word, round(self.now + a, 3), round(self.now + b, 3)) for word, a, b in said.words]
        self.sound, self.words = np.concatenate([self.sound, said.pcm]), self.words + words
        return words[0][1], words[-1][2]


def desk(rng: Random, kind: str):
    """-> facts that no training role has, what is asked about them (test split), its right answer's words."""
    facts = world.make_facts(rng, "test")
    _, item, asked, _ = world.exchange(facts, rng, "test", kind)
    return world.role_text(facts, rng), asked, wanted(kind, facts, item)


def pause(take: Take, rng: Random, i: int, spoken: bool) -> dict:
    """Somebody pauses, then goes on; nothing follows the last word. spoken: a tale, otherwise a question."""
    role, asked, _ = desk(rng, KINDS[i % len(KINDS)])
    first, rest = TALES[i % len(TALES)] if spoken else (LEADS[i % len(LEADS)], asked)
    take.wait(0.4)
    _, silent = take.say(first)
    take.wait(rng.uniform(0.4, 0.9))
    again, _ = take.say(rest)
    noted = [{"text": "[PAUSE]", "timestamp": [silent, again]}]
    return {"pause.json": noted, "role": FRIEND if spoken else role}


def turn(take: Take, rng: Random, i: int) -> dict:
    """A long question and five seconds of silence. Nobody replied in it: the second time is a formality."""
    role, asked, _ = desk(rng, KINDS[i % len(KINDS)])
    take.wait(0.4)
    _, end = take.say(f"{LEADS[(i + 3) % len(LEADS)]} {asked}")
    take.wait(5)
    noted = [{"text": "[TURN-TAKING]", "timestamp": [end, round(end + 0.3, 3)]}]
    return {"turn_taking.json": noted, "role": role}


def story(take: Take, rng: Random, i: int) -> dict:
    """Twenty seconds of telling. `listeners`: our guess of where people murmur, soon after each sentence."""
    take.wait(0.4)
    ends = []
    for sentence in STORIES[i % len(STORIES)]:
        ends.append(take.say(sentence)[1])
        take.wait(rng.uniform(0.5, 0.9))
    seconds = np.arange(0, take.now, 0.2)
    weight = 0.1 + sum(np.exp(-0.5 * ((seconds - end - 0.3) / 0.4) ** 2) for end in ends)
    return {"role": FRIEND, "listeners": (weight / weight.sum()).round(6).tolist()}


def interruption(take: Take, rng: Random, i: int) -> dict:
    """A greeting; while it is answered, a question cuts in; then silence."""
    role, asked, want = desk(rng, KINDS[i % len(KINDS)])
    hello = GREETINGS[i % len(GREETINGS)]
    take.wait(0.3)
    take.say(hello)
    take.wait(CUTS_IN)
    span = take.say(asked)
    take.wait(5.5)
    noted = [{"context": hello, "interrupt": asked, "timestamp": span, "want": want}]
    return {"interrupt.json": noted, "role": role}


MAKERS = {"candor_pause_handling": lambda *a: pause(*a, True), "candor_turn_taking": turn,
          "synthetic_pause_handling": lambda *a: pause(*a, False), "icc_backchannel": story,
          "synthetic_user_interruption": interruption}


def make(out: Path, times: int = 1) -> None:
    from tqdm import tqdm
    listeners, bar = {}, tqdm(total=times * sum(COUNTS.values()), unit="file")
    for number, (category, count) in enumerate(COUNTS.items()):
        for i in range(times * count):
            rng = Random(f"{SEED} {category} {i}")
            take = Take(USERS[(i + number) % len(USERS)], FRESH + 10_000 * number + i)
            made = MAKERS[category](take, rng, i)
            listeners |= {str(i): made.pop("listeners")} if "listeners" in made else {}
            keep(out / "v1_0" / category / str(i), take, made)
            bar.update()
    bar.close()
    (out / "icc_gt_distribution.json").write_text(json.dumps(listeners) + "\n")


def keep(folder: Path, take: Take, made: dict) -> None:
    """Write one sample's files."""
    folder.mkdir(parents=True, exist_ok=True)
    sound = np.clip(resample(take.sound, RATE, 16_000), -1, 1)
    soundfile.write(str(folder / "input.wav"), sound, 16_000, subtype="IMA_ADPCM")
    items = [{"text": word, "timestamp": [a, b]} for word, a, b in take.words]
    made["transcription.json"] = [{"speaker": 0, "item": items}]
    made["persona.json"] = {"role": made.pop("role")}
    for name, content in made.items():
        (folder / name).write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--times", type=int, default=1)
    args = parser.parse_args()
    make(args.out, args.times)
