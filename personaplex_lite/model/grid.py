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
from .state import Rows, State, keep, slot

Cells = tuple[Tensor, Tensor, Tensor]      # conversation, row, place in the ring: an index of cells


def delay(frames: Tensor, config: LMConfig) -> Tensor:
    """frames int64 [b, 17, t] -> grid [b, 17, 1 + t]: rows moved right by 1 + delay, start tokens before."""
    batch, _, length = frames.shape
    start = torch.tensor(config.initial, device=frames.device)
    grid = start[None, :, None].repeat(batch, 1, 1 + length)
    for row, late in enumerate(config.delays):
        grid[:, row, 1 + late:] = frames[:, row, :length - late]
    return grid


def undelay(columns: Tensor, config: LMConfig, fill: float) -> Tensor:
    """The inverse, for anything laid out by columns 1..t [b, rows, t, ...]; the unwritten end is `fill`."""
    frames = torch.full_like(columns, fill)
    rows, length = columns.shape[1:3]
    for row in range(rows):
        late = config.delays[row]
        frames[:, row, :length - late] = columns[:, row, late:]
    return frames


@dataclass(frozen=True, eq=False)
class GridState(State):
    """The last few columns of live conversations: all that the delay needs."""
    cells: Tensor = slot(UNGIVEN)   # [b, 17, w] ring of columns
    given: Tensor = slot()          # [b, 17, w] bool: known beforehand, not the model's to fill


class Grid:
    """Reads and writes a GridState; t int64 [b] is the column that each conversation is about to fill."""

    def __init__(self, config: LMConfig, device="cpu"):
        self.max_delay = config.max_delay
        self.width = config.max_delay + 3      # as wide as the official ring, which recorded voices bring
        self.delays = torch.tensor(config.delays, device=device)
        self.initial = torch.tensor(config.initial, device=device)

    def new_state(self, batch: int) -> GridState:
        """Empty grids for `batch` conversations."""
        shape = (batch, len(self.delays), self.width)
        device = self.delays.device
        cells = torch.full(shape, UNGIVEN, device=device)
        given = torch.zeros(shape, dtype=torch.bool, device=device)
        return GridState(cells, given)

    def put(self, state: GridState, t: Tensor, frame: Tensor, active: Rows = None) -> None:
        """Make the tokens of frame t given, each at its delayed column: frame [b, 17], -2 where not known."""
        where = self._at(t[:, None] + self.delays)
        known = _moving(frame != UNGIVEN, active)
        self._give(state, where, known, frame)

    def open(self, state: GridState, t: Tensor, active: Rows = None) -> None:
        """Start tokens where a row has not begun yet, whatever was put there."""
        where = self._column(t)
        early = _moving(t[:, None] <= self.delays, active)
        self._give(state, where, early, self.initial)

    def column(self, state: GridState, t: Tensor) -> Tensor:
        """[b, 17]: the complete column t - 1, which the model reads."""
        before = self._column(t - 1)
        return state.cells[before]

    def target(self, state: GridState, t: Tensor) -> Tensor:
        """[b, 17]: what is given of column t, -2 where the model decides."""
        where = self._column(t)
        return torch.where(state.given[where], state.cells[where], UNGIVEN)

    def fill(self, state: GridState, t: Tensor, tokens: Tensor, active: Rows = None) -> None:
        """Write the model's tokens [b, 17] into the open cells of column t; forget what t - 1 was given."""
        here = self._column(t)
        before = self._column(t - 1)
        # The ring comes round to that column again, and then nothing of it is given.
        given = state.given[before]
        state.given[before] = keep(active, torch.zeros_like(given), given)
        own = _moving(~state.given[here], active)
        state.cells[here] = torch.where(own, tokens, state.cells[here])

    def frame(self, state: GridState, t: Tensor) -> Tensor:
        """[b, 17]: the newest complete frame, t - max_delay, after column t was filled."""
        complete = t - self.max_delay
        where = self._at(complete[:, None] + self.delays)
        return state.cells[where]

    def load(self, state: GridState, row: int, cells: Tensor) -> None:
        """Replace one conversation's cells, [1, 17, w], as a recorded voice asks; given ones stay given."""
        state.cells[row] = cells[0].to(state.cells)

    def _give(self, state: GridState, where: Cells, known: Tensor, tokens: Tensor) -> None:
        """Write tokens where known bool [b, 17], and note that they are given."""
        state.cells[where] = torch.where(known, tokens, state.cells[where])
        state.given[where] = state.given[where] | known

    def _column(self, t: Tensor) -> Cells:
        """Index triple of the whole column t [b]."""
        rows = len(self.delays)
        return self._at(t[:, None].expand(-1, rows))

    def _at(self, column: Tensor) -> Cells:
        """Index triple of one cell in each row; column [b, 17]: which one."""
        batch, rows = column.shape
        conversation = torch.arange(batch, device=column.device)[:, None]
        row = torch.arange(rows, device=column.device)[None]
        return conversation, row, column % self.width


def _moving(cells: Tensor, active: Rows) -> Tensor:
    """Of the cells bool [b, 17], those in conversations that move on."""
    if active is None:
        return cells
    return cells & active[:, None]
