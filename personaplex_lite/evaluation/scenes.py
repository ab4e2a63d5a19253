"""Situations of Full-Duplex-Bench in the little world: a pause, an interruption, a story; a voice never met.

The users are synthetic, the judge of an answer is its text row, the ear is whisper tiny.en with silero's
segments. The rules are the benchmark's (duplex/bench.py).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

import numpy as np

from ..agent import Agent
from ..audio import RATE
from ..talk.persona import Voice
from ..training import world
from . import seeds
from .duplex import bench
from .figures import closest
from .judges import heard_words, need, number, right, share, speaker, voiced, wanted
from .questions import AFTER, BEFORE, Answer, Question, sound_of, talk, whole_frames

PAUSES = (0.6, 1.4)         # seconds inside a user's sentence
BREATHS = (0.5, 1.0)        # seconds between the sentences of a story
CUTS_IN = 1.7               # seconds after the user's first words, when their answer is under way
SENTENCES = 5               # of a story
DESK = ("price", "open", "close", "name", "company")
FRIEND = "you enjoy having a good conversation"
HELLOS = ["hello", "good morning", "hi there"]
# Where the seeds of one kind of scene begin: lest its speakers be another's.
PAUSE_SEEDS = 10_000
INTERRUPTION_SEEDS = 20_000
STORY_SEEDS = 30_000
TALK_SEEDS = 40_000

Part = tuple[str, float]                                # a text, and the seconds of silence before it
Span = tuple[float, float]                              # from one second to another
Composer = Callable[[str, world.Facts, Random], tuple[list[Part], str | None]]


def spoken(parts: list[Part], user: str, seed: int) -> tuple[np.ndarray, list[Span]]:
    """Parts of a call -> its sound, float32 [n], and when each text begins and ends."""
    synth = need("personaplex_lite.training.speech").synth
    sound: list[np.ndarray] = []
    times: list[Span] = []
    at = 0                                              # samples so far
    for text, gap in parts:
        said = synth(text, user, seed)
        silence = np.zeros(int(gap * RATE), np.float32)
        sound += [silence, said.pcm]
        at += len(silence)
        first, last = said.words[0], said.words[-1]
        times.append((at / RATE + first[1], at / RATE + last[2]))
        at += len(said.pcm)
    return np.concatenate(sound), times


def scene(kind: str, parts: list[Part], want: tuple[str, ...], role: str, voice: str, rng: Random, seed: int,
          after: float = AFTER) -> Question:
    """A call from its parts. `end`: the last one's; `marks`: when each part begins and ends."""
    user = rng.choice(list(need("personaplex_lite.training.speech").USER_VOICES))
    sound, marks = spoken(parts, user, seeds.FRESH + seed)
    sound = whole_frames(np.pad(sound, (0, int(after * RATE))))
    asked = " | ".join(text for text, _ in parts)
    _, end = marks[-1]
    return Question(kind, asked, want, role, voice, user, seed, sound, end, tuple(marks))


def desk(what: str, n: int, seed: int, voices: list[str], first: int, compose: Composer) -> list[Question]:
    """Calls to front desks never seen in training.

    compose : (kind, facts, rng) -> the call's parts, and the item that is asked for, or None. first : where
    the seeds of this kind of scene begin.
    """
    rng = Random(f"{seed} {what}")
    calls = []
    for i in range(n):
        kind = DESK[i % len(DESK)]
        facts = world.make_facts(rng, "test")
        parts, item = compose(kind, facts, rng)
        role = world.role_text(facts, rng)
        voice = voices[i % len(voices)]
        calls.append(scene(kind, parts, wanted(kind, facts, item), role, voice, rng,
                           first + seeds.call(seed, i)))
    return calls


def pauses(n: int, seed: int, voices: list[str]) -> list[Question]:
    """A question with a pause inside; nothing but silence follows its last word, as in the benchmark."""
    def compose(kind: str, facts: world.Facts, rng: Random) -> tuple[list[Part], str | None]:
        item = rng.choice(list(facts.prices)) if kind == "price" else None
        begins = (rng.choice(world.ASKING), BEFORE)
        rest = rng.choice(world.INDIRECT[kind]).format(item=item)
        return [begins, (rest, rng.uniform(*PAUSES))], item
    return desk("pauses", n, seed, voices, PAUSE_SEEDS, compose)


def interruptions(n: int, seed: int, voices: list[str]) -> list[Question]:
    """A greeting; while the agent greets back at length, the user cuts in with a question."""
    def compose(kind: str, facts: world.Facts, rng: Random) -> tuple[list[Part], str | None]:
        _, item, asked, _ = world.exchange(facts, rng, "train", kind)
        return [(rng.choice(HELLOS), BEFORE), (asked, CUTS_IN)], item
    return desk("interruptions", n, seed, voices, INTERRUPTION_SEEDS, compose)


