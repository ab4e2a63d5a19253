"""An agent: weights, codec, tokenizer and voices; and `load`, which reads one from a folder."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .checkpoint import CheckpointError, load_lm, load_mimi
from .config import LMConfig, MimiConfig, SamplingConfig, from_dict
from .lm import LM
from .mimi import Mimi
from .persona import Persona, Voice
from .session import Session
from .text import Text

LITE = Path(__file__).resolve().parents[1] / "data" / "lite"
NOBODY = Persona()        # no voice, no role: the bare model
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
            raise ValueError(f"unknown voice {which!r}: this checkpoint has "
                             f"{', '.join(sorted(self.voices)) or 'none'}; "
                             "a path to a .wav of somebody speaking works too")
        return Voice.load(path) if path.suffix in (".pt", ".safetensors") else Voice.from_wav(path, self.mimi)

    def chat(self, persona: Persona | Sequence[Persona] = NOBODY, seed: int | Sequence[int] = 0,
             greedy: bool = False, **options) -> Session:
        """Start a conversation (or several at once, one row each). Other options: see Session."""
        personas = [persona] if isinstance(persona, Persona) else list(persona)
        seeds = [seed] * len(personas) if isinstance(seed, int) else list(seed)
        if greedy:
            options["sampling"] = SamplingConfig.greedy()
        return Session(self, personas, seeds, **options)


def load(source=None, device: str = "cpu", weights: str = "f32") -> Agent:
    """An agent from a folder: `lite`, which ships with the project, if none is named.

    The folder holds config.json, lm.safetensors, mimi.safetensors, tokenizer.model and voices/*.safetensors.
    Raises FileNotFoundError or CheckpointError with what is missing.
    """
    folder = Path(source or LITE)
    if weights not in TYPES:
        raise ValueError(f"weights={weights!r}: one of {', '.join(TYPES)}")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: it must hold config.json and the files "
                                "that it names")
    try:
        about = json.loads((folder / "config.json").read_text())
        lm, mimi = from_dict(LMConfig, about["lm"]), from_dict(MimiConfig, about["mimi"])
        sampling = SamplingConfig(**about.get("sampling", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}/config.json is not a config of this project: {error!r}") from None
    return Agent(load_lm(folder / "lm.safetensors", lm, device, TYPES[weights]),
                 load_mimi(folder / "mimi.safetensors", mimi, device),
                 Text(folder / "tokenizer.model", lm.pad, lm.epad),
                 {p.stem: p for p in sorted((folder / "voices").glob("*.safetensors"))}, sampling)
