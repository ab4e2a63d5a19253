"""The instruments of the duplex benchmark, each behind one small protocol: who hears words, who knows voices,
who judges answers. The paper's, and offline ones for a laptop.

An instrument has a name that goes into every results file, and numbers of different instruments never share
a column. The offline ones are stand-ins: whisper tiny.en for parakeet, GE2E for WavLM, a fact asked for and
found for the language model that judges. None of their numbers is comparable with a published one.
"""
from __future__ import annotations

import json
import os
from importlib import import_module
from types import ModuleType
from typing import Protocol
from urllib.request import Request, urlopen

import numpy as np

from ...audio import RATE, resample
from .. import judges
from . import bench

ATTEMPTS = 3            # how often a judge is asked for an answer that can be read (officially: forever)


class Words(Protocol):
    """Hears words: float32 [n] at 24 kHz -> (text, start, end) each, seconds."""
    name: str

    def __call__(self, pcm: np.ndarray) -> list[tuple]: ...


class Speaker(Protocol):
    """Knows voices: float32 [n] at 24 kHz -> embedding [d], or None where too little voice is heard."""
    name: str

    def __call__(self, pcm: np.ndarray) -> np.ndarray | None: ...


class Judge(Protocol):
    """(an entry of interrupt.json, the answer to it) -> what it replies, until one reply can be read."""
    name: str

    def __call__(self, about: dict, answer: str) -> list[str]: ...


def voice_segments(pcm: np.ndarray, rate: int = RATE, resampled: bool = True) -> list[tuple[float, float]]:
    """Where a voice is heard, as the benchmark hears it: silero, its defaults, seconds rounded to 0.1.

    resampled=False is the official code before 2026-05-10: at whatever rate, it was read as 16 kHz.
    `judges.voiced` gives exact seconds.
    """
    import torch
    heard = resample(pcm, rate, judges.EAR) if resampled else pcm
    found = judges.need("silero_vad").get_speech_timestamps(torch.from_numpy(heard), judges.silero(),
                                                           return_seconds=True)
    return [(segment["start"], segment["end"]) for segment in found]


class Whisper:
    """tiny.en, offline. Words are kept inside the voice segments: without that onsets come 0.4 s early."""
    name = "whisper tiny.en + silero"

    def __call__(self, pcm: np.ndarray) -> list[tuple]:
        segments = judges.voiced(pcm)
        return judges.heard_words(pcm, segments) if segments else []


class Parakeet:
    """The benchmark's own, through NVIDIA NeMo (nemo_toolkit[asr]). Not tried: no weights here."""
    name = "nvidia/parakeet-tdt-0.6b-v2"

    def __init__(self) -> None:
        models = fetch("nemo.collections.asr", "nemo_toolkit[asr]").models
        self.model = models.ASRModel.from_pretrained(self.name)

    def __call__(self, pcm: np.ndarray) -> list[tuple]:
        heard = self.model.transcribe([resample(pcm, RATE, judges.EAR)], timestamps=True)[0]
        return [(word["word"], word["start"], word["end"]) for word in heard.timestamp["word"]]


class GE2E:
    """resemblyzer, offline. Unrelated voices score 0.4 to 0.6 with it: not the card's similarity."""
    name = "GE2E (resemblyzer)"

    def __call__(self, pcm: np.ndarray) -> np.ndarray | None:
        return judges.speaker(pcm)


class WavLM:
    """WavLM with an x-vector head, through transformers. Not tried: no weights here.

    The card says "WavLM-TDNN" and no more; its figures look like UniSpeech's wavlm_large_finetune, which is
    not on the hub. So this one goes by its own name and does not share the card's column.
    """

    def __init__(self, model: str = "microsoft/wavlm-base-plus-sv"):
        hub = fetch("transformers", "transformers")
        self.name = f"WavLM ({model})"
        self.model = hub.WavLMForXVector.from_pretrained(model).eval()
        self.extract = hub.AutoFeatureExtractor.from_pretrained(model)

    def __call__(self, pcm: np.ndarray) -> np.ndarray | None:
        import torch
        voiced = [pcm[int(start * RATE):int(end * RATE)] for start, end in judges.voiced(pcm)]
        if not voiced:
            return None
        heard = resample(np.concatenate(voiced), RATE, judges.EAR)
        inputs = self.extract(heard, sampling_rate=judges.EAR, return_tensors="pt")
        with torch.no_grad():
            return self.model(**inputs).embeddings[0].numpy()


def fetch(module: str, package: str) -> ModuleType:
    """Import what none of the extras brings, or say how to get it (ModuleNotFoundError)."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"this instrument needs {error.name!r}: pip install {package}") from None


RUBRIC = """\
A user talks to a voice assistant and interrupts it. You read what the user asked before (CONTEXT),
what the user said to interrupt (INTERRUPTION), and what the assistant said then, as a speech recogniser wrote
it down (ANSWER). How well does the answer relate to the interruption? Give a whole number from 0 (totally
unrelated) through 3 (related in part) to 5 (perfectly related). Reply in exactly this form, two lines:
Analysis: <one or two sentences>
I would rate the AI's response as <number>."""


class LLM:
    """A language model behind any OpenAI-compatible address, with the published scale in our own words.

    address : such as http://localhost:8000/v1. model : its name there. Seed 0 and default temperature, as
    officially. The key is read from OPENAI_API_KEY at each question; it is never kept, printed or stored.
    """

    def __init__(self, address: str, model: str = "gpt-4-turbo"):
        self.address = address.rstrip("/")
        self.model = model
        self.name = f"{model}, our prompt"

    def __call__(self, about: dict, answer: str) -> list[str]:
        question = f"CONTEXT: {about['context']}\nINTERRUPTION: {about['interrupt']}\nANSWER: {answer}"
        replies = [self._ask(question)]
        while len(replies) < ATTEMPTS and bench.parse_rating(replies[-1]) is None:
            replies.append(self._ask(question))
        return replies

    def _ask(self, question: str) -> str:
        messages = [{"role": "system", "content": RUBRIC}, {"role": "user", "content": question}]
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        body = json.dumps({"model": self.model, "seed": 0, "messages": messages}).encode()
        request = Request(f"{self.address}/chat/completions", body, headers)
        try:
            with urlopen(request, timeout=120) as answer:
                return json.load(answer)["choices"][0]["message"]["content"] or ""
        except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
            why = f"HTTP {error.code}" if hasattr(error, "code") else type(error).__name__
            raise OSError(f"the judge at {self.address} gave no answer ({why}): check the address, the "
                          "model's name and OPENAI_API_KEY") from None


class Facts:
    """Offline: 5 if the answer holds the words that the sample's `want` lists (ours has it), else 0."""
    name = "fact found (5) or not (0)"

    def __call__(self, about: dict, answer: str) -> list[str]:
        if "want" not in about:
            return []
        points = 5 * judges.right(answer, tuple(about["want"]))
        return [f"Analysis: wanted {about['want']}.\nI would rate the AI's response as {points}."]
