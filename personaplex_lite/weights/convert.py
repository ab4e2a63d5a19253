"""From the hub's 16.7 GB to a folder that fits on a stick and loads in seconds.

What departs from the textbook: the model is never in memory. Every tensor goes from the source's mapped file,
quantised, to its place in the new one.
"""
from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from ..model import quantize
from ..model.config import LMConfig, to_dict
from ..talk.voice import Voice
from . import checkpoint
from .checkpoint import CheckpointError
from .hub import OURS, SUMS, check_room, fetch, look
from .names import lm_names, tensors_of


def convert(source, folder, weights: str = "int4", revision: str | None = None) -> Path:
    """Write a checkpoint as a folder that loads in seconds: quantised, voices unpacked, with checksums.

    weights : "int8" (8.9 GB for the 7B) or "int4" (6 GB). Needs at most 3 GB of memory. Raises as `fetch`.
    """
    files, folder = look(fetch(source, revision)), Path(folder)
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    convert_lm(files.lm, files.lm_config, weights, folder / OURS["moshi_name"])
    shutil.copyfile(files.mimi, folder / OURS["mimi_name"])
    shutil.copyfile(files.tokenizer, folder / OURS["tokenizer_name"])
    for name, path in files.voices.items():
        Voice.load(path).save(folder / "voices" / f"{name}.safetensors")
    about = {"lm": to_dict(files.lm_config), "mimi": to_dict(files.mimi_config),
             "sampling": asdict(files.sampling), "weights": weights}
    (folder / "config.json").write_text(json.dumps(about, indent=1) + "\n")
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    (folder / SUMS).write_text("".join(f"{checksum(folder / n)}  {n}\n" for n in names if n != SUMS))
    return folder


@torch.no_grad()
def convert_lm(source, config: LMConfig, weights: str, target, dtype: torch.dtype = torch.bfloat16) -> None:
    """Quantise an official file into a converted one; no more than a tensor is in memory at a time."""
    if stored := checkpoint.stored_weights(source):
        raise CheckpointError(f"{source} holds {stored} weights already: convert the original")
    model, table = checkpoint.empty_lm(config, dtype, weights), lm_names(config)
    checkpoint.compare(source, checkpoint.shapes(source), table, {})
    made = tensors_of(model)
    check_room(sum(t.nbytes for t in made.values()), Path(target), "choose another folder")
    with (checkpoint.Writer(target, made, {"weights": weights}) as out,
          checkpoint.progress("converting", source) as bar):
        for place, tensor in zip(table.values(), checkpoint.read(source, table)):
            if module := checkpoint.quantized_at(model, place):
                for part, matrix in checkpoint.matrices(tensor, place, module):
                    q, scale = quantize.quantise(matrix, weights)
                    out.put(place.name.replace(".weight", ".q"), q, part)
                    out.put(place.name.replace(".weight", ".scale"), scale, part)
            else:
                out.put(place.name, tensor.to(dtype), place.part or 0)
            bar.update(tensor.nbytes / 1e9)


def verify(folder: Path) -> None:
    """Compare a folder with its SHA256SUMS, if it has them (as `sha256sum -c`). Raises CheckpointError."""
    if not (folder / SUMS).is_file():
        return
    for line in (folder / SUMS).read_text().splitlines():
        wanted, _, name = line.partition("  ")
        if not (folder / name).is_file() or checksum(folder / name) != wanted:
            raise CheckpointError(f"{folder / name} is not what it was when it was made: copy it again")


def checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file, checkpoint.progress("checking", path) as bar:
        while block := file.read(2**24):
            digest.update(block)
            bar.update(len(block) / 1e9)
    return digest.hexdigest()
