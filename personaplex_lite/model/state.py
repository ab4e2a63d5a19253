"""Memory that is passed in: weights live in modules, what happened so far lives in a State.

What departs from the textbook: streaming modules usually hide their buffers. Here they are values one can
save, copy, fork, count and reset row by row. Three rules:

1. Only the module that made a state touches its fields.
2. Writes are in place, fields are frozen, addresses never move (so a captured CUDA graph stays right).
3. Time advances in one line, and nothing on the way waits for the device.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

Rows = Tensor | None      # bool [b]: the conversations that are meant; None: all


def slot(empty: float = 0, row_dim: int = 0):
    """A tensor field: what it holds before anything has happened; which dimension counts conversations."""
    return field(metadata={"empty": empty, "row_dim": row_dim})


@dataclass(frozen=True, eq=False)
class State:
    """A tree of named tensors: frozen dataclasses of `slot`s, other states, tuples of states, constants."""

    def slots(self, prefix: str = "") -> Iterator[tuple[str, Tensor, Mapping]]:
        """(dotted name, tensor, what `slot` said of it) of everything below, in order."""
        for entry in fields(self):
            name = prefix + entry.name
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                yield name, value, entry.metadata
            elif isinstance(value, State):
                yield from value.slots(f"{name}.")
            elif isinstance(value, tuple):
                for number, child in enumerate(value):
                    yield from child.slots(f"{name}.{number}.")

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its dotted name; the tensors themselves, not copies."""
        return {name: tensor for name, tensor, _ in self.slots()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """A copy of everything, to be given back to `restore`."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}

    @torch.no_grad()
    def restore(self, saved: dict[str, Tensor]) -> None:
        """Copy a snapshot into place. Raises ValueError if it is of another model or batch size."""
        mine = self.tensors()
        here = {(name, tensor.shape) for name, tensor in mine.items()}
        there = {(name, tensor.shape) for name, tensor in saved.items()}
        wrong = sorted({name for name, _ in here ^ there})
        # All is compared before anything is copied.
        if wrong:
            raise ValueError(f"this snapshot is of another model or batch: {', '.join(wrong[:6])} do not fit")
        for name, tensor in mine.items():
            tensor.copy_(saved[name])

    @torch.no_grad()
    def reset(self, rows: Rows = None) -> None:
        """Back to the beginning, for all conversations or those where `rows` bool [b] is true."""
        for _, tensor, about in self.slots():
            empty = about["empty"]
            if rows is None:
                tensor.fill_(empty)
                continue
            # Lay `rows` along the dimension that counts conversations.
            shape = [1] * tensor.ndim
            shape[about["row_dim"]] = -1
            mask = rows.to(tensor.device).view(shape)
            tensor.masked_fill_(mask, empty)


def keep(active: Rows, new: Tensor, old: Tensor) -> Tensor:
    """`new` for rows that are active [b], `old` for those that pause."""
    if active is None:
        return new
    ones = [1] * (new.ndim - 1)
    return torch.where(active.view(-1, *ones), new, old)
