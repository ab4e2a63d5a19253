"""Every size of the models, in frozen dataclasses.

What departs from the textbook: the official configs are loose keyword dicts with derived values (a SwiGLU
width computed in two roundings, a context that is stored and ignored). Here each number is written once, as
it is used.

Sources: PersonaPlex paper (arXiv 2602.06053), Moshi paper (arXiv 2410.00037), their public configs.
"""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from .units import SAMPLE_RATE

UNGIVEN = -2       # a cell that the model has yet to fill
NO_INPUT = -1      # "nothing here": embeds to zero
SILENCE_7B = (948, 243, 1178, 546, 1736, 1030, 1978, 2008)  # what the released Mimi says for digital silence
SINE_7B = (430, 1268, 381, 1611, 1095, 1495, 56, 472)       # … and for a 440 Hz sine
DELAYS = (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1)


@dataclass(frozen=True)
class TransformerConfig:
    """One causal transformer. `kind` "lm": RMSNorm, SwiGLU; "mimi": LayerNorm, GELU, layer scale."""
    dim: int
    layers: int
    heads: int
    hidden: int                 # width inside the MLP
    context: int                # how many steps a query sees, its own included
    kind: str = "lm"
    max_period: float = 10_000.0
    layer_scale: float = 0.01   # initial value, used by kind "mimi" only


@dataclass(frozen=True)
class MimiConfig:
    """The codec: 24 kHz sound <-> `codebooks` integers a frame (Moshi paper, section 3.3)."""
    dim: int = 512
    filters: int = 64
    ratios: tuple[int, ...] = (8, 6, 5, 4)
    kernel: int = 7
    residual_kernel: int = 3
    last_kernel: int = 3
    compress: int = 2
    transformer: TransformerConfig = TransformerConfig(512, 8, 8, 2048, 250, "mimi")
    bins: int = 2048
    codebook_dim: int = 256
    codebooks_stored: int = 32   # in the file; a conversation uses the first `codebooks`
    codebooks: int = 8
    sample_rate: int = SAMPLE_RATE

    @property
    def hop(self) -> int:
        """Samples between two steps of the convolutions (960: 25 Hz)."""
        return math.prod(self.ratios)

    @property
    def frame_size(self) -> int:
        """Samples in one frame (1920: 80 ms)."""
        return 2 * self.hop

    @classmethod
    def from_official(cls, config: dict) -> MimiConfig:
        """Read the keyword dict of the official code. Raises ValueError for what is not built here."""
        return _mimi_config(config)


@dataclass(frozen=True)
class LMConfig:
    """The language model over 17 token rows: 0 agent text, 1-8 agent audio, 9-16 user audio."""
    temporal: TransformerConfig = TransformerConfig(4096, 32, 32, 11_264, 3000)
    depth: TransformerConfig = TransformerConfig(1024, 6, 16, 2816, 16)  # context = its steps
    depth_steps: int = 16        # 16: also guesses the user's codes; 8: the agent's only (Moshiko)
    text_vocab: int = 32_000
    audio_vocab: int = 2048
    delays: tuple[int, ...] = DELAYS
    pad: int = 3                 # text row: nothing is being said
    epad: int = 0                # text row: end of padding, a word begins next
    silence: tuple[int, ...] = SILENCE_7B
    sine: tuple[int, ...] = SINE_7B

    @property
    def rows(self) -> int:
        """Rows of the grid (17)."""
        return len(self.delays)

    @property
    def codebooks(self) -> int:
        """Codes that a voice takes in one frame (8)."""
        return (self.rows - 1) // 2

    @property
    def agent(self) -> slice:
        """The agent's audio rows."""
        return slice(1, 1 + self.codebooks)

    @property
    def user(self) -> slice:
        """The user's audio rows."""
        return slice(1 + self.codebooks, self.rows)

    @property
    def max_delay(self) -> int:
        """Columns until a frame is complete (1)."""
        return max(self.delays)

    @property
    def initial(self) -> tuple[int, ...]:
        """The start token of each row: one past its vocabulary."""
        audio = (self.audio_vocab,) * (self.rows - 1)
        return self.text_vocab, *audio

    @classmethod
    def from_official(cls, config: dict) -> LMConfig:
        """Read the keyword dict of the official code. Raises ValueError for what is not built here."""
        return _lm_config(config)


@dataclass(frozen=True)
class SamplingConfig:
    """How a token is drawn. Temperature 0 is argmax. Defaults: the released model's."""
    audio_temperature: float = 0.8
    audio_top_k: int = 250
    text_temperature: float = 0.7
    text_top_k: int = 25

    def __post_init__(self):
        temperatures = (self.audio_temperature, self.text_temperature)
        counts = (self.audio_top_k, self.text_top_k)
        if not all(map(_is_temperature, temperatures)) or not all(map(_is_count, counts)):
            raise ValueError("sampling: temperatures must be numbers >= 0 and each top_k "
                             f"a whole number >= 1, got {asdict(self)}")

    @classmethod
    def greedy(cls) -> SamplingConfig:
        """Always the likeliest token."""
        return cls(audio_temperature=0.0, text_temperature=0.0)


