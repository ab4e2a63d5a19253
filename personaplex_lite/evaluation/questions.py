"""Telephone calls to an agent: what the user's side sounds like, what comes back."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..agent import Agent
from ..audio import RATE
from ..talk.persona import Persona
from .judges import right

BEFORE, AFTER = 0.3, 5.0    # seconds of silence around a question
ROWS = 20                   # conversations at once
AUDIBLE = 0.01              # RMS of 20 ms: 16 dB below speech


@dataclass(frozen=True, eq=False)
class Question:
    """One call: `sound` float32 [n], whole frames, is the user's side, who stops speaking at second `end`;
    marks: when each of its parts begins and ends.
    """
    kind: str
    asked: str
    want: tuple
    role: str
    voice: str
    user: str
    seed: int
    sound: np.ndarray
    end: float
    marks: tuple = ()


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back: the text row, its first word's second (None: never), and the sound, float32 [n]."""
    question: Question
    text: str
    start: float | None
    pcm: np.ndarray
    words: tuple = ()

    def text_from(self, second: float) -> str:
        """What the text row says from a second on."""
        return " ".join(w.text for w in self.words if w.start >= second)

    @property
    def right(self) -> bool:
        return right(self.text, self.question.want)

    @property
    def onset(self) -> float | None:
        """The second at which it becomes audible: the first of 60 loud milliseconds."""
        blocks = self.pcm.reshape(-1, RATE // 50)               # a frame holds four
        loud = np.sqrt(np.square(blocks).mean(1)) > AUDIBLE
        first = np.flatnonzero(loud[:-2] & loud[1:-1] & loud[2:])
        return float(first[0] * 0.02) if len(first) else None


def sound_of(agent: Agent, codes: torch.Tensor) -> np.ndarray:
    """codes int64 [8, t] -> float32 [1920 t] at 24 kHz, by the agent's codec."""
    sound = agent.mimi.decode(codes[None].to(agent.device))
    return sound[0, 0].cpu().numpy()


def codes_of(agent: Agent, questions: list[Question]) -> torch.Tensor:
    """The users' sides as codes int64 [b, 8, t], all as long as the longest."""
    longest = max(len(question.sound) for question in questions)
    codes = []
    for question in questions:
        sound = np.pad(question.sound, (0, longest - len(question.sound)))
        codes.append(agent.mimi.encode(torch.from_numpy(sound)))
    return torch.cat(codes)


def step_through(agent: Agent, questions: list[Question], heard: Iterable[torch.Tensor], seeds: list[int],
                 **options: bool) -> Iterator[torch.Tensor]:
    """One conversation for each question, which hears codes [b, 8] a frame -> its tokens int64 [b, 17] each.

    Nothing is decoded: only what is said counts, not how it sounds. options : see Session.
    """
    personas = [Persona(question.voice, question.role) for question in questions]
    chat = replace(agent, mimi=None).chat(personas, seeds, progress=False, **options)
    for codes in heard:
        yield chat.step(codes).codes


def talk(agent: Agent, questions: list[Question], label: str, role=True, voice=True) -> list[Answer]:
    """Ask each question in a new conversation, ROWS of them at once. voice: True for the question's own."""
    from tqdm import tqdm
    answers, bar = [], tqdm(total=len(questions), desc=f"talk, {label}", unit="call")
    for rows in (questions[i:i + ROWS] for i in range(0, len(questions), ROWS)):
        chat = agent.chat([Persona(_voice(q, voice), q.role if role else "") for q in rows],
                          [q.seed for q in rows], progress=False)
        replies = chat.run([q.sound for q in rows], wait=0, progress=False)
        for q, reply in zip(rows, replies):
            start = reply.words[0].start if reply.words else None
            answers.append(Answer(q, reply.text, start, reply.pcm.numpy(), tuple(reply.words)))
        bar.update(len(rows))
    bar.close()
    return answers


def _voice(question: Question, voice):
    return question.voice if voice is True else voice or None
