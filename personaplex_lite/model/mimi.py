"""Mimi, the codec: 80 ms of 24 kHz sound <-> 8 integers.

What departs from the textbook: it is causal all through, so it can run while one speaks. Convolutions bring
sound to 25 steps a second, a transformer looks back over them, a strided convolution halves them to 12.5
frames a second, and a split residual quantiser names each frame. Decoding mirrors it (Moshi paper, 3.3).

Shapes: b rows, n samples, s steps at 25 Hz, t frames at 12.5 Hz, q codebooks.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import checks
from .config import MimiConfig
from .conv import CausalConv1d, CausalConvTranspose1d
from .rvq import SplitRVQ
from .state import Rows, State, slot
from .transformer import KVState, Transformer


@dataclass(frozen=True, eq=False)
class MimiState(State):
    """One direction of a stream: ears (encoder) or mouth (decoder)."""
    convs: tuple                 # of every SEANet convolution, in order of use
    resample: State              # of the convolution between 25 and 12.5 Hz
    transformer: KVState
    t: Tensor = slot()           # [b] int64: steps of 25 Hz so far


class ResidualBlock(nn.Module):
    """x plus what two convolutions make of it.

    run(conv, x), here and below, gives each convolution its own memory (`_runner`).
    """

    def __init__(self, channels: int, config: MimiConfig):
        super().__init__()
        inner = channels // config.compress
        self.conv1 = CausalConv1d(channels, inner, config.residual_kernel)
        self.conv2 = CausalConv1d(inner, channels, 1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.5)     # start near the identity

    def forward(self, x: Tensor, run) -> Tensor:
        y = run(self.conv1, F.elu(x))
        y = run(self.conv2, F.elu(y))
        return x + y


class SEANet(nn.Module):
    """A first convolution, `stages` of blocks and resampling convolutions in order of use, a last one."""
    stages: nn.ModuleList

    def forward(self, x: Tensor, run) -> Tensor:
        """[b, c, n] -> [b, c', n'], other channels and another rate."""
        x = run(self.first, x)
        for stage in self.stages:
            if isinstance(stage, ResidualBlock):
                x = stage(x, run)
            else:
                x = run(stage, F.elu(x))
        return run(self.last, F.elu(x))


class SEANetEncoder(SEANet):
    """Sound to 25 Hz: each pair of stages shortens time by 4, 5, 6, 8 and doubles the channels."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        width = config.filters
        self.first = CausalConv1d(1, width, config.kernel)
        self.stages = nn.ModuleList()           # block, down, block, down, …
        for ratio in reversed(config.ratios):
            block = ResidualBlock(width, config)
            down = CausalConv1d(width, 2 * width, kernel=2 * ratio, stride=ratio)
            self.stages.extend([block, down])
            width *= 2
        self.last = CausalConv1d(width, config.dim, config.last_kernel)


