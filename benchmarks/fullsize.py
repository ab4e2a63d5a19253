"""The 7B at full size with random weights: does it load, fit, talk and come back? -> docs/fullsize.md

    python -m benchmarks.fullsize make      a folder like the hub's, 17 GB in runs/fullsize
    python -m benchmarks.fullsize run       one process for each kind of weights, then for a converted folder

Nothing is mocked and nothing learned. The weights are noise of a sensible scale under the official names, so
loading, memory and time are those of the real file; the talk is babble.
`make` and `measure` take any sizes: tests/test_loading.py sends a small model down the same way.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from personaplex_lite import Persona, load
from personaplex_lite.evaluation import origin
from personaplex_lite.evaluation.page import table
from personaplex_lite.model.config import LMConfig, MimiConfig, personaplex_7b
from personaplex_lite.model.lm import LM
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.model.units import FRAME_SAMPLES
from personaplex_lite.places import LITE
from personaplex_lite.talk.reply import Frame
from personaplex_lite.talk.session import Session
from personaplex_lite.weights.checkpoint import Header, read
from personaplex_lite.weights.convert import convert
from personaplex_lite.weights.hub import OFFICIAL
from personaplex_lite.weights.names import lm_names
from personaplex_lite.weights.sizes import to_dict
from personaplex_lite.weights.writer import Writer, save

ROOT = Path(__file__).resolve().parents[1]
NAMES = ROOT / "tests" / "names_full.json"        # every official tensor and its shape
VOICE = "NATF2"
ROLE = "you are anna and you work at a car wash"
VOICE_FRAMES = 12
CONTEXT = 125                                     # 10 s of memory: bf16 and a saved moment fit into 24 GB
GB = 1e9                                          # bytes
ABOUT = """Random weights under the official names: loading, memory and time are those of the real file, the
talk is babble. Every row is a process of its own: load, read a recorded voice and a role, 20 frames of noise,
five of them once more after `restore`. Peaks are of resident memory, libraries and mapped file included. The
error of a map is the largest among five linear maps, against the file, on random input."""


def make(folder: Path, lm: LMConfig, mimi: MimiConfig, tokenizer: Path = LITE / "tokenizer.model") -> Path:
    """Write a checkpoint of random weights in the official layout: one block of noise, begun elsewhere for
    each tensor. A 7B's config gives no sizes, as the hub's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"model_type": "personaplex", "version": "7b-v1"}
    if lm != personaplex_7b()[0]:
        about |= official(lm) | {"mimi": to_dict(mimi)}
    (folder / "config.json").write_text(json.dumps(about))
    dice = torch.Generator().manual_seed(0)
    make_lm(folder / OFFICIAL["moshi_name"], lm, dice)
    torch.manual_seed(0)
    save(Mimi(mimi), folder / OFFICIAL["mimi_name"])
    shutil.copyfile(tokenizer, folder / OFFICIAL["tokenizer_name"])
    make_voice(folder, lm, dice)
    return folder


