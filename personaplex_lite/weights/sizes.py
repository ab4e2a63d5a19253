"""A config as plain JSON types, and back: what `config.json` holds."""
from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeVar

from ..model.config import LMConfig, MimiConfig, TransformerConfig

Config = TypeVar("Config", LMConfig, MimiConfig)


def to_dict(config: LMConfig | MimiConfig) -> dict[str, Any]:
    """A config as plain JSON types."""
    return asdict(config)


def from_dict(cls: type[Config], data: dict[str, Any]) -> Config:
    """The inverse of `to_dict`: nested transformer configs and tuples come back as such."""
    values = dict(data)
    for name, value in data.items():
        if isinstance(value, dict):
            values[name] = TransformerConfig(**value)
        elif isinstance(value, list):
            values[name] = tuple(value)
    return cls(**values)
