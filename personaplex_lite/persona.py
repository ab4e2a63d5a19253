"""Who the agent is: a voice and a role, read before the talk as frames that are all given.

What departs from the textbook: there is no prompt encoder. A voice sample is laid into the agent's own rows
as if the agent had just said it, a role is laid into its text row as if it had just thought it, and the
user's rows carry a 440 Hz sine, a sound no user makes (PersonaPlex paper, "hybrid system prompt").

    voice codes, PAD -> 6 frames of silence -> <system> role <system>, a token a frame -> 6 frames of silence
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import audio, inputs
from .config import LMConfig
from .text import Text

PAUSE = 6                # frames of silence after each part: int(0.5 s · 12.5 Hz)
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


@dataclass(frozen=True)
class Persona:
    """Who the agent is to be; by default nobody: no voice, no role."""
    voice: str | Path | Voice | None = None   # a name the checkpoint ships, a path (.wav, .pt, .safetensors)
    role: str = ""                            # what it is told about itself, plain text


@dataclass(frozen=True)
class Prompt:
    """Forced frames: tokens int64 [p, 17]; a recorded voice brings its frames' embeddings [n - 1, d]."""
    tokens: Tensor
    embeddings: Tensor | None = None
    cache: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)


def build(voice: Voice | None, role: str, config: LMConfig, text: Text | None) -> Prompt:
    """Lay out the hybrid prompt. Raises ValueError if it is too long, or the voice another model's."""
    if voice is not None:
        inputs.check_voice(voice, config)
    if voice is None:
        spoken = torch.zeros(0, config.codebooks, dtype=torch.int64)
    elif voice.embeddings is None:
        spoken = voice.codes.T
    else:                                               # never looked at: the embeddings stand in
        spoken = torch.full((len(voice.embeddings) + 1, config.codebooks), config.audio_vocab)
    tokens = text.role(role) if text and role.strip() else []
    prompt, most = lay_out(spoken, tokens, config, voice), config.temporal.context - 2
    if len(prompt) > most:
        raise ValueError(f"this persona takes {len(prompt)} frames ({len(prompt) * 0.08:.0f} s), more than "
                         f"the model remembers ({most}): shorten the role ({len(tokens)} tokens) or the "
                         f"voice ({len(spoken)} frames)")
    return prompt


def lay_out(spoken: Tensor, role: list[int], config: LMConfig, voice: Voice | None = None) -> Prompt:
    """spoken int64 [n, 8], role tokens -> Prompt of n + 6 + role + 6 frames; of none if both are empty."""
    n, quiet = len(spoken), torch.tensor(config.silence)
    length = n + PAUSE + len(role) + PAUSE if n or role else 0
    tokens = torch.full((length, config.rows), config.pad)
    tokens[:, config.user] = torch.tensor(config.sine)
    tokens[:n, config.agent], tokens[n:, config.agent] = spoken, quiet
    tokens[n + PAUSE:n + PAUSE + len(role), 0] = torch.tensor(role, dtype=torch.int64)
    if voice is None or voice.embeddings is None:
        return Prompt(tokens)
    return Prompt(tokens, voice.embeddings.reshape(n - 1, -1), voice.cache)
