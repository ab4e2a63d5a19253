"""Text -> speech with exact word and phoneme times: the teacher every `lite` model learns from.

One small synthesiser (hibari, one bundled voice, 24 kHz) plays all the parts. A new voice is the same one
spoken `1/r` times faster and then resampled by `r`: pitch and formants move together, the pace stays.

    utterance = synth("we open at eight in the morning", "NATF0", seed=1)
    utterance.pcm      # float32 [N], 24 kHz, speech at -24 dBFS
    utterance.words    # [("we", 0.04, 0.17), ("open", 0.17, 0.45), ...] in seconds
    utterance.phones   # int8 [ceil(N / 480)], one index into PHONES per 20 ms
"""
from dataclasses import dataclass
from functools import cache
from zlib import crc32

import numpy as np
import onnxruntime
import soxr
from hibari import Hibari, dsp

SAMPLE_RATE = 24_000
PHONE_HOP = 480                # samples per phoneme label: 50 Hz
TICK = 0.025                   # seconds per unit of hibari's durations
LAG = 0.040                    # seconds by which hibari's durations run late (measured at stops)
MARGIN = 0.040                 # silence kept at both ends, seconds
LOUDNESS = 10 ** (-24 / 20)    # RMS of the speaking part
PACE_JITTER = 0.12             # a seed changes the pace by up to this fraction
DURATIONS = "/Clip_output_0"   # the node inside hibari's graph that holds the length of each phoneme


@dataclass(frozen=True)
class Voice:
    """ratio: pitch and formants against the bundled voice; pace: speaking speed."""
    ratio: float
    pace: float = 1.0


AGENT_VOICES = {
    "NATF0": Voice(1.00), "NATF2": Voice(1.10), "NATM0": Voice(0.76), "NATM1": Voice(0.87),
}
USER_VOICES = {
    "USER0": Voice(0.80, 1.00), "USER1": Voice(0.94, 1.10), "USER2": Voice(1.05, 0.95),
    "USER3": Voice(1.16, 1.05), "USER4": Voice(0.90, 0.97), "USER5": Voice(1.00, 1.03),
    "USER6": Voice(0.77, 1.05), "USER7": Voice(0.84, 0.95), "USER8": Voice(0.98, 1.00),
    "USER9": Voice(1.02, 1.08), "USER10": Voice(1.10, 1.00), "USER11": Voice(1.13, 0.95),
}
VOICES = AGENT_VOICES | USER_VOICES

# Phoneme classes: 0 is silence, T the tap in "water", other capitals are diphthongs (A say, I my, O go,
# W now, Y boy). Rare symbols fold into these, and so do the marks of stress and length.
PHONES = ["", *"bdfhjklmnpstvwzðɡŋɹʃʒʤʧθT", *"AIOWYæɑɔəɛɜiɪuʊʌ"]
FOLDED = {"ᵊ": "ə", "ᵻ": "ɪ", "ɐ": "ə", "ɚ": "ə", "ɾ": "T", "ʔ": "t", "x": "k", "a": "æ", "e": "A", "o": "O"}
PHONE_INDEX = {symbol: index for index, symbol in enumerate(PHONES)}
PHONE_INDEX |= {rare: PHONE_INDEX[base] for rare, base in FOLDED.items()}
MARKS = "ˈˌ"                   # stress: its time goes to the sound that follows
SPELLINGS = {"i": "I", "close": "[close](/klˈOz/)"}     # not the letter; the verb, not the adjective
ASKING = {*"what when how who where which can could do does is are may until".split()}     # spoken with a "?"


@dataclass
class Utterance:
    """pcm: float32 [N] at 24 kHz; words: (word, start, end) in seconds; phones: int8 [ceil(N / 480)]."""
    pcm: np.ndarray
    words: list
    phones: np.ndarray

    @property
    def seconds(self):
        return len(self.pcm) / SAMPLE_RATE


