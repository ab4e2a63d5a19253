"""Products with small weights for one kind of device; `model/quantize.py` works without them, only slower.

`use(device)` puts the best that this machine has into `quantize.FAST`; nothing else needs to know.
"""
from __future__ import annotations

from functools import cache

import torch

from ..model import quantize


@cache
def use(device: str) -> str:
    """Take the fastest products for "cuda" from now on, and say which: "triton", "compiled" or "torch".

    CUDA builds of torch bring Triton along. Where it is missing, torch.compile makes a kernel of the formula.
    """
    if torch.device(device).type != "cuda":
        return "torch"
    try:
        from .triton_products import product
    except ModuleNotFoundError:
        from .compiled import product
        quantize.FAST["cuda"] = product
        return "compiled"
    quantize.FAST["cuda"] = product
    return "triton"
