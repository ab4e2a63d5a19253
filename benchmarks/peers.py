"""The sides of a comparison: ours, PyPI's `moshi` and `transformers`, behind one small face.

`frame()` is one 80 ms step, timed by stage in ms; `tokens(frames)` is what
the side says, to be compared before anything is timed. Each side runs in a process of its own (pipe.py).
"""
from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.fullsize import official
from personaplex_lite.model.config import LMConfig, MimiConfig
from personaplex_lite.model.units import FRAME_SAMPLES, SAMPLE_RATE
from personaplex_lite.weights.sizes import from_dict

ROOT = Path(__file__).resolve().parents[1]
TRANSFORMERS_NAMES = [        # how its tensors are called, from the official names
    (r"(conv|convtr)\.(conv\.|convtr\.)+", "conv."), ("^down", "encoder.down"), ("^up", "decoder.up"),
    (r"^(en|de)coder\.model\.", r"\1coder.\1coder_seanet.layers."),
    (r"^(en|de)coder_transformer\.transformer\.", r"\1coder.\1coder_transformer."),
    (r"rvq_first\.(vq\.)?", "semantic_residual_vector_quantizer."),
    (r"rvq_rest\.(vq\.)?", "acoustic_residual_vector_quantizer."), (r"\._(codebook|initialized)", r".\1"),
    (r"codebook\._", "codebook."), ("embedding_sum", "embed_sum"), (r"linear(\d)\.", r"mlp.fc\1."),
    ("out_proj", "o_proj"), ("norm1", "input_layernorm"), ("norm2", "post_attention_layernorm"),
    ("layer_scale_1", "self_attn_layer_scale"), ("layer_scale_2", "mlp_layer_scale")]


class Codec:
    """What the three codecs share: one frame of noise in, one frame of sound out, timed."""

    def frame(self) -> dict[str, float]:
        began = time.perf_counter()
        codes = self.encode(0.1 * torch.randn(1, 1, FRAME_SAMPLES))
        heard = time.perf_counter()
        self.decode(codes)
        return {"encode": 1e3 * (heard - began), "decode": 1e3 * (time.perf_counter() - heard)}

    def tokens(self, frames: int) -> dict[str, list]:
        sounds = 0.1 * torch.randn(frames, 1, 1, FRAME_SAMPLES, generator=torch.Generator().manual_seed(0))
        codes = [self.encode(sound) for sound in sounds]
        return {"codes": torch.cat(codes, -1)[0].tolist(),
                "pcm": torch.stack([self.decode(c).flatten()[:FRAME_SAMPLES] for c in codes]).tolist()}


class OurMimi(Codec):
    def __init__(self, path: str, config: dict, **_: object):
        from personaplex_lite.weights.checkpoint import load_mimi
        self.mimi = load_mimi(path, from_dict(MimiConfig, config))
        self.ears, self.mouth = self.mimi.new_ears(), self.mimi.new_mouth()

    def encode(self, x: Tensor) -> Tensor:
        return self.mimi.encode(x, self.ears)

    def decode(self, codes: Tensor) -> Tensor:
        return self.mimi.decode(codes, self.mouth)


class MoshiMimi(Codec):
    def __init__(self, path: str, config: dict, **_: object):
        from moshi.models import loaders
        mimi = loaders.get_mimi(path, num_codebooks=config["codebooks"])
        mimi.streaming_forever(1)
        self.encode = mimi.encode
        self.decode = mimi.decode


class TransformersMimi(Codec):
    """Its decoder keeps the transformer's past, not the convolutions': less than a stream needs."""

    def __init__(self, path: str, config: dict, **_: object):
        from safetensors.torch import load_file
        from transformers import MimiConfig as Config
        from transformers import MimiModel
        self.mimi = MimiModel(Config(use_cache=True)).eval()
        self.codebooks = config["codebooks"]
        self.mimi.load_state_dict(_for_transformers(load_file(path), config["transformer"]["heads"]))
        self.past = self.pads = self.said = None

    def encode(self, x: Tensor) -> Tensor:
        out = self.mimi.encode(x, num_quantizers=self.codebooks, encoder_past_key_values=self.past,
                               padding_cache=self.pads, use_streaming=True)
        self.past, self.pads = out.encoder_past_key_values, out.padding_cache
        return out.audio_codes

    def decode(self, codes: Tensor) -> Tensor:
        out = self.mimi.decode(codes, decoder_past_key_values=self.said)
        self.said = out.decoder_past_key_values
        return out.audio_values


