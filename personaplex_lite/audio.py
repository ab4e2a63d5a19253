"""Sound in and out: read, write, resample, loudness, 80 ms frames, players.

What departs from the textbook: everything is mono float32 at 24 kHz in [-1, 1] from the moment it is read,
and what cannot be that is refused here, in one sentence, before any model sees it.
"""
from __future__ import annotations

import io
import numbers
import os
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .model.units import FRAME_SAMPLES, SAMPLE_RATE

RATE = SAMPLE_RATE
FRAME = FRAME_SAMPLES
LONGEST = 3600           # seconds that are read from one file
QUIET = 1e-4             # a peak below this is digital silence or a muted microphone
LOWEST, HIGHEST = 4000, 384_000     # Hz: rates that make sense
MOST_CHANNELS = 32
FORMATS = (".wav", ".flac", ".ogg", ".mp3")
BLOCK = 2**18            # samples that are read or written at a time
CANCELLED = 1e-3         # of the loudest channel's power: below it, channels are of opposite phase


class AudioError(ValueError):
    """Sound that cannot be used; the message says what was wrong and what would be right."""


def read(source: Any, rate: int | None = None, what: str = "sound") -> Tensor:
    """Anything that is a sound -> float32 [n], mono, 24 kHz.

    source : a path, bytes or an open file of wav, flac, ogg or mp3; or an array or tensor [n], [n, channels]
        or [channels, n], float in [-1, 1] or integers at full scale, with its `rate` in Hz (default 24 000);
        or such an array together with its rate, as (rate, array) or {"array": …, "sampling_rate": …}.
    Raises FileNotFoundError, or AudioError for sound that is empty, corrupt, not finite or too long. Warns
    (and goes on) when it is silent or clipped.
    """
    source, rate = _with_rate(source, rate)
    if isinstance(source, (str, Path)):
        what = str(source)
        samples, rate = _decode(Path(source), what)
    elif isinstance(source, (bytes, bytearray)) or hasattr(source, "read"):
        samples, rate = _decode(source, what)
    else:
        samples, rate = _array(source, what), rate or RATE
    return _check(samples, rate, what)


def _with_rate(source: Any, rate: int | None) -> tuple[Any, int | None]:
    """(array or path, rate), however the two were handed over. Raises AudioError if they contradict."""
    own = None
    if isinstance(source, dict) and {"array", "sampling_rate"} <= source.keys():
        own, source = source["sampling_rate"], source["array"]
    elif isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], numbers.Number):
        own, source = source
    for claimed in (own, rate):
        whole = isinstance(claimed, numbers.Real) and not isinstance(claimed, bool) and claimed == claimed
        if claimed is not None and not (whole and LOWEST <= claimed <= HIGHEST):
            raise AudioError(f"the sound claims {claimed!r} Hz: "
                             f"rates from {LOWEST} to {HIGHEST} Hz make sense")
    if own is not None and rate is not None and int(own) != int(rate):
        raise AudioError(f"the sound says {own} Hz and rate says {rate}: give one of them")
    known = own if own is not None else rate
    return source, None if known is None else int(known)


def _array(source: Any, what: str) -> np.ndarray:
    """An array or tensor of samples -> float32 [n], mono."""
    samples = np.asarray(source.detach().cpu() if isinstance(source, Tensor) else source)
    if samples.size == 0:
        raise AudioError(f"{what} is empty: it needs at least one sample")
    if samples.ndim not in (1, 2):
        raise AudioError(f"{what} has shape {list(samples.shape)}: give [n] samples, or [n, channels]")
    if samples.dtype.kind in "iu":
        # full scale is 1; unsigned integers have their zero in the middle
        samples = samples / 2.0 ** (8 * samples.itemsize - 1) - (samples.dtype.kind == "u")
    elif samples.dtype.kind != "f":
        raise AudioError(f"{what} holds {samples.dtype}: give float samples in [-1, 1] or integers")
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        samples = samples.T                                     # [channels, n]
    if samples.ndim == 2 and len(samples) > MOST_CHANNELS:
        raise AudioError(f"{what} has shape {list(samples.shape)}: "
                         f"at most {MOST_CHANNELS} channels make sense")
    return _mono(samples) if samples.ndim == 2 else samples.astype(np.float32)


def _mono(channels: np.ndarray) -> np.ndarray:
    """[channels, n] -> float32 [n]: their mean, or the loudest where they cancel each other out."""
    mean = channels.mean(axis=0, dtype=np.float64).astype(np.float32)
    power = np.square(channels, dtype=np.float64).mean(axis=1)
    cancelled = np.square(mean, dtype=np.float64).mean() < CANCELLED * power.max()
    return channels[power.argmax()].astype(np.float32) if cancelled else mean


def _decode(source: Any, what: str) -> tuple[np.ndarray, int]:
    """A sound file -> (float32 [n], mono; its rate). Read in blocks: memory is bounded by what is kept."""
    import soundfile
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f"no sound file at {source}")
    file_like = io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else source
    try:
        with soundfile.SoundFile(str(source) if isinstance(source, Path) else file_like) as file:
            if file.frames > LONGEST * file.samplerate:
                raise AudioError(f"{what} lasts {file.frames / file.samplerate / 60:.0f} minutes: "
                                 f"cut it to at most {LONGEST // 60}")
            if file.channels > MOST_CHANNELS:
                raise AudioError(f"{what} has {file.channels} channels: at most {MOST_CHANNELS} make sense")
            blocks = file.blocks(BLOCK, dtype="float32", always_2d=True)
            pieces = [_mono(block.T) for block in blocks]
            if not pieces:
                raise AudioError(f"{what} is empty: it needs at least one sample")
            return np.concatenate(pieces), file.samplerate
    except (soundfile.LibsndfileError, TypeError) as error:
        reason = str(error).split(": ", 1)[-1]
        raise AudioError(f"{what} is not a sound file that can be read ({reason}): "
                         "give wav, flac, ogg or mp3") from None


