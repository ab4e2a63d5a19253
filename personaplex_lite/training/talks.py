"""Conversations of the little world, in time: who speaks when, who waits, who yields, who murmurs.

A dialogue is drawn, not written. Users ask, pause inside a sentence, change
their mind, ask again, cut in, tell long stories; the agent answers after the end, waits through pauses,
falls silent when cut in on, and murmurs between the sentences of a story. Some are recitals: the agent alone,
sentence upon sentence, its words given; most frames of a conversation teach nothing about how words sound.
"""
from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TypeVar

import numpy as np

from ..model.config import LMConfig
from ..talk.text import Text
from . import world
from .dialogue import Clip, Dialogue, Library

T = TypeVar("T")

SCENES = {"desk": 0.72, "teacher": 0.10, "friend": 0.18}
ASKED = {"price": 8, "open": 2, "close": 2, "name": 2, "company": 2.5, "unknown": 7, "rule": 2,
         "thanks": 0.5, "bye": 0.5, "greeting": 0.7}            # how often users want what
WAYS = {"plain": 0.54, "pause": 0.14, "change": 0.08, "cut in": 0.24}
RECITALS = 0.5                          # of all that is drawn
AGAIN = 0.06                            # how often an answer is asked for once more
# Frames from the user's end to the answer's sound: text leads by one, EPAD by two, sooner would be a guess.
# The long tail is for an agent that has missed the moment.
THINKS = {4: 0.4, 5: 0.25, 6: 0.1} | dict.fromkeys(range(7, 26), 0.25 / 19)
# Frames after which an agent that is cut in on breaks off, with a tail for one that did not at once.
YIELDS = {2: 0.6, 3: 0.25, 4: 0.1, 5: 0.05}


