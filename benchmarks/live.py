"""How late is a live talk? JupyterLab, Chromium, a microphone that plays a question -> docs/live.md.

    python -m benchmarks.live [--seconds 120]

Three talks with `lite`: as it is, with TCP_NODELAY on the server's sockets, and with another program on the
second core. Kernel, server and browser share this machine, as on a laptop. Best run when nothing else does.
"""
from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
import lab  # noqa: E402

OUT = ROOT / "docs" / "live.md"
NOTEBOOK = """import personaplex_lite as pp
role = "you are kevin and you work at diamond car wash we open at ten and close at two"
talk = pp.Talk(pp.load().chat(pp.Persona("NATF0", role), progress=False))
talk"""
CASES = {"as it is": (None, False), "TCP_NODELAY": (lab.HERE / "prompt_server_config.py", False),
         "TCP_NODELAY, second core busy": (lab.HERE / "prompt_server_config.py", True)}


def prepare(folder: Path) -> Path:
    """The notebook, and a minute of microphone: a question every seven seconds."""
    import soundfile
    import soxr
    lab.notebook(folder / "talk.ipynb", NOTEBOOK)
    question, rate = soundfile.read(ROOT / "data" / "questions" / "open.wav", dtype="float32")
    sound = np.concatenate([np.zeros(rate), question, np.zeros(7 * rate - len(question))])
    soundfile.write(folder / "microphone.wav", soxr.resample(sound, rate, 48_000), 48_000, subtype="PCM_16")
    return folder / "microphone.wav"


def spin() -> None:
    """What it does."""
    while True:
        pass


@contextmanager
def another_program(on: bool) -> Iterator[None]:
    """Something that wants a processor all the time, while the block lasts."""
    busy = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    if on:
        busy.start()
    yield
    if on:
        busy.kill()


def cpu(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(seconds: float, config: Path | None, busy: bool) -> dict:
    """One talk -> the page's and the kernel's figures."""
    folder = Path(tempfile.mkdtemp(prefix="live-"))
    microphone = prepare(folder)
    with lab.lab(folder, config) as port, lab.browser(microphone) as chrome:
        page = lab.Page(chrome, port, "talk.ipynb")
        kernel = lab.Kernel(folder, page.kernel_id)
        pid = kernel("import json, os; print(json.dumps(os.getpid()))")
        kernel.close()                                  # a client that does not listen would slow the kernel
        with another_program(busy):
            page.start()
            used, began = cpu(pid), time.monotonic()
            time.sleep(seconds)
            used, took = cpu(pid) - used, time.monotonic() - began
            figures = page.talk("({ ...talk.meter, frames: talk.live ? talk.live.n : 0 })")
            page.click("start")
            page.wait("!talk.live")
    if not figures["frames"] or page.errors:
        raise RuntimeError(f"the talk ended by itself: {page.errors}")
    return {**figures, "cpu": used / took}


def row(name: str, figures: dict, load: float) -> str:
    """A line of the table."""
    late = []
    for key in ("ms", "trip", "ear"):
        middle, most = np.percentile(figures[key], [50, 95])
        late.append(f"{middle:.0f} / {most:.0f}")
    return (f"| {name} | {' | '.join(late)} | {figures['lost']} of {figures['frames']} | {figures['gaps']} "
            f"| {100 * figures['cpu']:.0f} % | {load:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="of each talk (120)")
    seconds = parser.parse_args().seconds
    rows = []
    for name, (config, busy) in CASES.items():
        load = os.getloadavg()[0]
        rows.append(row(name, measure(seconds, config, busy), load))
        print(rows[-1], flush=True)
    OUT.write_text(TEXT.format(seconds=seconds, cores=os.cpu_count(), machine=platform.machine(),
                               python=platform.python_version(), rows="\n".join(rows)), encoding="utf-8")
    print(f"wrote {OUT}")


TEXT = """# How late a live talk is

`python -m benchmarks.live`: JupyterLab, kernel and headless Chromium on one machine ({cores} cores,
{machine}, Python {python}), over loopback. In each row {seconds:.0f} s of talk with `lite`, a question
every seven seconds from Chromium's fake microphone. Milliseconds, median / 95 %.

| server | work for a frame | round trip | mouth to ear | frames lost | gaps | kernel's CPU | load before |
|---|---|---|---|---|---|---|---|
{rows}

- *Work*: the model's part of a frame, in the kernel. More than 80 ms cannot keep up.
- *Round trip*: from the page sending a frame to the page having its answer.
- *Mouth to ear*: from the first sample of a frame at the microphone to the first sample of its answer at the
  loudspeaker, by the audio thread's clock and the browser's own output latency. The frame's 80 ms are in it;
  the microphone's latency, which no browser tells, and the model's delay of one frame are not.
- *Lost*: frames dropped because something was too slow: at the microphone when six are on their way, in the
  kernel when three wait. *Gaps*: how often the loudspeaker had nothing to play.
- *Load before*: how many programs wanted a processor just before. Far from 0, the row tells more about them.
"""


if __name__ == "__main__":
    main()
