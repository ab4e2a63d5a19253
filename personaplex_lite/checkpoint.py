"""Reading and writing weights: safetensors files with official tensor names, tensor by tensor, strictly.

What departs from the textbook: no state_dict, no strict=False. The model is built without memory ("meta"),
the file's header is compared with the rename table first, and only then is each tensor copied into place, so
there is never a second copy and never a half-loaded model.
"""
from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .config import LMConfig, MimiConfig
from .lm import LM
from .mimi import Mimi
from .names import Place, lm_names, mimi_names, tensors_of


class CheckpointError(ValueError):
    """A weights file that cannot be what was asked for; the message says what is wrong with it."""


def load_lm(path, config: LMConfig, device="cpu", dtype: torch.dtype = torch.float32,
            widen: bool = False) -> LM:
    """The language model from one safetensors file with official names.

    widen : the file has half the depth steps that `config` wants (Moshi's 8 for 16): fill step 8 + i from
    step i. Raises FileNotFoundError, or CheckpointError that lists every missing, extra and misshapen tensor.
    """
    with torch.device("meta"):
        model = LM(config)
    return _load(model, lm_names(config), path, device, dtype, _doubled(config) if widen else {})


def load_mimi(path, config: MimiConfig, device="cpu", dtype: torch.dtype = torch.float32) -> Mimi:
    """The codec from one safetensors file with official names. Raises as `load_lm`."""
    with torch.device("meta"):
        model = Mimi(config)
    return _load(model, mimi_names(config), path, device, dtype, {})


def save(model: LM | Mimi, path, dtype: torch.dtype | None = None) -> None:
    """Write a model under its official names: what `load_lm` and `load_mimi` read."""
    save_file({n: t.to(dtype or t.dtype).contiguous() for n, t in official_tensors(model).items()}, str(path))


def official_tensors(model: LM | Mimi) -> dict[str, torch.Tensor]:
    """Every weight under its official name and shape (views of the model's own)."""
    table = lm_names(model.config) if isinstance(model, LM) else mimi_names(model.config)
    tensors = tensors_of(model)
    return {name: place.of(tensors) for name, place in table.items()}


def _load(model: nn.Module, table: dict[str, Place], path, device, dtype, sources: dict[str, str]):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            have = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            sources = {n: s for n, s in sources.items() if n not in have}
            _compare(path, have, table, sources)
            model.to_empty(device=device).to(dtype)
            tensors = tensors_of(model)
            for name, place in table.items():
                source = sources.get(name, name)
                _fill(place.of(tensors), None if source == "zeros" else file.get_tensor(source))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): "
                              "download or copy it again") from None
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _fill(place: torch.Tensor, tensor: torch.Tensor | None) -> None:
    if tensor is None:
        place.zero_()
    else:
        if place.shape[0] == 2 * tensor.shape[0]:       # a depth projection that holds half the steps
            tensor = torch.cat([tensor, tensor])
        place.copy_(tensor)


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


def _compare(path: Path, have: dict, table: dict[str, Place], sources: dict[str, str]) -> None:
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
