"""What small weights cost `lite`: held-out dialogues, teacher-forced; then questions, answered aloud.

    python -m personaplex_lite.evaluation.quality        docs/quality.json, and tables in docs/quantize.md

A frame is a word, a semantic and seven acoustic codes, so each has its own cross-entropy; what counts in the
end is whether answers stay right.
"""
from __future__ import annotations

import argparse
import json
import math
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..agent import Agent, load
from ..model.depth import PerStep
from ..model.grid import delay
from ..model.lm import LM
from ..places import DOCS
from ..training.dialogue import Dialogue, Library
from ..training.talks import Dialogues
from . import seeds
from .judges import hear, right, share, speech_figures
from .origin import about
from .page import put, table
from .questions import Question, ask, codes_of, sound_of, step_through

KINDS = ("f32", "bf16", "fp16", "int8", "int4")
LISTENED = ("bf16", "int8", "int4")                      # whose answers whisper may hear
ROWS = ("text", "word", "semantic", "acoustic")          # text: every frame's token; word: where one is due
WHOLE = (1.0,)
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
VARIANTS = {"int4, groups of 32": (32, WHOLE),           # name -> numbers in a group, how it may be shrunk
            "int4, groups of 64": (64, WHOLE),
            "int4, groups of 128": (128, WHOLE),
            "int4, groups of 32, clipped": (32, SHRINKS),
            "int4, groups of 64, clipped": (64, SHRINKS)}
LEVELS = 15                                              # steps between the 16 numbers of int4
FRAMES = 320                                             # of a dialogue
SETS = ((seeds.DEVELOPMENT, "train"), (seeds.DEVELOPMENT + 1, "test"))      # questions: seed, phrasing

Forced = dict[str, tuple[torch.Tensor, torch.Tensor]]    # row -> nats [n], most likely token [n]
Spoken = list[tuple[str, torch.Tensor]]                  # text, codes int64 [8, t]


def dialogues(agent: Agent, folder: Path, n: int, frames: int = FRAMES) -> list[Dialogue]:
    """n conversations of held-out facts, phrasings and clips. Raises ValueError if not of this codec."""
    config = agent.lm.config
    with np.load(folder.parent / "rooms.npz") as rooms:
        if tuple(rooms["silence"]) != config.silence or tuple(rooms["sine"]) != config.sine:
            raise ValueError(f"{folder} was encoded by another codec: encode it anew (train encode)")
    draw = Dialogues(Library(folder), agent.text, config, "test")
    return [draw.sample(Random(f"{seeds.DEVELOPMENT} {i}"), frames) for i in range(n)]


@torch.no_grad()
def forced(lm: LM, talk: Dialogue) -> Forced:
    """One dialogue, teacher-forced: nats and most likely tokens by row; codes only where it speaks."""
    c = lm.config
    columns = delay(torch.from_numpy(talk.frames)[None], c).transpose(1, 2)        # [1, 1 + t, 17]
    hidden = lm.hidden(columns[:, :-1])[0]                                         # [t, dim]
    then = columns[0, 1:]                                                          # [t, 17]
    live = torch.from_numpy(talk.loss)
    speaks = live & torch.from_numpy(talk.speaks)
    word = live & (then[:, 0] != c.pad)
    text = lm.text_head(hidden).float()
    codes = then[speaks, c.agent]                                                  # [n, 8]
    audio = lm.depth(hidden[speaks], then[speaks, 0], codes).float()               # [n, 8, vocab]
    parts = {"text": (text[live], then[live, 0]),
             "word": (text[word], then[word, 0]),
             "semantic": (audio[:, 0], codes[:, 0]),
             "acoustic": (audio[:, 1:].flatten(0, 1), codes[:, 1:].flatten())}
    found = {}
    for row, (logits, target) in parts.items():
        nats = F.cross_entropy(logits, target, reduction="none")
        found[row] = (nats, logits.argmax(-1))
    return found


