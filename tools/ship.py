"""From training folders to the folder that ships: weights, tokenizer, config, two seconds of each voice."""
from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from personaplex_lite.agent import load
from personaplex_lite.model.config import MimiConfig, SamplingConfig
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.places import LITE
from personaplex_lite.talk.persona import Voice
from personaplex_lite.training import world
from personaplex_lite.weights.checkpoint import load_mimi
from personaplex_lite.weights.sizes import from_dict

LARGEST = 30.0           # MB in the whole folder
LIVELY = SamplingConfig(0.6, 50, 0.0, 25)
FRAMES = slice(1, 25)    # of a voice sample: the longest piece that training used
FRESH = 3_000_000        # seeds from here on belong to no clip of any split


def ship(codec_run: Path | str, lm_run: Path | str, encoded: Path | str, out: Path | str = LITE,
         sampling: SamplingConfig = LIVELY) -> dict[str, float]:
    """Assemble a checkpoint folder that `load` reads; returns MB by file.

    codec_run, lm_run : folders of the two trainings. encoded : the clips that the language model learned
    from, to make sure that this codec encoded them. Raises ValueError if not, or if the folder is too large.
    """
    codec_run, lm_run, out = Path(codec_run), Path(lm_run), Path(out)
    lm, mimi = json.loads((lm_run / "lm.json").read_text()), json.loads((codec_run / "mimi.json").read_text())
    codec = load_mimi(codec_run / "mimi.safetensors", from_dict(MimiConfig, mimi))
    check_silence(codec, Path(encoded) / "rooms.npz", tuple(lm["silence"]))
    (out / "voices").mkdir(parents=True, exist_ok=True)
    for source in (lm_run / "lm.safetensors", codec_run / "mimi.safetensors", lm_run / "tokenizer.model"):
        shutil.copyfile(source, out / source.name)
    config = {"lm": lm, "mimi": mimi, "sampling": asdict(sampling)}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    add_voices(codec, out / "voices")
    load(out)              # what cannot be read must not be shipped
    sizes = {str(p.relative_to(out)): p.stat().st_size / 1e6 for p in sorted(out.rglob("*")) if p.is_file()}
    if sum(sizes.values()) > LARGEST:
        raise ValueError(f"{out} holds {sum(sizes.values()):.1f} MB, more than {LARGEST:.0f}: {sizes}")
    return sizes


def add_voices(mimi: Mimi, folder: Path) -> None:
    """One sample of each agent voice, a sentence spoken afresh: int64 [8, 24] codes."""
    from personaplex_lite.training.speech import AGENT_VOICES, synth
    for i, name in enumerate(AGENT_VOICES):
        sentences = world.VOICE_SENTENCES[i:] + world.VOICE_SENTENCES[:i]
        spoken = (synth(text, name, FRESH).pcm for text in sentences)
        sample = next(pcm for pcm in spoken if len(pcm) >= FRAMES.stop * mimi.config.frame_size)
        codes = Voice.from_wav(sample, mimi, name=name).codes[:, FRAMES]
        Voice(codes, name=name).save(folder / f"{name}.safetensors").chmod(0o644)


def check_silence(codec: Mimi, rooms: Path, believed: tuple[int, ...]) -> None:
    """Raise ValueError unless the codec says of silence what it said when the clips were encoded."""
    with np.load(rooms) as data:
        frames, then = data["rooms"].shape[-1], tuple(data["silence"].tolist())
    codes = codec.encode(torch.zeros(frames * codec.config.frame_size))[0]
    now = tuple(torch.mode(codes[:, 20:]).values.tolist())
    if not now == then == believed:
        raise ValueError(f"codec, clips and language model do not belong together: silence is {now} for the "
                         f"codec, {then} in {rooms}, {believed} for the language model")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("tools/ship.py", description=__doc__)
    parser.add_argument("--codec", default="runs/codec", help="folder with mimi.safetensors and mimi.json")
    parser.add_argument("--lm", default="runs/lm", help="folder with lm.safetensors, lm.json and tokenizer")
    parser.add_argument("--encoded", default="runs/encoded", help="the encoded clips (rooms.npz)")
    parser.add_argument("--out", default=str(LITE))
    for name, value in asdict(LIVELY).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    a = parser.parse_args(argv)
    sampling = SamplingConfig(**{name: getattr(a, name) for name in asdict(LIVELY)})
    sizes = ship(a.codec, a.lm, a.encoded, a.out, sampling)
    for name, size in {**sizes, "all": sum(sizes.values())}.items():
        print(f"{size:9.3f} MB  {name}")


if __name__ == "__main__":
    main()
