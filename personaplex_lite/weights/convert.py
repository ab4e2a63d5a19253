"""From the hub's 16.7 GB to a folder that fits on a stick and loads in seconds.

The model is never in memory: each tensor goes from the source's file, quantised, to its place in the new one.
"""
from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from os import PathLike
from pathlib import Path

import torch

from ..model import quantize
from ..model.config import LMConfig
from ..talk.voice import Voice
from .checkpoint import CheckpointError, Header, compare, empty_lm, matrices, progress, quantized_at, read
from .hub import OURS, SUMS, Files, check_room, fetch, look
from .names import lm_names, tensors_of
from .sizes import to_dict
from .writer import Writer

BLOCK = 2**24       # bytes of a file that are in memory while its checksum is taken


def convert(source: str | PathLike[str], folder: str | PathLike[str], weights: str = "int4",
            revision: str | None = None) -> Path:
    """Write a checkpoint as a folder that loads in seconds: quantised, voices unpacked, with checksums.

    weights : "int8" (8.9 GB for the 7B) or "int4" (6 GB). Needs at most 3 GB of memory. Raises as `fetch`.
    """
    files = look(fetch(source, revision))
    folder = Path(folder)
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    convert_lm(files.lm, files.lm_config, weights, folder / OURS["moshi_name"])
    shutil.copyfile(files.mimi, folder / OURS["mimi_name"])
    shutil.copyfile(files.tokenizer, folder / OURS["tokenizer_name"])
    for name, path in files.voices.items():
        Voice.load(path).save(folder / "voices" / f"{name}.safetensors")
    # the config comes last but one: a conversion that was cut off is no checkpoint
    (folder / "config.json").write_text(_config(files, weights))
    (folder / SUMS).write_text(_sums(folder))
    return folder


def _config(files: Files, weights: str) -> str:
    about = {
        "lm": to_dict(files.lm_config),
        "mimi": to_dict(files.mimi_config),
        "sampling": asdict(files.sampling),
        "weights": weights,
    }
    return json.dumps(about, indent=1) + "\n"


@torch.no_grad()
def convert_lm(header: Header, config: LMConfig, weights: str, target: Path,
               dtype: torch.dtype = torch.bfloat16) -> None:
    """Quantise an official file into a converted one; no more than a tensor is in memory at a time."""
    if header.weights:
        raise CheckpointError(f"{header.path} holds {header.weights} weights already: convert the original")
    table = lm_names(config)
    compare(header, {name: place.shape for name, place in table.items()})
    # what the new file will hold: a model that takes no memory tells
    model = empty_lm(config, dtype, weights)
    made = tensors_of(model)
    size = sum(tensor.nbytes for tensor in made.values())
    check_room(size, target, "choose another folder")
    with Writer(target, made, {"weights": weights}) as out, progress("converting", header.path) as bar:
        for place, tensor in zip(table.values(), read(header.path, table)):
            bar.update(tensor.nbytes / 1e9)
            module = quantized_at(model, place)
            if module is None:
                out.put(place.name, tensor.to(dtype), place.part or 0)
                continue
            owner = place.name.removesuffix("weight")
            for part, matrix in matrices(tensor, place, module):
                q, scale = quantize.quantise(matrix, weights)
                out.put(owner + "q", q, part)
                out.put(owner + "scale", scale, part)


def _sums(folder: Path) -> str:
    """A line for each file of a folder, as `sha256sum` writes them."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    lines = [f"{checksum(folder / name)}  {name}\n" for name in names if name != SUMS]
    return "".join(lines)


def verify(folder: Path) -> None:
    """Compare a folder with its SHA256SUMS, if it has them (as `sha256sum -c`). Raises CheckpointError."""
    sums = folder / SUMS
    if not sums.is_file():
        return
    for line in sums.read_text().splitlines():
        wanted, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or checksum(path) != wanted:
            raise CheckpointError(f"{path} is not what it was when it was made: copy it again")


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file, progress("checking", path) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block) / 1e9)
    return digest.hexdigest()
