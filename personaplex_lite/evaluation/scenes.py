"""Situations of Full-Duplex-Bench in the little world: a pause, an interruption, a story; a voice never met.

What departs from the benchmark: the users are synthetic, the judge of an answer is its text row, the ear is
whisper tiny.en with silero's segments. The rules are the benchmark's (duplex/bench.py).
"""
from __future__ import annotations

from random import Random

import numpy as np

from ..agent import Agent
from ..audio import FRAME, RATE
from ..talk.persona import Voice
from ..training import world
from . import seeds
from .duplex import bench
from .judges import heard_words, need, number, right, share, speaker, voiced, wanted
from .questions import AFTER, BEFORE, Answer, Question, sound_of, talk

PAUSES = (0.6, 1.4)         # seconds inside a user's sentence
CUTS_IN = 1.7               # seconds after the user's first question, whose answer is then under way
DESK = ("price", "open", "close", "name", "company")
FRIEND = "you enjoy having a good conversation"


def spoken(parts: list[tuple[str, float]], user: str, seed: int) -> tuple[np.ndarray, list[tuple]]:
    """[(text, seconds of silence before it), ...] -> float32 [n], and when each text begins and ends."""
    synth, sound, times = need("personaplex_lite.training.speech").synth, [], []
    at = 0
    for text, gap in parts:
        said = synth(text, user, seed)
        sound += [np.zeros(int(gap * RATE), np.float32), said.pcm]
        at += int(gap * RATE)
        times.append(((at / RATE) + said.words[0][1], (at / RATE) + said.words[-1][2]))
        at += len(said.pcm)
    return np.concatenate(sound), times


def scene(kind: str, parts, want, role, voice, rng: Random, seed: int, after: float = AFTER) -> Question:
    """A call from its parts. `end`: the last one's; `marks`: when each part begins and ends."""
    user = rng.choice(list(need("personaplex_lite.training.speech").USER_VOICES))
    sound, marks = spoken(parts, user, seeds.FRESH + seed)
    sound = np.pad(sound, (0, int(after * RATE)))
    sound = np.pad(sound, (0, -len(sound) % FRAME))
    return Question(kind, " | ".join(text for text, _ in parts), want, role, voice, user, seed, sound,
                    marks[-1][1], tuple(marks))


def desk(what: str, n: int, seed: int, voices: list, first: int, compose) -> list[Question]:
    """Calls to front desks never seen in training. compose(kind, facts, rng) -> the call's parts, the item
    that is asked for; `first` keeps the speakers of one kind of scene apart from another's.
    """
    rng, calls = Random(f"{seed} {what}"), []
    for i in range(n):
        kind, facts = DESK[i % len(DESK)], world.make_facts(rng, "test")
        parts, item = compose(kind, facts, rng)
        calls.append(scene(kind, parts, wanted(kind, facts, item), world.role_text(facts, rng),
                           voices[i % len(voices)], rng, first + seeds.call(seed, i)))
    return calls


def pauses(n: int, seed: int, voices: list) -> list[Question]:
    """A question with a pause inside; nothing but silence follows its last word, as in the benchmark."""
    def compose(kind, facts, rng):
        item = rng.choice(list(facts.prices)) if kind == "price" else None
        return [(rng.choice(world.ASKING), BEFORE),
                (rng.choice(world.INDIRECT[kind]).format(item=item), rng.uniform(*PAUSES))], item
    return desk("pauses", n, seed, voices, 10_000, compose)


def interruptions(n: int, seed: int, voices: list) -> list[Question]:
    """A greeting; while the agent greets back at length, the user cuts in with a question."""
    def compose(kind, facts, rng):
        _, item, asked, _ = world.exchange(facts, rng, "train", kind)
        return [(rng.choice(["hello", "good morning", "hi there"]), BEFORE), (asked, CUTS_IN)], item
    return desk("interruptions", n, seed, voices, 20_000, compose)


def stories(n: int, seed: int, voices: list) -> list[Question]:
    """Five sentences of a story with short silences between them, to a friend."""
    rng, calls = Random(f"{seed} stories"), []
    for i in range(n):
        first = rng.randrange(len(world.STORY) - 5)
        parts = [(text, rng.uniform(0.5, 1.0)) for text in world.STORY[first:first + 5]]
        calls.append(scene("story", parts, (), FRIEND, voices[i % len(voices)], rng,
                           30_000 + seeds.call(seed, i), 0.2))
    return calls


