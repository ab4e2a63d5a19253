"""What comes out of a conversation: a Frame each 80 ms, its Trace for the curious, and a whole Reply."""
from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .. import audio, viz
from ..model.config import UNGIVEN, LMConfig
from ..model.units import FRAME_SECONDS
from .text import Text, Word


@dataclass(frozen=True)
class Trace:
    """How one column came about (b rows, K depth steps)."""
    column: Tensor          # [b, 17] what the model read
    target: Tensor          # [b, 17] what was forced, -2 where it decided
    sampled: Tensor         # [b, 17] what it drew, forced or not; -2 where it did not draw
    hidden: Tensor          # [b, d]
    text_logits: Tensor     # [b, V]
    audio_logits: Tensor    # [b, K, audio_vocab]
    ms: dict                # milliseconds by stage
    text: Text | None = None

    @property
    def forced(self) -> Tensor:
        """[b, 17] bool: cells that were given."""
        return self.target != UNGIVEN

    def top(self, n: int = 5, row: int = 0) -> list[tuple[str, float]]:
        """The n likeliest text tokens and their probabilities."""
        chances, ids = torch.softmax(self.text_logits[row], -1).topk(n)
        piece = self.text.piece if self.text else str
        return [(piece(token), chance) for token, chance in zip(ids.tolist(), chances.tolist())]

    def entropy(self, row: int = 0) -> Tensor:
        """[1 + K] nats: how open each choice was, text first."""
        text = torch.log_softmax(self.text_logits[row], -1)
        codes = torch.log_softmax(self.audio_logits[row], -1)
        return torch.stack([-(logs.exp() * logs).sum() for logs in (text, *codes)])


class Clock:
    """Milliseconds by stage, read when tracing or measuring."""

    def __init__(self):
        self.ms = {}
        self.then = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self.ms[stage] = 1e3 * (now - self.then)
        self.then = now


@dataclass(frozen=True)
class Frame:
    """80 ms of a conversation. With several rows t and text are lists and pcm, codes have a row dimension."""
    t: int                      # frames since the user could first be heard
    pcm: Tensor | None          # float32 [1920] what the agent sounds like
    text: str                   # its text token: a piece of a word, "·" (PAD) or "|" (EPAD)
    codes: Tensor               # int64 [17] the frame's tokens
    trace: Trace | None = field(default=None, repr=False)
    ms: dict = field(default_factory=dict, repr=False)   # milliseconds by stage

    def of(self, row: int) -> Frame:
        """One conversation's frame out of a batch's; the trace stays whole."""
        pcm = None if self.pcm is None else self.pcm[row]
        t = self.t[row]         # type: ignore[index]  # a batch's: a list
        return Frame(t, pcm, self.text[row], self.codes[row], self.trace, self.ms)


class Reply:
    """An answer: .pcm float32 [n] at 24 kHz, .user what was heard, .text, .words with seconds, .frames."""

    def __init__(self, frames: list[Frame], user: Tensor, text: Text, config: LMConfig):
        self.frames = frames
        self.config = config
        # Where there is no codec, there is no Reply: every frame sounds.
        self.pcm = torch.cat([f.pcm for f in frames]) if frames else torch.zeros(0)  # type: ignore[misc]
        # The agent may go on when the user has ended.
        longer = max(0, len(self.pcm) - len(user))
        self.user = torch.nn.functional.pad(user, (0, longer))
        tokens = [int(frame.codes[0]) for frame in frames]
        start = frames[0].t * FRAME_SECONDS if frames else 0.0
        self.words: list[Word] = text.words(tokens, start)
        self.text = text.say(tokens)

    def __repr__(self) -> str:
        return f"Reply({len(self.pcm) / audio.RATE:.1f} s: {self.text!r})"

    @property
    def codes(self) -> np.ndarray:
        """int64 [17, t]: the grid, undelayed."""
        return torch.stack([f.codes for f in self.frames], 1).cpu().numpy()

    def play(self, both: bool = False):
        """A player for a notebook; `both` plays the user on the left and the agent on the right."""
        return audio.player(self._stereo() if both else self.pcm)

    def save(self, path, both: bool = False):
        """Write the agent's sound (or both sides, in stereo) to a wav, flac, ogg or mp3 file."""
        return audio.write(path, self._stereo() if both else self.pcm)

    def plot(self, path=None):
        """Both voices over time with the agent's words, above the grid; `path`: where to save the picture."""
        return viz.plot_reply(self, path)

    def _stereo(self) -> np.ndarray:
        return np.stack([self.user[:len(self.pcm)].numpy(), self.pcm.numpy()], 1)
