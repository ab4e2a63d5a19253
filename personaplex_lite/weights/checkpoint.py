"""Reading weights: safetensors files with official tensor names, tensor by tensor, strictly.

There are never two copies of a model in memory. It is built without memory (on the "meta" device), the file's
header is compared with the rename table, and only then does each tensor go from the file to its device, type
and quantisation. Nothing may be missing, nothing too much, nothing of another shape.

A converted file holds an LM under our own names, its quantised maps as `….q` and `….scale` (quantize.py).
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..model import quantize
from ..model.config import LMConfig, MimiConfig
from ..model.lm import LM
from ..model.mimi import Mimi
from .names import Place, lm_names, mimi_names, tensors_of

MAPPED = 30_000_000       # bytes read before the file is mapped anew
NOTICED = 200_000_000     # bytes from which on a progress bar is worth its line
STEPWISE = re.compile(r"(depformer_in|linears|depformer_emb|depformer\.layers\.\d+\.gating)\.(\d+)\.(.+)")


class CheckpointError(ValueError):
    """A weights file that cannot be what was asked for; the message says what is wrong with it."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself. weights: "int8" or "int4" if the file was converted."""
    path: Path
    size: int                                # of the file, bytes
    shapes: dict[str, tuple[int, ...]]       # by tensor name
    weights: str | None

    @classmethod
    def of(cls, path: str | PathLike[str]) -> Header:
        """Read the header of a file. Raises FileNotFoundError, CheckpointError."""
        path = Path(path)
        with _open(path) as file:
            about = file.metadata() or {}
            shapes = {}
            for name in file.keys():
                shapes[name] = tuple(file.get_slice(name).get_shape())
        return cls(path, path.stat().st_size, shapes, about.get("weights"))


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): "
                              "download or copy it again") from None


def read(path: Path, names: Iterable[str]) -> Iterator[Tensor]:
    """Tensors of a file one after the other, memory-mapped.

    Pages of a mapping count as ours for as long as it lives. So the file is mapped anew every 30 MB, and a
    tensor takes memory only until the next ones come.
    """
    room = 0
    for name in names:
        if room <= 0:
            file = _open(path)
            room = MAPPED
        tensor = file.get_tensor(name)
        room -= tensor.nbytes
        yield tensor


def load_lm(path: str | PathLike[str] | Header, config: LMConfig, device: str | torch.device = "cpu",
            dtype: torch.dtype = torch.float32, widen: bool = False, weights: str | None = None) -> LM:
    """The language model from one safetensors file, of official names or converted.

    path : the file, or its `Header` if that was read before. widen : the file has half the depth steps that
    `config` wants (Moshi's 8 for 16): fill step 8 + i from step i. weights : "int8" or "int4" quantises the
    transformers' linear maps on the way, `dtype` is for the rest; a converted file is already one of them.
    Raises FileNotFoundError, or CheckpointError that lists every missing, extra and misshapen tensor.
    """
    header = path if isinstance(path, Header) else Header.of(path)
    stored = header.weights
    if stored and weights not in (None, stored):
        raise CheckpointError(f"{header.path} holds {stored} weights, which cannot become {weights}: "
                              "load it as it is, or convert the original again")
    model = empty_lm(config, dtype, stored or weights)
    if stored:
        _load(model, _own_names(model), header, device)
        _lay_out(model)
    else:
        sources = _lower_steps(config) if widen else {}
        _load(model, lm_names(config), header, device, sources)
    return model


def load_mimi(path: str | PathLike[str] | Header, config: MimiConfig, device: str | torch.device = "cpu",
              dtype: torch.dtype = torch.float32) -> Mimi:
    """The codec from one safetensors file with official names; `path` and what it raises: as `load_lm`."""
    header = path if isinstance(path, Header) else Header.of(path)
    with torch.device("meta"):
        model = Mimi(config).to(dtype)
    _load(model, mimi_names(config), header, device)
    return model


def official_tensors(model: LM | Mimi) -> dict[str, Tensor]:
    """Every weight under its official name and shape (views of the model's own)."""
    places = lm_names(model.config) if isinstance(model, LM) else mimi_names(model.config)
    tensors = tensors_of(model)
    return {name: place.of(tensors) for name, place in places.items()}


def empty_lm(config: LMConfig, dtype: torch.dtype, weights: str | None) -> LM:
    """An LM that takes no memory yet; `weights`: "int8", "int4" or None for plain ones of `dtype`."""
    with torch.device("meta"):
        model = LM(config).to(dtype)
    if weights:
        quantize.prepare(model, weights)
    return model


