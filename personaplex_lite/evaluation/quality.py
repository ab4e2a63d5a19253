"""What small weights cost `lite`: held-out dialogues, teacher-forced; then questions, answered aloud.

    python -m personaplex_lite.evaluation.quality        docs/quality.json, and tables in docs/quantize.md

What departs from the textbook: no perplexity of a text. A frame is a word, a semantic and seven acoustic
codes, so each has its own cross-entropy, and what counts in the end is whether answers stay right.
"""
from __future__ import annotations

import argparse
import json
import math
from copy import deepcopy
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..agent import Agent, load
from ..model.depth import PerStep
from ..model.grid import delay
from ..places import DOCS
from . import seeds
from .judges import hear, right, share, speech_figures
from .origin import about
from .page import put, table
from .questions import Question, ask, codes_of, sound_of, step_through

KINDS = ("f32", "bf16", "fp16", "int8", "int4")
ROWS = ("text", "word", "semantic", "acoustic")          # text: every frame's token; word: where one is due
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
SETS = ((seeds.DEVELOPMENT, "train"), (seeds.DEVELOPMENT + 1, "test"))      # questions: seed, phrasing


def dialogues(agent: Agent, folder: Path, n: int, frames: int = 320) -> list:
    """n conversations of held-out facts, phrasings and clips. Raises ValueError if not of this codec."""
    from ..training.dialogue import Library
    from ..training.talks import Dialogues
    config = agent.lm.config
    with np.load(folder.parent / "rooms.npz") as rooms:
        if tuple(rooms["silence"]) != config.silence or tuple(rooms["sine"]) != config.sine:
            raise ValueError(f"{folder} was encoded by another codec: encode it anew (train encode)")
    draw = Dialogues(Library(folder), agent.text, config, "test")
    return [draw.sample(Random(f"{seeds.DEVELOPMENT} {i}"), frames) for i in range(n)]


@torch.no_grad()
def forced(lm, talk) -> dict:
    """One dialogue, teacher-forced: {row: (nats [n], most likely token [n])}; codes only where it speaks."""
    c = lm.config
    grid = delay(torch.from_numpy(talk.frames)[None], c).transpose(1, 2)            # [1, 1 + t, 17]
    hidden, then = lm.hidden(grid[:, :-1])[0], grid[0, 1:]
    live = torch.from_numpy(talk.loss)
    speaks = live & torch.from_numpy(talk.speaks)
    text, word = lm.text_head(hidden).float(), live & (then[:, 0] != c.pad)
    codes = then[speaks, c.agent]
    audio = lm.depth(hidden[speaks], then[speaks, 0], codes).float()                # [n, 8, vocab]
    parts = {"text": (text[live], then[live, 0]), "word": (text[word], then[word, 0]),
             "semantic": (audio[:, 0], codes[:, 0]),
             "acoustic": (audio[:, 1:].flatten(0, 1), codes[:, 1:].flatten())}
    return {row: (F.cross_entropy(logits, target, reduction="none"), logits.argmax(-1))
            for row, (logits, target) in parts.items()}


def judged(lm, talks: list, base: list | None) -> tuple[dict, list]:
    """Cross-entropy by row; against `base` its change (± error over dialogues) and tokens in common."""
    seen, out = [forced(lm, talk) for talk in talks], {}
    for row in ROWS:
        nats = torch.cat([s[row][0] for s in seen])
        out[row] = {"nats": nats.mean().item(), "n": len(nats)}
        if base:
            change = torch.stack([(s[row][0] - b[row][0]).sum() for s, b in zip(seen, base)])
            same = torch.cat([s[row][1] == b[row][1] for s, b in zip(seen, base)])
            out[row] |= {"change": (change.sum() / len(nats)).item(), "agree": same.float().mean().item(),
                         "error": (change.std() * math.sqrt(len(change)) / len(nats)).item()}
    return out, seen


def grouped(w: torch.Tensor, size: int, shrinks=(1.0,)) -> torch.Tensor:
    """int4 in groups of `size` (or what divides the inputs), there and back; each group's range is shrunk by
    the factor that leaves the smallest squared error. The stored format stays what it is.
    """
    groups = w.float().view(len(w), -1, math.gcd(size, w.shape[1]))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    tried = []
    for shrink in shrinks:
        reach, centre = (high - low) * shrink / 2, (high + low) / 2
        step = (reach.clamp(min=1e-12) * 2 / 15).bfloat16().float()
        middle = (centre - reach + 8 * step).bfloat16().float()
        tried.append((((groups - middle) / step + 8).round().clamp(0, 15) - 8) * step + middle)
    best = torch.stack([(t - groups).square().sum(-1) for t in tried]).argmin(0)       # [o, g]
    return torch.stack(tried).gather(0, best[None, ..., None].expand(1, *groups.shape))[0].flatten(1)


