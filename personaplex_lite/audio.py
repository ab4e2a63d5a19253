"""Sound in and out: read, write, resample, loudness, 80 ms frames, players.

What departs from the textbook: everything is mono float32 at 24 kHz in [-1, 1] from the moment it is read,
and what cannot be that is refused here, in one sentence, before any model sees it.
"""
from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .model.units import FRAME_SAMPLES, SAMPLE_RATE

RATE = SAMPLE_RATE
FRAME = FRAME_SAMPLES
LONGEST = 3600           # seconds that are read from one file
QUIET = 1e-4             # a peak below this is digital silence or a muted microphone


class AudioError(ValueError):
    """Sound that cannot be used; the message says what was wrong and what would be right."""


def read(source, rate: int | None = None, what: str = "sound") -> Tensor:
    """Anything that is a sound -> float32 [n], mono, 24 kHz.

    source : path of a wav, flac, ogg or mp3 file; or an array or tensor [n], [n, channels] or [channels, n],
        float in [-1, 1] or integers at full scale, with its `rate` in Hz (default 24 000).
    Raises FileNotFoundError, or AudioError for sound that is empty, corrupt, not finite or too long. Warns
    (and goes on) when it is silent or clipped.
    """
    if isinstance(source, (str, Path)):
        (samples, rate), what = _decode(Path(source)), str(source)
    else:
        samples = np.asarray(source.detach().cpu() if isinstance(source, Tensor) else source)
        rate = rate or RATE
    if samples.size == 0:
        raise AudioError(f"{what} is empty: it needs at least one sample")
    if samples.ndim not in (1, 2):
        raise AudioError(f"{what} has shape {list(samples.shape)}: give [n] samples, or [n, channels]")
    if samples.dtype.kind in "iu":
        # full scale is 1; unsigned integers have their zero in the middle
        samples = samples / 2.0 ** (8 * samples.itemsize - 1) - (samples.dtype.kind == "u")
    elif samples.dtype.kind != "f":
        raise AudioError(f"{what} holds {samples.dtype}: give float samples in [-1, 1] or integers")
    if samples.ndim == 2:
        samples = samples.mean(axis=int(samples.shape[0] > samples.shape[1]))
    return _check(samples.astype(np.float32), int(rate), what)


def _decode(path: Path) -> tuple[np.ndarray, int]:
    import soundfile
    if not path.is_file():
        raise FileNotFoundError(f"no sound file at {path}")
    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.frames > LONGEST * file.samplerate:
                raise AudioError(f"{path} lasts {file.frames / file.samplerate / 60:.0f} minutes: "
                                 f"cut it to at most {LONGEST // 60}")
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, TypeError) as error:
        reason = str(error).split(": ", 1)[-1]
        raise AudioError(f"{path} is not a sound file that can be read ({reason}): "
                         "give wav, flac, ogg or mp3") from None


def _check(samples: np.ndarray, rate: int, what: str) -> Tensor:
    if not 4000 <= rate <= 384_000:
        raise AudioError(f"{what} claims {rate} Hz: rates from 4 000 to 384 000 Hz make sense")
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


def write(path, pcm, rate: int = RATE) -> Path:
    """Save float samples [n] (or [n, 2]) as the format that the file's ending names."""
    import soundfile
    soundfile.write(str(path), np.clip(np.asarray(pcm, np.float32), -1, 1), rate)
    return Path(path)


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


def frames(wav: Tensor, size: int = FRAME):
    """[n] -> pieces [size], the last one filled up with silence."""
    wav = torch.nn.functional.pad(wav, (0, -len(wav) % size))
    return wav.split(size)


def player(pcm, rate: int = RATE):
    """A sound player for a notebook: MP3 inside the page (about 4 kB a second)."""
    import soundfile
    from IPython.display import Audio
    file = io.BytesIO()
    soundfile.write(file, np.clip(np.asarray(pcm, np.float32), -1, 1), rate, format="MP3")
    sound = Audio(data=file.getvalue(), rate=None)
    sound.mimetype = "audio/mpeg"
    return sound