class SEANetDecoder(SEANet):
    """25 Hz to sound, the mirror image."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        width = config.filters * 2 ** len(config.ratios)
        self.first = CausalConv1d(config.dim, width, config.kernel)
        self.stages = nn.ModuleList()           # up, block, up, block, …
        for ratio in config.ratios:
            up = CausalConvTranspose1d(width, width // 2, kernel=2 * ratio, stride=ratio)
            width //= 2
            block = ResidualBlock(width, config)
            self.stages.extend([up, block])
        self.last = CausalConv1d(width, 1, config.last_kernel)


class Mimi(nn.Module):
    """The whole codec: `encode` with `new_ears`, `decode` with `new_mouth`; without a state, offline."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        self.config = config
        dim = config.dim
        self.encoder = SEANetEncoder(config)
        self.encoder_transformer = Transformer(config.transformer)
        self.downsample = CausalConv1d(dim, dim, kernel=4, stride=2, bias=False, pad="replicate")
        self.rvq = SplitRVQ(config)
        self.upsample = CausalConvTranspose1d(dim, dim, kernel=4, stride=2, groups=dim, bias=False)
        self.decoder_transformer = Transformer(config.transformer)
        self.decoder = SEANetDecoder(config)

    def new_ears(self, batch: int = 1, frames: int = 1, ring: str = "exact") -> MimiState:
        """Memory for streaming `encode`, at most `frames` frames a call."""
        return self._new_state(self.encoder, self.encoder_transformer, self.downsample, batch, frames, ring)

    def new_mouth(self, batch: int = 1, frames: int = 1, ring: str = "exact") -> MimiState:
        """Memory for streaming `decode`."""
        return self._new_state(self.decoder, self.decoder_transformer, self.upsample, batch, frames, ring)

    def _new_state(self, seanet, transformer, resample, batch, frames, ring) -> MimiState:
        convs = []
        for module in seanet.modules():
            if isinstance(module, (CausalConv1d, CausalConvTranspose1d)):
                convs.append(module.new_state(batch))
        chunk = 2 * frames      # two transformer steps a frame
        return MimiState(
            convs=tuple(convs),
            resample=resample.new_state(batch),
            transformer=transformer.new_state(batch, chunk, ring),
            t=torch.zeros(batch, dtype=torch.int64, device=resample.weight.device),
        )

    def encode(self, wav: Tensor, state: MimiState | None = None, active: Rows = None) -> Tensor:
        """Sound to codes.

        wav : [n] or [b, 1, n] float32, 24 kHz, in [-1, 1]; any n offline (the end is padded to a whole
            frame), whole frames with a state.
        Returns int64 [b, 8, t]. Raises ValueError on another shape or on values that are not finite.
        """
        x = checks.sound(wav, self.config, state)
        with torch.no_grad():
            x = x.to(self.downsample.weight)
            latent = self.latent(x, state, active)
            return self.rvq.encode(latent)

    def decode(self, codes: Tensor, state: MimiState | None = None, active: Rows = None) -> Tensor:
        """Codes to sound: int64 [b, q, t] with 1 <= q <= 8 -> float32 [b, 1, frame_size · t].

        Raises ValueError on another shape or an id outside the codebooks.
        """
        codes = checks.codes(codes, self.config, state)
        with torch.no_grad():
            latent = self.rvq.decode(codes)
            return self.synthesise(latent, state, active).float()

    def latent(self, x: Tensor, state: MimiState | None = None, active: Rows = None) -> Tensor:
        """[b, 1, n] -> [b, t, dim]: what the quantiser sees. Differentiable when state is None."""
        x = self.encoder(x, _runner(state, active))                         # [b, dim, s]
        x = self._attend(self.encoder_transformer, x, state, active)
        x = self.downsample(x, state and state.resample, active)            # [b, dim, t]
        return x.transpose(1, 2)

    def synthesise(self, latent: Tensor, state: MimiState | None = None, active: Rows = None) -> Tensor:
        """[b, t, dim] -> [b, 1, n]"""
        x = latent.transpose(1, 2)                                          # [b, dim, t]
        x = self.upsample(x, state and state.resample, active)              # [b, dim, s]
        x = self._attend(self.decoder_transformer, x, state, active)
        return self.decoder(x, _runner(state, active))

    def _attend(self, transformer: Transformer, x: Tensor, state: MimiState | None, active: Rows) -> Tensor:
        """[b, dim, s] -> same, each step knowing the ones before it; time advances here."""
        steps = x.shape[-1]
        x = x.transpose(1, 2)
        if state is None:
            start = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            return transformer(x, start).transpose(1, 2)
        y = transformer(x, state.t, state.transformer, active)
        state.t.add_(steps if active is None else steps * active)
        return y.transpose(1, 2)


def _runner(state: MimiState | None, active: Rows):
    """run(conv, x): each convolution meets its own memory, in order of use."""
    if state is None:
        return lambda conv, x: conv(x)
    memories = iter(state.convs)
    return lambda conv, x: conv(x, next(memories), active)
