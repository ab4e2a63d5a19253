"""Two-channel dialogues on the token grid, put together from clips that were encoded once.

Nothing is mixed as sound. Each clip becomes codes with the silence that
follows it, an agent's also as the faint echo that the user's microphone picks up; a dialogue lays those codes
into the two audio rows of a grid, at exact frames, with the prompt before it and the words in the text row.
So a few hours of speech give an unlimited number of conversations.

Shapes: q codebooks, t frames.
"""
from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch

from ..model.config import LMConfig
from ..model.mimi import Mimi
from ..talk.persona import lay_out
from ..talk.text import FRAME, Text

RATE = 24_000
LEAD = 5                                # frames of silence encoded before each clip
TAIL = {"agent": 4, "user": 25, "voice": 4}     # and after it: a user's ring in the codec for two seconds
ECHO = (-40, -24)                       # dB: the agent's voice in the user's microphone
NOISES = (0.0, 3e-4, 2e-3)              # standard deviation of the user's background, one per dialogue
TEXT_LEADS = 1                          # frames by which a word's text comes before its sound


def encode_clips(folder: Path | str, mimi: Mimi, out: Path | str, seed: int = 0) -> None:
    """Encode every shard in `folder` with the shipped codec -> `out`/shard_*.npz and .json. Resumes."""
    from tqdm import tqdm

    from .clips import load_shard
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    todo = [p for p in sorted(Path(folder).glob("shard_*.json")) if not (out / p.name).exists()]
    for path in tqdm(todo, desc="encode", mininterval=5):
        records, pcm, _ = load_shard(path)
        rng = np.random.default_rng([seed, int(path.stem[-4:])])
        codes, echoes = [None] * len(pcm), [None] * len(pcm)
        order = sorted(range(len(pcm)), key=lambda i: (records[i]["side"], len(pcm[i])))
        for group in (order[i:i + 4] for i in range(0, len(order), 4)):
            made = _encode(mimi, [records[i] for i in group], [pcm[i] for i in group], rng)
            for i, (code, echo) in zip(group, made):
                codes[i], echoes[i] = code, echo
        at = np.concatenate([[0], np.cumsum([c.shape[1] for c in codes])])
        np.savez(out / (path.stem + ".npz"), codes=np.concatenate(codes, 1), echoes=np.concatenate(echoes, 1),
                 offsets=at)
        (out / path.name).write_text(json.dumps(records))


