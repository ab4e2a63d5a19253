"""A voice: a few seconds of somebody speaking, as codes; from a recording, or from a file of tensors."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import audio

LONGEST_VOICE = 20.0     # seconds of a sample that are used


@dataclass(frozen=True)
class Voice:
    """A voice to speak with: the codes of a sample, or what the model made of them when it was recorded.

    codes int64 [8, n]; or, as in official files, embeddings float [n - 1, 1, 1, d], cache int64 [1, 17, w].
    """
    codes: Tensor | None = None
    embeddings: Tensor | None = None
    cache: Tensor | None = None
    name: str = "custom"

    def __post_init__(self):
        parts = (self.codes,) if self.embeddings is None else (self.embeddings, self.cache)
        if not all(isinstance(part, Tensor) for part in parts):
            raise ValueError(f"{self.name!r} is not a voice: it must hold `codes`, "
                             "or `embeddings` and `cache`, as tensors")

    @classmethod
    def from_wav(cls, source, mimi, rate: int | None = None, name: str = "custom") -> Voice:
        """From any recording of somebody speaking, best 3 to 15 s; brought to -24 LUFS. Raises AudioError."""
        wav = audio.read(source, rate, "this voice sample")[:int(LONGEST_VOICE * audio.RATE)]
        if len(wav) < audio.RATE // 2:
            raise audio.AudioError(f"this voice sample lasts {len(wav) / audio.RATE:.2f} s: "
                                   "give at least half a second")
        wav = torch.from_numpy(audio.normalise(wav.numpy()))
        return cls(codes=mimi.encode(wav)[0].cpu(), name=name)

    @classmethod
    def load(cls, path) -> Voice:
        """From `.safetensors` (ours) or `.pt` (official). Only tensors are read, code is never run."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no voice at {path}")
        try:
            tensors = (load_file(str(path)) if path.suffix == ".safetensors" else
                       torch.load(path, map_location="cpu", weights_only=True))
        except Exception:       # the reader raises whatever broken bytes lead it to
            raise ValueError(f"{path} is not a voice: it must hold tensors and nothing else") from None
        tensors = tensors if isinstance(tensors, dict) else {}
        return cls(tensors.get("codes"), tensors.get("embeddings"), tensors.get("cache"), path.stem)

    def save(self, path) -> Path:
        """Keep it as safetensors."""
        save_file({n: t.contiguous() for n in ("codes", "embeddings", "cache")
                   if (t := getattr(self, n)) is not None}, str(path))
        return Path(path)