def stories(n: int, seed: int, voices: list[str]) -> list[Question]:
    """Five sentences of a story with short silences between them, to a friend."""
    rng = Random(f"{seed} stories")
    calls = []
    for i in range(n):
        first = rng.randrange(len(world.STORY) - SENTENCES)
        parts = [(text, rng.uniform(*BREATHS)) for text in world.STORY[first:first + SENTENCES]]
        voice = voices[i % len(voices)]
        calls.append(scene("story", parts, (), FRIEND, voice, rng, STORY_SEEDS + seeds.call(seed, i), 0.2))
    return calls


def small_talk(n: int, seed: int, voices: list[str]) -> list[Question]:
    """The teacher's and the friend's closed set of questions, spoken afresh."""
    rng = Random(f"{seed} small talk")
    pairs = [(who, *pair) for who, told in world.TALKS.items() for pair in told["pairs"]]
    calls = []
    for i in range(n):
        who, asked, answer = pairs[(i * 7) % len(pairs)]        # seven on: not all of one person's
        role = world.TALKS[who]["roles"][0]
        voice = voices[i % len(voices)]
        calls.append(scene(who, [(asked, BEFORE)], (answer,), role, voice, rng,
                           TALK_SEEDS + seeds.call(seed, i)))
    return calls


def turn_figures(answers: list[Answer]) -> dict[str, dict]:
    """The benchmark's smooth turn-taking over plain questions."""
    files = []
    for answer in answers:
        words = heard_words(answer.pcm, voiced(answer.pcm))
        files.append(bench.turn_taking(words, answer.question.end))
    return {"TOR": _rate(file["TOR"] for file in files), "latency, median": _latency(files)}


def pause_figures(answers: list[Answer]) -> dict[str, dict]:
    """Take-overs until the user is done (the benchmark's files end there), and the answers after it."""
    taken = []
    for answer in answers:
        until = answer.pcm[:int(answer.question.end * RATE)]
        words = heard_words(until, voiced(until))
        taken.append(bench.pause_handling(words)["TOR"])
    good = sum(answer.right for answer in answers)
    return {"TOR": _rate(taken), "right": share(good, len(answers))}


def interruption_figures(answers: list[Answer]) -> dict[str, dict]:
    """Silent within half a second of being cut in on (who was speaking then), then the new answer."""
    yields, files, good = [], [], []
    for answer in answers:
        start, end = answer.question.marks[-1]
        yields.append(bench.yielded(voiced(answer.pcm), start))
        rest = answer.pcm[int(end * RATE):]
        files.append(bench.user_interruption(heard_words(rest, voiced(rest)), 0.0))
        good.append(right(answer.text_from(start), answer.question.want))
    speaking = sum(value.value is not None for value in yields)
    return {"speaking when cut in on": share(speaking, len(yields)),
            "silent within 0.5 s": _rate(yields),
            "right": share(sum(good), len(good)),
            "TOR": _rate(file["TOR"] for file in files),
            "latency, median": _latency(files)}


def story_figures(answers: list[Answer]) -> dict[str, dict]:
    """Backchannels a second and take-overs while the user tells a story (revision r2, no listeners)."""
    files = []
    for answer in answers:
        segments = voiced(answer.pcm)
        words = heard_words(answer.pcm, segments)
        files.append(bench.backchannel(words, segments, len(answer.pcm) / RATE))
    often = [file["frequency"].value for file in files]
    return {"TOR": _rate(file["TOR"] for file in files),
            "some": share(sum(rate > 0 for rate in often), len(often)),
            "frequency": number(np.mean(often or [0]), len(often))}


def _rate(values: Iterable[bench.Value]) -> dict:
    """The share of ones among the values that there are."""
    known = [value.value for value in values if value.value is not None]
    return share(sum(known), len(known))


def _latency(files: list[dict[str, bench.Value]]) -> dict:
    """The median of the latencies that there are, in seconds."""
    late = [file["latency"].value for file in files if file["latency"].value is not None]
    return number(np.median(late) if late else None, len(late))


def unseen_voices(agent: Agent, calls: list[Question], samples: dict[str, np.ndarray]) -> dict[str, dict]:
    """Voices that no training heard: is an answer nearer to its own prompt than to the others?"""
    speech = need("personaplex_lite.training.speech")
    hits = n = 0
    for i, name in enumerate(speech.UNSEEN_VOICES):
        # the prompt: two sentences through the codec, as a voice is stored
        said = [speech.synth(text, name, seeds.FRESH).pcm for text in world.VOICE_SENTENCES[:2]]
        codes = Voice.from_wav(np.concatenate(said), agent.mimi, name=name).codes[:, 1:25]
        near = {**samples, name: speaker(sound_of(agent, codes))}
        mine = calls[i::len(speech.UNSEEN_VOICES)]
        for answer in talk(agent, mine, f"a voice never met, {name}", voice=Voice(codes, name=name)):
            heard = speaker(answer.pcm)
            if heard is not None:
                n += 1
                hits += closest(near, heard) == name
    return {"voice as prompted": share(hits, n)}