def _encode(mimi: Mimi, records: list[dict], pcm: list[np.ndarray],
            rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clips of like length -> codes int16 [q, t] of each, and of its echo (-1 but for agents)."""
    size = mimi.config.frame_size
    longest = (max(len(p) // size + TAIL[r["side"]] for p, r in zip(pcm, records)) + LEAD + 2) * size
    wav = np.zeros((len(pcm), 1, longest), np.float32)
    for row, record, clip in zip(wav[:, 0], records, pcm):
        _place(row, record, clip / 32768, size, rng)
    agents = [row for row, record in enumerate(records) if record["side"] == "agent"]
    gain = 10 ** (rng.uniform(*ECHO, (len(agents), 1, 1)) / 20)
    room = rng.choice(NOISES, (len(agents), 1, 1)) * rng.standard_normal((len(agents), 1, longest))
    made = mimi.encode(torch.from_numpy(wav)).numpy().astype(np.int16)
    echo = np.full_like(made, -1)
    if agents:
        faint = torch.from_numpy((wav[agents] * gain + room).astype(np.float32))
        echo[agents] = mimi.encode(faint).numpy().astype(np.int16)
    ends = [int(np.ceil(r["at"] / FRAME + len(p) / size)) + TAIL[r["side"]] for r, p in zip(records, pcm)]
    return [(made[row, :, :end], echo[row, :, :end]) for row, end in enumerate(ends)]


def _place(row: np.ndarray, record: dict, pcm: np.ndarray, size: int,
           rng: np.random.Generator) -> None:
    """Put a clip into its row of sound; `record` learns where it begins ("at", seconds) and its noise."""
    at = 0 if record["side"] == "voice" else LEAD * size + int(rng.integers(size))
    gain = 10 ** (rng.uniform(-12, 6) / 20) if record["side"] == "user" else 1.0
    record["at"], record["noise"] = at / RATE, 0
    row[at:at + len(pcm)] = pcm * gain
    if record["side"] == "user":
        record["noise"] = int(rng.choice(3, p=[0.5, 0.25, 0.25]))
        row += rng.standard_normal(len(row)).astype(np.float32) * NOISES[record["noise"]]


def encode_backgrounds(mimi: Mimi, out: Path | str, seconds: int = 60) -> dict:
    """Write rooms.npz, the codes of each background; return those of digital silence and a 440 Hz sine."""
    rng = np.random.default_rng(0)
    n = int(seconds * 12.5) * mimi.config.frame_size
    rooms = [torch.from_numpy(rng.standard_normal(n).astype(np.float32) * s) for s in NOISES]
    rooms = np.stack([mimi.encode(x)[0].numpy() for x in rooms]).astype(np.int16)       # [3, q, t]
    sine = mimi.encode(0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(n // 4) / RATE))[0].numpy()
    most = [[int(np.bincount(row[20:]).argmax()) for row in codes] for codes in (rooms[0], sine)]
    np.savez(Path(out) / "rooms.npz", rooms=rooms, silence=most[0], sine=most[1])
    return {"silence": tuple(most[0]), "sine": tuple(most[1])}


@dataclass
class Clip:
    codes: np.ndarray       # int16 [q, t]
    at: float               # second in the clip where its sound begins
    record: dict
    echo: np.ndarray | None = None      # int16 [q, t]: an agent's, in the user's microphone

    @property
    def first(self) -> float:
        """Where its sound begins, in frames of the clip."""
        return self.at / FRAME

    @property
    def last(self) -> float:
        """Where its sound ends."""
        return (self.at + self.record["seconds"]) / FRAME


class Library:
    """The encoded clips of a split: agents' by (voice, text), users' by (voice, what it is about), and all
    clean `lines` of a voice, whoever it belongs to.
    """

    def __init__(self, folder: Path | str):
        self.said, self.asked, self.voices, self.greetings, self.lines = (defaultdict(list) for _ in range(5))
        for path in sorted(Path(folder).glob("shard_*.json")):
            with np.load(path.with_suffix(".npz")) as data:
                codes, echoes = (np.split(data[n], data["offsets"][1:-1], 1) for n in ("codes", "echoes"))
            for record, code, echo in zip(json.loads(path.read_text()), codes, echoes):
                side, voice = record["side"], record["voice"]
                clip = Clip(code, record["at"], record, echo if side == "agent" else None)
                if side == "voice":
                    self.voices[voice].append(clip)
                elif side == "agent":
                    self.said[voice, record["text"]].append(clip)
                    if record["kind"] == "greeting":
                        self.greetings[voice].append(clip)
                else:
                    self.asked[voice, topic(record)].append(clip)
                if side != "voice" and not record["noise"]:
                    self.lines[voice].append(clip)
        with np.load(Path(folder).parent / "rooms.npz") as data:
            self.rooms = data["rooms"]
        self.users = sorted({voice for voice, _ in self.asked})
        self.talkers = sorted({voice for voice, about in self.asked if about[0] == "story"}) or self.users

    def pick(self, rng: Random, voice: str, about: tuple, noise: int) -> Clip | None:
        """A user's clip on a topic, before the same background if there is one; None if there is none."""
        clips = self.asked.get((voice, about), [])
        return rng.choice([c for c in clips if c.record["noise"] == noise] or clips) if clips else None


def topic(record: dict) -> tuple:
    """What a user's clip is about: (kind, item or None), ("rest", kind, item) or (kind, its text)."""
    kind, slots = record["kind"], record["slots"]
    if kind == "rest":
        return kind, slots["about"], slots.get("item")
    return (kind, record["text"]) if kind in ("lead", "story", "talk") else (kind, slots.get("item"))


class Dialogue:
    """A grid being written: frames [17, t] and, beside it, what the losses need to know."""

    def __init__(self, config: LMConfig, text: Text, total: int):
        self.config, self.text = config, text
        self.frames = np.full((config.rows, total), config.pad, np.int64)
        self.frames[config.agent] = np.array(config.silence)[:, None]
        self.loss = np.zeros(total, bool)              # frames after the prompt
        self.decides = np.zeros(total, bool)           # of these, where what is said is its own choice
        self.speaks = np.zeros(total, bool)            # the agent is heard
        self.stops = np.zeros(total, bool)             # it has just fallen silent, being cut in on
        self.fact = np.zeros(total, bool)              # a text token that comes from the role
        self.user_text = np.full(total, config.pad, np.int64)
        self.t = 0                                     # end of the prompt
        self.echo = 0                                  # frames until the user's side hears it; 0: never

    def prompt(self, voice: np.ndarray, role: list[int]) -> None:
        """The hybrid prompt of a voice sample's codes [q, n] and role tokens, as a conversation reads it."""
        tokens = lay_out(torch.from_numpy(voice.T.astype(np.int64)), role, self.config).tokens
        self.t = len(tokens)
        self.frames[:, :self.t] = tokens.T
        self.loss[self.t:] = self.decides[self.t:] = True

    def room(self, codes: np.ndarray, rng: Random) -> None:
        """The user's background after the prompt: the start of a stream, then any stretch of it."""
        n = self.frames.shape[1] - self.t
        skip = rng.randrange(20, codes.shape[1] - n)
        order = [*range(8), *range(skip, skip + max(0, n - 8))][:n]
        self.frames[self.config.user, self.t:] = codes[:, order]
        self.quiet = self.frames[self.config.user].copy()

    def place(self, rows: slice, clip: Clip, frame: int, until: int | None = None) -> float:
        """Lay a clip so that its sound begins at `frame`; return the frame where it ends. until: the frame
        at which it breaks off.
        """
        at = frame - int(clip.first)    # no silence of the clip's own: it would tell that words will come
        skip, until = max(int(clip.first), self.t - at), min(until or len(self.loss), len(self.loss))
        if rows == self.config.agent:
            until = min(until, int(at + clip.last) + 2)
            if self.echo and clip.echo is not None:
                self.lay(self.config.user, clip.echo, at + self.echo, skip, until + self.echo)
        self.lay(rows, clip.codes, at, skip, until)
        if rows == self.config.agent:
            self.speaks[max(0, frame):until] = True
            if until < int(at + clip.last):
                self.stops[until:until + 4] = True
            self.words(self.frames[0][:until], clip, at, -TEXT_LEADS, epad=True)
        else:
            self.words(self.user_text, clip, at, 5, epad=False)
        return min(at + clip.last, until)

    def lay(self, rows: slice, codes: np.ndarray, at: int, skip: int, until: int) -> None:
        """Write codes [q, n] that begin at frame `at`: from the skip-th on, up to frame `until`."""
        codes = codes[:, skip:][:, :max(0, min(until, len(self.loss)) - at - skip)]
        self.frames[rows, at + skip:at + skip + codes.shape[1]] = codes

    def erase(self, first: int) -> None:
        """Unsay what the agent says from a frame on, and its echo."""
        self.frames[self.config.agent, first:] = np.array(self.config.silence)[:, None]
        self.frames[0, first:] = self.config.pad
        self.speaks[first:] = self.stops[first:] = self.fact[first:] = False
        if self.echo:
            self.frames[self.config.user, first:] = self.quiet[:, first:]

    def words(self, row: np.ndarray, clip: Clip, at: int, shift: int, epad: bool) -> None:
        """Write a clip's words into a text row, one piece a frame, each `shift` frames from its sound."""
        facts = set(" ".join(str(v) for v in clip.record["slots"].values()).split())
        free = 0
        for word, start, _ in clip.record["words"]:
            frame = max(free, at + int((clip.at + start) / FRAME) + shift)
            pieces = self.text.encode(word)
            if epad and self.t <= frame - 1 < len(row) and frame - 1 >= free:
                row[frame - 1] = self.config.epad
            for i, piece in enumerate(pieces):
                if self.t <= frame + i < len(row):
                    row[frame + i] = piece
                    if epad:
                        self.fact[frame + i] = word in facts
            free = frame + len(pieces)
