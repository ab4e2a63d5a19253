"""Writing weights: a safetensors file at once, or piece by piece where the model never fits into memory."""
from __future__ import annotations

import json
from os import PathLike
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..model.lm import LM
from ..model.mimi import Mimi
from .checkpoint import official_tensors

DTYPES = {       # as the safetensors format writes them
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int8: "I8",
    torch.uint8: "U8",
}


def save(model: LM | Mimi, path: str | PathLike[str], dtype: torch.dtype | None = None) -> None:
    """Write a model under its official names, what `load_lm` and `load_mimi` read; `dtype`: in this type."""
    tensors = {}
    for name, tensor in official_tensors(model).items():
        tensors[name] = tensor.to(dtype or tensor.dtype).contiguous()
    save_file(tensors, str(path))


class Writer:
    """A safetensors file written piece by piece: first the header, then each tensor where it says.

    tensors : what the file will hold, by name; only their shapes and types are looked at.
    about : the file's own notes, text by name.
    """

    def __init__(self, path: str | PathLike[str], tensors: dict[str, Tensor],
                 about: dict[str, str] | None = None):
        header: dict[str, Any] = {"__metadata__": about or {}}
        self.begins: dict[str, int] = {}
        end = 0
        # the widest types first: so each tensor begins at a multiple of its own element size
        for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
            begin = end
            end += tensor.nbytes
            self.begins[name] = begin
            header[name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [begin, end],      # bytes, counted from the end of the header
            }
        # the file: 8 bytes with the header's length, the header in multiples of 8, the tensors
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.start = 8 + len(text)
        self.file = open(path, "wb")
        self.file.write(len(text).to_bytes(8, "little"))
        self.file.write(text)

    def put(self, name: str, tensor: Tensor, part: int = 0) -> None:
        """A tensor, or one part of it along its first dimension."""
        self.file.seek(self.start + self.begins[name] + part * tensor.nbytes)
        self.file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
