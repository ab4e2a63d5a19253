"""Telephone calls to an agent: what the user's side sounds like, what comes back."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch

from ..agent import Agent
from ..audio import FRAME, RATE
from ..talk.persona import Persona, Voice
from ..talk.text import Word
from ..training import world
from . import seeds
from .judges import need, right, wanted

KINDS = ("price", "open", "close", "name", "company", "rule", "unknown")
BEFORE = 0.3                # seconds of silence before a question
AFTER = 5.0                 # and after it
ROWS = 20                   # conversations at once
AUDIBLE = 0.01              # RMS of a block: 16 dB below speech
BLOCK = RATE // 50          # samples, 20 ms; a frame holds four


@dataclass(frozen=True, eq=False)
class Question:
    """One call: `sound` float32 [n], whole frames, is the user's side, who stops speaking at second `end`;
    marks: when each of its parts begins and ends.
    """
    kind: str
    asked: str
    want: tuple[str, ...]
    role: str
    voice: str
    user: str
    seed: int
    sound: np.ndarray
    end: float
    marks: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back: the text row, its first word's second (None: never), and the sound, float32 [n]."""
    question: Question
    text: str
    start: float | None
    pcm: np.ndarray
    words: tuple[Word, ...] = ()

    def text_from(self, second: float) -> str:
        """What the text row says from a second on."""
        return " ".join(w.text for w in self.words if w.start >= second)

    @property
    def right(self) -> bool:
        return right(self.text, self.question.want)

    @property
    def onset(self) -> float | None:
        """The second at which it becomes audible: the first of 60 loud milliseconds."""
        blocks = self.pcm.reshape(-1, BLOCK)
        loud = np.sqrt(np.square(blocks).mean(1)) > AUDIBLE
        first = np.flatnonzero(loud[:-2] & loud[1:-1] & loud[2:])
        return float(first[0] * (BLOCK / RATE)) if len(first) else None


def sound_of(agent: Agent, codes: torch.Tensor) -> np.ndarray:
    """codes int64 [8, t] -> float32 [1920 t] at 24 kHz, by the agent's codec."""
    sound = agent.mimi.decode(codes[None].to(agent.device))
    return sound[0, 0].cpu().numpy()


def pair(index: int, voices: list[str]) -> tuple[str, str]:
    """Kind and voice of a question: after all kinds, again with each voice moved on by one."""
    rounds, kind = divmod(index, len(KINDS))
    return KINDS[kind], voices[(kind + rounds) % len(voices)]


def ask(n: int, seed: int, phrasing: str, voices: list[str]) -> list[Question]:
    """n questions about held-out facts, kinds in equal shares; phrasing "test" (never heard) or "train"."""
    from tqdm import tqdm
    speech = need("personaplex_lite.training.speech")
    rng = Random(f"{seed} {phrasing}")
    questions = []
    for i in tqdm(range(n), desc="speak the questions", leave=False):
        # what is asked, by whom; the order of draws is part of the seed
        kind, voice = pair(i, voices)
        facts = world.make_facts(rng, "test")
        user = rng.choice(list(speech.USER_VOICES))
        _, item, text, _ = world.exchange(facts, rng, phrasing, kind)
        # how it sounds, with silence around, in whole frames
        spoken = speech.synth(text, user, seeds.fresh(seed, i))
        sound = whole_frames(np.pad(spoken.pcm, (int(BEFORE * RATE), int(AFTER * RATE))))
        end = BEFORE + spoken.words[-1][2]
        questions.append(Question(kind, text, wanted(kind, facts, item), world.role_text(facts, rng), voice,
                                  user, seeds.call(seed, i), sound, end))
    return questions


def whole_frames(sound: np.ndarray) -> np.ndarray:
    """float32 [n] -> with silence behind it, up to the end of its last frame."""
    return np.pad(sound, (0, -len(sound) % FRAME))


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


def talk(agent: Agent, questions: list[Question], label: str, role: bool = True,
         voice: bool | Voice = True) -> list[Answer]:
    """Ask each question in a new conversation, ROWS of them at once.

    role, voice : True for the question's own, False for none; or another voice.
    """
    from tqdm import tqdm
    answers: list[Answer] = []
    with tqdm(total=len(questions), desc=f"talk, {label}", unit="call") as bar:
        for first in range(0, len(questions), ROWS):
            together = questions[first:first + ROWS]
            personas = [_persona(question, role, voice) for question in together]
            chat = agent.chat(personas, [question.seed for question in together], progress=False)
            replies = chat.run([question.sound for question in together], wait=0, progress=False)
            for question, reply in zip(together, replies):
                start = reply.words[0].start if reply.words else None
                answers.append(Answer(question, reply.text, start, reply.pcm.numpy(), tuple(reply.words)))
            bar.update(len(together))
    return answers


def _persona(question: Question, role: bool, voice: bool | Voice) -> Persona:
    which = question.voice if voice is True else voice or None
    return Persona(which, question.role if role else "")
