"""What people hand in, checked before anything moves: errors say what was wrong and what is right."""
from __future__ import annotations

import torch
from torch import Tensor

from . import audio
from .config import UNGIVEN, LMConfig, MimiConfig

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def as_tensor(value, name: str) -> Tensor:
    try:
        return torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: give numbers, got {type(value).__name__}") from None


def forced(config: LMConfig, rows: int, codec: bool, user, agent, text) -> tuple[Tensor, Tensor | None]:
    """What one step was given -> tokens int64 [b, 17], -2 where nothing was; sound [b, 1, 1920] or None."""
    tokens, sound = torch.full((rows, config.rows), UNGIVEN), None
    if user is not None and (user := as_tensor(user, "user")).is_floating_point():
        sound, user = _frame_of_sound(user, rows, codec), None
    for value, where, name in ((user, config.user, "user"), (agent, config.agent, "agent")):
        if value is not None:
            tokens[:, where] = _frame_of_codes(as_tensor(value, name), config, rows, name)
    if text is not None:
        text, vocab = as_tensor(text, "text"), config.text_vocab
        if (text.dtype not in INTEGERS or text.numel() not in (1, rows)
                or not ((text >= 0) & (text < vocab)).all()):
            raise ValueError(f"text: a token id in 0..{vocab - 1}, got {text.tolist()}")
        tokens[:, 0] = text.reshape(-1)
    return tokens, sound


def _frame_of_codes(codes: Tensor, config: LMConfig, rows: int, name: str) -> Tensor:
    q = config.codebooks
    if codes.shape not in ((q,), (1, q), (rows, q)):
        raise ValueError(f"{name}: codes must be [{q}] or [{rows}, {q}] (and sound float [{audio.FRAME}]), "
                         f"got {codes.dtype} {list(codes.shape)}")
    check_codes(codes, config, name)
    return codes.long()


def _frame_of_sound(user: Tensor, rows: int, codec: bool) -> Tensor:
    size = audio.FRAME
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


def check_codes(codes: Tensor, config: LMConfig, what: str) -> None:
    """Raise ValueError unless codes are integers [..., 8] of this codec."""
    q, bins = config.codebooks, config.audio_vocab
    if codes.dtype not in INTEGERS or codes.ndim < 1 or codes.shape[-1] != q:
        raise ValueError(f"{what}: codes must be integers [..., {q}], got {codes.dtype} {list(codes.shape)}")
    if codes.numel() and (codes.min() < 0 or codes.max() >= bins):
        raise ValueError(f"{what}: codes must lie in 0..{bins - 1}, "
                         f"got {int(codes.min())}..{int(codes.max())}")


def check_voice(voice, config: LMConfig) -> None:
    """Raise ValueError unless a Voice belongs to this model."""
    if voice.embeddings is None:
        if voice.codes.ndim != 2 or len(voice.codes) != config.codebooks:
            raise ValueError(f"the voice {voice.name!r}: codes must be integers [{config.codebooks}, n], "
                             f"got {list(voice.codes.shape)}")
        return check_codes(voice.codes.T, config, f"the voice {voice.name!r}")
    e, c, d = voice.embeddings, voice.cache, config.temporal.dim
    if (e.ndim != 4 or not len(e) or e.shape[1:] != (1, 1, d)
            or c.shape != (1, config.rows, config.max_delay + 3)):
        raise ValueError(f"the voice {voice.name!r} was recorded with another model: embeddings "
                         f"{list(e.shape)}, this one needs [n, 1, 1, {d}]")
    if not e.isfinite().all() or c.min() < UNGIVEN or (c > torch.tensor(config.initial)[:, None]).any():
        raise ValueError(f"the voice {voice.name!r} holds values that are not finite, "
                         "or ids that this model does not have: get the file again")


def check_kept(frames: int, config: LMConfig) -> None:
    """Raise ValueError if a prompt that is to be kept for good leaves too little room for the talk."""
    if frames > config.temporal.context // 2:
        raise ValueError(f"keep_persona: this persona takes {frames} of the {config.temporal.context} frames "
                         "that the model remembers, at most half: shorten the role or the voice")


def sound(wav, config: MimiConfig, state=None) -> Tensor:
    """What `Mimi.encode` takes -> float [b, 1, n]."""
    wav = torch.as_tensor(wav)
    x = wav[None, None] if wav.ndim == 1 else wav
    if x.ndim != 3 or x.shape[1] != 1 or not x.shape[-1] or not x.is_floating_point():
        raise ValueError("sound must be float [n] or [b, 1, n] with n > 0 samples, "
                         f"got {wav.dtype} {list(wav.shape)}")
    if x.device.type == "cpu" and not x.isfinite().all():
        raise ValueError("sound holds NaN or infinite samples")
    check_stream(state, len(x), x.shape[-1] / config.frame_size, config)
    return x


def codes(ids, config: MimiConfig, state=None) -> Tensor:
    """What `Mimi.decode` takes -> integers [b, q, t]."""
    ids, most = torch.as_tensor(ids), config.codebooks
    fits = ids.ndim == 3 and 1 <= ids.shape[1] <= most and ids.numel()
    if not fits or ids.is_floating_point():
        raise ValueError(f"codes must be integers [b, 1..{most}, t], got {ids.dtype} {list(ids.shape)}")
    if ids.device.type == "cpu" and (ids.min() < 0 or ids.max() >= config.bins):
        raise ValueError(f"codes must lie in 0..{config.bins - 1}, got {int(ids.min())}..{int(ids.max())}")
    check_stream(state, len(ids), ids.shape[2], config)
    return ids


def check_stream(state, batch: int, frames: float, config: MimiConfig) -> None:
    """Raise ValueError unless a codec's stream takes that many rows and frames at a time."""
    if state is None:
        return
    rows, most = len(state.t), state.transformer.chunk // 2
    if batch != rows or frames not in range(1, most + 1):
        raise ValueError(f"this stream takes {rows} row(s) and 1 to {most} whole frame(s) of "
                         f"{config.frame_size} samples at a time, got {batch} and {frames:g}")