@torch.no_grad()
def rounded(lm, size: int, shrinks):
    """A copy of an LM whose transformers' maps went through `grouped`."""
    lm = deepcopy(lm)
    for owner in [*lm.temporal.modules(), *lm.depth.modules()]:
        for name, child in owner.named_children():
            if isinstance(child, (nn.Linear, PerStep)) and name != "heads":
                for w in child.weight.view(-1, *child.weight.shape[-2:]):
                    w.copy_(grouped(w, size, shrinks))
    return lm


def answers(agent: Agent, questions: list[Question], heard: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """(text, codes int64 [8, t]) of each answer to codes [b, 8, t], with the checkpoint's own sampling."""
    seeds_of = [question.seed for question in questions]
    said = torch.stack(list(step_through(agent, questions, heard.unbind(-1), seeds_of)), -1)    # [b, 17, t]
    found = []
    for tokens in said:
        words = agent.text.words(tokens[0].tolist())
        text = " ".join(word.text for word in words)
        found.append((text, tokens[agent.lm.config.agent]))
    return found


def lite(args) -> dict:
    """Every figure of the shipped model, by kind of weights."""
    agents = {kind: load(weights=kind) for kind in KINDS}
    plain = agents["bf16"]
    talks = dialogues(plain, args.clips, args.talks)
    found, base = {}, judged(plain.lm, talks, None)[1]
    variants = {f"int4, groups of {size}": (size, (1.0,)) for size in (32, 64, 128)}
    variants |= {f"{name}, clipped": (size, SHRINKS) for name, (size, _) in list(variants.items())[:2]}
    for name in (*KINDS, *variants):
        model = agents[name].lm if name in agents else rounded(plain.lm, *variants[name])
        size = {} if name in variants else {"MB": sum(t.nbytes for t in model.state_dict().values()) / 1e6}
        found[name] = {"forced": judged(model, talks, base)[0]} | size
        print(name, found[name], flush=True)
    sets = [ask(args.questions, seed, phrasing, sorted(plain.voices)) for seed, phrasing in SETS]
    asked = [(questions, codes_of(plain, questions)) for questions in sets]
    first = None
    for kind in KINDS:
        said = [a for questions, codes in asked for a in answers(agents[kind], questions, codes)]
        hits = [right(text, q.want) for (text, _), q in zip(said, sum(sets, []))]
        first = first or (said, hits)
        found[kind]["answers"] = share(sum(hits), len(hits)) | {
            "as f32": sum(a[0] == b[0] for a, b in zip(said, first[0])),
            "gained": sum(h and not g for h, g in zip(hits, first[1])),
            "lost": sum(g and not h for h, g in zip(hits, first[1]))}
        if args.listen and kind in ("bf16", "int8", "int4"):
            heard = [(text, hear(sound_of(plain, c))) for text, c in said[:args.listen]]
            found[kind]["answers"]["understood"] = speech_figures(heard)["words understood"]
        print(kind, found[kind]["answers"], flush=True)
    return found


def page(data: dict) -> str:
    """Both tables."""
    found, info = data["found"], data["about"]
    head = ("weights", "MB", *(f"{row}: nats" for row in ROWS), *(f"{row}: as bf16" for row in ROWS))
    rows, spoken = [head], [("weights", "right", "95 %", "gained", "lost", "same words as f32", "understood")]
    for name, f in found.items():
        nats = [f"{v['nats']:.3f} ({v['change']:+.4f} ± {v['error']:.4f})" for v in f["forced"].values()]
        agree = [f"{100 * v['agree']:.1f} %" for v in f["forced"].values()]
        rows.append((name, f"{f['MB']:.1f}" if "MB" in f else "", *nats, *agree))
        if a := f.get("answers"):
            heard = f"{100 * a['understood']['value']:.0f} %" if "understood" in a else ""
            spoken.append((name, f"{round(a['value'] * a['n'])} of {a['n']}",
                           f"{a['low']:.2f}–{a['high']:.2f}", a["gained"], a["lost"], a["as f32"], heard))
    counts = ", ".join(f"{v['n']} {row}" for row, v in found["bf16"]["forced"].items())
    return (f"`lite` {info['lite']}, {info['date']}\n\n{data['talks']} held-out dialogues of 320 frames "
            f"({counts}); in brackets: change from bf16 ± error.\n\n{table(*rows)}\n"
            "Questions asked aloud, answered with the checkpoint's sampling, the same seeds; gained and "
            f"lost are against f32.\n\n{table(*spoken)}")


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
