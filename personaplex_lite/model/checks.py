"""What the codec and the grid are given, checked before anything moves: sound and codes."""
from __future__ import annotations

import torch
from torch import Tensor

from .config import LMConfig, MimiConfig

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_codes(codes: Tensor, config: LMConfig, what: str) -> None:
    """Raise ValueError unless codes are integers [..., 8] of this codec; `what` begins the message."""
    books = config.codebooks
    if codes.dtype not in INTEGERS or codes.ndim < 1 or codes.shape[-1] != books:
        raise ValueError(f"{what}: codes must be integers [..., {books}], "
                         f"got {codes.dtype} {list(codes.shape)}")
    if codes.numel():
        _check_range(codes, config.audio_vocab, f"{what}: codes")


def sound(wav, config: MimiConfig, state=None) -> Tensor:
    """What `Mimi.encode` takes, float [n] or [b, 1, n] -> float [b, 1, n]. Raises ValueError otherwise."""
    wav = torch.as_tensor(wav)
    x = wav[None, None] if wav.ndim == 1 else wav
    mono = x.ndim == 3 and x.shape[1] == 1
    if not mono or not x.shape[-1] or not x.is_floating_point():
        raise ValueError("sound must be float [n] or [b, 1, n] with n > 0 samples, "
                         f"got {wav.dtype} {list(wav.shape)}")
    # Only a CPU is asked about values: on a GPU the answer would have to be waited for.
    if x.device.type == "cpu" and not x.isfinite().all():
        raise ValueError("sound holds NaN or infinite samples")
    frames = x.shape[-1] / config.frame_size
    check_stream(state, len(x), frames, config)
    return x


def codes(ids, config: MimiConfig, state=None) -> Tensor:
    """What `Mimi.decode` takes -> integers [b, q, t]. Raises ValueError for anything else."""
    ids = torch.as_tensor(ids)
    most = config.codebooks
    fits = ids.ndim == 3 and 1 <= ids.shape[1] <= most and ids.numel()
    if not fits or ids.is_floating_point():
        raise ValueError(f"codes must be integers [b, 1..{most}, t], got {ids.dtype} {list(ids.shape)}")
    if ids.device.type == "cpu":
        _check_range(ids, config.bins, "codes")
    check_stream(state, len(ids), ids.shape[2], config)
    return ids


def check_stream(state, batch: int, frames: float, config: MimiConfig) -> None:
    """Raise ValueError unless a codec's stream takes that many rows and frames at a time."""
    if state is None:
        return
    rows = len(state.t)
    most = state.transformer.chunk // 2      # the transformer takes two steps a frame
    if batch != rows or frames not in range(1, most + 1):
        raise ValueError(f"this stream takes {rows} row(s) and 1 to {most} whole frame(s) of "
                         f"{config.frame_size} samples at a time, got {batch} and {frames:g}")


def _check_range(ids: Tensor, bins: int, what: str) -> None:
    low = int(ids.min())
    high = int(ids.max())
    if low < 0 or high >= bins:
        raise ValueError(f"{what} must lie in 0..{bins - 1}, got {low}..{high}")
