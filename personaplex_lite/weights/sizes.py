"""A config as plain JSON types, and back: what `config.json` holds."""
from __future__ import annotations

from dataclasses import asdict

from ..model.config import TransformerConfig


def to_dict(config) -> dict:
    """A config as plain JSON types."""
    return asdict(config)


def from_dict(cls, data: dict):
    """The inverse of `to_dict`: nested transformer configs and tuples come back as such."""
    values = dict(data)
    for name, value in data.items():
        if isinstance(value, dict):
            values[name] = TransformerConfig(**value)
        elif isinstance(value, list):
            values[name] = tuple(value)
    return cls(**values)
