"""Where a measurement was taken, and its place in a page that people write.

What departs from the textbook: nothing. quality.py, layers.py and memory.py share it.
"""
from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import torch

from ..places import LITE
from .judges import installed


def table(*rows) -> str:
    """Markdown; the first row is the head."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def found(pattern: str, file: str) -> str:
    """What a file of /proc says; "unknown" where there is none."""
    seen = Path(file).exists() and re.search(pattern, Path(file).read_text())
    return seen[1] if seen else "unknown"


def about() -> dict:
    """Where and with what."""
    return {"date": time.strftime("%Y-%m-%d"), "cpu": found(r"model name\s*: (.*)", "/proc/cpuinfo"),
            "threads": torch.get_num_threads(), "load": found(r"(\S+)", "/proc/loadavg"),
            "lite": f"(sha256 {hashlib.sha256((LITE / 'lm.safetensors').read_bytes()).hexdigest()[:12]})",
            "versions": {n: installed(n) or "none" for n in ("torch", "torchao", "bitsandbytes")}}


def put(path: Path, name: str, text: str) -> None:
    """Write text between the marks NAME of a page; what people wrote around them stays."""
    begin = f"<!-- written by {name} -->"
    end = f"<!-- end of {name} -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    path.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2] or chr(10)}", encoding="utf-8")