class Dialogues:
    """Draws conversations of one split, and recitals; each is a Dialogue of `total` frames."""

    def __init__(self, library: Library, text: Text, config: LMConfig, split: str = "train"):
        self.library, self.text, self.config, self.split = library, text, config, split

    def draw(self, rng: Random, total: int) -> Dialogue:
        """A recital or a conversation of `total` frames: what a batch is made of."""
        return self.recital(rng, total) if rng.random() < RECITALS else self.sample(rng, total)

    def recital(self, rng: Random, total: int) -> Dialogue:
        """Nobody listens: sentences in one voice, whose words (not its own choice) are in the text row. Now
        and then in a user's voice: with more voices, more is learnt about following a prompt.
        """
        call = Call(Dialogue(self.config, self.text, total), self.library, rng, self.library.users)
        if rng.random() < 0.4:
            call.voice = rng.choice(sorted(self.library.lines))
        self._prompt(call, rng.choice(world.TALKS["friend"]["roles"]))
        call.talk.decides[:] = False
        while call.end < total:
            call.agent(rng.choice(self.library.lines[call.voice]), int(call.end) + rng.randrange(3, 8))
        return call.talk

    def sample(self, rng: Random, total: int) -> Dialogue:
        lib, scene = self.library, _draw(rng, SCENES)
        users = lib.users if scene == "desk" else lib.talkers
        call = Call(Dialogue(self.config, self.text, total), lib, rng, users)
        hello = rng.choice(lib.greetings[call.voice])
        if scene == "desk":
            facts = self._named(world.make_facts(rng, self.split), hello, rng)
            role = world.role_text(facts, rng)
        else:
            role = rng.choice(world.TALKS[scene]["roles"])
            hello = rng.choice(lib.said.get((call.voice, world.TALKS[scene]["hello"]), [None]))
        self._prompt(call, role)
        gap = rng.randrange(1, 9)
        if hello and rng.random() < 0.35:       # nobody speaks for a second: the agent opens the talk
            call.agent(hello, call.talk.t + rng.randrange(14, 20))
            gap = rng.randrange(5, 20)
        for _ in range(40):
            call.start = int(call.end) + gap
            if call.start >= total:
                break
            call.exchange(*(self._desk(call, facts) if scene == "desk" else self._chat(call, scene)))
            gap = rng.randrange(30, 50) if rng.random() < 0.1 else rng.randrange(5, 16)
        return call.talk

    def _prompt(self, call: Call, role: str) -> None:
        clip = call.rng.choice(self.library.voices.get(call.voice) or self.library.lines[call.voice])
        first = int(clip.first) + 1
        call.talk.prompt(clip.codes[:, first:first + call.rng.randrange(13, 25)], self.text.role(role))
        call.talk.room(self.library.rooms[call.noise], call.rng)
        call.talk.echo = call.rng.choice([0, 0, call.rng.randrange(1, 5)])
        call.end = float(call.talk.t)

    def _named(self, facts: world.Facts, hello: Clip, rng: Random) -> world.Facts:
        """The same kind of facts for the company and name that this greeting says."""
        slots = hello.record["slots"]
        items = world.BUSINESSES[slots["company"].split(" ", 1)[1]]
        items = rng.sample(items, len(facts.prices))
        prices = {i: rng.choice(world.choices_for(i, world.PRICES, self.split)) for i in items}
        return replace(facts, name=slots["name"], company=slots["company"], prices=prices)

    def _desk(self, call: Call, facts: world.Facts) -> tuple[list, str]:
        """One wish at the front desk -> ([(clip, frames of silence before it), ...], the agent's reply)."""
        rng, kind, way = call.rng, _draw(call.rng, ASKED), _draw(call.rng, WAYS)
        kind, item, _, reply = world.exchange(facts, rng, self.split, kind)
        about = ("price", item) if item else (kind, None)
        if way == "pause" and about[0] in world.INDIRECT and rng.random() < 0.6:
            lead, rest = call.user("lead", rng.choice(world.ASKING)), call.user("rest", about[0], item)
        elif way == "pause":
            lead, rest = call.user("lead", rng.choice(world.LEADS)), call.user(*about)
        else:
            lead, rest = None, call.user(*about)
        if lead:
            return [(lead, 0), (rest, rng.randrange(6, 22))], reply
        if way == "change" and item and rng.random() < 0.8:
            other = rng.choice([i for i in (*facts.prices, world.unknown_item(facts, rng)) if i != item])
            return [(call.user("price", other), 0), (call.user("change", None), rng.randrange(2, 4)),
                    (rest, rng.randrange(1, 4))], reply
        return (call.cut_in(rest, reply) if way == "cut in" else [(rest, 0)]), reply

    def _chat(self, call: Call, scene: str) -> tuple[list, str]:
        """A question to the teacher or the friend, or, to the friend, a story."""
        rng = call.rng
        asked, reply = rng.choice(world.TALKS[scene]["pairs"])
        question = call.user("talk", asked)
        way = rng.random()
        if scene == "friend" and way < 0.5:
            first = rng.randrange(len(world.STORY) - 5)
            parts = [(call.user("story", text), rng.randrange(5, 14))
                     for text in world.STORY[first:first + rng.randrange(2, 6)]]
            if rng.random() < 0.5:
                return [*parts, (question, rng.randrange(5, 14))], reply
            ending = call.user("story", rng.choice(world.STORY_ENDS))
            return [*parts, (ending, rng.randrange(4, 10))], world.STORY_ANSWER
        if way > 0.93:
            kind = rng.choice(["thanks", "bye", "unknown"])
            return [(call.user(kind, None), 0)], world.ANSWERS[kind]
        if way > 0.85:
            return [(call.user("lead", rng.choice(world.LEADS)), 0), (question, rng.randrange(6, 22))], reply
        return (call.cut_in(question, reply) if way > 0.7 else [(question, 0)]), reply


