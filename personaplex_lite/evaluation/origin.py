"""Where a figure comes from: the machine, the versions, the weights."""
from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..places import LITE

LARGE = 2 ** 28                             # bytes: of a larger file only name and size are told
TOLD = ("README.md", "report.json", "golden.json")       # files that only tell about a checkpoint


def found(pattern: str, file: str) -> str | None:
    """What the first group of `pattern` matches in a file of /proc; None where there is none."""
    path = Path(file)
    if not path.exists():
        return None
    match = re.search(pattern, path.read_text())
    return match[1] if match else None


def cpu() -> str:
    """The name of this machine's processor."""
    name = found(r"model name\s*: (.*)", "/proc/cpuinfo")
    return name or platform.processor() or platform.machine()


def load() -> float:
    """How many programs wanted a processor in the last minute, on average."""
    return os.getloadavg()[0]


def installed(package: str) -> str | None:
    """Its version, None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Python's version and those of packages, by name."""
    return {"python": platform.python_version()} | {package: installed(package) for package in packages}


def fingerprint(paths: Iterable[Path], named: bool = False) -> str:
    """What files add up to, in order: the 64 hexadecimal digits of a SHA-256.

    named : names and sizes count too, and of files of 256 MB or more nothing else does.
    """
    whole = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        if named:
            whole.update(f"{path.name} {size}".encode())
        if not named or size < LARGE:
            whole.update(path.read_bytes())
    return whole.hexdigest()


def checkpoint(folder: Path) -> str:
    """Sixteen digits that change when a file of a checkpoint does, but for those that only tell about it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in TOLD]
    return fingerprint(files, named=True)[:16]


def about() -> dict:
    """Where and with what a page of `lite` was measured."""
    packages = ("torch", "torchao", "bitsandbytes")
    return {"date": time.strftime("%Y-%m-%d"),
            "cpu": cpu(),
            "threads": torch.get_num_threads(),
            "load": f"{load():.2f}",
            "lite": f"(sha256 {fingerprint([LITE / 'lm.safetensors'])[:12]})",
            "versions": {package: installed(package) or "none" for package in packages}}
