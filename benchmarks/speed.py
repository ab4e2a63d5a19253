"""Ours against the public implementations: the same random weights, one run, turn by turn, as ratios.

    python -m benchmarks.speed setup       the public packages, into runs/official
    python -m benchmarks.speed             everything below, into docs/speed.md (about 15 minutes)
    python -m benchmarks.speed --full F    and a frame at full size, F made by `benchmarks.fullsize make`

What departs from the textbook: nothing is timed alone. The sides take turns (pipe.py), a ratio is taken
within each turn, and what counts is the median of those: a busy machine slows both. Before a clock starts,
both sides must have given the same integers.
"""
from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import torch

from benchmarks import fullsize
from benchmarks.pipe import ROOT, Side, setup
from benchmarks.report import Report, ratio, spread, write
from personaplex_lite.evaluation.page import table
from personaplex_lite.model.config import LMConfig, TransformerConfig, personaplex_7b
from personaplex_lite.model.lm import LM
from personaplex_lite.places import LITE
from personaplex_lite.weights.hub import OFFICIAL

BENCH = ROOT / "runs" / "bench"
MIDDLE = LMConfig(temporal=TransformerConfig(1024, 8, 16, 2816, 3000))
BYTES = {"f32": 4, "bf16": 2, "int8": 1, "int4": 0.625}     # of a weight that quantising touches
READ = "ours memory f32"                                    # sums 256 MB: how fast weights can be read
LM_HEAD = ("side", "weights", "frame, ms", "temporal", "depth", "ours / moshi", "GB read", "times the floor")


def gb_read(sizes, kind: str) -> float:
    """GB of weights that one frame of an LM needs: half the depth steps; heads are never quantised."""
    with torch.device("meta"):
        model = LM(sizes)
    part, d = sizes.codebooks / sizes.depth_steps, model.depth
    heads = sizes.depth_steps * sizes.audio_vocab * sizes.depth.dim
    tables = d.text_embed.numel() + d.audio_embed.numel()
    depth = sum(p.numel() for p in d.parameters()) - tables - heads
    maps = sum(p.numel() for p in model.temporal.parameters()) + part * depth
    return (maps * BYTES[kind] + (model.text_head.weight.numel() + part * heads) * max(2, BYTES[kind])) / 1e9


def turns(sides: list[Side], rounds: int, frames: int) -> dict[str, dict[str, list[float]]]:
    """ms by side and stage, one median for each turn. Who begins changes from turn to turn."""
    for side in sides:
        side.ask("frames", n=4)
    took = {side.label: {} for side in sides}
    for i in range(rounds):
        for side in sides[::(-1) ** i]:
            seen = side.ask("frames", n=frames)
            for stage in seen[-1]:
                took[side.label].setdefault(stage, []).append(median(f[stage] for f in seen if stage in f))
    return took


def same(what: str, ours, theirs) -> None:
    if ours != theirs:
        raise SystemExit(f"{what}: the sides disagree, so there is nothing to compare: {ours} and {theirs}")