def make_lm(path: Path, lm: LMConfig, dice: torch.Generator) -> None:
    """Write the language model's file, a tensor at a time."""
    shapes = {name: place.shape for name, place in lm_names(lm).items()}
    tensors = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta")
               for name, shape in shapes.items()}
    block = torch.randn(2**22, generator=dice).bfloat16()
    with Writer(path, tensors) as out:
        for name, tensor in tqdm(tensors.items(), desc=str(path), unit="tensor", leave=False):
            scale = 0.1 if "emb" in name else tensor.shape[-1] ** -0.5
            start = int(torch.randint(len(block), (), generator=dice))
            end = start + tensor.numel()
            if name.endswith("alpha"):                      # of a norm
                out.put(name, torch.ones(tensor.shape).bfloat16())
            else:
                out.put(name, block.repeat(end // len(block) + 1)[start:end] * scale)


def make_voice(folder: Path, lm: LMConfig, dice: torch.Generator) -> None:
    """Write voices.tgz with one voice in the official format."""
    embeddings = torch.randn(VOICE_FRAMES - 1, 1, 1, lm.temporal.dim, generator=dice).bfloat16()
    cache = torch.randint(0, lm.audio_vocab, (1, lm.rows, lm.max_delay + 3), generator=dice)
    cache[:, 0] = lm.pad
    path = folder / f"{VOICE}.pt"
    torch.save({"embeddings": embeddings, "cache": cache}, path)
    with tarfile.open(folder / "voices.tgz", "w:gz") as tar:
        tar.add(path, f"voices/{VOICE}.pt")
    path.unlink()


def official(lm: LMConfig) -> dict:
    """Sizes as an official config gives them (the inverse of LMConfig.from_official)."""
    t = lm.temporal
    d = lm.depth
    return {"dim": t.dim, "num_layers": t.layers, "num_heads": t.heads, "context": t.context,
            "hidden_scale": 1.5 * t.hidden / t.dim, "max_period": t.max_period, "dep_q": lm.depth_steps,
            "depformer_dim": d.dim, "depformer_num_layers": d.layers, "depformer_num_heads": d.heads,
            "depformer_dim_feedforward": 3 * d.hidden // 2, "text_card": lm.text_vocab,
            "card": lm.audio_vocab, "delays": list(lm.delays), "existing_text_padding_id": lm.pad}


def measure(folder: Path, weights: str | None, context: int | None = None) -> dict:
    """Load, check, talk for 20 frames, save, restore. Bytes, seconds, and whether all was as it should be."""
    with Memory() as memory:
        began = time.perf_counter()
        agent = load(folder, weights=weights, context=context)
        loading = time.perf_counter() - began
    print(f"loaded in {loading:.0f} s, peak {memory.peak / GB:.2f} GB", file=sys.stderr)
    parts = (agent.lm, agent.mimi)
    size = sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())
    off = nearest(agent.lm, folder)
    times: list[float] = []
    with Memory() as talking:
        began = time.perf_counter()
        chat = agent.chat(Persona(VOICE, ROLE), seed=1)
        prompt = (time.perf_counter() - began) / chat.calls[0]
        noise = torch.randn(15, FRAME_SAMPLES, generator=torch.Generator().manual_seed(1)) * 0.1
        step(chat, noise[:10], times)
        here = chat.save()
        once = step(chat, noise[10:], times)
        chat.restore(here)
        again = step(chat, noise[10:], times)
    same = [torch.equal(a.codes, b.codes) and torch.equal(a.pcm, b.pcm) for a, b in zip(once, again)]
    return {"weights": weights or "converted",
            "context": agent.lm.config.temporal.context,
            "load_s": loading,
            "prompt_ms": 1e3 * prompt,
            "frames": len(times),
            "frame_ms": 1e3 * sorted(times)[len(times) // 2],
            "model": size,
            "talk": chat.state.nbytes,
            "values": off,
            "restored": all(same),
            "peak_load": memory.peak,
            "peak_anon_load": memory.anonymous,
            "before": memory.before,
            "peak_talk": talking.peak}


def step(chat: Session, sounds: Iterable[torch.Tensor], times: list[float]) -> list[Frame]:
    """A frame for each sound, float32 [1920]; `times` gains the seconds it took."""
    frames = []
    for sound in sounds:
        began = time.perf_counter()
        frames.append(chat.step(sound))
        times.append(time.perf_counter() - began)
    return frames


@torch.no_grad()
def nearest(lm: LM, folder: Path) -> float | None:
    """Largest relative error of some linear maps against the official file's; None if that is not there."""
    path = folder / OFFICIAL["moshi_name"]
    if not path.is_file():
        return None
    places = lm_names(lm.config)
    last = lm.config.temporal.layers - 1
    worst = 0.0
    names = ("transformer.layers.0.self_attn.in_proj_weight", "text_linear.weight",
             f"transformer.layers.{last}.gating.linear_out.weight",
             "depformer.layers.0.gating.0.linear_in.weight",
             f"depformer.layers.0.gating.{lm.config.depth_steps - 1}.linear_out.weight")
    for name, weight in zip(names, read(path, names)):
        place = places[name]
        module = lm.get_submodule(place.name.removesuffix(".weight"))
        x = torch.randn(4, weight.shape[1], dtype=lm.text_embed.dtype)
        y = module(x) if place.part is None else module.at(place.part, x)
        right = F.linear(x.float(), weight.float())
        off = (y.float() - right).norm() / right.norm()
        worst = max(worst, off.item())
    return worst


class Memory:
    """Peaks of this process's resident memory while it lasts, in bytes: all of it, and what no file backs."""

    def __enter__(self) -> Memory:
        Path("/proc/self/clear_refs").write_text("5")        # forget the peak so far
        self.before = status("VmRSS")
        self.anonymous = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        """Look fifty times a second."""
        while not self.done.wait(0.02):
            self.anonymous = max(self.anonymous, status("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.peak = status("VmHWM")


def status(field: str) -> int:
    """A field of this process's status, in bytes."""
    return int(origin.found(rf"{field}:\s+(\d+)", "/proc/self/status")) * 1024


def converting(folder: Path, target: Path, weights: str) -> dict:
    """Convert a folder: seconds, bytes."""
    with Memory() as memory:
        began = time.perf_counter()
        convert(folder, target, weights)
        seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {"weights": weights, "convert_s": seconds, "peak_convert": memory.peak, "size": size}


def names_and_shapes(path: Path) -> str:
    """Compare a file's header with the official list."""
    wanted = json.loads(NAMES.read_text())["personaplex_lm_dep_q16"]
    have = {name: list(shape) for name, shape in Header.of(path).shapes.items()}
    assert have == wanted["tensors"], "the file does not hold the official names and shapes"
    return f"{len(have)} tensors, {path.stat().st_size / GB:.2f} GB, names and shapes as the official file's"


def alone(notes: Path, *job: str) -> dict:
    """One job in a process of its own -> what it printed last, also kept in `notes`: a job is done once."""
    note = notes / f"{'-'.join(job)}.json"
    if not note.exists():
        print("…", *job, file=sys.stderr)
        done = subprocess.run([sys.executable, "-m", "benchmarks.fullsize", *job], cwd=ROOT, check=True,
                              stdout=subprocess.PIPE, text=True)
        notes.mkdir(exist_ok=True)
        note.write_text(done.stdout.splitlines()[-1])
    return json.loads(note.read_text())


def run(folder: Path) -> str:
    """Every job that has not been done yet, then the report. The notes are beside the folder."""
    job = partial(alone, folder.with_name(folder.name + "-notes"))
    rows = [job("talk", weights) for weights in ("bf16", "int8", "int4")]
    made = []
    for weights in ("int4", "int8"):
        made.append(job("convert", weights))
        rows.append(job("talk", weights, "converted"))
        shutil.rmtree(converted(folder, weights), ignore_errors=True)
    report = write(rows, made, names_and_shapes(folder / OFFICIAL["moshi_name"]))
    (ROOT / "docs" / "fullsize.md").write_text(report)
    return report


def converted(folder: Path, weights: str) -> Path:
    """Where the converted folder lies."""
    return folder.with_name(f"{folder.name}-{weights}")


def gb(size: float) -> str:
    """Bytes as GB."""
    return f"{size / GB:.2f}"


def write(rows: list[dict], made: list[dict], file: str) -> str:
    """The report."""
    about = (f"`make fullsize`, {date.today()}, {origin.cpu()}, {os.cpu_count()} cores, "
             f"torch {torch.__version__}. The file: {file}. GB are 10^9 bytes.")
    talks = [("weights", "model", "load", "peak while loading", "beyond the model", "peak in the talk",
              "one talk's memory (frames)", "frame of the prompt", "frame", "error of a map",
              "after restore")]
    talks += [talk_row(found) for found in rows]
    conversions = [("`convert --weights`", "folder", "time", "peak, all in all")]
    for found in made:
        conversions.append((found["weights"], gb(found["size"]), f"{found['convert_s']:.0f} s",
                            gb(found["peak_convert"])))
    return f"# The 7B at full size, here\n\n{ABOUT}\n\n{about}\n\n{table(*talks)}\n{table(*conversions)}"


def talk_row(found: dict) -> tuple[str, ...]:
    """What `measure` found, as a line of the table."""
    error = "" if found["values"] is None else f"{100 * found['values']:.1f} %"
    return (found["weights"],
            gb(found["model"]),
            f"{found['load_s']:.0f} s",
            gb(found["peak_load"]),
            gb(found["peak_load"] - found["model"]),
            gb(found["peak_talk"]),
            f"{gb(found['talk'])} ({found['context']})",
            f"{found['prompt_ms']:.0f} ms",
            f"{found['frame_ms']:.0f} ms",
            error,
            "the same bits" if found["restored"] else "NOT THE SAME")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("benchmarks.fullsize", description=__doc__.split("\n")[0])
    parser.add_argument("job", choices=["make", "run", "talk", "convert"])
    parser.add_argument("weights", nargs="?", help="for talk and convert, which run starts by itself")
    parser.add_argument("converted", nargs="?")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "fullsize")
    a = parser.parse_args(argv)
    if a.job == "make":
        print(make(a.folder, *personaplex_7b()))
    elif a.job == "run":
        print(run(a.folder))
    elif a.job == "convert":
        print(json.dumps(converting(a.folder, converted(a.folder, a.weights), a.weights)))
    elif a.converted:
        found = measure(converted(a.folder, a.weights), None, CONTEXT)
        print(json.dumps(found | {"weights": f"{a.weights}, converted"}))
    else:
        print(json.dumps(measure(a.folder, a.weights, CONTEXT)))


if __name__ == "__main__":
    main()
