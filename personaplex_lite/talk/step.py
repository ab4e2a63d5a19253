"""One frame of a conversation, 80 ms from the ears to the mouth: `take_step` is the whole algorithm.

What departs from the textbook: there is no prefill and no turn. Prompt, listening and speaking are the same
step; what is known goes into the grid first ("given"), the model fills what is left. Nothing here waits for
the device, so the same lines run one by one (eager) or as one captured graph (`step_of_sound`).

Source: Moshi paper (arXiv 2410.00037), sections 3.4 and 3.5. Shapes: b conversations (rows); K depth steps;
d dims of the temporal transformer.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.config import NO_INPUT, UNGIVEN, SamplingConfig
from ..model.grid import Grid, GridState
from ..model.mimi import MimiState
from ..model.sampling import Dice, sample
from ..model.state import Rows, State, slot
from ..model.transformer import KVState
from .reply import Clock, Trace


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
class Plan:
    """What is decided before a step begins. By default the common step: every row moves, draws and speaks."""
    sampling: SamplingConfig
    depth_steps: int                   # K codes to draw: the agent's 8, or its guess of the user's 8 as well
    ring: str = "exact"
    trace: bool = False
    active: Rows = None                # bool [b], rows that move on; None: all
    young: bool = False                # some row takes its very first step: it has no column to read yet
    recorded: dict[int, Tensor] = field(default_factory=dict)   # row -> [d], read instead of its column
    draws: bool = True                 # False: every cell is given
    speaks: bool = True                # False: nobody listens to the agent
    complete: Rows = None              # bool [b], rows that have a whole frame to speak; None: all


class Made(NamedTuple):
    """What a step made, on the device."""
    frame: Tensor                      # int64 [b, 17], the newest complete frame
    pcm: Tensor | None                 # float32 [b, 1920], its sound
    trace: Trace | None = None


@torch.no_grad()
def take_step(agent, grid: Grid, state: SessionState, tokens: Tensor, sound: Tensor | None, plan: Plan,
              clock: Clock) -> Made:
    """Listen, think, speak; moves `state` on by one step, in place.

    tokens int64 [b, 17]: what is given, -2 where nothing is. sound float [b, 1, 1920], the user's, or None.
    Both are on the agent's device, and checked before (`inputs`).
    """
    lm = agent.lm
    t = state.t
    # Ears: the user's 80 ms become eight codes, given from here on like everything else that is known.
    if sound is not None:
        tokens[:, lm.config.user] = agent.mimi.encode(sound, state.ears, plan.active)[..., 0]
        clock("ears")
    # Grid: every given token lands in its delayed cell; start tokens go where a row has not begun.
    grid.put(state.grid, t, tokens, plan.active)
    grid.open(state.grid, t, plan.active)
    column = grid.column(state.grid, t)             # [b, 17] complete: what the model reads
    target = grid.target(state.grid, t)             # [b, 17] to be written: -2 where the model decides
    clock("grid")
    # Temporal: one more column, and the whole past becomes one vector.
    x = embed(lm, column, plan.recorded)
    hidden, text_logits = lm.step(x, t - 1, state.temporal, begun(state, plan))
    clock("temporal")
    dice = Dice(plan.sampling, state.seed, t, keep=plan.trace)
    sampled = torch.full_like(tokens, UNGIVEN)
    if plan.draws:
        # Text: first a word …
        said = sample(text_logits, plan.sampling.text_temperature, plan.sampling.text_top_k, state.seed, t, 0)
        word = torch.where(target[:, 0] == UNGIVEN, said, target[:, 0])
        sampled[:, 0] = said
        # Depth: … then how it sounds, code by code.
        codes = lm.depth.sample(hidden, word, target[:, 1:], dice, plan.depth_steps, plan.ring)
        sampled[:, 1:1 + plan.depth_steps] = codes
    # Grid: what the model drew fills the open cells, and with them the newest frame is complete.
    grid.fill(state.grid, t, sampled, plan.active)
    frame = grid.frame(state.grid, t)
    clock("depth")
    state.t.add_(1 if plan.active is None else plan.active.long())  # the one line where time advances
    # Mouth: the frame's eight agent codes become 80 ms of sound.
    pcm = speak(agent, state, frame, plan.complete, clock) if plan.speaks else None
    if not plan.trace:
        return Made(frame, pcm)
    audio_logits = torch.stack(dice.logits, 1)      # [b, K, audio_vocab]
    trace = Trace(column, target, sampled, hidden, text_logits, audio_logits, clock.ms, agent.text)
    return Made(frame, pcm, trace)


def embed(lm, column: Tensor, recorded: dict[int, Tensor]) -> Tensor:
    """column int64 [b, 17] -> [b, d]; where a voice was recorded, the embedding that it brings."""
    x = lm.embed(column.clamp(min=NO_INPUT))
    for row, embedding in recorded.items():
        x[row] = embedding.to(x)
    return x


def begun(state: SessionState, plan: Plan) -> Rows:
    """bool [b]: rows in which the transformer may move; None for all."""
    if not plan.young:
        return plan.active
    started = state.t > 0
    return started if plan.active is None else started & plan.active


def speak(agent, state: SessionState, frame: Tensor, complete: Rows, clock: Clock) -> Tensor:
    """A complete frame int64 [b, 17] -> its sound float32 [b, 1920]."""
    config = agent.lm.config
    codes = frame[:, config.agent].clamp(0, config.audio_vocab - 1)
    pcm = agent.mimi.decode(codes[..., None], state.mouth, complete)[:, 0]
    clock("mouth")
    return pcm


def step_of_sound(agent, grid: Grid, state: SessionState, sound: Tensor, plan: Plan, clock: Clock) -> Tensor:
    """The common step from one tensor to one tensor, as a graph is captured and a copy to the host is made.

    sound float [b, 1, 1920] -> float32 [b, 1920 + 17]: the agent's sound, then its frame's tokens.
    """
    shape = (len(sound), agent.lm.config.rows)
    nothing = torch.full(shape, UNGIVEN, device=sound.device)
    made = take_step(agent, grid, state, nothing, sound, plan, clock)
    return torch.cat([made.pcm, made.frame.float()], 1)  # type: ignore[list-item]  # the common step speaks
