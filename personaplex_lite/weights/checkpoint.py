"""Reading and writing weights: safetensors files with official tensor names, tensor by tensor, strictly.

What departs from the textbook: no state_dict, no strict=False, never two copies. The model is built without
memory ("meta"), the file's header is compared with the rename table, and only then does each tensor go from
the memory-mapped file to its device, type and quantisation. The file is mapped anew every 30 MB, because
pages of a mapping count as ours for as long as it lives.

A converted file holds an LM under our own names, its quantised maps as `….q` and `….scale` (quantize.py).
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..model import quantize
from ..model.config import LMConfig, MimiConfig
from ..model.lm import LM
from ..model.mimi import Mimi
from .names import Place, lm_names, mimi_names, tensors_of

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64",
          torch.int8: "I8", torch.uint8: "U8"}       # as the safetensors format writes them


class CheckpointError(ValueError):
    """A weights file that cannot be what was asked for; the message says what is wrong with it."""


def load_lm(path, config: LMConfig, device="cpu", dtype: torch.dtype = torch.float32,
            widen: bool = False, weights: str | None = None) -> LM:
    """The language model from one safetensors file, of official names or converted.

    widen : the file has half the depth steps that `config` wants (Moshi's 8 for 16): fill step 8 + i from
    step i. weights : "int8" or "int4" quantises the transformers' linear maps on the way, `dtype` is for the
    rest; a converted file is already one of them. Raises FileNotFoundError, or CheckpointError that lists
    every missing, extra and misshapen tensor.
    """
    stored = stored_weights(path)
    if stored and weights not in (None, stored):
        raise CheckpointError(f"{path} holds {stored} weights, which cannot become {weights}: "
                              "load it as it is, or convert the original again")
    model = empty_lm(config, dtype, stored or weights)
    if stored:
        table = {name: Place(name, None, tuple(t.shape)) for name, t in tensors_of(model).items()}
        return _lay_out(_load(model, table, path, device))
    return _load(model, lm_names(config), path, device, _doubled(config) if widen else {})


def load_mimi(path, config: MimiConfig, device="cpu", dtype: torch.dtype = torch.float32) -> Mimi:
    """The codec from one safetensors file with official names. Raises as `load_lm`."""
    with torch.device("meta"):
        model = Mimi(config).to(dtype)
    return _load(model, mimi_names(config), path, device)


def save(model: LM | Mimi, path, dtype: torch.dtype | None = None) -> None:
    """Write a model under its official names: what `load_lm` and `load_mimi` read."""
    save_file({n: t.to(dtype or t.dtype).contiguous() for n, t in official_tensors(model).items()}, str(path))


def official_tensors(model: LM | Mimi) -> dict[str, Tensor]:
    """Every weight under its official name and shape (views of the model's own)."""
    table = lm_names(model.config) if isinstance(model, LM) else mimi_names(model.config)
    tensors = tensors_of(model)
    return {name: place.of(tensors) for name, place in table.items()}


class Writer:
    """A safetensors file written piece by piece: first the header, then each tensor where it says.

    tensors : what the file will hold, by name; only their shapes and types are looked at.
    """

    def __init__(self, path, tensors: dict[str, Tensor], about: dict[str, str] | None = None):
        header, self.at = {"__metadata__": about or {}}, {}
        end = 0
        for name, t in sorted(tensors.items(), key=lambda item: -item[1].itemsize):    # keeps them aligned
            begin, end = end, end + t.nbytes
            self.at[name] = begin
            header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.file, self.start = open(path, "wb"), 8 + len(text)
        self.file.write(len(text).to_bytes(8, "little") + text)

    def put(self, name: str, tensor: Tensor, part: int = 0) -> None:
        """A tensor, or one part of it along its first dimension."""
        self.file.seek(self.start + self.at[name] + part * tensor.nbytes)
        self.file.write(tensor.contiguous().flatten().view(torch.uint8).numpy())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def shapes(path) -> dict[str, tuple[int, ...]]:
    """What a file says it holds. Raises FileNotFoundError, CheckpointError."""
    with _open(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def stored_weights(path) -> str | None:
    """ "int8" or "int4" if the file was converted."""
    with _open(path) as file:
        return (file.metadata() or {}).get("weights")


def read(path, names: Iterable[str]) -> Iterator[Tensor]:
    """Tensors of a file one after the other, memory-mapped; opened anew every 30 MB, which gives back what
    was read before: a tensor takes memory until the next ones come.
    """
    room = 0
    for name in names:
        if room <= 0:
            file, room = _open(path), 3e7
        tensor = file.get_tensor(name)
        room -= tensor.nbytes
        yield tensor


def _open(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): "
                              "download or copy it again") from None


def empty_lm(config: LMConfig, dtype: torch.dtype, weights: str | None) -> LM:
    """An LM that takes no memory yet."""
    with torch.device("meta"):
        model = LM(config).to(dtype)
    if weights:
        quantize.prepare(model, weights)
    return model


@torch.no_grad()
def _load(model: nn.Module, table: dict[str, Place], path, device, sources: dict[str, str] | None = None):
    have = shapes(path)
    sources = {n: s for n, s in (sources or {}).items() if n not in have}
    compare(path, have, table, sources)
    model.to_empty(device=device)
    tensors = tensors_of(model)
    with progress("loading", path) as bar:
        for name in [name for name in table if sources.get(name) == "zeros"]:
            table.pop(name).of(tensors).zero_()
        for place, tensor in zip(table.values(), read(path, [sources.get(name, name) for name in table])):
            bar.update(tensor.nbytes / 1e9)
            if prod(place.shape) == 2 * tensor.numel():       # a depth projection that holds half the steps
                tensor = torch.cat([tensor, tensor])
            if quantized := quantized_at(model, place):
                for part, matrix in matrices(tensor, place, quantized):
                    quantized.fill(matrix.to(device), part)
            else:
                place.of(tensors).copy_(tensor)
    return model.eval().requires_grad_(False)


def _lay_out(model: LM) -> LM:
    """Bring the 4-bit numbers of a file into the order that a CPU's kernel wants."""
    for module in model.modules():
        four = isinstance(module, quantize.QuantLinear) and module.kind == "int4"
        for part in range(len(module.q) if four and module.q.device.type == "cpu" else 0):
            module.put(module.q[part].clone(), module.scale[part], part)
    return model


def quantized_at(model: nn.Module, place: Place) -> quantize.QuantLinear | None:
    """The module that quantises what belongs in this place, if one does."""
    owner, _, leaf = place.name.rpartition(".")
    module = model.get_submodule(owner) if leaf == "weight" else None
    return module if isinstance(module, quantize.QuantLinear) else None


def matrices(tensor: Tensor, place: Place, quantized):
    """(part, matrix) pairs of a tensor that holds one part, or all of them on top of each other."""
    if place.part is not None:
        return [(place.part, tensor)]
    return enumerate(tensor.view(-1, *quantized.shape))


def progress(what: str, path):
    """A progress bar in GB, for files that take more than a moment."""
    from tqdm import tqdm
    size = Path(path).stat().st_size / 1e9
    return tqdm(desc=f"{what} {Path(path).name}", total=size, disable=size < 0.2, leave=False,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n:.1f} of {total:.1f} GB, {remaining} left")


def _doubled(config: LMConfig) -> dict[str, str]:
    """For each tensor of the upper half of the depth steps, the lower one that fills it."""
    half, table = config.depth_steps // 2, {}
    for name, place in lm_names(config).items():
        if name.startswith(("depformer_in", "linears", "depformer.")) and place.part is not None:
            head, tail = name.rsplit(f".{place.part}.", 1)
            if place.part >= half:
                table[name] = f"{head}.{place.part - half}.{tail}"
        elif name.startswith("depformer_emb") and place.part >= half:
            table[name] = f"depformer_emb.{place.part - half}.weight"
        elif name.startswith("depformer_emb") and place.part == half - 1:
            table[name] = "zeros"  # no lower step reads the last codebook; a file may bring the table itself
    return table


def compare(path, have: dict, table: dict[str, Place], sources: dict[str, str]) -> None:
    want = {name: place.shape for name, place in table.items() if name not in sources}
    both = want.keys() & have.keys()
    halved = {n for n in both if sources and "depformer.layers" in n and "self_attn" in n}
    bad = [f"{n} is {list(have[n])}, should be {list(want[n])}" for n in sorted(both)
           if have[n] != want[n] and not (n in halved and have[n] == (want[n][0] // 2, *want[n][1:]))]
    faults = {"missing": sorted(want.keys() - have.keys()), "extra": sorted(have.keys() - want.keys()),
              "misshapen": bad}
    report = [f"{title}: {', '.join(items)}" for title, items in faults.items() if items]
    if report:
        raise CheckpointError(f"{path} does not hold this model. " + "; ".join(report))