def small_talk(n: int, seed: int, voices: list) -> list[Question]:
    """The teacher's and the friend's closed set of questions, spoken afresh."""
    rng, calls = Random(f"{seed} small talk"), []
    pairs = [(who, *pair) for who, talk in world.TALKS.items() for pair in talk["pairs"]]
    for i in range(n):
        who, asked, answer = pairs[(i * 7) % len(pairs)]
        calls.append(scene(who, [(asked, BEFORE)], (answer,), world.TALKS[who]["roles"][0],
                           voices[i % len(voices)], rng, 40_000 + seeds.call(seed, i)))
    return calls


def turn_figures(answers: list[Answer]) -> dict:
    """The benchmark's smooth turn-taking over plain questions."""
    files = [bench.turn_taking(heard_words(a.pcm, voiced(a.pcm)), a.question.end) for a in answers]
    return {"TOR": _rate(f["TOR"] for f in files),
            "latency, median": _latency(files)}


def pause_figures(answers: list[Answer]) -> dict:
    """Take-overs until the user is done (the benchmark's files end there), and the answers after it."""
    taken = []
    for a in answers:
        until = a.pcm[:int(a.question.end * RATE)]
        taken.append(bench.pause_handling(heard_words(until, voiced(until)))["TOR"])
    return {"TOR": _rate(taken), "right": share(sum(a.right for a in answers), len(answers))}


def interruption_figures(answers: list[Answer]) -> dict:
    """Silent within half a second of being cut in on (who was speaking then), then the new answer."""
    yields, files, good = [], [], []
    for a in answers:
        start, end = a.question.marks[-1]
        segments = voiced(a.pcm)
        yields.append(bench.yielded(segments, start))
        rest = a.pcm[int(end * RATE):]
        files.append(bench.user_interruption(heard_words(rest, voiced(rest)), 0.0))
        good.append(right(a.text_from(start), a.question.want))
    return {"speaking when cut in on": share(sum(y.value is not None for y in yields), len(yields)),
            "silent within 0.5 s": _rate(yields), "right": share(sum(good), len(good)),
            "TOR": _rate(f["TOR"] for f in files),
            "latency, median": _latency(files)}


def story_figures(answers: list[Answer]) -> dict:
    """Backchannels a second and take-overs while the user tells a story (revision r2, no listeners)."""
    files = []
    for a in answers:
        segments = voiced(a.pcm)
        files.append(bench.backchannel(heard_words(a.pcm, segments), segments, len(a.pcm) / RATE))
    often = [f["frequency"].value for f in files]
    return {"TOR": _rate(f["TOR"] for f in files),
            "some": share(sum(x > 0 for x in often), len(often)),
            "frequency": number(np.mean(often or [0]), len(often))}


def _rate(values) -> dict:
    known = [v.value for v in values if v.value is not None]
    return share(sum(known), len(known))


def _latency(files: list[dict]) -> dict:
    late = [f["latency"].value for f in files if f["latency"].value is not None]
    return number(np.median(late) if late else None, len(late))


def unseen_voices(agent: Agent, calls: list[Question], samples: dict) -> dict:
    """Voices that no training heard: is an answer nearer to its own prompt than to the others?"""
    speech = need("personaplex_lite.training.speech")
    hits, n = 0, 0
    for i, name in enumerate(speech.UNSEEN_VOICES):
        said = np.concatenate([speech.synth(t, name, seeds.FRESH).pcm for t in world.VOICE_SENTENCES[:2]])
        codes = Voice.from_wav(said, agent.mimi, name=name).codes[:, 1:25]
        own = speaker(sound_of(agent, codes))
        near = {**samples, name: own}
        for a in talk(agent, calls[i::len(speech.UNSEEN_VOICES)], f"a voice never met, {name}",
                      voice=Voice(codes, name=name)):
            e = speaker(a.pcm)
            if e is not None:
                n, hits = n + 1, hits + (max(near, key=lambda other: near[other] @ e) == name)
    return {"voice as prompted": share(hits, n)}