def _for_transformers(official: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Its names; q, k, v apart; the rotated pairs of q and k as two halves."""
    tensors = {}
    for name, tensor in official.items():
        for pattern, new in TRANSFORMERS_NAMES:
            name = re.sub(pattern, new, name)
        if name.endswith("in_proj_weight"):
            for part, weight in zip("qkv", tensor.chunk(3)):
                if part != "v":
                    weight = weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
                tensors[name.replace("in_proj_weight", f"{part}_proj.weight")] = weight
        else:
            tensors[name] = tensor
    return tensors


class OurLM:
    """A live conversation: the user's codes are given, so eight depth steps are enough."""

    def __init__(self, path: str, config: dict, weights: str):
        import personaplex_lite as pp
        config = from_dict(LMConfig, config)
        kind = {"weights": weights} if weights.startswith("int") else {}
        dtype = torch.float32 if weights == "f32" else torch.bfloat16
        self.agent = pp.Agent(pp.checkpoint.load_lm(path, config, dtype=dtype, **kind))
        self.user = torch.zeros(config.codebooks, dtype=torch.int64)
        self.chat = self.agent.chat(progress=False)

    def frame(self) -> dict[str, float]:
        began = time.perf_counter()
        frame = self.chat.step(user=self.user)
        return {"frame": 1e3 * (time.perf_counter() - began)} | (frame.ms if frame else {})

    def age(self) -> None:
        """As if the conversation had filled its ring, 240 s."""
        now = self.chat.save()
        slots = self.agent.lm.config.temporal.context
        now.state["t"].fill_(slots + 11)
        steps = torch.arange(10, slots + 10)
        now.state["temporal.pos"][:, steps % slots] = steps
        self.chat.restore(replace(now, calls=[slots + 11]))

    def tokens(self, frames: int, user: list | None = None) -> list:
        """Greedy frames of 17 tokens, None where there is none yet; the model imagines a user not given."""
        chat = self.agent.chat(greedy=True, progress=False)
        said = [chat.step(user=user and torch.tensor(user[i])) for i in range(frames)]
        return [frame and frame.codes.tolist() for frame in said]


class MoshiLM:
    """What the official code does each frame with sixteen steps in the weights: all of them."""

    def __init__(self, path: str, config: dict, weights: str):
        from moshi.models import LMGen, loaders
        sizes = loaders._lm_kwargs | official(from_dict(LMConfig, config))
        model = loaders.get_moshi_lm(path, sizes, dtype=torch.float32 if weights == "f32" else torch.bfloat16)
        self.spoke = 0.0
        self.gen = LMGen(model, on_text_hook=self._text)
        self.gen.streaming_forever(1)
        self.nobody = torch.zeros(1, 0, 1, dtype=torch.int64)     # sixteen steps leave no row to hear with

    def _text(self, _: Tensor) -> None:
        self.spoke = time.perf_counter()

    def frame(self) -> dict[str, float]:
        began = time.perf_counter()
        self.gen.step(self.nobody)
        end = time.perf_counter()
        return {"frame": 1e3 * (end - began), "temporal": 1e3 * (self.spoke - began),
                "depth": 1e3 * (end - self.spoke)}

    def tokens(self, frames: int) -> list:
        self.gen.use_sampling = False
        said = [self.gen.step(self.nobody) for _ in range(frames)]
        self.gen.use_sampling = True
        self.gen.reset_streaming()
        return [None if frame is None else frame[0, :, 0].tolist() for frame in said]


class OurLite:
    """The shipped model in a conversation: a persona, and a user who asks and then is quiet."""

    def __init__(self, path: str, config: dict, weights: str):
        import personaplex_lite as pp
        agent = pp.load(path)
        self.chat = agent.chat(pp.Persona(min(agent.voices), "you work at happy garden"), progress=False)
        sound = torch.cat([pp.audio.read(ROOT / "data/questions/name.wav"), torch.zeros(SAMPLE_RATE // 2)])
        self.sounds = list(pp.audio.frames(sound))

    def frame(self) -> dict[str, float]:
        began = time.perf_counter()
        self.sounds.append(self.sounds.pop(0))
        frame = self.chat.step(self.sounds[0])
        return {"frame": 1e3 * (time.perf_counter() - began)} | (frame.ms if frame else {})


class Memory:
    """How fast this machine reads: 256 MB of float32 summed, which is far more than its caches hold."""

    def __init__(self, **_: object):
        self.numbers = torch.ones(64_000_000)

    def frame(self) -> dict[str, float]:
        began = time.perf_counter()
        self.numbers.sum()
        return {"read": 1e3 * (time.perf_counter() - began)}


SIDES = {"ours mimi": OurMimi, "moshi mimi": MoshiMimi, "transformers mimi": TransformersMimi,
         "ours lm": OurLM, "moshi lm": MoshiLM, "ours lite": OurLite, "ours memory": Memory}