def mimi(report: Report, folder: Path, sizes) -> None:
    """Streaming, one conversation, 80 ms at a time; first with every thread, then with one."""
    rows = [("threads", "side", "encode, ms a frame", "decode", "together", "ours / theirs")]
    for threads in (report.threads, 1):
        with ExitStack() as stack:
            names = ("ours mimi", "moshi mimi", "transformers mimi")
            path = folder / OFFICIAL["mimi_name"]
            sides = [s for n in names if (s := report.start(stack, n, path, sizes, threads=threads))]
            ours, *peers = [side.ask("tokens", frames=6) for side in sides]
            for theirs, side in zip(peers, sides[1:]):
                same(f"Mimi's codes, {side.label}", ours["codes"], theirs["codes"])
                off = (torch.tensor(ours["pcm"][0]) - torch.tensor(theirs["pcm"][0])).abs().max()
                same(f"Mimi's first frame of sound to 1e-4, {side.label}", bool(off < 1e-4), True)
            took = turns(sides, report.rounds, report.frames)
            both = {label: [a + b for a, b in zip(t["encode"], t["decode"])] for label, t in took.items()}
            mine = both["ours mimi f32"]
            for label, t in took.items():
                against = ratio(mine, both[label])
                rows.append((threads, label.split()[0], spread(t["encode"]), spread(t["decode"]),
                             spread(both[label]), spread(against, 2) if both[label] is not mine else ""))
                if threads == report.threads and "moshi" in label:
                    report.goal("Mimi, encode + decode, of moshi's time", median(against), 0.5, "×")
            report.profile(sides[0], f"Mimi, {threads} thread(s)")
            if threads == report.threads:
                report.goal("Mimi, encode + decode", median(mine), 80, "ms a frame")
                for side in sides:
                    report.loaded(side)
    report.section("Mimi, full size, streaming", table(*rows) + "\nThe codes were equal on all sides. "
                   "`transformers` cannot stream its decoder's convolutions: its decode is one frame without "
                   "their past: less work than a stream, and other sound after the first frame.\n")


