"""Ours against the public implementations: the same random weights, one run, turn by turn, as ratios.

    python -m benchmarks.speed setup       the public packages, into runs/official
    python -m benchmarks.speed             everything below, into docs/speed.md (about 15 minutes)
    python -m benchmarks.speed --full F    and a frame at full size, F made by `benchmarks.fullsize make`

Nothing is timed alone. The sides take turns (pipe.py), a ratio is taken
within each turn, and what counts is the median of those: a busy machine slows both. Before a clock starts,
both sides must have given the same integers.
"""
from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks import fullsize
from benchmarks.pipe import ROOT, Side, setup
from benchmarks.report import Report, ratio, spread, write
from personaplex_lite.evaluation.page import table
from personaplex_lite.model.config import LMConfig, MimiConfig, TransformerConfig, personaplex_7b
from personaplex_lite.model.lm import LM
from personaplex_lite.model.units import FRAME_SECONDS
from personaplex_lite.places import LITE
from personaplex_lite.weights.hub import OFFICIAL

BENCH = ROOT / "runs" / "bench"
MIDDLE = LMConfig(temporal=TransformerConfig(1024, 8, 16, 2816, 3000))
BYTES = {"f32": 4, "bf16": 2, "int8": 1, "int4": 0.625}     # of a weight that quantising touches
READ = "ours memory f32"                                    # sums 256 MB: how fast weights can be read
READ_GB = 0.256
AGREED = 1e-4                                               # how far two codecs' first sound may lie apart
WANTED = {"bf16": 0.4, "int8": 0.25}                        # goals: of moshi's time
NEEDS = (("moshi lm", "bf16", 20), ("ours lm", "bf16", 19), ("ours lm", "int8", 12), ("ours lm", "int4", 9))
STAGES = ("ears", "grid", "temporal", "depth", "mouth", "frame")
MIMI_HEAD = ("threads", "side", "encode, ms a frame", "decode", "together", "ours / theirs")
LM_HEAD = ("side", "weights", "frame, ms", "temporal", "depth", "ours / moshi", "GB read", "times the floor")

Took = dict[str, dict[str, list[float]]]                    # ms by side and stage, one for each turn


class Row(NamedTuple):
    """A line of the table of LMs (LM_HEAD): median ms and their spread, as text."""
    side: str
    weights: str
    frame: str
    temporal: str
    depth: str
    against: str = ""           # moshi's
    gb: str = ""                # that a frame reads
    floors: str = ""            # times what reading them takes


def gb_read(sizes: LMConfig, kind: str) -> float:
    """GB of weights that one frame of an LM needs: half the depth steps; heads are never quantised."""
    with torch.device("meta"):
        model = LM(sizes)
    steps = sizes.codebooks / sizes.depth_steps             # the share of depth steps that run
    heads = sizes.depth_steps * sizes.audio_vocab * sizes.depth.dim
    tables = model.depth.text_embed.numel() + model.depth.audio_embed.numel()       # looked up, not read
    depth = sum(weight.numel() for weight in model.depth.parameters()) - tables - heads
    temporal = sum(weight.numel() for weight in model.temporal.parameters())
    quantised = (temporal + steps * depth) * BYTES[kind]
    plain = (model.text_head.weight.numel() + steps * heads) * max(2, BYTES[kind])
    return (quantised + plain) / 1e9


def turns(sides: list[Side], rounds: int, frames: int) -> Took:
    """ms by side and stage, one median for each turn. Who begins changes from turn to turn."""
    for side in sides:
        side.ask("frames", n=4)                             # to warm up
    took: Took = {side.label: {} for side in sides}
    for i in range(rounds):
        for side in sides[::(-1) ** i]:
            seen = side.ask("frames", n=frames)
            for stage in seen[-1]:
                ms = median(frame[stage] for frame in seen if stage in frame)
                took[side.label].setdefault(stage, []).append(ms)
    return took


def same(what: str, ours: object, theirs: object) -> None:
    """Raises SystemExit unless both sides said the same."""
    if ours != theirs:
        raise SystemExit(f"{what}: the sides disagree, so there is nothing to compare: {ours} and {theirs}")


def mimi(report: Report, folder: Path, sizes: MimiConfig) -> None:
    """Streaming, one conversation, 80 ms at a time; first with every thread, then with one."""
    rows = [MIMI_HEAD]
    for threads in (report.threads, 1):
        with ExitStack() as stack:
            sides = codecs(report, stack, folder / OFFICIAL["mimi_name"], sizes, threads)
            same_codecs(sides)
            took = turns(sides, report.rounds, report.frames)
            both = {label: [heard + spoken for heard, spoken in zip(stages["encode"], stages["decode"])]
                    for label, stages in took.items()}
            rows += mimi_rows(threads, took, both)
            mimi_goals(report, threads, both)
            report.profile(sides[0], f"Mimi, {threads} thread(s)")
            if threads == report.threads:
                for side in sides:
                    report.loaded(side)
    report.section("Mimi, full size, streaming", table(*rows) + "\nThe codes were equal on all sides. "
                   "`transformers` cannot stream its decoder's convolutions: its decode is one frame without "
                   "their past: less work than a stream, and other sound after the first frame.\n")


