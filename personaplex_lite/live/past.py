"""A conversation with its past: what was heard and said, and the way back to any frame of it.

Only now and then is the session's state saved. To go back to a frame between two such moments, the session is
restored to the earlier one and hears the same sound again. It then says the same again, bit for bit.
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
from ..talk.session import Moment, Session
from ..viz import spans, speaking
from . import messages

MARKS = 512_000_000        # bytes of saved moments, at most
OFTEN = 25                 # frames between two of them, until they are too many


class Settings(NamedTuple):
    """What a conversation begins with: who the agent is, and how its tokens are drawn."""
    persona: Persona
    seed: int
    sampling: SamplingConfig


class Mark(NamedTuple):
    """A saved moment."""
    at: int                # frames before it
    moment: Moment
    settings: Settings


class Past:
    """A session that remembers every frame.

    first    : the session that was given
    chat     : the session as it is now; another one after a fork
    settings : what it began with
    frames   : for each frame what was said; None for a bare model's first two
    heard    : for each frame what was heard, float32 [1920]
    strips   : for each frame what there is to draw, int16 [35] (messages.STRIP)
    """

    def __init__(self, chat: Session):
        self.first = chat
        self.chat = chat
        self.settings = Settings(chat.personas[0], chat.seeds[0], chat.sampling)
        self._begin()

    def _begin(self) -> None:
        self.frames: list[Frame | None] = []
        self.heard: list[torch.Tensor] = []
        self.strips: list[np.ndarray] = []
        self.marks: list[Mark] = []
        self.spacing = OFTEN
        self._mark()

    def _mark(self) -> None:
        """Save this moment. If that makes too many, half of the earlier ones are given up first."""
        if len(self.marks) >= MARKS // self.chat.state.nbytes:
            self._thin_out()
            self.spacing *= 2
        self.marks.append(Mark(len(self.frames), self.chat.save(), self.settings))

    def _thin_out(self) -> None:
        """Give up every other mark, but none at which the settings changed: no earlier one leads there."""
        marks = self.marks
        self.marks = []
        for i, mark in enumerate(marks):
            changed = mark.settings is not marks[i - 1].settings
            if i % 2 == 0 or changed:
                self.marks.append(mark)

    def step(self, sound: torch.Tensor) -> Frame | None:
        """The session hears 80 ms more, float32 [1920]; returns what it says."""
        since = len(self.frames) - self.marks[-1].at
        large = 2 * self.chat.state.nbytes > MARKS      # a 7B's moment is 1.6 GB: only the beginning is saved
        if since >= self.spacing and not large:
            self._mark()
        frame = self.chat.step(sound)
        self.frames.append(frame)
        self.heard.append(sound)
        self.strips.append(draw(frame, sound))
        return frame

    def new(self, settings: Settings) -> None:
        """Forget everything and begin again, in the same session. Raises ValueError for an unfit persona."""
        self.chat.reset(0, settings.persona, settings.seed, progress=False)
        self.chat.sampling = settings.sampling
        self.settings = settings
        self._begin()

    def rewind(self, at: int, settings: Settings | None = None) -> None:
        """Forget what came from frame `at` on. With settings, go on from there as somebody else: a fork."""
        at = min(at, len(self.frames))

        # back to the last mark that is early enough
        early = [i for i, mark in enumerate(self.marks) if mark.at <= at]
        mark = self.marks[early[-1]]
        self.chat.restore(mark.moment)
        self.chat.sampling = mark.settings.sampling
        self.settings = mark.settings
        again = self.heard[mark.at:at]
        del self.marks[early[-1] + 1:]
        del self.frames[mark.at:]
        del self.heard[mark.at:]
        del self.strips[mark.at:]

        # and from there to the frame, by hearing the same again
        for sound in again:
            self.step(sound)

        if settings is not None:
            self.chat = self.chat.fork(settings.seed, settings.persona, progress=False)
            self.chat.sampling = settings.sampling
            self.settings = settings
            self._mark()

    @property
    def reply(self) -> Reply:
        """Everything since the beginning. Raises ValueError if nothing has been said."""
        said = [i for i, frame in enumerate(self.frames) if frame is not None]
        if not said:
            raise ValueError("nothing has been said yet: talk first, or let it hear a recording")
        frames = [self.frames[i] for i in said]
        heard = torch.cat([self.heard[i] for i in said])
        return Reply(frames, heard, self.chat.agent.text, self.chat.config)

    def record(self) -> tuple[dict, bytes]:
        """What a page needs to draw everything so far: the fields of messages.RECORD, the strips' bytes."""
        persona, seed, sampling = self.settings
        agent = self.chat.agent
        panel = {
            "voice": persona.voice if persona.voice in agent.voices else "",
            "role": persona.role,
            "seed": seed,
            "text_temperature": sampling.text_temperature,
            "audio_temperature": sampling.audio_temperature,
        }
        strips = list(self.strips)              # now: the worker may add one meanwhile
        text = messages.STRIP["text"][0]
        pieces = [agent.text.piece(int(strip[text])) for strip in strips]
        data = b"".join(strip.tobytes() for strip in strips)
        return {"settings": panel, "pieces": pieces, "used": self.chat.calls[0]}, data

    def save(self, folder) -> Path:
        """Write talk.wav (user left, agent right), transcript.txt and tokens.npy (int64 [17, t]).

        Returns the folder. Raises ValueError if nothing has been said.
        """
        reply = self.reply
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        reply.save(folder / "talk.wav", both=True)
        np.save(folder / "tokens.npy", reply.codes)
        (folder / "transcript.txt").write_text(transcript(reply), encoding="utf-8")
        return folder


def transcript(reply: Reply) -> str:
    """The agent's words, and when the user speaks, in the order of time."""
    lines = [(word.start, f"agent  {word.text}") for word in reply.words]
    busy = speaking(reply.user.numpy(), audio.RATE)
    for start, length in spans(busy):
        lines.append((start, f"user   speaks for {length:.1f} s"))
    return "".join(f"{start:7.2f} s  {what}\n" for start, what in sorted(lines))


def draw(frame: Frame | None, heard: torch.Tensor) -> np.ndarray:
    """What there is to draw of a frame: a strip, int16 [35]; heard float32 [1920]."""
    if frame is None:
        codes = np.full(17, -1)
        said = torch.zeros_like(heard)
    else:
        codes = frame.codes.cpu().numpy()
        said = frame.pcm.cpu()
    heard = heard.cpu()
    return messages.pack({
        "text": codes[0],
        "agent_codes": codes[1:9],
        "user_codes": codes[9:17],
        "agent_peaks": peaks(said),
        "user_peaks": peaks(heard),
        "agent_loudness": loudness(said),
        "user_loudness": loudness(heard),
    })


def peaks(sound: torch.Tensor) -> np.ndarray:
    """float32 [1920] -> float32 [8], the loudest sample of each 10 ms; 1.0 is messages.LARGEST."""
    loudest = sound.abs().reshape(8, -1).amax(1)
    return loudest.clamp(max=1).numpy() * messages.LARGEST


def loudness(sound: torch.Tensor) -> np.ndarray:
    """The root mean square of float32 [1920]; 1.0 is messages.LARGEST."""
    level = sound.square().mean().sqrt()
    return level.clamp(max=1).numpy() * messages.LARGEST
