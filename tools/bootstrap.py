"""Make .venv and put everything in it: `python3 tools/bootstrap.py --extras notebooks,dev`. Standard library.

torch comes first and apart from the rest, because on Linux the plain index serves gigabytes of CUDA even to
machines that have no GPU. The first of these that works is taken:
  0  the torch that .venv already has        if it is new enough
  1  a wheel this machine offers             no GPU: what pip's own configuration (find-links) points at
  2  PyTorch's index of CPU builds           no GPU, on Linux
  3  the plain index                         GPU, macOS, Windows, or when all else failed
Then comes the package itself, editable, with its extras. When nothing has changed, nothing happens.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP, LOG = VENV / "bootstrap.json", VENV / "bootstrap.log"
OLDEST = (3, 10)
EXTRAS = ("notebooks", "dev", "eval", "train", "voices", "ray", "gpu-check")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# What pip prints → what it means, the likeliest cause first.
REASONS = {
    r"No space left|Errno 28": "the disk is full.",
    r"CERTIFICATE_VERIFY|SSLError": "the package index's certificate was refused (a proxy in between?).",
    r"name resolution|Name or service|getaddrinfo|NewConnection|ConnectTimeout|ProxyError|unreachable":
        "the package index could not be reached: is there a network, or a proxy that pip should know?",
    r"No matching distribution found for (\S+)": "no index in reach offers {} for this Python and machine.",
    r"ResolutionImpossible": "the packages' version ranges contradict each other.",
}


def stop(sentence: str):
    sys.exit(f"bootstrap: {sentence}")


def works(*command) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def pip(*args: str) -> str:
    """`pip install args`, shown as one moving line; returns '' or one sentence about what went wrong."""
    options = "--disable-pip-version-check", "--progress-bar=off"
    command = [str(PYTHON), "-m", "pip", "install", *options, *args]
    said, start, live = "", time.time(), sys.stdout.isatty()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace") as run:
        for line in run.stdout:
            said += line
            if live and line.lstrip().startswith(("Collecting", "Downloading", "Building", "Installing")):
                print(f"\r  {time.time() - start:4.0f} s  {line.strip()[:66]:66}", end="", flush=True)
    print(f"\r{'':76}\r" if live else "", end="")
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{said}\n")
    if run.returncode == 0:
        return ""
    found = ((re.search(pattern, said), meaning) for pattern, meaning in REASONS.items())
    reason = next((meaning.format(*match.groups()) for match, meaning in found if match), "pip failed.")
    return f"{reason} The whole story is in {LOG}."


def make_venv():
    if works(PYTHON, "-m", "pip", "--version") or works(PYTHON, "-m", "ensurepip"):
        return
    try:
        import ensurepip  # noqa: F401  (Debian ships venv without it)
        import venv
    except ImportError:
        stop("this Python cannot make environments; on Debian or Ubuntu, `sudo apt install python3-venv` "
             "(or python{}.{}-venv) mends it.".format(*sys.version_info))
    print(f"making {VENV} with Python {platform.python_version()}")
    venv.create(VENV, with_pip=True, clear=True)


def need(gigabytes: int):
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < gigabytes:
        stop(f"about {gigabytes} GB are needed, and only {free:.1f} GB are free where {ROOT} lies.")


def has_torch(wanted: str) -> bool:
    oldest = tuple(int(n) for n in re.search(r">=(\d+)\.(\d+)", wanted).groups())
    ask = "from importlib.metadata import version as v; print(*v('torch').split('.')[:2])"
    asked = subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True)
    return asked.returncode == 0 and tuple(int(n) for n in asked.stdout.split()) >= oldest


def install_torch(wanted: str, lock: list[str]):
    if has_torch(wanted):
        return
    need(4)
    ways = {"the plain index": []}
    if works("nvidia-smi"):
        print("torch with CUDA: this machine has an NVIDIA GPU (several GB to download, once)")
    elif sys.platform == "linux":
        short = ["--timeout=15", "--retries=1", f"--index-url={CPU_INDEX}"]
        ways = {"a wheel on this machine": ["--no-deps", "--no-index"],  # its own needs come with the package
                "PyTorch's index of CPU builds": ["--no-deps", *short], **ways}
    for where, args in ways.items():
        if not args and sys.platform == "linux":
            need(12)
            if len(ways) > 1:
                print("no CPU build could be had; the plain index is next, and may send several GB of CUDA")
        reason = pip(*lock, *args, wanted)
        if not reason:
            return print(f"torch: from {where}")
    stop(f"torch could not be installed: {reason}")


def main():
    if sys.version_info < OLDEST:
        stop("Python {}.{} or newer is needed; this is {}.".format(*OLDEST, platform.python_version()))
    parser = argparse.ArgumentParser(description="make .venv and install personaplex-lite into it")
    parser.add_argument("--extras", default="notebooks", help="comma-separated, of " + ", ".join(EXTRAS))
    parser.add_argument("--locked", action="store_true", help="the very versions of requirements.lock")
    args = parser.parse_args()
    asked = set(filter(None, args.extras.split(",")))
    unknown = asked - set(EXTRAS)
    if unknown:
        stop(f"there is no extra called {', '.join(unknown)}; there are {', '.join(EXTRAS)}.")

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    state = f"{project} {ROOT} {sys.version_info[:2]} {args.locked}"
    done = json.loads(STAMP.read_text()) if STAMP.exists() and PYTHON.exists() else {"extras": []}
    todo = {"key": hashlib.sha256(state.encode()).hexdigest(), "extras": sorted(asked | set(done["extras"]))}
    if done == todo:
        return

    make_venv()
    lock = ["-c", "requirements.lock"] if args.locked else []
    install_torch(re.search(r'"(torch>[^"]*)"', project)[1], lock)
    package = f".[{','.join(todo['extras'])}]"
    print(f"installing {package} (a few minutes the first time)")
    reason = pip(*lock, "-e", package)
    if reason:
        stop(f"the package could not be installed: {reason}")
    STAMP.write_text(json.dumps(todo))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; run it again and it goes on from here.")