@torch.no_grad()
def _load(model: nn.Module, table: dict[str, Place], header: Header, device: str | torch.device,
          sources: dict[str, str | None] | None = None) -> None:
    """Fill a model that has no memory yet, and make it ready for use.

    sources : for tensors that the file may lack, the one to take instead, None for zeros.
    """
    sources = {name: source for name, source in (sources or {}).items() if name not in header.shapes}
    wanted = {name: place.shape for name, place in table.items() if name not in sources}
    compare(header, wanted, halves=bool(sources))

    # memory, zeros where nothing is to be read, and in which order the rest is
    model.to_empty(device=device)
    tensors = tensors_of(model)
    names = []
    places = []
    for name, place in table.items():
        source = sources.get(name, name)
        if source is None:
            place.of(tensors).zero_()
        else:
            names.append(source)
            places.append(place)

    with progress("loading", header.path) as bar:
        for place, tensor in zip(places, read(header.path, names)):
            bar.update(tensor.nbytes / 1e9)
            # attention with half the depth steps: once for the lower ones, once for the upper
            if prod(place.shape) == 2 * tensor.numel():
                tensor = torch.cat([tensor, tensor])
            module = quantized_at(model, place)
            if module is None:
                place.of(tensors).copy_(tensor)
            else:
                _quantise(tensor, place, module)
    model.eval().requires_grad_(False)


def _quantise(tensor: Tensor, place: Place, module: quantize.QuantLinear) -> None:
    """Quantise a float tensor into a module, on the module's device."""
    for part, matrix in matrices(tensor, place, module):
        module.fill(matrix.to(module.q.device), part)


def compare(header: Header, wanted: dict[str, tuple[int, ...]], halves: bool = False) -> None:
    """Raise CheckpointError with every missing, extra and misshapen tensor, unless a file holds the wanted.

    halves : the depth transformer's attention may be that of half the steps.
    """
    have = header.shapes
    misshapen = []
    for name in sorted(wanted.keys() & have.keys()):
        allowed = [wanted[name]]
        if halves and "depformer.layers" in name and "self_attn" in name:
            rows, *rest = wanted[name]
            allowed.append((rows // 2, *rest))
        if have[name] not in allowed:
            misshapen.append(f"{name} is {list(have[name])}, should be {list(wanted[name])}")
    faults = {
        "missing": sorted(wanted.keys() - have.keys()),
        "extra": sorted(have.keys() - wanted.keys()),
        "misshapen": misshapen,
    }
    report = [f"{title}: {', '.join(found)}" for title, found in faults.items() if found]
    if report:
        raise CheckpointError(f"{header.path} does not hold this model. " + "; ".join(report))


def quantized_at(model: nn.Module, place: Place) -> quantize.QuantLinear | None:
    """The module that quantises what belongs in this place, if one does."""
    owner, _, leaf = place.name.rpartition(".")
    if leaf != "weight":
        return None
    module = model.get_submodule(owner)
    return module if isinstance(module, quantize.QuantLinear) else None


def matrices(tensor: Tensor, place: Place, module: quantize.QuantLinear) -> Iterable[tuple[int, Tensor]]:
    """(part, matrix [o, i]) pairs of a tensor that holds one part, or all of them on top of each other."""
    if place.part is not None:
        return [(place.part, tensor)]
    return enumerate(tensor.view(-1, *module.shape))


def progress(what: str, path: Path) -> Any:
    """A progress bar in GB, for files that take more than a moment."""
    from tqdm import tqdm
    size = path.stat().st_size
    shape = "{desc} {percentage:3.0f}% |{bar}| {n:.1f} of {total:.1f} GB, {remaining} left"
    return tqdm(desc=f"{what} {path.name}", total=size / 1e9, disable=size < NOTICED, leave=False,
                bar_format=shape)


def _own_names(model: nn.Module) -> dict[str, Place]:
    """The table of a converted file: every tensor is where its name says."""
    table = {}
    for name, tensor in tensors_of(model).items():
        table[name] = Place(name, None, tuple(tensor.shape))
    return table


def _lay_out(model: LM) -> None:
    """Bring the 4-bit numbers of a file into the order that a CPU's kernel wants."""
    for module in model.modules():
        if not isinstance(module, quantize.QuantLinear):
            continue
        if module.kind == "int4" and module.q.device.type == "cpu":
            for part in range(len(module.q)):
                module.put(module.q[part].clone(), module.scale[part], part)


def _lower_steps(config: LMConfig) -> dict[str, str | None]:
    """For each tensor of the upper depth steps, the lower one that fills it; None stands for zeros."""
    half = config.depth_steps // 2
    sources: dict[str, str | None] = {}
    for name in lm_names(config):
        found = STEPWISE.fullmatch(name)
        if not found:
            continue
        kind, number, rest = found.groups()
        step = int(number)
        if step >= half:
            sources[name] = f"{kind}.{step - half}.{rest}"
        elif kind == "depformer_emb" and step == half - 1:
            # no lower step reads the last codebook; a file may bring the table itself
            sources[name] = None
    return sources