class Call:
    """One conversation being laid out: who speaks, and where the last sound ended."""

    def __init__(self, talk: Dialogue, library: Library, rng: Random, users: list[str]):
        self.talk, self.library, self.rng = talk, library, rng
        self.voice, self.caller = rng.choice(sorted(library.voices)), rng.choice(users)
        self.noise = rng.choice([0, 0, 1, 2])
        self.start, self.end = 0, 0.0                   # frames: the user's start, the last sound's end
        self.last = None                                # the agent's last clip and its first frame

    def user(self, *about: str | None) -> Clip | None:
        return self.library.pick(self.rng, self.caller, about, self.noise)

    def agent(self, clip: Clip, frame: int) -> None:
        self.end, self.last = self.talk.place(self.talk.config.agent, clip, frame), (clip, frame)

    def cut_in(self, question: Clip | None, reply: str) -> list:
        """The user starts before the agent ends, who breaks off; if that speaks long enough."""
        long = self.last is not None and self.end - self.last[1] > 15 and self.end < len(self.talk.loss) - 30
        if not long or question is None or (self.voice, reply) not in self.library.said:
            return [(question, 0)]
        clip, first = self.last
        self.start = self.rng.randrange(first + 6, int(self.end) - 4)
        self.talk.erase(first - 4)
        self.talk.place(self.talk.config.agent, clip, first, self.start + _draw(self.rng, YIELDS))
        word = self.user("barge", None) if self.rng.random() < 0.5 else None
        return [(word, 0), (question, self.rng.randrange(1, 4))] if word else [(question, 0)]

    def exchange(self, parts: list, reply: str) -> None:
        """The user's parts from frame `start` on, murmurs between the sentences of a story, then the reply;
        now and then it is asked for again.
        """
        rng, config, answers = self.rng, self.talk.config, self.library.said.get((self.voice, reply))
        if not answers or any(clip is None for clip, _ in parts):
            return                                      # nobody recorded that: something else, then
        self.end = float(self.start)
        for i, (clip, gap) in enumerate(parts):
            told = i and parts[i - 1][0].record["kind"] == "story"
            if told and gap > 5 and rng.random() < 0.75:
                murmur = rng.choice(self.library.said[self.voice, rng.choice(world.MURMURS)])
                self.talk.place(config.agent, murmur, int(self.end) + rng.choice([3, 4]))
            self.end = self.talk.place(config.user, clip, int(self.end) + (gap if i else 0))
        self.agent(rng.choice(answers), int(self.end) + _draw(rng, THINKS))
        again = self.user("again", None)
        if again and rng.random() < AGAIN:
            self.end = self.talk.place(config.user, again, int(self.end) + rng.randrange(5, 10))
            self.agent(rng.choice(answers), int(self.end) + _draw(rng, THINKS))


def _draw(rng: Random, shares: dict[T, float]) -> T:
    return rng.choices(list(shares), shares.values())[0]


DRILLED = ["price", "price", "price", "name", "company", "greeting", "open", "close", "rule"]
READ = ["price", "price", "price", "unknown", "unknown", "unknown", None, None]


def text_only(rng: Random, text: Text, split: str, total: int) -> tuple[np.ndarray, np.ndarray]:
    """A role, then questions and answers as text -> tokens int64 [total], their weights float32 [total].

    Half are drills: answers without questions, with any word in the place of a fact, so that nothing but
    copying from the role helps. Facts weigh 4, an answer's first and third words 3 (what it is about; "costs"
    or "i" in "the wig i do not know"), its others 1, all else 0.
    """
    drill = rng.random() < 0.5
    facts = _any_facts(rng) if drill else world.make_facts(rng, split)
    told = facts.name, facts.company, facts.opens, facts.closes, *facts.prices.values(), facts.rule
    known = {w for fact in told for w in fact.split()}
    tokens = text.role(world.role_text(facts, rng))
    weight = [0.0] * len(tokens)
    said = set()
    while len(tokens) < total:
        kind = rng.choice(DRILLED if drill else READ)
        _, _, question, reply = world.exchange(facts, rng, split, kind)
        if reply in said and kind in ("price", "rule", "company") and rng.random() < 0.9:
            kind, _, question, reply = world.exchange(facts, rng, split, "unknown")   # no copying of answers
            reply = reply if not drill else world.answer("greeting", facts)
        said.add(reply)
        asked = [] if drill else text.encode(question)
        tokens += [*asked, text.epad]
        weight += [0.0] * (len(asked) + 1)
        for i, word in enumerate([*reply.split(), None]):
            pieces = text.encode(word) if word else [text.pad]
            tokens += pieces
            plain = 0.0 if drill else 3.0 if i in (0, 2) else 1.0
            weight += [4.0 if word in known else plain] * len(pieces)
    return np.array(tokens[:total]), np.array(weight[:total], np.float32)


def _any_facts(rng: Random) -> world.Facts:
    """Facts that nobody could guess: half of the time any word of the world stands in for a fact."""
    words = world.vocabulary()

    def some(choices: list[str]) -> str:
        return rng.choice(choices) if rng.random() < 0.5 else rng.choice(words)
    prices = {item: some(world.PRICES) for item in rng.sample(world.ITEMS, rng.randrange(2, 5))}
    odd = f"{rng.choice(words)} {rng.choice(words)}"
    company = rng.choice(world.COMPANIES) if rng.random() < 0.5 else odd
    rule = rng.choice(world.RULES) if rng.random() < 0.5 else " ".join(rng.sample(words, 3))
    return world.Facts(some(world.NAMES), company, some(world.OPENS), some(world.CLOSES), prices, rule)