def codecs(report: Report, stack: ExitStack, path: Path, sizes: MimiConfig, threads: int) -> list[Side]:
    """Ours, then those of the public ones that are here."""
    sides = []
    for name in ("ours mimi", "moshi mimi", "transformers mimi"):
        side = report.start(stack, name, path, sizes, threads=threads)
        if side:
            sides.append(side)
    return sides


def same_codecs(sides: list[Side]) -> None:
    """Raises SystemExit unless all codes are ours, and the first frame of sound nearly so."""
    ours, *peers = [side.ask("tokens", frames=6) for side in sides]
    for side, theirs in zip(sides[1:], peers):
        same(f"Mimi's codes, {side.label}", ours["codes"], theirs["codes"])
        off = (torch.tensor(ours["pcm"][0]) - torch.tensor(theirs["pcm"][0])).abs().max()
        same(f"Mimi's first frame of sound to {AGREED:g}, {side.label}", bool(off < AGREED), True)


def mimi_rows(threads: int, took: Took, both: dict[str, list[float]]) -> list[tuple]:
    """A row for each side; both : encode and decode together."""
    mine = both["ours mimi f32"]
    rows = []
    for label, stages in took.items():
        against = "" if both[label] is mine else spread(ratio(mine, both[label]), 2)
        rows.append((threads, label.split()[0], spread(stages["encode"]), spread(stages["decode"]),
                     spread(both[label]), against))
    return rows


def mimi_goals(report: Report, threads: int, both: dict[str, list[float]]) -> None:
    """With all threads: half of moshi's time, and a frame within its 80 ms."""
    if threads != report.threads:
        return
    mine = both["ours mimi f32"]
    for label, theirs in both.items():
        if "moshi" in label:
            against = median(ratio(mine, theirs))
            report.goal("Mimi, encode + decode, of moshi's time", against, 0.5, "×")
    report.goal("Mimi, encode + decode", median(mine), 80, "ms a frame")