def lm(report: Report, folder: Path, sizes, name: str, kinds: tuple[str, ...], needs: float) -> None:
    """One frame of a conversation: ours with the user's codes given, theirs with every depth step it has."""
    wide, path = "f32" if "f32" in kinds else "bf16", folder / OFFICIAL["moshi_name"]
    with ExitStack() as stack:
        peers = [report.start(stack, "moshi lm", path, sizes, wide, needs=needs)]
        ours = [report.start(stack, "ours lm", path, sizes, kind, needs=needs / 2) for kind in kinds]
        peers, ours = ([side for side in some if side] for some in (peers, ours))
        if not ours:
            return report.section(f"LM, {name}", " ".join(report.memory[-1]) + "\n")
        agreed = agree(peers[0], ours[0], wide) if peers else "There was nobody to compare with."
        reader = stack.enter_context(Side("ours memory", report.threads, ""))
        took = turns([*peers, *ours, reader], report.rounds, max(2, report.frames // 3))
        rows = lm_rows(report, name, took, sizes)
        for side in [*peers, *ours]:
            report.loaded(side)
        report.profile(ours[0], f"LM, {name}, {wide}")
        ours[0].ask("age")
        late = turns([*peers, ours[0], reader], max(2, report.rounds // 3), 2)
        rows += [(f"{row[0]}, after 240 s", *row[1:-1], "") for row in lm_rows(None, name, late, sizes)[-1:]]
    report.section(f"LM, {name}, {wide}", table(LM_HEAD, *rows) + f"\n{agreed} {floor(took)}\n")


def floor(took: dict) -> str:
    return f"Floor: what a frame reads, at the {256 / median(took[READ]['read']):.1f} GB/s of the same turns."


def lm_rows(report: Report | None, name: str, took: dict, sizes) -> list[tuple]:
    theirs, rows = next((t["frame"] for label, t in took.items() if "moshi" in label), None), []
    for label, t in took.items():
        (who, _, kind), against, gb, far = label.split(), "", "", ""
        if label == READ:
            continue
        if who == "ours":
            gb = gb_read(sizes, kind)
            far = spread([f / (gb / 0.256 * read) for f, read in zip(t["frame"], took[READ]["read"])])
            if theirs:
                against = ratio(t["frame"], theirs)
                if report and (most := {"bf16": 0.4, "int8": 0.25}.get(kind)):
                    report.goal(f"LM, {name}, {kind}, of moshi's bf16 time", median(against), most, "×")
                against = spread(against, 2)
            gb = f"{gb:.2f}"
        rows.append((who, kind, *(spread(t[s]) for s in ("frame", "temporal", "depth")), against, gb, far))
    return rows


def agree(theirs: Side, ours: Side, weights: str) -> str:
    """Greedy and free-running both must say the same; ours again when it only hears theirs' user."""
    want, free = ([f for f in side.ask("tokens", frames=8) if f] for side in (theirs, ours))
    n = min(len(want), len(free))
    if weights != "f32":
        first = sum(a == b for a, b in zip(want[0], free[0]))
        return f"First greedy frame: {first} of 17 tokens as moshi's (both round; at f32 all are equal)."
    same("LM, free-running", free[:n], want[:n])
    heard = [f for f in ours.ask("tokens", frames=n, user=[[0] * 8, *(f[9:] for f in want)]) if f]
    same("LM, live", [f[:9] for f in heard], [f[:9] for f in want[:len(heard)]])
    return f"All tokens of {n} greedy frames equal moshi's; told its user's codes, ours of {len(heard)} too."

def full(report: Report, folder: Path, sizes) -> None:
    """Two of these do not fit into one memory: each side is loaded, stepped and dropped, twice."""
    took, path = {}, folder / OFFICIAL["moshi_name"]
    needs = ("moshi lm", "bf16", 20), ("ours lm", "bf16", 19), ("ours lm", "int8", 12), ("ours lm", "int4", 9)
    for _ in range(2):
        for name, kind, gb in needs:
            with ExitStack() as stack:
                if side := report.start(stack, name, path, sizes, kind, needs=gb):
                    reader = stack.enter_context(Side("ours memory", report.threads, ""))
                    for label, stages in turns([side, reader], 1, 3).items():
                        for stage, values in stages.items():
                            took.setdefault(label, {}).setdefault(stage, []).extend(values)
                    report.loaded(side)
    text = table(LM_HEAD, *lm_rows(report, "full size", took, sizes)) + f"\n{floor(took)}\n" if took else ""
    report.section("LM, full size", text or "Not measured: see the table of memory.\n")


def lite(report: Report) -> None:
    """The shipped model, one conversation: stages of a frame against 80 ms."""
    stages, rows = ("ears", "grid", "temporal", "depth", "mouth", "frame"), []
    for threads in (report.threads, 1):
        with Side("ours lite", threads, LITE) as side:
            (took,) = turns([side], report.rounds, report.frames).values()
            share = [ms / 0.8 for ms in took["frame"]]
            rows.append((threads, *(spread(took[stage]) for stage in stages), spread(share)))
            report.profile(side, f"`lite`, {threads} thread(s)")
            report.goal(f"`lite`, one conversation, {threads} thread(s)", median(share), 25,
                        "% of real time")
    report.section("`lite`, one conversation", table(("threads", *stages, "% of 80 ms"), *rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["run", "setup"], default="run")
    parser.add_argument("--full", type=Path, help="a full-size folder")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=6, help="in a turn")
    args = parser.parse_args()
    if args.what == "setup":
        return setup()
    _, codec = personaplex_7b()
    if not BENCH.is_dir():
        fullsize.make(BENCH, MIDDLE, codec)
    report = Report(args.rounds, args.frames, os.cpu_count() or 1)
    quantised = ("bf16", "int8", "int4")
    parts = [("Mimi", lambda: mimi(report, BENCH, codec)),
             ("LM at f32", lambda: lm(report, BENCH, MIDDLE, "d 1024, 8 layers", ("f32",), needs=14)),
             ("LM", lambda: lm(report, BENCH, MIDDLE, "d 1024, 8 layers", quantised, needs=10)),
             ("`lite`", lambda: lite(report)),
             *([("LM, full size", lambda: full(report, args.full, LMConfig()))] if args.full else [])]
    for name, measure in parts:
        try:
            measure()
        except (RuntimeError, OSError) as error:       # a side that died, of memory for one
            report.section(name, f"Not measured: {error}\n")
        write("speed", "Speed", report.page())


if __name__ == "__main__":
    main()