def judged(seen: list[Forced], base: list[Forced] | None) -> dict[str, dict]:
    """Cross-entropy by row; against `base` its change (± error over dialogues) and tokens in common."""
    found = {}
    for row in ROWS:
        nats = torch.cat([talk[row][0] for talk in seen])
        found[row] = {"nats": nats.mean().item(), "n": len(nats)}
        if base is None:
            continue
        pairs = [(talk[row], other[row]) for talk, other in zip(seen, base)]
        change = torch.stack([(mine - theirs).sum() for (mine, _), (theirs, _) in pairs])   # [dialogues]
        same = torch.cat([mine == theirs for (_, mine), (_, theirs) in pairs])
        found[row] |= {"change": (change.sum() / len(nats)).item(),
                       "agree": same.float().mean().item(),
                       "error": (change.std() * math.sqrt(len(change)) / len(nats)).item()}
    return found


def grouped(weight: torch.Tensor, size: int, shrinks: tuple[float, ...] = WHOLE) -> torch.Tensor:
    """int4 in groups of `size` (or what divides the inputs), there and back: float [o, i] -> [o, i].

    Each group's range is shrunk by the factor that leaves the smallest squared error. The stored format
    stays what it is: steps and middles in bf16.
    """
    groups = weight.float().view(len(weight), -1, math.gcd(size, weight.shape[1]))      # [o, g, size]
    low, high = groups.aminmax(dim=-1, keepdim=True)
    centre = (high + low) / 2
    tried = []
    for shrink in shrinks:
        reach = (high - low) * shrink / 2
        step = (reach.clamp(min=1e-12) * 2 / LEVELS).bfloat16().float()
        middle = (centre - reach + 8 * step).bfloat16().float()
        stored = ((groups - middle) / step + 8).round().clamp(0, LEVELS)
        tried.append((stored - 8) * step + middle)
    off = torch.stack([(again - groups).square().sum(-1) for again in tried])           # [tries, o, g]
    best = off.argmin(0)[None, ..., None].expand(1, *groups.shape)
    return torch.stack(tried).gather(0, best)[0].flatten(1)


@torch.no_grad()
def rounded(lm: LM, size: int, shrinks: tuple[float, ...]) -> LM:
    """A copy of an LM whose transformers' maps went through `grouped`."""
    lm = deepcopy(lm)
    for owner in [*lm.temporal.modules(), *lm.depth.modules()]:
        for name, child in owner.named_children():
            if not isinstance(child, (nn.Linear, PerStep)) or name == "heads":
                continue
            for matrix in child.weight.view(-1, *child.weight.shape[-2:]):
                matrix.copy_(grouped(matrix, size, shrinks))
    return lm


def answers(agent: Agent, questions: list[Question], heard: torch.Tensor) -> Spoken:
    """(text, codes int64 [8, t]) of each answer to codes [b, 8, t], with the checkpoint's own sampling."""
    seeds_of = [question.seed for question in questions]
    said = torch.stack(list(step_through(agent, questions, heard.unbind(-1), seeds_of)), -1)    # [b, 17, t]
    found = []
    for tokens in said:
        words = agent.text.words(tokens[0].tolist())
        text = " ".join(word.text for word in words)
        found.append((text, tokens[agent.lm.config.agent]))
    return found


def lite(args: argparse.Namespace) -> dict[str, dict]:
    """Every figure of the shipped model, by kind of weights."""
    agents = {kind: load(weights=kind) for kind in KINDS}
    found = in_dialogues(agents, args.clips, args.talks)
    spoken = in_questions(agents, args.questions, args.listen)
    for kind, figures in spoken.items():
        found[kind]["answers"] = figures
    return found


def in_dialogues(agents: dict[str, Agent], clips: Path, n: int) -> dict[str, dict]:
    """Cross-entropies of n dialogues, of every kind of weights and of int4 in other groups, against bf16."""
    plain = agents["bf16"]
    talks = dialogues(plain, clips, n)
    base = [forced(plain.lm, talk) for talk in talks]
    found = {}
    for name in (*KINDS, *VARIANTS):
        lm = agents[name].lm if name in agents else rounded(plain.lm, *VARIANTS[name])
        found[name] = {"forced": judged([forced(lm, talk) for talk in talks], base)}
        if name in agents:
            found[name]["MB"] = sum(tensor.nbytes for tensor in lm.state_dict().values()) / 1e6
        print(name, found[name], flush=True)
    return found


