"""A conversation, or a batch of them: weights + memory + dice; what a step does stands in step.py.

What departs from the textbook: a conversation is not a list of messages. It is a state that moves on by
80 ms, so it can be saved, restored, forked and begun anew at any frame. The very first two steps give no
frame: one fills the start tokens, one waits for the acoustic delay.

Shapes: b conversations (rows).
"""
from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from .. import audio
from ..model import graphs
from ..model.config import UNGIVEN, SamplingConfig
from ..model.grid import Grid
from ..model.units import FRAME_SECONDS
from . import inputs
from . import persona as prompts
from .reply import Clock, Frame, Reply
from .step import Plan, SessionState, step_of_sound, take_step

WARN = 125         # frames (10 s) between the warning and the loss of the persona's first step
PATIENCE = 25      # frames (2 s) without a word after which an answer is over


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
        self.agent = agent
        self.config = agent.lm.config
        self.personas = list(personas)
        self.seeds = [inputs.seed(value) for value in seeds]
        self.rows = len(self.personas)
        if not self.rows or len(self.seeds) != self.rows:
            raise ValueError(f"one seed for each persona: got {len(self.seeds)} and {self.rows}")
        self.sampling = sampling or agent.sampling
        self.predict_user = predict_user
        self.trace = trace
        self.ring = ring
        self.keep_persona = keep_persona
        self.last = None                    # the newest Trace
        self.clock = Clock()
        self._round = None                  # (sampling, the common step captured with it)
        # what the host counts for each row, so that it never has to ask the device
        self.calls = [0] * self.rows        # steps so far
        self.began = [0] * self.rows        # the step at which the user could first be heard
        self.owed = [0] * self.rows         # steps in which a user who was not given is still to be drawn
        built = [self._build(persona) for persona in self.personas]
        self.grid = Grid(self.config, agent.device)
        self.state = self._new_state()
        self.read(built, progress)

    def _new_state(self) -> SessionState:
        rows = self.rows
        device = self.agent.device
        temporal = self.agent.lm.new_state(rows, self.ring, self.keep_persona)
        t = torch.zeros(rows, dtype=torch.int64, device=device)
        seed = torch.tensor(self.seeds, device=device)
        grid = self.grid.new_state(rows)
        mimi = self.agent.mimi
        ears = mimi and mimi.new_ears(rows, ring=self.ring)
        mouth = mimi and mimi.new_mouth(rows, ring=self.ring)
        return SessionState(temporal, grid, t, seed, ears, mouth)

    def step(self, user=None, agent=None, text=None, active: Tensor | None = None) -> Frame | None:
        """80 ms. What is passed is forced; what is not, the model decides.

        user : sound float [1920] (or [b, 1920]), or codes int64 [8] ([b, 8]). None: the model imagines it.
        agent : codes int64 [8] ([b, 8]). text : a token id (or [b]). active : bool [b], rows that move on.
        Returns the frame that became complete, or None at the very first two steps, a prompt's included.
        Raises ValueError on a wrong shape, type or id, before anything has changed.
        """
        self.clock = Clock()
        device = self.agent.device
        codec = self.agent.mimi is not None
        tokens, sound = inputs.forced(self.config, self.rows, codec, user, agent, text)
        active = inputs.active_rows(active, self.rows)
        if user is None and self.agent.lm.depth.steps < self.config.rows - 1:
            raise ValueError("this checkpoint has no depth steps for the user: pass step(user=…)")
        if sound is not None:
            sound = sound.to(device)
            if agent is text is active is None and self._steady():
                return self._hear(sound)
        if active is not None:
            active = active.to(device)
        return self._advance(tokens.to(device), sound, active, heard=user is not None)

    def _steady(self) -> bool:
        """The common step: every row is past its start, nothing is owed, nobody looks inside."""
        plain = not self.trace and not self.predict_user
        return plain and min(self.calls) > self.config.max_delay and not any(self.owed)

    def _hear(self, sound: Tensor) -> Frame:
        """The common step, all on the device (as one captured graph on a GPU), with one copy back."""
        # Other temperatures need another graph.
        if self._round is None or self._round[0] != self.sampling:
            self._round = (self.sampling, graphs.capture(self._listen_and_speak, sound, self.state))
        pcm, frame = self._round[1](sound).cpu().split([audio.FRAME, self.config.rows], 1)
        return self._deliver(frame.long(), pcm, [True] * self.rows)

    def _listen_and_speak(self, sound: Tensor) -> Tensor:
        plan = Plan(self.sampling, self.config.codebooks, self.ring)
        return step_of_sound(self.agent, self.grid, self.state, sound, plan, self.clock)

    def _advance(self, tokens: Tensor, sound: Tensor | None = None, active: Tensor | None = None,
                 heard: bool = True, mute: bool = False, told: bool = False,
                 recorded: dict[int, Tensor] | None = None) -> Frame | None:
        """One step of any kind, and what the host counts. heard: the user was given. mute: no sound is made.
        told: every cell is given; draw only if somebody looks. recorded: see `Plan`.
        """
        moving = [True] * self.rows if active is None else active.tolist()
        complete = [go and calls > self.config.max_delay for go, calls in zip(moving, self.calls)]
        speaks = self.agent.mimi is not None and not mute and any(complete)
        # The user's codes are drawn, too, where they are not given, or were not a moment ago (`owed`).
        imagined = self.predict_user or not heard or any(self.owed)
        depth_steps = self.agent.lm.depth.steps if imagined else self.config.codebooks
        plan = Plan(self.sampling, depth_steps, self.ring, self.trace, active,
                    young=not all(self.calls),
                    recorded=recorded or {},
                    draws=self.trace or not told,
                    speaks=speaks,
                    complete=self._mask(complete) if speaks else None)
        made = take_step(self.agent, self.grid, self.state, tokens, sound, plan, self.clock)
        self.last = made.trace
        self._count_owed(moving, heard)
        pcm = None if made.pcm is None else made.pcm.cpu()
        return self._deliver(made.frame.cpu(), pcm, moving, any(complete))

    def _count_owed(self, moving: list[bool], heard: bool) -> None:
        """A frame without a user leaves delayed cells open; each later step with one closes some."""
        for row in range(self.rows):
            if not moving[row]:
                continue
            if heard:
                self.owed[row] = max(0, self.owed[row] - 1)
            else:
                self.owed[row] = self.config.max_delay

    def _deliver(self, frame: Tensor, pcm: Tensor | None, moving: list[bool],
                 complete: bool = True) -> Frame | None:
        """Count the calls; complete tokens int64 [b, 17] and sound [b, 1920] -> Frame."""
        times = [calls - began for calls, began in zip(self.calls, self.began)]
        self.calls = [calls + go for calls, go in zip(self.calls, moving)]
        if self._about_to_forget(moving):
            seconds = WARN * FRAME_SECONDS
            warnings.warn(f"in {seconds:.0f} s this talk outgrows what the model remembers and it begins "
                          "to forget its persona: start anew, or chat(…, keep_persona=True)", stacklevel=4)
        if not complete:
            return None
        words = self.agent.text
        text = [words.piece(token) if words else "" for token in frame[:, 0].tolist()]
        whole = Frame(times, pcm, text, frame, self.last, self.clock.ms)
        return whole.of(0) if self.rows == 1 else whole

    def _about_to_forget(self, moving: list[bool]) -> bool:
        """A row that moved has just come to WARN frames before the ring is full."""
        if self.keep_persona:
            return False
        last_call = self.config.temporal.context - WARN
        return any(go and began and calls == last_call
                   for go, began, calls in zip(moving, self.began, self.calls))

    def read(self, built: Sequence[prompts.Prompt], progress: bool = True) -> None:
        """Read each row's prompt, forced frame by frame, then start its ears anew; shorter ones wait."""
        from tqdm import tqdm
        longest = max(len(prompt) for prompt in built)
        pinned = [calls == 0 for calls in self.calls]
        for i in tqdm(range(longest), desc="reading the persona", disable=not progress or longest < 20,
                      leave=False, unit="frame"):
            self._read_frame(built, i)
        # From now on the user can be heard; a row that had nothing to read has begun earlier.
        self.began = [calls if len(prompt) else began
                      for prompt, calls, began in zip(built, self.calls, self.began)]
        if self.keep_persona:
            self.state.temporal.pin(torch.tensor(pinned, device=self.agent.device), self.state.t)
        if self.state.ears is not None:
            told = torch.tensor([len(prompt) > 0 for prompt in built])
            self.state.ears.reset(told)

    def _read_frame(self, built: Sequence[prompts.Prompt], i: int) -> None:
        """Frame i of every prompt that has one."""
        reads = [i < len(prompt) for prompt in built]
        tokens = torch.full((self.rows, self.config.rows), UNGIVEN)
        recorded = {}
        for row, prompt in enumerate(built):
            if reads[row]:
                tokens[row] = prompt.tokens[i]
            # A recorded voice brings what the model made of its frames; the first step has nothing to read.
            if prompt.embeddings is not None and 0 < i <= len(prompt.embeddings):
                recorded[row] = prompt.embeddings[i - 1]
        # Once the start tokens are behind, a prompt leaves no cell open.
        told = i >= self.config.max_delay
        tokens = tokens.to(self.agent.device)
        active = self._mask(reads)
        self._advance(tokens, active=active, mute=True, told=told, recorded=recorded)
        for row, prompt in enumerate(built):
            if prompt.cache is not None and i == len(prompt.embeddings):
                self.grid.load(self.state.grid, row, prompt.cache)

    def stream(self, source, rate: int | None = None, wait: float = 8.0) -> Iterator[Frame]:
        """Let the model hear a sound, 80 ms at a time, and give each frame of its answer as it is made.

        source : what `audio.read` takes. After it ends the user is silent until the agent has said nothing
        for two seconds, at most `wait` seconds. Raises AudioError before the conversation has moved.
        """
        if self.rows != 1:
            raise ValueError("stream needs a single conversation; use step or run([…]) for a batch")
        sounds = self._read_sounds([source], rate)
        return (frames[0] for frames in self._listen(sounds, wait) if frames[0] is not None)

    def run(self, source, rate: int | None = None, wait: float = 8.0,
            progress: bool = True) -> Reply | list[Reply]:
        """`stream` to the end -> Reply; of a list of sounds, one for each row, -> a list of Replies.

        In a batch each answer ends as it would alone; its conversation hears silence until the last has
        ended. Raises ValueError if there is not one sound for each row, AudioError as `stream` does.
        """
        from tqdm import tqdm
        many = isinstance(source, list)         # a tuple is (rate, array), one sound
        sources = source if many else [source]
        sounds = self._read_sounds(sources, rate)
        said: list[list[Frame]] = [[] for _ in sounds]
        for frames in tqdm(self._listen(sounds, wait), desc="talking", unit="frame", disable=not progress,
                           leave=False):
            for kept, frame in zip(said, frames):
                if frame is not None:
                    kept.append(frame)
        replies = [Reply(frames, sound, self.agent.text, self.config) for frames, sound in zip(said, sounds)]
        return replies if many else replies[0]

    def _read_sounds(self, sources: Sequence, rate: int | None) -> list[Tensor]:
        """One sound for each row, float32 [n] at 24 kHz, of any lengths."""
        if self.agent.mimi is None:
            raise ValueError("stream and run need a codec; use step with codes")
        if len(sources) != self.rows:
            raise ValueError(f"{len(sources)} sound(s) for {self.rows} conversation(s): "
                             "give run a list of one for each, or use step")
        return [audio.read(source, rate, "the user's sound") for source in sources]

    def _listen(self, sounds: list[Tensor], wait: float) -> Iterator[list[Frame | None]]:
        """Each row's frame, step by step; None where a row has none yet, or its answer is over."""
        pieces = [audio.frames(sound) for sound in sounds]
        silence = torch.zeros(audio.FRAME)
        longest_wait = int(wait / FRAME_SECONDS)
        quiet = [0] * self.rows             # frames without a word since the user has ended
        for i in count():
            talking = [i < len(heard) or (i < len(heard) + longest_wait and still < PATIENCE)
                       for heard, still in zip(pieces, quiet)]
            if not any(talking):
                return
            # A row's first two steps give no frame, though others of the batch may have one.
            whole = [calls > self.config.max_delay for calls in self.calls]
            user = [heard[i] if i < len(heard) else silence for heard in pieces]
            made = self.step(torch.stack(user))
            frames: list[Frame | None] = [None] * self.rows
            for row in range(self.rows):
                if not talking[row] or not whole[row]:
                    continue
                frame = made if self.rows == 1 else made.of(row)
                frames[row] = frame
                if i >= len(pieces[row]):
                    spoke = int(frame.codes[0]) != self.config.pad
                    quiet[row] = 0 if spoke else quiet[row] + 1
            yield frames

    def save(self) -> Moment:
        """This moment, to come back to."""
        return Moment(state=self.state.snapshot(),
                      calls=list(self.calls),
                      began=list(self.began),
                      owed=list(self.owed))

    def restore(self, moment: Moment) -> None:
        """Go back (or forth) to a saved moment. What follows is bit for bit what followed then."""
        self.state.restore(moment.state)
        self.calls = list(moment.calls)
        self.began = list(moment.began)
        self.owed = list(moment.owed)

    def fork(self, seed: int | None = None, persona: prompts.Persona | None = None, progress=True) -> Session:
        """A second conversation with the same past and weights; another seed, or a persona told now."""
        # all is checked before anything is made
        seeds = self.seeds if seed is None else [inputs.seed(seed)] * self.rows
        personas = self.personas if persona is None else [persona] * self.rows
        built = None if persona is None else self._build(persona)
        nobody = [prompts.Persona()] * self.rows        # nothing to read: the past comes with the state
        other = Session(self.agent, nobody, seeds,
                        sampling=self.sampling,
                        predict_user=self.predict_user,
                        trace=self.trace,
                        ring=self.ring,
                        keep_persona=self.keep_persona)
        other.restore(self.save())
        other.personas = list(personas)
        if seed is not None:
            other.state.seed.fill_(seeds[0])
        if built is not None:
            other.read([built] * self.rows, progress)
        return other

    def reset(self, row: int, persona: prompts.Persona, seed: int = 0, progress: bool = True) -> None:
        """Begin one conversation of a batch anew; the others wait while its persona is read."""
        # all is checked before anything changes
        row = range(self.rows)[row]         # counts from the end, too; raises IndexError
        seed = inputs.seed(seed)
        nothing = prompts.build(None, "", self.config, self.agent.text)
        built = [nothing] * self.rows
        built[row] = self._build(persona)
        self.state.reset(torch.arange(self.rows) == row)
        self.state.seed[row] = seed
        self.personas[row] = persona
        self.seeds[row] = seed
        for counts in (self.calls, self.began, self.owed):
            counts[row] = 0
        self.read(built, progress)

    def _build(self, persona: prompts.Persona) -> prompts.Prompt:
        """A persona's prompt. Raises ValueError if it is too long, also for a ring that is to keep it."""
        voice = self.agent.voice(persona.voice)
        built = prompts.build(voice, persona.role, self.config, self.agent.text)
        if self.keep_persona:
            inputs.check_kept(len(built), self.config)
        return built

    def _mask(self, rows: list[bool]) -> Tensor | None:
        """bool [b] on the device; None if all are true."""
        return None if all(rows) else torch.tensor(rows, device=self.agent.device)
