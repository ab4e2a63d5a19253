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
from torch import Tensor

from ..model.config import LMConfig
from ..model.units import FRAME_SECONDS
from . import inputs
from .text import Text
from .voice import Voice

PAUSE = 6                # frames of silence after each part: int(0.5 s · 12.5 Hz)


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
        spoken = voice.codes.T          # type: ignore[union-attr]  # a Voice has these or embeddings
    else:                                               # never looked at: the embeddings stand in
        spoken = torch.full((len(voice.embeddings) + 1, config.codebooks), config.audio_vocab)
    tokens = text.role(role) if text and role.strip() else []
    prompt = lay_out(spoken, tokens, config, voice)
    most = config.temporal.context - 2
    if len(prompt) > most:
        seconds = len(prompt) * FRAME_SECONDS
        raise ValueError(f"this persona takes {len(prompt)} frames ({seconds:.0f} s), more than "
                         f"the model remembers ({most}): shorten the role ({len(tokens)} tokens) or the "
                         f"voice ({len(spoken)} frames)")
    return prompt


def lay_out(spoken: Tensor, role: list[int], config: LMConfig, voice: Voice | None = None) -> Prompt:
    """spoken int64 [n, 8], role tokens -> Prompt of n + 6 + role + 6 frames; of none if both are empty."""
    n = len(spoken)
    first_word = n + PAUSE
    after_role = first_word + len(role)
    length = after_role + PAUSE if n or role else 0
    tokens = torch.full((length, config.rows), config.pad)
    # The user's rows: a sine, a sound no user makes.
    tokens[:, config.user] = torch.tensor(config.sine)
    # The agent's rows: the voice, then silence.
    tokens[:n, config.agent] = spoken
    tokens[n:, config.agent] = torch.tensor(config.silence)
    # The text row: the role, a token a frame.
    tokens[first_word:after_role, 0] = torch.tensor(role, dtype=torch.int64)
    if voice is None or voice.embeddings is None:
        return Prompt(tokens)
    return Prompt(tokens, voice.embeddings.reshape(n - 1, -1), voice.cache)
