"""Does it remember who it is? The same question again and again, until the talk is longer than the memory.

    python -m personaplex_lite.evaluation.recall         docs/memory.png, .json and .md

Each persona is asked for one of its facts (its name, its company, a price) every seven seconds, for two and a
half times as long as the model remembers. Three choices: to forget, `keep_persona=True`, and, as the ceiling,
a new chat for every question.
"""
from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import viz
from ..agent import Agent, load
from ..model.units import FRAME_SECONDS
from ..places import DOCS
from ..talk.persona import Persona
from ..talk.text import Word
from . import seeds
from .judges import HEDGE, right, share
from .origin import about
from .page import put, table
from .questions import KINDS, Question, ask, codes_of, step_through

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ASKED = ("name", "company", "price")
PERIOD = 88                          # frames (7 s) from one asking to the next
SECONDS = PERIOD * FRAME_SECONDS
NEXT_CHAT = 10_000                   # from the seed of one new chat to that of the next
FORGET = "forget (default)"
KEEP = "keep_persona=True"
CHOICES = {FORGET: {}, KEEP: {"keep_persona": True}}
VERDICTS = ("right", "wrong", "does not know", "silent")


def personas(n: int, voices: list[str]) -> list[Question]:
    """n questions of the kinds asked for, known phrasings, held-out facts."""
    rounds = -(-n // len(ASKED))                                # rounded up
    every = ask(rounds * len(KINDS), seeds.DEVELOPMENT, "train", voices)
    return [question for question in every if question.kind in ASKED][:n]


def period(agent: Agent, questions: list[Question]) -> torch.Tensor:
    """Codes int64 [b, 8, PERIOD] of a user who asks, and waits until it is time to ask again."""
    spoken = codes_of(agent, questions)[..., :PERIOD]
    silence = torch.tensor(agent.lm.config.silence)[None, :, None]
    quiet = silence.expand(len(spoken), -1, PERIOD - spoken.shape[-1])
    return torch.cat([spoken, quiet], -1)


def again(heard: torch.Tensor, times: int, label: str) -> Iterator[torch.Tensor]:
    """Codes [b, 8, PERIOD], `times` times over, as frames [b, 8]."""
    from tqdm import tqdm
    for i in tqdm(range(times * PERIOD), desc=label, mininterval=20):
        yield heard[..., i % PERIOD]


def asked(agent: Agent, questions: list[Question], heard: torch.Tensor, times: int, chat_seeds: list[int],
          **options: bool) -> tuple[list[list[str]], list[float]]:
    """Ask `times` times; what is said after each asking, [times][b], and when a warning came (seconds)."""
    rows: list[torch.Tensor] = []
    warned: list[float] = []
    told = 0
    frames = again(heard, times, str(options or "default"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, tokens in enumerate(step_through(agent, questions, frames, chat_seeds, **options)):
            rows.append(tokens[:, 0])
            forgetting = [w for w in caught[told:] if "forget its persona" in str(w.message)]
            warned += [i * FRAME_SECONDS] * len(forgetting)
            told = len(caught)
    text = torch.stack(rows, 1)                                 # [b, times · PERIOD]
    words = [agent.text.words(row.tolist()) for row in text]
    return [[between(row, k * SECONDS, (k + 1) * SECONDS) for row in words] for k in range(times)], warned


def between(words: list[Word], start: float, end: float) -> str:
    """The words that begin from one second on and before another."""
    return " ".join(word.text for word in words if start <= word.start < end)


def verdict(said: str, question: Question) -> str:
    """One of VERDICTS."""
    if right(said, question.want):
        return "right"
    if not said:
        return "silent"
    return "does not know" if HEDGE in said else "wrong"


def measure(agent: Agent, n: int, times: int, fresh: int) -> dict:
    """Verdicts by choice and asking, as counts; when the prompts begin to be lost, when a warning came."""
    questions = personas(n, sorted(agent.voices))
    heard = period(agent, questions)
    found = {"said": {}, "warned": {}}
    for name, options in CHOICES.items():
        chat_seeds = [question.seed for question in questions]
        said, warned = asked(agent, questions, heard, times, chat_seeds, **options)
        found[name] = [Counter(map(verdict, answers, questions)) for answers in said]
        found["said"][name] = said
        found["warned"][name] = warned
    prompts = prompt_frames(agent, questions)
    context = agent.lm.config.temporal.context
    return found | {"fresh": ceiling(agent, questions, heard, fresh),
                    "n": n,
                    "questions": [(question.kind, question.asked, question.want) for question in questions],
                    "prompts": prompts,
                    "context": context * FRAME_SECONDS,
                    "lost from": (context - max(prompts)) * FRAME_SECONDS}


def ceiling(agent: Agent, questions: list[Question], heard: torch.Tensor, fresh: int) -> Counter[str]:
    """Verdicts of `fresh` new chats for every question, which has just been told who it is."""
    counts: Counter[str] = Counter()
    for i in range(fresh):
        chat_seeds = [question.seed + NEXT_CHAT * (i + 1) for question in questions]
        said, _ = asked(agent, questions, heard, 1, chat_seeds)
        counts += Counter(map(verdict, said[0], questions))
    return counts


def prompt_frames(agent: Agent, questions: list[Question]) -> list[int]:
    """How many frames each persona takes."""
    told = [Persona(question.voice, question.role) for question in questions]
    return agent.chat(told, [0] * len(told), progress=False).began


def plot(found: dict, path: Path) -> None:
    """Share right against the time talked, with what the model remembers marked."""
    import matplotlib
    matplotlib.use("Agg")
    ax = viz.new_axes(None, 7.5, 3.4)
    curve(ax, found, KEEP, viz.AGENT, marker="o", line="-")
    curve(ax, found, FORGET, viz.USER, marker="s", line="--")
    top = found["fresh"]["right"] / max(1, sum(found["fresh"].values()))
    ax.axhline(top, color=viz.INK, ls=":", lw=1.5, label="a new chat for every question")
    ax.axvspan(found["lost from"], found["context"], color=viz.INK, alpha=0.2, lw=0)
    ax.text(found["context"] + 0.5, 1.02, "the persona has left the memory", color=viz.INK, fontsize=8)
    ax.set_ylim(0, 1.1)
    ax.set_xlabel("seconds talked", color=viz.INK, fontsize=8)
    ax.set_ylabel("share of answers that are right", color=viz.INK, fontsize=8)
    ax.legend(frameon=False, labelcolor=viz.INK, fontsize=8, loc="lower left")
    ax.figure.savefig(path, dpi=130)


def curve(ax: Axes, found: dict, name: str, colour: str, marker: str, line: str) -> None:
    """One choice: the share right at each asking, with its 95 % interval."""
    figures = [share(counts.get("right", 0), sum(counts.values())) for counts in found[name]]
    middles = [(k + 0.5) * SECONDS for k in range(len(figures))]
    low = [figure["low"] for figure in figures]
    high = [figure["high"] for figure in figures]
    values = [figure["value"] for figure in figures]
    ax.fill_between(middles, low, high, color=colour, alpha=0.15, lw=0)
    ax.plot(middles, values, line, color=colour, marker=marker, ms=5, label=name)


def page(found: dict) -> str:
    """The table."""
    info = found["about"]
    columns = [(name, what) for name in CHOICES for what in VERDICTS]
    rows = [("seconds talked", *(f"{name}: {what}" for name, what in columns))]
    for k in range(len(found[FORGET])):
        counts = [found[name][k].get(what, 0) for name, what in columns]
        rows.append((f"{k * SECONDS:.0f}–{(k + 1) * SECONDS:.0f}", *counts))
    top = found["fresh"]
    warned = ", ".join(f"{second:.0f}" for second in found["warned"][FORGET])
    return (f"`lite` {info['lite']}, {found['n']} personas, {info['date']}. The prompts take "
            f"{min(found['prompts'])}–{max(found['prompts'])} frames: their first is overwritten from "
            f"{found['lost from']:.0f} s of talk on, all of them are gone at {found['context']:.0f} s. "
            f"The warning came at {warned or 'no'} s.\n\n{table(*rows)}\n"
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
