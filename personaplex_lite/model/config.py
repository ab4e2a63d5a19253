"""Every size of the models, in frozen dataclasses.

What departs from the textbook: the official configs are loose keyword dicts with derived values (a SwiGLU
width computed in two roundings, a context that is stored and ignored). Here each number is written once, as
it is used.

Sources: PersonaPlex paper (arXiv 2602.06053), Moshi paper (arXiv 2410.00037), their public configs.
"""
from __future__ import annotations

from dataclasses import asdict, dataclass, replace

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
    sample_rate: int = 24_000

    @property
    def hop(self) -> int:
        """Samples between two steps of the convolutions (960: 25 Hz)."""
        hop = 1
        for ratio in self.ratios:
            hop *= ratio
        return hop

    @property
    def frame_size(self) -> int:
        """Samples in one frame (1920: 80 ms)."""
        return 2 * self.hop

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.frame_size

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
        return len(self.delays)

    @property
    def codebooks(self) -> int:
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
        return max(self.delays)

    @property
    def initial(self) -> tuple[int, ...]:
        """The start token of each row: one past its vocabulary."""
        return (self.text_vocab, *[self.audio_vocab] * (self.rows - 1))

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
        warm = all(isinstance(x, (int, float)) and 0 <= x < float("inf")
                   for x in (self.audio_temperature, self.text_temperature))
        if not warm or not all(isinstance(k, int) and k >= 1 for k in (self.audio_top_k, self.text_top_k)):
            raise ValueError("sampling: temperatures must be numbers >= 0 and each top_k "
                             f"a whole number >= 1, got {asdict(self)}")

    @classmethod
    def greedy(cls) -> SamplingConfig:
        return cls(audio_temperature=0.0, text_temperature=0.0)


def personaplex_7b() -> tuple[LMConfig, MimiConfig]:
    return LMConfig(), MimiConfig()


def moshiko() -> tuple[LMConfig, MimiConfig]:
    """Moshi's own weights: the same model with 8 depth steps (it never guesses the user)."""
    lm = LMConfig()
    return replace(lm, depth_steps=8, depth=replace(lm.depth, context=8)), MimiConfig()


def tiny() -> tuple[LMConfig, MimiConfig]:
    """Random-weight sizes for tests: a few milliseconds a frame, says nothing."""
    lm = LMConfig(TransformerConfig(32, 2, 2, 48, 24), TransformerConfig(16, 2, 2, 24, 16), 16, 60, 32,
                  silence=tuple(i % 32 for i in SILENCE_7B), sine=tuple(i % 32 for i in SINE_7B))
    mimi = MimiConfig(dim=16, filters=2, bins=32, codebook_dim=8, codebooks_stored=8,
                      transformer=TransformerConfig(16, 1, 2, 32, 10, "mimi"))
    return lm, mimi


def to_dict(config) -> dict:
    """A config as plain JSON types."""
    return asdict(config)


def from_dict(cls, data: dict):
    """The inverse of `to_dict`: nested transformer configs and tuples come back as such."""
    return cls(**{k: TransformerConfig(**v) if isinstance(v, dict) else tuple(v) if isinstance(v, list) else v
                  for k, v in data.items()})


def _mimi_config(config: dict) -> MimiConfig:
    """`MimiConfig.from_official`."""
    s, q, t = config["seanet"], config["quantizer"], config["transformer"]
    _expect(s, n_residual_layers=1, causal=True, activation="ELU", norm="none", true_skip=True)
    _expect(t, causal=True, gating="none", norm="layer_norm", positional_embedding="rope")
    return MimiConfig(
        dim=s["dimension"], filters=s["n_filters"], ratios=tuple(s["ratios"]), kernel=s["kernel_size"],
        residual_kernel=s["residual_kernel_size"], last_kernel=s["last_kernel_size"],
        compress=s["compress"], bins=q["bins"], codebook_dim=q["dimension"], codebooks_stored=q["n_q"],
        codebooks=config.get("active_codebooks", 8), sample_rate=config.get("sample_rate", 24_000),
        transformer=TransformerConfig(
            t["d_model"], t["num_layers"], t["num_heads"], t["dim_feedforward"], t["context"], "mimi",
            float(t["max_period"]), t["layer_scale"]))


def _lm_config(config: dict) -> LMConfig:
    """`LMConfig.from_official`."""
    c = config
    _expect(c, gating="silu", norm="rms_norm_f32", positional_embedding="rope", layer_scale=None,
            depformer_pos_emb="none", depformer_weights_per_step=True, depformer_multi_linear=True)
    wide = gated_width(c["dim"], int(c["hidden_scale"] * c["dim"]))
    deep = gated_width(c["depformer_dim"], c["depformer_dim_feedforward"])
    period = float(c["max_period"])
    steps = c["dep_q"]
    return LMConfig(
        TransformerConfig(c["dim"], c["num_layers"], c["num_heads"], wide, c["context"], "lm", period),
        TransformerConfig(c["depformer_dim"], c["depformer_num_layers"], c["depformer_num_heads"], deep,
                          steps),
        depth_steps=steps, text_vocab=c["text_card"], audio_vocab=c["card"], delays=tuple(c["delays"]),
        pad=c["existing_text_padding_id"],
        silence=tuple(i % c["card"] for i in SILENCE_7B), sine=tuple(i % c["card"] for i in SINE_7B))


def gated_width(dim: int, feedforward: int) -> int:
    """Width of a SwiGLU that costs as much as a plain MLP of width `feedforward` (two thirds of it)."""
    return 21 * dim // 8 if feedforward == 4 * dim else 2 * feedforward // 3


def _expect(config: dict, **wanted):
    wrong = {k: config[k] for k, v in wanted.items() if k in config and config[k] != v}
    if wrong:
        raise ValueError(f"config: this model is not built here: {wrong} (supported: {wanted})")