def lm(report: Report, folder: Path, sizes: LMConfig, name: str, kinds: tuple[str, ...],
       needs: float) -> None:
    """One frame of a conversation: ours with the user's codes given, theirs with every depth step it has."""
    wide = "f32" if "f32" in kinds else "bf16"
    path = folder / OFFICIAL["moshi_name"]
    with ExitStack() as stack:
        started = [report.start(stack, "moshi lm", path, sizes, wide, needs=needs)]
        peers = [side for side in started if side]
        started = [report.start(stack, "ours lm", path, sizes, kind, needs=needs / 2) for kind in kinds]
        ours = [side for side in started if side]
        if not ours:
            report.section(f"LM, {name}", " ".join(report.memory[-1]) + "\n")
            return
        agreed = agree(peers[0], ours[0], wide) if peers else "There was nobody to compare with."
        reader = stack.enter_context(Side("ours memory", report.threads, ""))
        took = turns([*peers, *ours, reader], report.rounds, max(2, report.frames // 3))
        rows = lm_rows(took, sizes)
        lm_goals(report, name, took)
        for side in [*peers, *ours]:
            report.loaded(side)
        report.profile(ours[0], f"LM, {name}, {wide}")
        # and once more, as if the talk had filled the ring
        ours[0].ask("age")
        late = turns([*peers, ours[0], reader], max(2, report.rounds // 3), 2)
        rows.append(aged(lm_rows(late, sizes)[-1]))
    report.section(f"LM, {name}, {wide}", table(LM_HEAD, *rows) + f"\n{agreed} {floor(took)}\n")


def aged(row: Row) -> Row:
    """A row of a talk that is 240 s old; the floor counts weights alone, not a full ring."""
    return row._replace(side=f"{row.side}, after 240 s", floors="")


def floor(took: Took) -> str:
    """How fast the weights could be read at most, for people."""
    speed = READ_GB * 1000 / median(took[READ]["read"])
    return f"Floor: what a frame reads, at the {speed:.1f} GB/s of the same turns."


def of_moshi(took: Took) -> list[float] | None:
    """ms of moshi's frames; None if it is not here."""
    for label, stages in took.items():
        if "moshi" in label:
            return stages["frame"]
    return None


def lm_rows(took: Took, sizes: LMConfig) -> list[Row]:
    """A row for each side; of ours the time against moshi's, and against reading the weights once."""
    theirs = of_moshi(took)
    rows = []
    for label, stages in took.items():
        if label == READ:
            continue
        who, _, kind = label.split()
        row = Row(who, kind, spread(stages["frame"]), spread(stages["temporal"]), spread(stages["depth"]))
        if who == "ours":
            gb = gb_read(sizes, kind)
            reading = [gb / READ_GB * ms for ms in took[READ]["read"]]
            against = spread(ratio(stages["frame"], theirs), 2) if theirs else ""
            row = row._replace(against=against, gb=f"{gb:.2f}",
                               floors=spread(ratio(stages["frame"], reading)))
        rows.append(row)
    return rows


def lm_goals(report: Report, name: str, took: Took) -> None:
    """Ours against moshi's bf16, where it is here."""
    theirs = of_moshi(took)
    for label, stages in took.items():
        who, _, kind = label.split()
        if theirs and who == "ours" and kind in WANTED:
            against = median(ratio(stages["frame"], theirs))
            report.goal(f"LM, {name}, {kind}, of moshi's bf16 time", against, WANTED[kind], "×")


def agree(theirs: Side, ours: Side, weights: str) -> str:
    """Greedy and free-running both must say the same; ours again when it only hears theirs' user."""
    want = spoken(theirs.ask("tokens", frames=8))
    free = spoken(ours.ask("tokens", frames=8))
    n = min(len(want), len(free))
    if weights != "f32":
        first = sum(a == b for a, b in zip(want[0], free[0]))
        return f"First greedy frame: {first} of 17 tokens as moshi's (both round; at f32 all are equal)."
    same("LM, free-running", free[:n], want[:n])
    told = [[0] * 8, *(frame[9:] for frame in want)]        # the user's codes, one frame behind
    heard = spoken(ours.ask("tokens", frames=n, user=told))
    same("LM, live", [frame[:9] for frame in heard], [frame[:9] for frame in want[:len(heard)]])
    return f"All tokens of {n} greedy frames equal moshi's; told its user's codes, ours of {len(heard)} too."


def spoken(frames: list[list[int] | None]) -> list[list[int]]:
    """Frames without those of the beginning, in which nothing is said yet."""
    return [frame for frame in frames if frame]


def full(report: Report, folder: Path, sizes: LMConfig) -> None:
    """Two of these do not fit into one memory: each side is loaded, stepped and dropped, twice."""
    took: Took = {}
    path = folder / OFFICIAL["moshi_name"]
    for name, kind, gb in NEEDS * 2:
        with ExitStack() as stack:
            side = report.start(stack, name, path, sizes, kind, needs=gb)
            if side is None:
                continue
            reader = stack.enter_context(Side("ours memory", report.threads, ""))
            for label, stages in turns([side, reader], 1, 3).items():
                for stage, values in stages.items():
                    took.setdefault(label, {}).setdefault(stage, []).extend(values)
            report.loaded(side)
    if not took:
        report.section("LM, full size", "Not measured: see the table of memory.\n")
        return
    lm_goals(report, "full size", took)
    report.section("LM, full size", table(LM_HEAD, *lm_rows(took, sizes)) + f"\n{floor(took)}\n")


def lite(report: Report) -> None:
    """The shipped model, one conversation: stages of a frame against 80 ms."""
    rows = []
    for threads in (report.threads, 1):
        with Side("ours lite", threads, LITE) as side:
            (took,) = turns([side], report.rounds, report.frames).values()
            percent = [ms / FRAME_SECONDS / 10 for ms in took["frame"]]
            rows.append((threads, *(spread(took[stage]) for stage in STAGES), spread(percent)))
            report.profile(side, f"`lite`, {threads} thread(s)")
            report.goal(f"`lite`, one conversation, {threads} thread(s)", median(percent), 25,
                        "% of real time")
    report.section("`lite`, one conversation", table(("threads", *STAGES, "% of 80 ms"), *rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["run", "setup"], default="run")
    parser.add_argument("--full", type=Path, help="a full-size folder")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=6, help="in a turn")
    args = parser.parse_args()
    if args.what == "setup":
        setup()
        return
    _, codec = personaplex_7b()
    if not BENCH.is_dir():
        fullsize.make(BENCH, MIDDLE, codec)
    report = Report(args.rounds, args.frames, os.cpu_count() or 1)
    middle = "d 1024, 8 layers"
    quantised = ("bf16", "int8", "int4")
    parts = [("Mimi", lambda: mimi(report, BENCH, codec)),
             ("LM at f32", lambda: lm(report, BENCH, MIDDLE, middle, ("f32",), needs=14)),
             ("LM", lambda: lm(report, BENCH, MIDDLE, middle, quantised, needs=10)),
             ("`lite`", lambda: lite(report))]
    if args.full:
        parts.append(("LM, full size", lambda: full(report, args.full, LMConfig())))
    for name, measure in parts:
        try:
            measure()
        except (RuntimeError, OSError) as error:       # a side that died, of memory for one
            report.section(name, f"Not measured: {error}\n")
        write("speed", "Speed", report.page())


if __name__ == "__main__":
    main()
