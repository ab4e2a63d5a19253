"""Who the agent is: a voice and a role, read before the talk as frames that are all given.

What departs from the textbook: there is no prompt encoder. A voice sample is laid into the agent's own rows
as if the agent had just said it, a role is laid into its text row as if it had just thought it, and the
user's rows carry a 440 Hz sine, a sound no user makes (PersonaPlex paper, "hybrid system prompt").

    voice codes, PAD -> 6 frames of silence -> <system> role <system>, one token a frame -> 6 frames of
    silence
"""
from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import audio
from .config import UNGIVEN, LMConfig
from .text import Text

PAUSE = 6                # frames of silence after each part: int(0.5 s · 12.5 Hz)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
LONGEST_VOICE = 20.0     # seconds of a sample that are used


@dataclass(frozen=True)
class Voice:
    """A voice to speak with: the codes of a sample, or what the model made of them when it was recorded.

    codes int64 [8, n]; or embeddings float [n - 1, 1, 1, d] with cache int64 [1, 17, w], as in the official
    files. """
    codes: Tensor | None = None
    embeddings: Tensor | None = None
    cache: Tensor | None = None
    name: str = "custom"

    @classmethod
    def from_wav(cls, source, mimi, rate: int | None = None, name: str = "custom") -> Voice:
        """From any recording of somebody speaking, best 3 to 15 seconds; brought to -24 LUFS. Raises
        AudioError."""
        wav = audio.read(source, rate, "this voice sample")[:int(LONGEST_VOICE * audio.RATE)]
        if len(wav) < audio.RATE // 2:
            raise audio.AudioError(f"this voice sample lasts {len(wav) / audio.RATE:.2f} s: give at least "
                                   f"half a second")
        wav = torch.from_numpy(audio.normalise(wav.numpy()))
        return cls(codes=mimi.encode(wav)[0].cpu(), name=name)

    @classmethod
    def load(cls, path) -> Voice:
        """From `.safetensors` (ours) or `.pt` (official). Only tensors are read: code in a file is never
        run."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no voice at {path}")
        try:
            tensors = (load_file(str(path)) if path.suffix == ".safetensors" else
                       torch.load(path, map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, KeyError, ValueError):
            raise ValueError(f"{path} is not a voice: it must hold tensors and nothing else") from None
        if not isinstance(tensors,
                          dict) or not ({"codes"} <= tensors.keys() or {"embeddings",
                                                                        "cache"} <= tensors.keys()):
            raise ValueError(f"{path} is not a voice: it must hold `codes`, or `embeddings` and `cache`")
        return cls(tensors.get("codes"), tensors.get("embeddings"), tensors.get("cache"), path.stem)

    def save(self, path) -> Path:
        """Keep it as safetensors."""
        save_file({n: t.contiguous() for n in ("codes", "embeddings", "cache")
                   if (t := getattr(self, n)) is not None}, str(path))
        return Path(path)


@dataclass(frozen=True)
class Persona:
    """voice: a name the checkpoint ships, a path (.wav, .pt, .safetensors), a Voice, or None for no sample.
    role: what it is told about itself, plain text."""
    voice: str | Path | Voice | None = None
    role: str = ""


@dataclass(frozen=True)
class Prompt:
    """The forced frames of one persona: tokens int64 [p, 17]; a recorded voice brings the first ones'
    embeddings."""
    tokens: Tensor
    embeddings: Tensor | None = None
    cache: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)


def build(voice: Voice | None, role: str, config: LMConfig, text: Text | None) -> Prompt:
    """Lay out the hybrid prompt. Raises ValueError if it cannot fit the model's memory, or the voice another
    model."""
    if voice is not None and voice.embeddings is not None:
        _check_recorded(voice, config)
        n = len(voice.embeddings) + 1
        # not looked at: embeddings stand in
        spoken = torch.full((n, config.codebooks), config.audio_vocab)
    else:
        codes = torch.zeros(config.codebooks, 0, dtype=torch.int64) if voice is None else voice.codes
        if codes.ndim != 2 or len(codes) != config.codebooks:
            raise ValueError(f"the voice {voice.name!r}: codes must be integers [{config.codebooks}, n], "
                             f"got {list(codes.shape)}")
        spoken = codes.T
        check_codes(spoken, config, f"the voice {getattr(voice, 'name', None)!r}")
    tokens = text.role(role) if text and role.strip() else []
    prompt, most = lay_out(spoken, tokens, config, voice), config.temporal.context - 2
    if len(prompt) > most:
        raise ValueError(f"this persona takes {len(prompt)} frames ({len(prompt) * 0.08:.0f} s), more than "
                         f"the model "
                         f"remembers ({most}): shorten the role ({len(tokens)} tokens) or the voice "
                         f"({len(spoken)} frames)")
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


def check_codes(codes: Tensor, config: LMConfig, what: str) -> None:
    """Raise ValueError unless codes are integers [..., 8] of this codec."""
    q, bins = config.codebooks, config.audio_vocab
    if codes.dtype not in INTEGERS or codes.ndim < 1 or codes.shape[-1] != q:
        raise ValueError(f"{what}: codes must be integers [..., {q}], got {codes.dtype} {list(codes.shape)}")
    if codes.numel() and codes.device.type == "cpu" and (codes.min() < 0 or codes.max() >= bins):
        raise ValueError(f"{what}: codes must lie in 0..{bins - 1}, got "
                         f"{int(codes.min())}..{int(codes.max())}")


def _check_recorded(voice: Voice, config: LMConfig) -> None:
    e, c, d = voice.embeddings, voice.cache, config.temporal.dim
    if e.ndim != 4 or not len(e) or e.shape[1:] != (1, 1, d) or c.shape != (1, config.rows,
                                                                            config.max_delay + 3):
        raise ValueError(f"the voice {voice.name!r} was recorded with another model: embeddings "
                         f"{list(e.shape)}, "
                         f"this one needs [n, 1, 1, {d}]")
    if not e.isfinite().all() or c.min() < UNGIVEN or (c > torch.tensor(config.initial)[:, None]).any():
        raise ValueError(f"the voice {voice.name!r} holds values that are not finite, or ids that this "
                         f"model does "
                         "not have: get the file again")
