"""Does it remember who it is? The same question again and again, until the talk is longer than the memory.

    python -m personaplex_lite.evaluation.recall         docs/memory.png, .json and .md

What departs from the textbook: no perplexity over length. Each persona is asked for one of its facts (its
name, its company, a price) every seven seconds, for two and a half times as long as the model remembers.
Three choices: to forget, `keep_persona=True`, and, as the ceiling, a new chat for every question.
"""
from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from .. import viz
from ..agent import Agent, load
from ..model.units import FRAME_SECONDS
from ..places import DOCS
from ..talk.persona import Persona
from . import seeds
from .judges import right, share
from .origin import about
from .page import put, table
from .quality import codes_of
from .report import KINDS, ask

ASKED = ("name", "company", "price")
PERIOD = 88                          # frames (7 s) from one asking to the next
CHOICES = {"forget (default)": {}, "keep_persona=True": {"keep_persona": True}}
WHAT = ("right", "wrong", "does not know", "silent")


def personas(n: int, voices: list[str]) -> list:
    """n questions of the kinds asked for, known phrasings, held-out facts."""
    some = ask(-(-n // len(ASKED)) * len(KINDS), seeds.DEVELOPMENT, "train", voices)
    return [q for q in some if q.kind in ASKED][:n]


def period(agent: Agent, questions: list) -> torch.Tensor:
    """Codes int64 [b, 8, PERIOD] of a user who asks, and waits until it is time to ask again."""
    codes = codes_of(agent, questions)[..., :PERIOD]
    quiet = torch.tensor(agent.lm.config.silence)[None, :, None].expand(len(codes), -1, PERIOD)
    return torch.cat([codes, quiet[..., codes.shape[-1]:]], -1)


def asked(agent: Agent, questions: list, heard: torch.Tensor, times: int, seeds: list[int],
          **options) -> tuple[list[list[str]], list[float]]:
    """Ask `times` times; what is said after each asking, [times][b], and when a warning came (seconds)."""
    from tqdm import tqdm
    chat = replace(agent, mimi=None).chat([Persona(q.voice, q.role) for q in questions], seeds,
                                          progress=False, **options)
    rows, warned = [], []
    for i in tqdm(range(times * PERIOD), desc=str(options or "default"), mininterval=20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows.append(chat.step(heard[..., i % PERIOD]).codes[:, 0])
        warned += [i * FRAME_SECONDS for w in caught if "forget its persona" in str(w.message)]
    words = [agent.text.words(row.tolist()) for row in torch.stack(rows, 1)]
    length = PERIOD * FRAME_SECONDS
    return [[" ".join(w.text for w in row if k * length <= w.start < (k + 1) * length) for row in words]
            for k in range(times)], warned


def verdict(said: str, question) -> str:
    """One of WHAT."""
    if right(said, question.want):
        return "right"
    return "silent" if not said else "does not know" if "do not know" in said else "wrong"


def measure(agent: Agent, n: int, times: int, fresh: int) -> dict:
    """Verdicts by choice and asking, as counts; when the prompts begin to be lost, when a warning came."""
    questions = personas(n, sorted(agent.voices))
    heard, found = period(agent, questions), {"said": {}, "warned": {}}
    for name, options in CHOICES.items():
        said, warned = asked(agent, questions, heard, times, [q.seed for q in questions], **options)
        found[name] = [Counter(map(verdict, row, questions)) for row in said]
        found["said"][name], found["warned"][name] = said, warned
    ceiling = Counter()
    for i in range(fresh):
        said, _ = asked(agent, questions, heard, 1, [q.seed + 10_000 * (i + 1) for q in questions])
        ceiling += Counter(map(verdict, said[0], questions))
    chat = agent.chat([Persona(q.voice, q.role) for q in questions], [0] * n, progress=False)
    context = agent.lm.config.temporal.context
    found |= {"fresh": ceiling, "n": n, "questions": [(q.kind, q.asked, q.want) for q in questions],
              "prompts": chat.began, "context": context * FRAME_SECONDS,
              "lost from": (context - max(chat.began)) * FRAME_SECONDS}
    return found


def plot(found: dict, path: Path) -> None:
    """Share right against the time talked, with what the model remembers marked."""
    import matplotlib
    matplotlib.use("Agg")
    ax = viz.new_axes(None, 7.5, 3.4)
    styles = {"keep_persona=True": (viz.AGENT, "o", "-"), "forget (default)": (viz.USER, "s", "--")}
    for name, (colour, marker, line) in styles.items():
        figures = [share(c.get("right", 0), sum(c.values())) for c in found[name]]
        times = [(k + 0.5) * PERIOD * FRAME_SECONDS for k in range(len(figures))]
        ax.fill_between(times, [f["low"] for f in figures], [f["high"] for f in figures], color=colour,
                        alpha=0.15, lw=0)
        ax.plot(times, [f["value"] for f in figures], line, color=colour, marker=marker, ms=5, label=name)
    top = found["fresh"]["right"] / max(1, sum(found["fresh"].values()))
    ax.axhline(top, color=viz.INK, ls=":", lw=1.5, label="a new chat for every question")
    ax.axvspan(found["lost from"], found["context"], color=viz.INK, alpha=0.2, lw=0)
    ax.text(found["context"] + 0.5, 1.02, "the persona has left the memory", color=viz.INK, fontsize=8)
    ax.set_ylim(0, 1.1)
    ax.set_xlabel("seconds talked", color=viz.INK, fontsize=8)
    ax.set_ylabel("share of answers that are right", color=viz.INK, fontsize=8)
    ax.legend(frameon=False, labelcolor=viz.INK, fontsize=8, loc="lower left")
    ax.figure.savefig(path, dpi=130)


def page(found: dict) -> str:
    """The table."""
    info, length = found["about"], PERIOD * FRAME_SECONDS
    rows = [("seconds talked", *(f"{n}: {w}" for n in CHOICES for w in WHAT))]
    for k in range(len(found[next(iter(CHOICES))])):
        counts = [found[n][k].get(w, 0) for n in CHOICES for w in WHAT]
        rows.append((f"{k * length:.0f}–{(k + 1) * length:.0f}", *counts))
    top = found["fresh"]
    warned = found["warned"][next(iter(CHOICES))]
    return (f"`lite` {info['lite']}, {found['n']} personas, {info['date']}. The prompts take "
            f"{min(found['prompts'])}–{max(found['prompts'])} frames: their first is overwritten from "
            f"{found['lost from']:.0f} s of talk on, all of them are gone at {found['context']:.0f} s. "
            f"The warning came at {', '.join(f'{t:.0f}' for t in warned) or 'no'} s.\n\n{table(*rows)}\n"
            f"A new chat for every question: {top['right']} of {sum(top.values())} right, "
            f"{top['silent']} silent.\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--personas", type=int, default=16)
    parser.add_argument("--times", type=int, default=14, help="how often each is asked")
    parser.add_argument("--fresh", type=int, default=3, help="new chats for each, the ceiling")
    args = parser.parse_args()
    found = measure(load(), args.personas, args.times, args.fresh) | {"about": about()}
    (DOCS / "memory.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, DOCS / "memory.png")
    put(DOCS / "memory.md", "memory", page(found))


if __name__ == "__main__":
    main()
