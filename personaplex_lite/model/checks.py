"""What the codec and the grid are given, checked before anything moves: sound and codes."""
from __future__ import annotations

import torch
from torch import Tensor

from .config import LMConfig, MimiConfig

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_codes(codes: Tensor, config: LMConfig, what: str) -> None:
    """Raise ValueError unless codes are integers [..., 8] of this codec."""
    q, bins = config.codebooks, config.audio_vocab
    if codes.dtype not in INTEGERS or codes.ndim < 1 or codes.shape[-1] != q:
        raise ValueError(f"{what}: codes must be integers [..., {q}], got {codes.dtype} {list(codes.shape)}")
    if codes.numel() and (codes.min() < 0 or codes.max() >= bins):
        raise ValueError(f"{what}: codes must lie in 0..{bins - 1}, "
                         f"got {int(codes.min())}..{int(codes.max())}")


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
