"""The token grid: 17 rows by time, and the delay that turns frames into columns.

What departs from the textbook: a frame is not a column. Acoustic codes are written one column to the right
of their frame's text and semantic code, so that the model decides *what* before *how it sounds*. Reading a
frame back means reading a slanted column. Everything that is known beforehand (the user, the prompt, forced
tokens) is a cell already filled ("given"); the model fills the rest.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import UNGIVEN, LMConfig
from .state import State, keep, slot


def delay(frames: Tensor, config: LMConfig) -> Tensor:
    """frames int64 [b, 17, t] -> grid [b, 17, 1 + t]: rows moved right by 1 + delay, start tokens before."""
    b, rows, t = frames.shape
    grid = torch.tensor(config.initial, device=frames.device)[None, :, None].repeat(b, 1, 1 + t)
    for row, d in enumerate(config.delays):
        grid[:, row, 1 + d:] = frames[:, row, :t - d]
    return grid


def undelay(columns: Tensor, config: LMConfig, fill: float) -> Tensor:
    """The inverse, for anything laid out by columns 1..t [b, rows, t, ...]; the unwritten end is `fill`."""
    out = torch.full_like(columns, fill)
    for row in range(columns.shape[1]):
        d = config.delays[row]
        out[:, row, :columns.shape[2] - d] = columns[:, row, d:]
    return out


@dataclass(frozen=True, eq=False)
class GridState(State):
    """The last few columns of live conversations: all that the delay needs."""
    cells: Tensor = slot(UNGIVEN)   # [b, 17, w] ring of columns
    given: Tensor = slot()          # [b, 17, w] bool: known beforehand, not the model's to fill


class Grid:
    """Reads and writes a GridState; t int64 [b] is the column that each conversation is about to fill."""

    def __init__(self, config: LMConfig, device="cpu"):
        self.width = config.max_delay + 3
        self.max_delay = config.max_delay
        self.delays = torch.tensor(config.delays, device=device)
        self.initial = torch.tensor(config.initial, device=device)

    def new_state(self, batch: int) -> GridState:
        shape, device = (batch, len(self.delays), self.width), self.delays.device
        return GridState(torch.full(shape, UNGIVEN, device=device),
                         torch.zeros(shape, dtype=torch.bool, device=device))

    def put(self, state: GridState, t: Tensor, frame: Tensor, active: Tensor | None = None) -> None:
        """Make the tokens of frame t given, each at its delayed column: frame [b, 17], -2 where not known."""
        where = self._at(t[:, None] + self.delays)
        known = frame != UNGIVEN
        if active is not None:
            known = known & active[:, None]
        state.cells[where] = torch.where(known, frame, state.cells[where])
        state.given[where] = state.given[where] | known

    def open(self, state: GridState, t: Tensor, active: Tensor | None = None) -> None:
        """Start tokens where a row has not begun yet, whatever was put there."""
        where = self._at(t[:, None].expand(-1, len(self.delays)))
        early = t[:, None] <= self.delays
        if active is not None:
            early = early & active[:, None]
        state.cells[where] = torch.where(early, self.initial, state.cells[where])
        state.given[where] = state.given[where] | early

    def column(self, state: GridState, t: Tensor) -> Tensor:
        """[b, 17]: the complete column t - 1, which the model reads."""
        return state.cells[self._at((t[:, None] - 1).expand(-1, len(self.delays)))]

    def target(self, state: GridState, t: Tensor) -> Tensor:
        """[b, 17]: what is given of column t, -2 where the model decides."""
        where = self._at(t[:, None].expand(-1, len(self.delays)))
        return torch.where(state.given[where], state.cells[where], UNGIVEN)

    def fill(self, state: GridState, t: Tensor, tokens: Tensor, active: Tensor | None = None) -> None:
        """Write the model's tokens [b, 17] into the open cells of column t; forget what t - 1 was given."""
        rows = len(self.delays)
        here, before = self._at(t[:, None].expand(-1, rows)), self._at((t[:, None] - 1).expand(-1, rows))
        state.given[before] = keep(active, torch.zeros_like(state.given[before]), state.given[before])
        own = ~state.given[here]
        if active is not None:
            own = own & active[:, None]
        state.cells[here] = torch.where(own, tokens, state.cells[here])

    def frame(self, state: GridState, t: Tensor) -> Tensor:
        """[b, 17]: the newest complete frame, t - max_delay, after column t was filled."""
        return state.cells[self._at(t[:, None] - self.max_delay + self.delays)]

    def load(self, state: GridState, row: int, cells: Tensor) -> None:
        """Replace one conversation's cells, [1, 17, w], as a recorded voice asks; given ones stay given."""
        state.cells[row] = cells[0].to(state.cells)

    def _at(self, column: Tensor):
        """Index triple of one cell in each row; column [b, 17]."""
        b, rows = column.shape
        device = column.device
        return (torch.arange(b, device=device)[:, None], torch.arange(rows, device=device)[None],
                column % self.width)
