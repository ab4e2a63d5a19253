"""Where a measurement was taken, and its place in a page that people write.

What departs from the textbook: nothing. quality.py, layers.py and memory.py share it.
"""
from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch

from benchmarks.judge import installed
from benchmarks.report import found
from personaplex_lite.agent import LITE

DOCS = Path(__file__).resolve().parents[1] / "docs"


def about() -> dict:
    """Where and with what."""
    return {"date": time.strftime("%Y-%m-%d"), "cpu": found(r"model name\s*: (.*)", "/proc/cpuinfo"),
            "threads": torch.get_num_threads(), "load": found(r"(\S+)", "/proc/loadavg"),
            "lite": f"(sha256 {hashlib.sha256((LITE / 'lm.safetensors').read_bytes()).hexdigest()[:12]})",
            "versions": {n: installed(n) or "none" for n in ("torch", "torchao", "bitsandbytes")}}


def put(path: Path, name: str, text: str) -> None:
    """Write text between the marks NAME of a page; what people wrote around them stays."""
    begin, end = f"<!-- written by benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    path.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2] or chr(10)}", encoding="utf-8")
