"""Each side of a comparison in a process of its own, which answers over a pipe.

Requests and answers are lines of JSON, so that both sides hold their weights, take turns every few frames and
see the same machine, and neither pays for what the other imported. The public packages live in runs/official,
apart from .venv, and run on the same torch.
"""
from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import ROOT, SIDES
from personaplex_lite.model.config import LMConfig, MimiConfig
from personaplex_lite.weights.sizes import to_dict

OFFICIAL = ROOT / "runs" / "official"
PINS = ["moshi==0.2.13", "einops==0.8.2", "transformers==5.23.0", "regex==2026.11.15"]
IMPORTS = {"ours": "personaplex_lite.agent", "moshi": "moshi.models",
           "transformers": "transformers.models.mimi.modeling_mimi"}      # before the clock starts


def setup() -> None:
    """Install the public packages apart; --no-deps, because their pins ask for an older torch."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--upgrade", "--target",
                    str(OFFICIAL), *PINS], check=True)


class Side:
    """The parent's end of the pipe. Raises RuntimeError, with what the child said, if it cannot go on."""

    def __init__(self, name: str, threads: int, path: Path | str, config: LMConfig | MimiConfig | None = None,
                 weights: str = "f32"):
        self.label = f"{name} {weights}"
        folders = [ROOT] if name.startswith("ours") else [OFFICIAL, ROOT]
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(map(str, folders))}
        self.child = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "benchmarks.pipe"], cwd=ROOT,
                                      env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL)
        sizes = None if config is None else to_dict(config)
        try:
            self.loaded = self.ask(name, path=str(path), config=sizes, weights=weights)
        except RuntimeError:
            self.__exit__()
            raise

    def ask(self, do: str, **what: Any) -> Any:
        """One request, one answer: "frames" n, "tokens" …, "age", "profile" n, "memory"."""
        self.child.stdin.write(json.dumps([do, what]) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended with status {self.child.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["is"]

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stdin.close()
        self.child.wait()


def serve() -> None:
    """The child's end: requests are lines of JSON; what libraries print goes to stderr."""
    pipe = sys.stdout
    sys.stdout = sys.stderr
    side = None
    torch.set_grad_enabled(False)
    for line in sys.stdin:
        do, what = json.loads(line)
        try:
            if do in SIDES:
                importlib.import_module(IMPORTS[do.split()[0]])
                before = memory("VmRSS")
                began = time.perf_counter()
                side = SIDES[do](**what)
                answer = {"seconds": time.perf_counter() - began, "most": memory("VmHWM") - before}
            elif do == "frames":
                answer = [side.frame() for _ in range(what["n"])]
            elif do == "profile":
                answer = profile(side.frame, what["n"])
            elif do == "memory":
                answer = memory("VmRSS") - before
            else:
                answer = getattr(side, do)(**what)
            answer = {"is": answer}
        except Exception as error:      # whatever a public package raises becomes a row that says so
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=pipe, flush=True)


def memory(which: str) -> float:
    """GB of this process: VmRSS now, VmHWM at most."""
    return int(re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e6


def profile(frame: Callable[[], object], n: int) -> dict:
    """Of the fastest of n frames: milliseconds, operator calls, and the operators that took most time."""
    from torch.profiler import ProfilerActivity
    runs = []
    for _ in range(n):
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as seen:
            began = time.perf_counter()
            frame()
            took = 1e3 * (time.perf_counter() - began)
        runs.append((took, seen))
    took, seen = min(runs, key=lambda run: run[0])
    ops = sorted(seen.key_averages(), key=lambda op: -op.self_cpu_time_total)
    top = [(op.key.removeprefix("aten::"), op.self_cpu_time_total / 1e3, op.count) for op in ops[:6]]
    return {"ms": took, "calls": sum(op.count for op in ops), "top": top}


if __name__ == "__main__":
    serve()
