"""One conversation, or a batch of them: weights + state + grid + dice. `_advance` is the whole algorithm.

What departs from the textbook: there is no prefill and no turn. Prompt, listening and speaking are the same
step, taken every 80 ms; what is known goes into the grid first ("forced"), the model fills what is left. The
very first two steps give no frame: one fills the start tokens, one waits for the acoustic delay.

Shapes: b conversations (rows); K depth steps.
"""
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import audio, inputs
from . import persona as prompts
from .config import NO_INPUT, UNGIVEN, SamplingConfig
from .grid import Grid, GridState
from .mimi import MimiState
from .reply import Clock, Frame, Reply, Trace
from .sampling import Dice
from .state import State, slot
from .transformer import KVState


@dataclass(frozen=True, eq=False)
class SessionState(State):
    """Everything a conversation remembers."""
    temporal: KVState
    grid: GridState
    t: Tensor = slot()                 # [b] steps so far
    seed: Tensor = slot()              # [b] of the dice
    ears: MimiState | None = None
    mouth: MimiState | None = None


@dataclass(frozen=True)
class Moment:
    """A saved conversation: give it to `restore`."""
    state: dict
    calls: list
    began: list
    owed: list


class Session:
    """agent : an Agent. personas : one for each row. seeds : one int for each row; a seed is a conversation.

    predict_user : also run the depth steps that guess the user's codes. trace : keep a Trace on every frame.
    ring : "exact", or "official" to reproduce the official code's numbers past its window.
    """

    def __init__(self, agent, personas: Sequence, seeds: Sequence[int] = (0,),
                 sampling: SamplingConfig | None = None, predict_user: bool = False, trace: bool = False,
                 ring: str = "exact", progress: bool = True):
        self.agent, self.config, self.ring = agent, agent.lm.config, ring
        self.sampling = sampling or agent.sampling
        self.predict_user, self.trace, self.last = predict_user, trace, None
        self.personas, self.seeds, self.rows = list(personas), list(seeds), len(personas)
        if not self.rows or len(self.seeds) != self.rows:
            raise ValueError(f"one seed for each persona: got {len(self.seeds)} and {self.rows}")
        built = [self._build(p) for p in personas]
        device, mimi = agent.device, agent.mimi
        self.grid = Grid(self.config, device)
        self.state = SessionState(
            agent.lm.new_state(self.rows, ring), self.grid.new_state(self.rows),
            torch.zeros(self.rows, dtype=torch.int64, device=device), torch.tensor(self.seeds, device=device),
            mimi and mimi.new_ears(self.rows, ring=ring), mimi and mimi.new_mouth(self.rows, ring=ring))
        self.calls, self.began, self.owed = ([0] * self.rows for _ in range(3))
        self.read(built, progress)

    def step(self, user=None, agent=None, text=None, active: Tensor | None = None) -> Frame | None:
        """80 ms. What is passed is forced; what is not, the model decides.

        user : sound float [1920] (or [b, 1920]), or codes int64 [8] ([b, 8]). None: the model imagines it.
        agent : codes int64 [8] ([b, 8]). text : a token id (or [b]). active : bool [b], rows that move on.
        Returns the frame that became complete, or None at the very first two steps, a prompt's included.
        Raises ValueError on a wrong shape, type or id, before anything has changed.
        """
        began, mimi, device = time.perf_counter(), self.agent.mimi, self.agent.device
        tokens, sound = inputs.forced(self.config, self.rows, mimi is not None, user, agent, text)
        active = inputs.active_rows(active, self.rows)
        if user is None and self.agent.lm.depth.steps < self.config.rows - 1:
            raise ValueError("this checkpoint has no depth steps for the user: pass step(user=…)")
        tokens, active = tokens.to(device), None if active is None else active.to(device)
        if sound is not None:
            tokens[:, self.config.user] = mimi.encode(sound.to(device), self.state.ears, active)[..., 0]
        return self._advance(tokens, active, heard=user is not None, began=began)

    @torch.no_grad()
    def _advance(self, tokens: Tensor, active: Tensor | None = None, x: Tensor | None = None,
                 heard: bool = True, began: float | None = None, mute: bool = False) -> Frame | None:
        """One step of everything. tokens [b, 17]: forced, -2 where not; x [b, d]: instead of an embedding."""
        s, lm, grid, q = self.state, self.agent.lm, self.grid, self.config.codebooks
        clock, moving = Clock(began), [True] * self.rows if active is None else active.tolist()
        steps = lm.depth.steps if self.predict_user or not heard or any(self.owed) else q
        self.owed = [n if not go else max(0, n - 1) if heard else self.config.max_delay
                     for n, go in zip(self.owed, moving)]    # a missing frame leaves delayed cells open, too
        begun = self._rows_begun(active)

        grid.put(s.grid, s.t, tokens, active)                       # 1. what is known lands in its cells
        grid.open(s.grid, s.t, active)
        column, target = grid.column(s.grid, s.t), grid.target(s.grid, s.t)
        clock("grid")
        x = lm.embed(column.clamp(min=NO_INPUT)) if x is None else x
        hidden, text_logits = lm.step(x, s.t - 1, s.temporal, begun)   # 2. the past becomes one vector
        dice = Dice(self.sampling, s.seed, s.t, keep=self.trace)
        said = dice.text(text_logits)
        clock("temporal")
        told = torch.where(target[:, 0] == UNGIVEN, said, target[:, 0])
        codes = lm.depth.sample(hidden, told, target[:, 1:], dice, steps, self.ring)   # 3. the column's codes
        sampled = torch.full_like(tokens, UNGIVEN)
        sampled[:, 0], sampled[:, 1:1 + steps] = said, codes
        grid.fill(s.grid, s.t, sampled, active)                     # 4. the model fills what is left
        frame = grid.frame(s.grid, s.t)                             # 5. one frame is complete
        clock("depth")
        if self.trace:
            logits = torch.stack(dice.logits, 1)
            self.last = Trace(column, target, sampled, hidden, text_logits, logits, clock.ms, self.agent.text)
        s.t.add_(1 if active is None else active.long())            # the one line where time advances
        return self._deliver(frame, moving, clock, mute)

    def _deliver(self, frame: Tensor, moving: list[bool], clock: Clock, mute: bool) -> Frame | None:
        """Complete tokens [b, 17] -> Frame with sound; count the calls."""
        ready = [go and n > self.config.max_delay for go, n in zip(moving, self.calls)]
        t = [n - b for n, b in zip(self.calls, self.began)]
        self.calls = [n + go for n, go in zip(self.calls, moving)]
        if not any(ready):
            return None
        pcm = None
        if self.agent.mimi is not None and not mute:
            speaks = None if all(ready) else torch.tensor(ready, device=frame.device)
            codes = frame[:, self.config.agent].clamp(0, self.config.audio_vocab - 1)
            pcm = self.agent.mimi.decode(codes[..., None], self.state.mouth, speaks)[:, 0]
            clock("mouth")
        one = self.rows == 1
        text = [self.agent.text.piece(int(token)) if self.agent.text else "" for token in frame[:, 0]]
        return Frame(t[0] if one else t, None if pcm is None else pcm[0] if one else pcm,
                     text[0] if one else text, frame[0] if one else frame, self.last, clock.ms)

    def read(self, built: Sequence[prompts.Prompt], progress: bool = True) -> None:
        """Read each row's prompt, forced frame by frame, then start its ears anew. Rows with a shorter prompt
        wait for the others; those with an empty one are left as they are.
        """
        from tqdm import tqdm
        longest = max(len(p) for p in built)
        for i in tqdm(range(longest), desc="reading the persona", disable=not progress or longest < 20,
                      leave=False, unit="frame"):
            rows = [i < len(p) for p in built]
            tokens = torch.full((self.rows, self.config.rows), UNGIVEN)
            for row, p in enumerate(built):
                if rows[row]:
                    tokens[row] = p.tokens[i]
            self._advance(tokens.to(self.agent.device), self._mask(rows), self._recorded(built, i), mute=True)
            for row, p in enumerate(built):
                if p.cache is not None and i == len(p.embeddings):
                    self.grid.load(self.state.grid, row, p.cache)
        self.began = [now if len(p) else then for p, now, then in zip(built, self.calls, self.began)]
        if self.state.ears is not None:
            self.state.ears.reset(torch.tensor([len(p) > 0 for p in built]))

    def _recorded(self, built, i: int) -> Tensor | None:
        """The stored embeddings that stand in for step i, in rows whose voice was recorded."""
        have = [p.embeddings is not None and 0 < i <= len(p.embeddings) for p in built]
        if not any(have):
            return None
        x = self.agent.lm.embed(self.grid.column(self.state.grid, self.state.t).clamp(min=NO_INPUT))
        for row, p in enumerate(built):
            if have[row]:
                x[row] = p.embeddings[i - 1].to(x)
        return x

    def stream(self, source, rate: int | None = None, wait: float = 8.0) -> Iterator[Frame]:
        """Let the model hear a sound, 80 ms at a time, and give each frame of its answer as it is made.

        source : what `audio.read` takes. After it ends the user is silent until the agent has said nothing
        for two seconds, at most `wait` seconds. Raises AudioError before the conversation has moved.
        """
        return self._listen(self._read_sound(source, rate), wait)

    def run(self, source, rate: int | None = None, wait: float = 8.0, progress: bool = True) -> Reply:
        """`stream` to the end -> Reply."""
        from tqdm import tqdm
        sound = self._read_sound(source, rate)
        bar = tqdm(self._listen(sound, wait), desc="talking", unit="frame", disable=not progress, leave=False)
        return Reply(list(bar), sound, self.agent.text, self.config)

    def _read_sound(self, source, rate: int | None) -> Tensor:
        if self.agent.mimi is None or self.rows != 1:
            raise ValueError("stream and run need a codec and a single conversation; use step for a batch")
        return audio.read(source, rate, "the user's sound")

    def _listen(self, sound: Tensor, wait: float) -> Iterator[Frame]:
        for piece in audio.frames(sound):
            if frame := self.step(piece):
                yield frame
        quiet, silence = 0, torch.zeros(audio.FRAME)
        for _ in range(int(wait / 0.08)):
            if quiet >= 25:
                return
            if frame := self.step(silence):
                quiet = quiet + 1 if int(frame.codes[0]) == self.config.pad else 0
                yield frame

    def save(self) -> Moment:
        """This moment, to come back to."""
        return Moment(self.state.snapshot(), list(self.calls), list(self.began), list(self.owed))

    def restore(self, moment: Moment) -> None:
        """Go back (or forth) to a saved moment. What follows is bit for bit what followed then."""
        self.state.restore(moment.state)
        self.calls, self.began, self.owed = list(moment.calls), list(moment.began), list(moment.owed)

    def fork(self, seed: int | None = None, persona: prompts.Persona | None = None) -> Session:
        """A second conversation with the same past and weights; another seed, or a persona told now."""
        other = Session(self.agent, [prompts.Persona()] * self.rows, [0] * self.rows, self.sampling,
                        self.predict_user, self.trace, self.ring)
        other.restore(self.save())
        if seed is not None:
            other.state.seed.fill_(seed)
        if persona is not None:
            other.read([self._build(persona)] * self.rows)
        return other

    def reset(self, row: int, persona: prompts.Persona, seed: int = 0) -> None:
        """Begin one conversation of a batch anew; the others wait while its persona is read."""
        row = range(self.rows)[row]
        built = [prompts.lay_out(torch.zeros(0, self.config.codebooks), [], self.config)] * self.rows
        built[row] = self._build(persona)
        self.state.reset(torch.arange(self.rows) == row)
        self.state.seed[row] = seed
        self.calls[row] = self.began[row] = self.owed[row] = 0
        self.read(built)

    def _build(self, persona: prompts.Persona) -> prompts.Prompt:
        return prompts.build(self.agent.voice(persona.voice), persona.role, self.config, self.agent.text)

    def _rows_begun(self, active: Tensor | None) -> Tensor | None:
        """Rows in which the transformer may move: the very first step of a row has no column to read yet."""
        if active is None and all(self.calls):
            return None
        begun = self.state.t > 0
        return begun if active is None else begun & active

    def _mask(self, rows: list[bool]) -> Tensor | None:
        return None if all(rows) else torch.tensor(rows, device=self.agent.device)
