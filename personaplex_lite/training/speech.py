"""Text -> speech with exact word and phoneme times: the teachers every `lite` model learns from.

A few free synthesisers (engines.py) play all the parts. A new voice is one of them spoken `1/r` times
faster and then resampled by `r`: pitch and formants move together, the pace stays.

    utterance = synth("we open at eight in the morning", "NATF0", seed=1)
    utterance.pcm      # float32 [N], 24 kHz, speech at -24 dBFS
    utterance.words    # [("we", 0.04, 0.17), ("open", 0.17, 0.45), ...] in seconds
    utterance.phones   # int8 [ceil(N / 480)], one index into PHONES per 20 ms
"""
from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import soxr

from .engines import ENGINES

SAMPLE_RATE = 24_000
PHONE_HOP = 480                # samples per phoneme label: 50 Hz
MARGIN = 0.040                 # silence kept at both ends, seconds
LOUDNESS = 10 ** (-24 / 20)    # RMS of the speaking part
PACE_JITTER = 0.12             # a seed changes the pace by up to this fraction


@dataclass(frozen=True)
class Voice:
    """ratio: pitch and formants against the engine's own; pace: speaking speed; engine: who speaks."""
    ratio: float
    pace: float = 1.0
    engine: str = "hibari"


AGENT_VOICES = {
    "NATF0": Voice(1.00), "NATF1": Voice(1.00, 1.00, "slt"), "NATF2": Voice(1.14),
    "NATM0": Voice(1.00, 1.00, "joe"), "NATM1": Voice(1.00, 1.20, "rms"), "NATM2": Voice(0.92, 1.00, "awb"),
    "NATM3": Voice(0.78), "VARM0": Voice(1.17, 1.15, "rms"),
}
USER_VOICES = {
    "USER0": Voice(0.82, 1.00), "USER1": Voice(0.90, 1.05), "USER2": Voice(0.95, 0.97),
    "USER3": Voice(1.06, 1.05), "USER4": Voice(1.20, 0.95), "USER5": Voice(0.91, 1.00, "slt"),
    "USER6": Voice(1.10, 1.05, "slt"), "USER7": Voice(0.90, 1.20, "rms"), "USER8": Voice(1.08, 1.10, "rms"),
    "USER9": Voice(1.05, 1.00, "awb"), "USER10": Voice(0.84, 1.05, "awb"), "USER11": Voice(0.90, 1.00, "joe"),
    "USER12": Voice(1.10, 1.05, "joe"),
}
# Heard by no training, codec's or language model's: a synthesiser and a pitch of their own.
UNSEEN_VOICES = {"UNSEEN0": Voice(1.00, 1.00, "kal16"), "UNSEEN1": Voice(1.18, 1.00, "joe")}
VOICES = AGENT_VOICES | USER_VOICES | UNSEEN_VOICES


@dataclass
class Utterance:
    """pcm: float32 [N] at 24 kHz; words: (word, start, end) in seconds; phones: int8 [ceil(N / 480)]."""
    pcm: np.ndarray
    words: list[tuple[str, float, float]]
    phones: np.ndarray

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE


def synth(text: str, voice: str, seed: int = 0) -> Utterance:
    """Speak lower-case `text` (no punctuation) in one of VOICES -> Utterance. Same arguments, same sound."""
    spec = VOICES[voice]
    rng = np.random.default_rng([seed, crc32(f"{voice} {text}".encode())])
    speed = spec.pace / spec.ratio * (1 + rng.uniform(-PACE_JITTER, PACE_JITTER))
    pcm, rate, spans = ENGINES[spec.engine](text, speed, rng)
    if (rate := spec.ratio * rate) != SAMPLE_RATE:
        pcm = soxr.resample(pcm, rate, SAMPLE_RATE)
    start, stop, gain = _speaking_part(pcm)
    pcm = (pcm[start:stop] * gain).astype(np.float32)
    first, last = MARGIN, len(pcm) / SAMPLE_RATE - MARGIN
    for span in spans:
        span[2:] = np.clip(np.array(span[2:]) / spec.ratio - start / SAMPLE_RATE, first, last)
    spans[0][2], spans[-1][3] = first, last                 # at both ends the waveform is more exact
    return Utterance(pcm, _word_times(text.split(), spans), _labels(spans, len(pcm)))


def _speaking_part(pcm: np.ndarray) -> tuple[int, int, float]:
    """Waveform -> first and last sample to keep, and the gain that brings the speech to LOUDNESS."""
    block = SAMPLE_RATE // 200                                          # 5 ms
    power = np.square(pcm[: len(pcm) // block * block].reshape(-1, block)).mean(1)
    active = np.flatnonzero(power > power.max() * 1e-4)             # down to 40 dB below the loudest moment
    margin = round(MARGIN * SAMPLE_RATE)
    start, stop = active[0] * block - margin, (active[-1] + 1) * block + margin
    return max(start, 0), min(stop, len(pcm)), LOUDNESS / np.sqrt(power[active].mean())


def _word_times(words: list[str], spans: list[list]) -> list[tuple[str, float, float]]:
    """-> [(word, start, end)] in seconds, rounded to a millisecond."""
    times = []
    for index, word in enumerate(words):
        mine = [span for span in spans if span[0] == index]
        times.append((word, round(float(mine[0][2]), 3), round(float(mine[-1][3]), 3)))
    return times


def _labels(spans: list[list], samples: int) -> np.ndarray:
    """-> int8 [ceil(samples / 480)]: the phone class at the middle of each 20 ms."""
    labels = np.zeros(-(-samples // PHONE_HOP), np.int8)
    rate = SAMPLE_RATE / PHONE_HOP
    for _, phone, start, end in spans:
        labels[round(start * rate): round(end * rate)] = phone
    return labels