def synth(text, voice, seed=0):
    """Speak lower-case `text` (no punctuation) in one of VOICES -> Utterance. Same arguments, same sound."""
    spec = VOICES[voice]
    rng = np.random.default_rng([seed, crc32(f"{voice} {text}".encode())])
    speed = spec.pace / spec.ratio * (1 + rng.uniform(-PACE_JITTER, PACE_JITTER))
    phonemes = phonemise(text)
    pcm, ticks = _run(phonemes, speed, rng)
    if spec.ratio != 1:
        pcm = soxr.resample(pcm, spec.ratio * SAMPLE_RATE, SAMPLE_RATE)
    edges = np.concatenate([[0], np.cumsum(ticks)]) * TICK / spec.ratio - LAG
    start, stop, gain = _speaking_part(pcm)
    pcm = (pcm[start:stop] * gain).astype(np.float32)
    first, last = MARGIN, len(pcm) / SAMPLE_RATE - MARGIN
    spans = _sounds(phonemes, np.clip(edges - start / SAMPLE_RATE, first, last))
    spans[0][2], spans[-1][3] = first, last                 # at both ends the waveform is more exact
    return Utterance(pcm, _word_times(text.split(), spans), _labels(spans, len(pcm)))


def phonemise(text):
    """Text -> hibari's phoneme string: a group of symbols per word, spaces between, a mark at the end."""
    words = [SPELLINGS.get(word, word) for word in text.split()]
    phonemes, = _engine().phonemize(" ".join(words) + ("?" if words[0] in ASKING else "."))
    if len(phonemes.split(" ")) != len(words):
        raise ValueError(f"cannot align {text!r} with {phonemes!r}")
    return phonemes


@cache
def _engine():
    """One Hibari per process, its session replaced by one that also returns the phoneme durations."""
    engine = Hibari()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with open(engine.model_path, "rb") as file:
        model = _with_output(file.read(), DURATIONS)
    engine.sess = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return engine


def _with_output(model, name):
    """Serialised ONNX model -> the same with inner node `name` as one more output.

    Protobuf merges a message that appears twice, so it is enough to append ModelProto.graph (field 7) holding
    GraphProto.output (12) holding ValueInfoProto.name (1). Every length here is below 128: one byte each.
    """
    message = name.encode()
    for field in (1, 12, 7):
        message = bytes([field << 3 | 2, len(message)]) + message
    return model + message


def _run(phonemes, speed, rng):
    """Phoneme string -> float32 waveform at 24 kHz, and the ticks of each id [len(phonemes) + 2]."""
    engine = _engine()
    ids = engine.ids(phonemes)
    if len(ids) != len(phonemes) + 2:
        raise ValueError(f"{phonemes!r} holds symbols the synthesiser does not know")
    inputs = {"ids": np.array([ids]), "speed": np.array([speed], np.float32)}
    *spectrum, ticks = engine.sess.run(None, inputs)
    return dsp.synth(*(part[0] for part in spectrum), rng), ticks


def _speaking_part(pcm):
    """Waveform -> first and last sample to keep, and the gain that brings the speech to LOUDNESS."""
    block = SAMPLE_RATE // 200                                          # 5 ms
    power = np.square(pcm[: len(pcm) // block * block].reshape(-1, block)).mean(1)
    active = np.flatnonzero(power > power.max() * 1e-4)             # down to 40 dB below the loudest moment
    margin = round(MARGIN * SAMPLE_RATE)
    start, stop = active[0] * block - margin, (active[-1] + 1) * block + margin
    return max(start, 0), min(stop, len(pcm)), LOUDNESS / np.sqrt(power[active].mean())


def _sounds(phonemes, edges):
    """Phoneme string, edges float [len + 3] in seconds -> [[word index, phone class, start, end], ...].

    A space gives half of its time to either side; the punctuation at the end is left out.
    """
    spans, word, start = [], 0, edges[1]
    for symbol, left, right in zip(phonemes, edges[1:], edges[2:]):
        if symbol == " ":
            middle = (left + right) / 2
            spans[-1][3], start, word = middle, middle, word + 1
        elif symbol in PHONE_INDEX:
            spans.append([word, PHONE_INDEX[symbol], start, right])
            start = right
        elif symbol == "ː":
            spans[-1][3] = start = right
        elif symbol not in MARKS:                                       # punctuation: silence
            start = right
    return spans


def _word_times(words, spans):
    """-> [(word, start, end)] in seconds, rounded to a millisecond."""
    times = []
    for index, word in enumerate(words):
        mine = [span for span in spans if span[0] == index]
        times.append((word, round(float(mine[0][2]), 3), round(float(mine[-1][3]), 3)))
    return times


def _labels(spans, samples):
    """-> int8 [ceil(samples / 480)]: the phone class at the middle of each 20 ms."""
    labels = np.zeros(-(-samples // PHONE_HOP), np.int8)
    rate = SAMPLE_RATE / PHONE_HOP
    for _, phone, start, end in spans:
        labels[round(start * rate): round(end * rate)] = phone
    return labels