def _is_temperature(value) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < math.inf


def _is_count(value) -> bool:
    return isinstance(value, int) and value >= 1


def personaplex_7b() -> tuple[LMConfig, MimiConfig]:
    """The released model's sizes."""
    return LMConfig(), MimiConfig()


def moshiko() -> tuple[LMConfig, MimiConfig]:
    """Moshi's own weights: the same model with 8 depth steps (it never guesses the user)."""
    lm = LMConfig()
    depth = replace(lm.depth, context=8)
    return replace(lm, depth_steps=8, depth=depth), MimiConfig()


def tiny() -> tuple[LMConfig, MimiConfig]:
    """Random-weight sizes for tests: a few milliseconds a frame, says nothing."""
    lm = LMConfig(
        temporal=TransformerConfig(32, 2, 2, 48, 24),
        depth=TransformerConfig(16, 2, 2, 24, 16),
        text_vocab=60,
        audio_vocab=32,
        silence=_folded(SILENCE_7B, 32),
        sine=_folded(SINE_7B, 32),
    )
    mimi = MimiConfig(
        dim=16,
        filters=2,
        transformer=TransformerConfig(16, 1, 2, 32, 10, "mimi"),
        bins=32,
        codebook_dim=8,
        codebooks_stored=8,
    )
    return lm, mimi


def _mimi_config(config: dict) -> MimiConfig:
    """`MimiConfig.from_official`: our name on the left, the official one on the right."""
    seanet = config["seanet"]
    quantizer = config["quantizer"]
    transformer = config["transformer"]
    _expect(seanet, n_residual_layers=1, causal=True, activation="ELU", norm="none", true_skip=True)
    _expect(transformer, causal=True, gating="none", norm="layer_norm", positional_embedding="rope")
    return MimiConfig(
        dim=seanet["dimension"],
        filters=seanet["n_filters"],
        ratios=tuple(seanet["ratios"]),
        kernel=seanet["kernel_size"],
        residual_kernel=seanet["residual_kernel_size"],
        last_kernel=seanet["last_kernel_size"],
        compress=seanet["compress"],
        transformer=TransformerConfig(
            dim=transformer["d_model"],
            layers=transformer["num_layers"],
            heads=transformer["num_heads"],
            hidden=transformer["dim_feedforward"],
            context=transformer["context"],
            kind="mimi",
            max_period=float(transformer["max_period"]),
            layer_scale=transformer["layer_scale"],
        ),
        bins=quantizer["bins"],
        codebook_dim=quantizer["dimension"],
        codebooks_stored=quantizer["n_q"],
        codebooks=config.get("active_codebooks", 8),
        sample_rate=config.get("sample_rate", SAMPLE_RATE),
    )


def _lm_config(config: dict) -> LMConfig:
    """`LMConfig.from_official`: our name on the left, the official one on the right."""
    _expect(config, gating="silu", norm="rms_norm_f32", positional_embedding="rope", layer_scale=None,
            depformer_pos_emb="none", depformer_weights_per_step=True, depformer_multi_linear=True)
    dim = config["dim"]
    depth_dim = config["depformer_dim"]
    return LMConfig(
        temporal=TransformerConfig(
            dim=dim,
            layers=config["num_layers"],
            heads=config["num_heads"],
            hidden=gated_width(dim, int(config["hidden_scale"] * dim)),
            context=config["context"],
            max_period=float(config["max_period"]),
        ),
        depth=TransformerConfig(
            dim=depth_dim,
            layers=config["depformer_num_layers"],
            heads=config["depformer_num_heads"],
            hidden=gated_width(depth_dim, config["depformer_dim_feedforward"]),
            context=config["dep_q"],      # the official number here is stored and ignored
        ),
        depth_steps=config["dep_q"],
        text_vocab=config["text_card"],
        audio_vocab=config["card"],
        delays=tuple(config["delays"]),
        pad=config["existing_text_padding_id"],
        silence=_folded(SILENCE_7B, config["card"]),
        sine=_folded(SINE_7B, config["card"]),
    )


def gated_width(dim: int, feedforward: int) -> int:
    """Width of a SwiGLU that costs as much as a plain MLP of width `feedforward` (two thirds of it)."""
    if feedforward == 4 * dim:
        return 21 * dim // 8      # the official rounding of 8/3, for the usual width
    return 2 * feedforward // 3


def _folded(codes: tuple[int, ...], bins: int) -> tuple[int, ...]:
    """The codes of the released Mimi, brought into a smaller codebook."""
    return tuple(code % bins for code in codes)


def _expect(config: dict, **wanted) -> None:
    """Raise ValueError if the config asks for something else; what it leaves out is taken as wanted."""
    wrong = {}
    for name, value in wanted.items():
        if config.get(name, value) != value:
            wrong[name] = config[name]
    if wrong:
        raise ValueError(f"config: this model is not built here: {wrong} (supported: {wanted})")
