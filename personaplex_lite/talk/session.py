"""One conversation, or a batch of them: weights + state + grid + dice. `_think` is the whole algorithm.

What departs from the textbook: there is no prefill and no turn. Prompt, listening and speaking are the same
step, taken every 80 ms; what is known goes into the grid first ("forced"), the model fills what is left. The
very first two steps give no frame: one fills the start tokens, one waits for the acoustic delay.

Shapes: b conversations (rows); K depth steps.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import audio
from ..model import graphs
from ..model.config import NO_INPUT, UNGIVEN, SamplingConfig
from ..model.grid import Grid, GridState
from ..model.mimi import MimiState
from ..model.sampling import Dice, sample
from ..model.state import State, slot
from ..model.transformer import KVState
from . import inputs
from . import persona as prompts
from .reply import Clock, Frame, Reply, Trace

WARN = 125         # frames (10 s) between the warning and the loss of the persona's first step


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
    keep_persona : never forget the prompt: its steps stay in the ring when the talk outgrows it. Without it
    a UserWarning comes ten seconds before the first of them is overwritten.
    Raises ValueError if a persona is too long, or takes more than half of the ring that is to keep it.
    """

    def __init__(self, agent, personas: Sequence, seeds: Sequence[int] = (0,),
                 sampling: SamplingConfig | None = None, predict_user: bool = False, trace: bool = False,
                 ring: str = "exact", keep_persona: bool = False, progress: bool = True):
        self.agent, self.config, self.ring = agent, agent.lm.config, ring
        self.sampling = sampling or agent.sampling
        self.predict_user, self.trace, self.last, self.keep_persona = predict_user, trace, None, keep_persona
        self.personas, self.seeds, self.rows = list(personas), list(seeds), len(personas)
        if not self.rows or len(self.seeds) != self.rows:
            raise ValueError(f"one seed for each persona: got {len(self.seeds)} and {self.rows}")
        built = [self._build(p) for p in personas]
        device, mimi = agent.device, agent.mimi
        self.grid = Grid(self.config, device)
        self.state = SessionState(
            agent.lm.new_state(self.rows, ring, keep_persona), self.grid.new_state(self.rows),
            torch.zeros(self.rows, dtype=torch.int64, device=device), torch.tensor(self.seeds, device=device),
            mimi and mimi.new_ears(self.rows, ring=ring), mimi and mimi.new_mouth(self.rows, ring=ring))
        self.calls, self.began, self.owed = ([0] * self.rows for _ in range(3))
        self.clock, self._round = Clock(), None
        self.read(built, progress)

    def step(self, user=None, agent=None, text=None, active: Tensor | None = None) -> Frame | None:
        """80 ms. What is passed is forced; what is not, the model decides.

        user : sound float [1920] (or [b, 1920]), or codes int64 [8] ([b, 8]). None: the model imagines it.
        agent : codes int64 [8] ([b, 8]). text : a token id (or [b]). active : bool [b], rows that move on.
        Returns the frame that became complete, or None at the very first two steps, a prompt's included.
        Raises ValueError on a wrong shape, type or id, before anything has changed.
        """
        self.clock, mimi, device = Clock(), self.agent.mimi, self.agent.device
        tokens, sound = inputs.forced(self.config, self.rows, mimi is not None, user, agent, text)
        active = inputs.active_rows(active, self.rows)
        if user is None and self.agent.lm.depth.steps < self.config.rows - 1:
            raise ValueError("this checkpoint has no depth steps for the user: pass step(user=…)")
        if sound is not None and agent is text is active is None and self._steady():
            return self._hear(sound.to(device))
        tokens, active = tokens.to(device), None if active is None else active.to(device)
        if sound is not None:
            tokens[:, self.config.user] = mimi.encode(sound.to(device), self.state.ears, active)[..., 0]
            self.clock("ears")
        return self._advance(tokens, active, heard=user is not None)

    @torch.no_grad()
    def _think(self, tokens: Tensor, active: Tensor | None, begun: Tensor | None, steps: int,
               x: Tensor | None = None, told: bool = False) -> Tensor:
        """The whole algorithm of a step, and nothing in it waits for the device.

        tokens [b, 17]: forced, -2 where not. begun bool [b]: rows with a past. steps: how many codes to draw.
        x [b, d]: instead of an embedding. told: every cell is given; draw only if somebody looks.
        Returns the newest complete frame [b, 17].
        """
        s, lm, grid, q = self.state, self.agent.lm, self.grid, self.sampling
        grid.put(s.grid, s.t, tokens, active)                       # 1. what is known lands in its cells
        grid.open(s.grid, s.t, active)
        column, target = grid.column(s.grid, s.t), grid.target(s.grid, s.t)
        self.clock("grid")
        x = lm.embed(column.clamp(min=NO_INPUT)) if x is None else x
        hidden, text_logits = lm.step(x, s.t - 1, s.temporal, begun)   # 2. the past becomes one vector
        self.clock("temporal")
        dice, sampled = Dice(q, s.seed, s.t, keep=self.trace), torch.full_like(tokens, UNGIVEN)
        if self.trace or not told:
            said = sample(text_logits, q.text_temperature, q.text_top_k, s.seed, s.t, 0)
            word = torch.where(target[:, 0] == UNGIVEN, said, target[:, 0])
            sampled[:, 0] = said                                    # 3. first a word, then how it sounds
            sampled[:, 1:1 + steps] = lm.depth.sample(hidden, word, target[:, 1:], dice, steps, self.ring)
        grid.fill(s.grid, s.t, sampled, active)                     # 4. the model fills what is left
        frame = grid.frame(s.grid, s.t)                             # 5. one frame is complete
        self.clock("depth")
        if self.trace:
            self.last = Trace(column, target, sampled, hidden, text_logits, torch.stack(dice.logits, 1),
                              self.clock.ms, self.agent.text)
        s.t.add_(1 if active is None else active.long())            # the one line where time advances
        return frame

    def _advance(self, tokens: Tensor, active: Tensor | None = None, x: Tensor | None = None,
                 heard: bool = True, mute: bool = False, told: bool = False) -> Frame | None:
        """One step of any kind, and what the host counts."""
        moving = [True] * self.rows if active is None else active.tolist()
        every = self.predict_user or not heard or any(self.owed)
        self.owed = [n if not go else max(0, n - 1) if heard else self.config.max_delay
                     for n, go in zip(self.owed, moving)]    # a missing frame leaves delayed cells open, too
        steps = self.agent.lm.depth.steps if every else self.config.codebooks
        frame = self._think(tokens, active, self._rows_begun(active), steps, x, told)
        ready = [go and n > self.config.max_delay for go, n in zip(moving, self.calls)]
        speaks = self.agent.mimi is not None and not mute and any(ready)
        pcm = self._speak(frame, self._mask(ready)).cpu() if speaks else None
        return self._deliver(frame.cpu(), pcm, moving, any(ready))

    def _steady(self) -> bool:
        """The common step: every row is past its start, nothing is owed, nobody looks inside."""
        return (min(self.calls) > self.config.max_delay and not any(self.owed)
                and not self.trace and not self.predict_user)

    def _hear(self, sound: Tensor) -> Frame:
        """The common step, all on the device (as one captured graph on a GPU), with one copy back."""
        if self._round is None or self._round[0] is not self.sampling:     # other temperatures, another graph
            self._round = self.sampling, graphs.capture(self._listen_and_speak, sound, self.state)
        pcm, frame = self._round[1](sound).cpu().split([sound.shape[-1], self.config.rows], 1)
        return self._deliver(frame.long(), pcm, [True] * self.rows)

    def _listen_and_speak(self, sound: Tensor) -> Tensor:
        """sound [b, 1, 1920] -> float32 [b, 1920 + 17]: the agent's sound, then its frame's tokens."""
        tokens = torch.full((self.rows, self.config.rows), UNGIVEN, device=sound.device)
        tokens[:, self.config.user] = self.agent.mimi.encode(sound, self.state.ears)[..., 0]
        self.clock("ears")
        frame = self._think(tokens, None, None, self.config.codebooks)
        return torch.cat([self._speak(frame), frame.float()], 1)

    def _speak(self, frame: Tensor, active: Tensor | None = None) -> Tensor:
        """A complete frame [b, 17] -> its sound [b, 1920]."""
        codes = frame[:, self.config.agent].clamp(0, self.config.audio_vocab - 1)
        pcm = self.agent.mimi.decode(codes[..., None], self.state.mouth, active)[:, 0]
        self.clock("mouth")
        return pcm

    def _deliver(self, frame: Tensor, pcm: Tensor | None, moving: list[bool],
                 complete: bool = True) -> Frame | None:
        """Count the calls; complete tokens [b, 17] -> Frame."""
        t = [n - b for n, b in zip(self.calls, self.began)]
        self.calls = [n + go for n, go in zip(self.calls, moving)]
        if not self.keep_persona and any(go and b and n == self.config.temporal.context - WARN
                                         for go, b, n in zip(moving, self.began, self.calls)):
            warnings.warn(f"in {WARN * 0.08:.0f} s this talk outgrows what the model remembers and it begins "
                          "to forget its persona: start anew, or chat(…, keep_persona=True)", stacklevel=4)
        if not complete:
            return None
        text = [self.agent.text.piece(token) if self.agent.text else "" for token in frame[:, 0].tolist()]
        if self.rows == 1:
            t, text, frame, pcm = t[0], text[0], frame[0], pcm if pcm is None else pcm[0]
        return Frame(t, pcm, text, frame, self.last, self.clock.ms)

    def read(self, built: Sequence[prompts.Prompt], progress: bool = True) -> None:
        """Read each row's prompt, forced frame by frame, then start its ears anew; shorter ones wait."""
        from tqdm import tqdm
        longest, pinned = max(len(p) for p in built), [n == 0 for n in self.calls]
        if self.keep_persona:
            inputs.check_kept(longest, self.config)
        for i in tqdm(range(longest), desc="reading the persona", disable=not progress or longest < 20,
                      leave=False, unit="frame"):
            rows = [i < len(p) for p in built]
            tokens = torch.full((self.rows, self.config.rows), UNGIVEN)
            for row, p in enumerate(built):
                if rows[row]:
                    tokens[row] = p.tokens[i]
            self._advance(tokens.to(self.agent.device), self._mask(rows), self._recorded(built, i), mute=True,
                          told=i >= self.config.max_delay)
            for row, p in enumerate(built):
                if p.cache is not None and i == len(p.embeddings):
                    self.grid.load(self.state.grid, row, p.cache)
        self.began = [now if len(p) else then for p, now, then in zip(built, self.calls, self.began)]
        if self.keep_persona:
            self.state.temporal.pin(torch.tensor(pinned, device=self.agent.device), self.state.t)
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

    def fork(self, seed: int | None = None, persona: prompts.Persona | None = None, progress=True) -> Session:
        """A second conversation with the same past and weights; another seed, or a persona told now."""
        other = Session(self.agent, [prompts.Persona()] * self.rows, [0] * self.rows, self.sampling,
                        self.predict_user, self.trace, self.ring, self.keep_persona)
        other.restore(self.save())
        if seed is not None:
            other.state.seed.fill_(seed)
        if persona is not None:
            other.read([self._build(persona)] * self.rows, progress)
        return other

    def reset(self, row: int, persona: prompts.Persona, seed: int = 0, progress: bool = True) -> None:
        """Begin one conversation of a batch anew; the others wait while its persona is read."""
        row = range(self.rows)[row]
        built = [prompts.lay_out(torch.zeros(0, self.config.codebooks), [], self.config)] * self.rows
        built[row] = self._build(persona)
        self.state.reset(torch.arange(self.rows) == row)
        self.state.seed[row] = seed
        self.calls[row] = self.began[row] = self.owed[row] = 0
        self.read(built, progress)

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
