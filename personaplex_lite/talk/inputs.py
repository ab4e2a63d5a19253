"""What people hand in, checked before anything moves: errors say what was wrong and what is right."""
from __future__ import annotations

import numbers

import torch
from torch import Tensor

from ..model.checks import INTEGERS, check_codes
from ..model.config import UNGIVEN, LMConfig
from ..model.units import FRAME_SAMPLES


def seed(value) -> int:
    """A seed as a plain int. Raises ValueError unless it is a whole number that 64 bits hold."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not -2**63 <= value < 2**63:
        raise ValueError(f"seed: a whole number from -2^63 to 2^63 - 1, got {str(value)[:40]!r}")
    return int(value)


def as_tensor(value, name: str) -> Tensor:
    try:
        return torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: give numbers, got {type(value).__name__}") from None


def forced(config: LMConfig, rows: int, codec: bool, user, agent, text) -> tuple[Tensor, Tensor | None]:
    """What one step was given -> tokens int64 [b, 17], -2 where nothing was; sound [b, 1, 1920] or None."""
    tokens = torch.full((rows, config.rows), UNGIVEN)
    sound = None
    if user is not None:
        user = as_tensor(user, "user")
        # Floats are sound, which the ears turn into codes later; integers are codes.
        if user.is_floating_point():
            sound = _frame_of_sound(user, rows, codec)
        else:
            tokens[:, config.user] = _frame_of_codes(user, config, rows, "user")
    if agent is not None:
        agent = as_tensor(agent, "agent")
        tokens[:, config.agent] = _frame_of_codes(agent, config, rows, "agent")
    if text is not None:
        tokens[:, 0] = _text_tokens(as_tensor(text, "text"), config, rows)
    return tokens, sound


def _text_tokens(text: Tensor, config: LMConfig, rows: int) -> Tensor:
    vocab = config.text_vocab
    one_or_each = text.numel() in (1, rows)
    if text.dtype not in INTEGERS or not one_or_each or not ((text >= 0) & (text < vocab)).all():
        raise ValueError(f"text: a token id in 0..{vocab - 1}, got {text.tolist()}")
    return text.reshape(-1)


def _frame_of_codes(codes: Tensor, config: LMConfig, rows: int, name: str) -> Tensor:
    q = config.codebooks
    shapes = ((q,), (1, q), (rows, q))
    if codes.shape not in shapes:
        raise ValueError(f"{name}: codes must be [{q}] or [{rows}, {q}] (and sound float [{FRAME_SAMPLES}]), "
                         f"got {codes.dtype} {list(codes.shape)}")
    check_codes(codes, config, name)
    return codes.long()


def _frame_of_sound(user: Tensor, rows: int, codec: bool) -> Tensor:
    size = FRAME_SAMPLES
    if not codec or user.numel() != rows * size or not user.isfinite().all():
        raise ValueError(f"user: one frame of sound is {size} finite samples for each of {rows} "
                         f"conversation(s), got {list(user.shape)}")
    return user.reshape(rows, 1, size)


def active_rows(active, rows: int) -> Tensor | None:
    """bool [b], the rows that move on; None for all."""
    if active is None:
        return None
    active = as_tensor(active, "active")
    if active.dtype != torch.bool or active.shape != (rows,):
        raise ValueError(f"active: bool [{rows}], got {active.dtype} {list(active.shape)}")
    return active


def check_voice(voice, config: LMConfig) -> None:
    """Raise ValueError unless a Voice belongs to this model."""
    if voice.embeddings is None:
        if voice.codes.ndim != 2 or len(voice.codes) != config.codebooks:
            raise ValueError(f"the voice {voice.name!r}: codes must be integers [{config.codebooks}, n], "
                             f"got {list(voice.codes.shape)}")
        return check_codes(voice.codes.T, config, f"the voice {voice.name!r}")
    embeddings = voice.embeddings
    cache = voice.cache
    dim = config.temporal.dim
    # What was recorded: an embedding a step, and the last columns of the grid.
    fits = embeddings.ndim == 4 and len(embeddings) and embeddings.shape[1:] == (1, 1, dim)
    if not fits or cache.shape != (1, config.rows, config.max_delay + 3):
        raise ValueError(f"the voice {voice.name!r} was recorded with another model: embeddings "
                         f"{list(embeddings.shape)}, this one needs [n, 1, 1, {dim}]")
    # A row's start token is its largest id.
    highest = torch.tensor(config.initial)[:, None]
    if not embeddings.isfinite().all() or cache.min() < UNGIVEN or (cache > highest).any():
        raise ValueError(f"the voice {voice.name!r} holds values that are not finite, "
                         "or ids that this model does not have: get the file again")


def check_kept(frames: int, config: LMConfig) -> None:
    """Raise ValueError if a prompt that is to be kept for good leaves too little room for the talk."""
    if frames > config.temporal.context // 2:
        raise ValueError(f"keep_persona: this persona takes {frames} of the {config.temporal.context} frames "
                         "that the model remembers, at most half: shorten the role or the voice")
