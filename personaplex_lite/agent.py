"""An agent: weights, codec, tokenizer and voices; and `load`, which finds and reads one."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from . import kernels
from .model import quantize
from .model.config import SamplingConfig
from .model.lm import LM
from .model.mimi import Mimi
from .places import LITE
from .talk.persona import Persona, Voice
from .talk.session import Session
from .talk.text import Text
from .weights.checkpoint import load_lm, load_mimi
from .weights.convert import verify
from .weights.hub import KNOWN, fetch, look
from .weights.plan import FLOATS, check_kind, choose, ensure, half, shorten

NOBODY = Persona()        # no voice, no role: the bare model


@dataclass
class Agent:
    """Everything that conversations share. `voices`: name -> file, read when first asked for."""
    lm: LM
    mimi: Mimi | None = None
    text: Text | None = None
    voices: dict[str, Path] = field(default_factory=dict)
    sampling: SamplingConfig = SamplingConfig()

    @property
    def device(self) -> torch.device:
        return self.lm.text_embed.device

    def voice(self, which) -> Voice | None:
        """A voice by name, path or as it is. Raises ValueError with the names there are."""
        if which is None or isinstance(which, Voice):
            return which
        if which in self.voices:
            return Voice.load(self.voices[which])
        path = Path(which)
        if not path.suffix:
            known = ", ".join(sorted(self.voices)) or "none"
            raise ValueError(f"unknown voice {which!r}: this checkpoint has {known}; "
                             "a path to a .wav of somebody speaking works too")
        if path.suffix in (".pt", ".safetensors"):
            return Voice.load(path)
        return Voice.from_wav(path, self.mimi)

    def chat(self, persona: Persona | Sequence[Persona] = NOBODY, seed: int | Sequence[int] = 0,
             greedy: bool = False, **options) -> Session:
        """Start a conversation (or several at once, one row each). Other options: see Session."""
        personas = [persona] if isinstance(persona, Persona) else list(persona)
        seeds = list(seed) if isinstance(seed, Iterable) else [seed] * len(personas)
        if greedy:
            options["sampling"] = SamplingConfig.greedy()
        return Session(self, personas, seeds, **options)


def load(source=None, device: str = "cpu", weights: str | None = None, revision: str | None = None,
         context: int | None = None) -> Agent:
    """An agent from a folder or the hub: `lite`, which ships with the project, if none is named.

    source : a folder in our layout (config.json, lm.safetensors, mimi.safetensors, tokenizer.model, voices/),
    in the official one, or converted; or a hub id such as "nvidia/personaplex-7b-v1", with its `revision`.
    weights : f32, bf16, fp16, int8 or int4; by default what a converted folder holds, f32 for small models,
    bf16 for large ones (fp16 on GPUs that cannot compute with bf16). context : remember fewer frames than the
    model can, to save memory. Files of 8 depth steps (Moshi's) stay so: such a model does not guess the user.
    Raises FileNotFoundError, HubError, CheckpointError or MemoryError with what to do next.
    """
    check_kind(weights)
    device = str(device)
    if source in KNOWN:         # does it fit? asked before 16.7 GB come down
        lm_config, mimi_config = KNOWN[source]()
        ensure(lm_config, mimi_config, weights or half(device), device, context)
    folder = fetch(source or LITE, revision)

    # look: what is there, and is it whole
    files = look(folder)
    verify(folder)

    # plan: which weights, and do they fit
    weights = weights or choose(files, device)
    ensure(files.lm_config, files.mimi_config, weights, device, context)

    # read: tensor by tensor into place
    config = shorten(files.lm_config, context)
    dtype = FLOATS[weights if weights in FLOATS else half(device)]
    # a converted file must hear even of floats, to refuse them
    kind = weights if files.lm.weights or weights in quantize.KINDS else None
    kernels.use(device)
    lm = load_lm(files.lm, config, device, dtype, weights=kind)
    mimi = load_mimi(files.mimi, files.mimi_config, device)
    text = Text(files.tokenizer, config.pad, config.epad)
    return Agent(lm, mimi, text, files.voices, files.sampling)
