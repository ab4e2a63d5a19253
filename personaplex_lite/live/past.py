"""A conversation with its past: what was heard and said, and the way back to any frame of it.

What departs from the textbook: only now and then is the state saved. To go back between two such moments, the
session hears the same sound again from the earlier one and says the same again, bit for bit.
"""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .. import audio
from ..model.config import SamplingConfig
from ..talk.persona import Persona
from ..talk.reply import Frame, Reply
from ..talk.session import Session

MARKS = 512_000_000        # bytes of saved moments, at most
OFTEN = 25                 # frames between two of them, until they are too many


class Told(NamedTuple):
    """Who the agent is and how it draws: what a new conversation begins with."""
    persona: Persona
    seed: int
    sampling: SamplingConfig


class Past:
    """.chat the session as it is now, .told who it is; of each frame .frames what was said (None at a bare
    model's first two), .heard float32 [1920], .rows what there is to draw, int16 [35].
    """

    def __init__(self, chat: Session):
        self.first, self.chat, self.told = chat, chat, Told(chat.personas[0], chat.seeds[0], chat.sampling)
        self._begin()

    def _begin(self) -> None:
        self.frames: list[Frame | None] = []
        self.heard, self.rows, self.marks, self.spacing = [], [], [], OFTEN
        self._mark()

    def _mark(self) -> None:
        """Save this moment. Too many: keep every other one, the first, and each where somebody was told."""
        if len(self.marks) >= MARKS // self.chat.state.nbytes:
            self.marks = [mark for i, mark in enumerate(self.marks)
                          if i % 2 == 0 or mark[2] is not self.marks[i - 1][2]]
            self.spacing *= 2
        self.marks.append((len(self.frames), self.chat.save(), self.told))

    def step(self, sound: torch.Tensor) -> Frame | None:
        """The session hears 80 ms more, float32 [1920]."""
        many = 2 * self.chat.state.nbytes > MARKS       # a 7B's moment is 1.6 GB: the beginning must do
        if len(self.frames) - self.marks[-1][0] >= self.spacing and not many:
            self._mark()
        frame = self.chat.step(sound)
        self.frames.append(frame)
        self.heard.append(sound)
        self.rows.append(draw(frame, sound))
        return frame

    def new(self, told: Told) -> None:
        """Begin anew, in the same session."""
        self.chat.reset(0, told.persona, told.seed, progress=False)
        self.chat.sampling, self.told = told.sampling, told
        self._begin()

    def rewind(self, at: int, told: Told | None = None) -> None:
        """Forget what came from frame `at` on; `told`: go on from there as somebody else (a fork)."""
        at = min(at, len(self.frames))
        i = max(i for i, mark in enumerate(self.marks) if mark[0] <= at)
        start, moment, self.told = self.marks[i]
        self.chat.restore(moment)
        self.chat.sampling, again = self.told.sampling, self.heard[start:at]
        del self.marks[i + 1:], self.frames[start:], self.heard[start:], self.rows[start:]
        for sound in again:
            self.step(sound)
        if told is not None:
            self.chat = self.chat.fork(told.seed, told.persona, progress=False)
            self.chat.sampling, self.told = told.sampling, told
            self._mark()

    @property
    def reply(self) -> Reply:
        """Everything since the beginning. Raises ValueError if nothing has been said."""
        kept = [(frame, sound) for frame, sound in zip(self.frames, self.heard) if frame is not None]
        if not kept:
            raise ValueError("nothing has been said yet: talk first, or let it hear a recording")
        frames, heard = zip(*kept)
        return Reply(list(frames), torch.cat(heard), self.chat.agent.text, self.chat.config)

    def save(self, folder) -> Path:
        """Write talk.wav (user left, agent right), transcript.txt and tokens.npy (int64 [17, t])."""
        from ..viz import spans, speaking
        reply, folder = self.reply, Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        reply.save(folder / "talk.wav", both=True)
        np.save(folder / "tokens.npy", reply.codes)
        lines = [(word.start, f"agent  {word.text}") for word in reply.words]
        lines += [(start, f"user   speaks for {length:.1f} s")
                  for start, length in spans(speaking(reply.user.numpy(), audio.RATE))]
        transcript = "".join(f"{at:7.2f} s  {what}\n" for at, what in sorted(lines))
        (folder / "transcript.txt").write_text(transcript, encoding="utf-8")
        return folder


def draw(frame: Frame | None, heard: torch.Tensor) -> np.ndarray:
    """int16 [35], a frame as a picture: 17 codes, 8 peaks of the agent and of the user, loudness of both."""
    sides = torch.stack([torch.zeros_like(heard) if frame is None else frame.pcm.cpu(), heard.cpu()])
    peaks = sides.abs().reshape(2, 8, -1).amax(2)
    level = torch.cat([peaks.flatten(), sides.square().mean(1).sqrt()]).clamp(max=1).numpy()
    codes = np.full(17, -1) if frame is None else frame.codes.cpu().numpy()
    return np.concatenate([codes, level * 32767]).astype("<i2")