class Given(NamedTuple):
    """What one kind of weights answers to all questions, and which of it is right."""
    said: Spoken
    hits: list[bool]


def in_questions(agents: dict[str, Agent], n: int, listen: int) -> dict[str, dict]:
    """Right answers to n questions of each set, by kind of weights, against f32; whisper hears `listen`."""
    plain = agents["bf16"]
    sets = [ask(n, seed, phrasing, sorted(plain.voices)) for seed, phrasing in SETS]
    heard = [codes_of(plain, questions) for questions in sets]
    first: Given | None = None
    found = {}
    for kind in KINDS:
        said: Spoken = []
        hits: list[bool] = []
        for questions, codes in zip(sets, heard):
            given = answers(agents[kind], questions, codes)
            said += given
            hits += [right(text, question.want) for (text, _), question in zip(given, questions)]
        first = first or Given(said, hits)
        found[kind] = share(sum(hits), len(hits)) | against(Given(said, hits), first)
        if listen and kind in LISTENED:
            pairs = [(text, hear(sound_of(plain, codes))) for text, codes in said[:listen]]
            found[kind]["understood"] = speech_figures(pairs)["words understood"]
        print(kind, found[kind], flush=True)
    return found


def against(mine: Given, first: Given) -> dict[str, int]:
    """How many answers are the same words as f32's, how many are right only here, how many only there."""
    texts = zip(mine.said, first.said)
    both = list(zip(mine.hits, first.hits))
    return {"as f32": sum(text == other for (text, _), (other, _) in texts),
            "gained": sum(hit and not other for hit, other in both),
            "lost": sum(other and not hit for hit, other in both)}


def page(data: dict) -> str:
    """Both tables."""
    found, info = data["found"], data["about"]
    rows = [("weights", "MB", *(f"{row}: nats" for row in ROWS), *(f"{row}: as bf16" for row in ROWS))]
    spoken = [("weights", "right", "95 %", "gained", "lost", "same words as f32", "understood")]
    for name, figures in found.items():
        rows.append(forced_row(name, figures))
        if "answers" in figures:
            spoken.append(spoken_row(name, figures["answers"]))
    counts = ", ".join(f"{figure['n']} {row}" for row, figure in found["bf16"]["forced"].items())
    return (f"`lite` {info['lite']}, {info['date']}\n\n{data['talks']} held-out dialogues of {FRAMES} frames "
            f"({counts}); in brackets: change from bf16 ± error.\n\n{table(*rows)}\n"
            "Questions asked aloud, answered with the checkpoint's sampling, the same seeds; gained and "
            f"lost are against f32.\n\n{table(*spoken)}")


def forced_row(name: str, figures: dict) -> tuple[str, ...]:
    """One kind of weights in the table of dialogues."""
    nats, agree = [], []
    for row in figures["forced"].values():
        nats.append(f"{row['nats']:.3f} ({row['change']:+.4f} ± {row['error']:.4f})")
        agree.append(f"{100 * row['agree']:.1f} %")
    size = f"{figures['MB']:.1f}" if "MB" in figures else ""
    return (name, size, *nats, *agree)


def spoken_row(name: str, figures: dict) -> tuple:
    """One kind of weights in the table of questions."""
    heard = ""
    if "understood" in figures:
        heard = f"{100 * figures['understood']['value']:.0f} %"
    hits = round(figures["value"] * figures["n"])
    return (name, f"{hits} of {figures['n']}", f"{figures['low']:.2f}–{figures['high']:.2f}",
            figures["gained"], figures["lost"], figures["as f32"], heard)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, default=DOCS.parent / "runs/encoded/test")
    parser.add_argument("--talks", type=int, default=20, help="dialogues, teacher-forced")
    parser.add_argument("--questions", type=int, default=20, help="asked aloud with each of two seeds")
    parser.add_argument("--listen", type=int, default=0, help="answers that whisper hears, of each kind")
    args = parser.parse_args()
    data = {"about": about(), "talks": args.talks, "found": lite(args)}
    (DOCS / "quality.json").write_text(json.dumps(data, indent=1) + "\n")
    put(DOCS / "quantize.md", "quality", page(data))


if __name__ == "__main__":
    main()