def _check(samples: np.ndarray, rate: int, what: str) -> Tensor:
    if not LOWEST <= rate <= HIGHEST:
        raise AudioError(f"{what} claims {rate} Hz: rates from {LOWEST} to {HIGHEST} Hz make sense")
    if len(samples) > LONGEST * rate:
        raise AudioError(f"{what} lasts {len(samples) / rate / 60:.0f} minutes: "
                         f"cut it to at most {LONGEST // 60}")
    if not np.isfinite(samples).all():
        raise AudioError(f"{what} holds NaN or infinite samples: export it again from its source")
    peak = np.abs(samples).max()
    if peak > 1.5:
        raise AudioError(f"{what} peaks at {peak:.0f}: float samples must lie in [-1, 1] "
                         "(divide int16 by 32768)")
    if peak < QUIET:
        warnings.warn(f"{what} is silent: was the microphone muted?", stacklevel=3)
    elif (np.abs(samples) > 0.999).mean() > 0.01:
        warnings.warn(f"{what} is clipped: record it at a lower level to be understood better", stacklevel=3)
    return torch.from_numpy(np.ascontiguousarray(resample(samples, rate, RATE)))


def resample(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """float32 [n] from `rate` to `to` Hz."""
    if rate == to:
        return samples
    import soxr
    return soxr.resample(samples, rate, to).astype(np.float32)


def write(path: str | PathLike[str], pcm: ArrayLike, rate: int = RATE) -> Path:
    """Save float samples [n] (or [n, 2]) as the format that the file's ending names: wav, flac, ogg or mp3.

    Written in blocks beside the target, then renamed, so that what was there stays whole if writing fails.
    Raises AudioError for an ending that nobody knows.
    """
    import soundfile
    path = Path(path)
    check_target(path)
    samples = np.clip(np.asarray(pcm, np.float32), -1, 1)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with soundfile.SoundFile(str(beside), "w", rate, channels) as file:
            for start in range(0, len(samples), BLOCK):
                file.write(samples[start:start + BLOCK])
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def check_target(path: Path) -> None:
    """Raise AudioError or OSError, in one sentence, if no sound can be saved at `path`."""
    if path.suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write {path}: its name must end in {', '.join(FORMATS)}")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder, give a file's name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: the folder {path.parent} may not be written to")


def loudness(pcm: np.ndarray, rate: int = RATE) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4): K-weighting, 400 ms blocks, two gates; -inf: silence."""
    spectrum, n = np.fft.rfft(pcm, 2 * len(pcm)), len(pcm)
    weighted = np.fft.irfft(spectrum * _k_weight(np.fft.rfftfreq(2 * n, 1 / rate)))[:n]
    block, hop = int(0.4 * rate), int(0.1 * rate)
    if n < block:
        weighted = np.pad(weighted, (0, block - n))
    starts = range(0, len(weighted) - block + 1, hop)
    power = np.array([np.square(weighted[i:i + block]).mean() for i in starts])
    for gate in (-70.0, None):
        if gate is None:
            gate = -0.691 + 10 * np.log10(power.mean()) - 10
        power = power[-0.691 + 10 * np.log10(np.maximum(power, 1e-20)) > gate]
        if not len(power):
            return -np.inf
    return float(-0.691 + 10 * np.log10(power.mean()))


def _k_weight(f: np.ndarray) -> np.ndarray:
    """The two filters of BS.1770 as one frequency response, from their analogue prototypes."""
    s = 1j * np.maximum(f, 1e-3)
    f0, gain, q = 1681.974450955533, 10 ** (3.999843853973347 / 20), 0.7071752369554196
    band = gain ** 0.4996667741545416
    shelf = (gain * s ** 2 + band * f0 / q * s + f0 ** 2) / (s ** 2 + f0 / q * s + f0 ** 2)
    f1, q1 = 38.13547087602444, 0.5003270373238773
    # 1.004995: the gain that the standard's own coefficients leave
    return 1.004995 * shelf * s ** 2 / (s ** 2 + f1 / q1 * s + f1 ** 2)


def normalise(pcm: np.ndarray, lufs: float = -24.0) -> np.ndarray:
    """Bring a sound to a loudness. Raises AudioError if there is nothing to hear."""
    now = loudness(pcm)
    if now == -np.inf:
        raise AudioError("this voice sample is silent: give a few seconds of somebody speaking")
    return np.clip(pcm * 10 ** ((lufs - now) / 20), -1, 1).astype(np.float32)


def frames(wav: Tensor, size: int = FRAME) -> Sequence[Tensor]:
    """[n] -> pieces [size], the last one filled up with silence."""
    wav = torch.nn.functional.pad(wav, (0, -len(wav) % size))
    return wav.split(size)


def player(pcm: ArrayLike, rate: int = RATE) -> Any:
    """A sound player for a notebook: MP3 inside the page (about 4 kB a second)."""
    import soundfile
    from IPython.display import Audio
    file = io.BytesIO()
    soundfile.write(file, np.clip(np.asarray(pcm, np.float32), -1, 1), rate, format="MP3")
    sound = Audio(data=file.getvalue(), rate=None)
    sound.mimetype = "audio/mpeg"
    return sound
