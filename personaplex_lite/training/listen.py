"""Something to listen to while a training runs: `samples/…wav` beside its checkpoints.

Nothing is teacher-forced. The language model gets a dialogue's prompt and its
user, and says what it will; the losses cannot tell you how that sounds.
"""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from .. import audio
from ..agent import Agent
from ..model.config import MimiConfig
from ..model.lm import LM
from ..model.mimi import Mimi
from ..talk.text import Text
from ..weights.checkpoint import load_mimi
from ..weights.sizes import from_dict
from .dialogue import Dialogue

GAP = 0.3       # seconds between a clip and what the codec makes of it


def codec_of(folder: Path, device: torch.device | str = "cpu") -> Mimi:
    """The codec in a folder: of its training, or of the codes that it made."""
    config = from_dict(MimiConfig, json.loads((folder / "mimi.json").read_text()))
    return load_mimi(folder / "mimi.safetensors", config, device)


@torch.no_grad()
def codec(model: Mimi, wav: torch.Tensor, folder: Path, step: int) -> Path:
    """Some pieces of sound [b, 1, n], each followed by its reconstruction, one after the other."""
    made = model.decode(model.encode(wav.to(next(model.parameters()).device))).cpu()
    gap = torch.zeros(int(GAP * audio.RATE))
    parts = [part for a, b in zip(wav[:, 0], made[:, 0]) for part in (a, gap, b, gap)]
    return _write(folder, step, torch.cat(parts).numpy())


def talk(lm: LM, mimi: Mimi, text: Text, dialogue: Dialogue, folder: Path, step: int) -> Path:
    """A dialogue (dialogue.Dialogue): its user on the left, the model's answer on the right, and as text."""
    chat = Agent(lm, mimi, text).chat(progress=False)
    told = torch.from_numpy(dialogue.frames[:, :dialogue.t].T.copy())
    heard = torch.from_numpy(dialogue.frames[lm.config.user, dialogue.t:].T.copy())
    for frame in told:
        chat.step(user=frame[lm.config.user], agent=frame[lm.config.agent], text=int(frame[0]))
    said = [chat.step(user=codes) for codes in heard]
    agent = np.concatenate([frame.pcm.reshape(-1) for frame in said])
    user = mimi.decode(heard.T[None].to(chat.agent.device))[0, 0].cpu().numpy()
    path = _write(folder, step, np.stack([user, agent], 1))
    words = "".join(frame.text for frame in said)
    path.with_suffix(".txt").write_text(words + "\n", encoding="utf-8")
    return path


def _write(folder: Path, step: int, pcm: np.ndarray) -> Path:
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    return audio.write(folder / "samples" / f"step_{step:06}.wav", pcm)
