"""Training the small language model from scratch.

The codes of a frame are costly (16 steps with their own weights) and mostly
silence, so the depth transformer sees every frame in which the agent speaks but few of the others. Text-only
batches teach the model to copy facts out of its role before it can hear; a helper head that writes down what
the *user* says, five frames late, teaches it to hear. Both are gone in the shipped model.

The loss follows the PersonaPlex paper (prompt masked out, padding and acoustic codes weigh less), with the
weights that keep a small model's answers on time.
"""
from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..model.config import NO_INPUT, LMConfig, TransformerConfig
from ..model.grid import delay
from ..model.lm import LM
from ..talk.text import Text
from ..weights.sizes import to_dict
from ..weights.writer import save
from . import listen
from .common import Run, cosine, start, update
from .dialogue import Library
from .talks import Dialogues, text_only

SAVE_EVERY = 250         # steps
READ_EVERY = 5           # steps: text alone, among the dialogues
WEIGHTS = {"word": 2.0, "first": 3.0, "fact": 4.0, "pad": 0.3, "semantic": 1.0, "acoustic": 0.4, "stop": 4.0,
           "user": 0.1, "hear": 0.5}


def lite_lm(text_vocab: int, silence: Iterable[int], sine: Iterable[int], bins: int = 256) -> LMConfig:
    """11 M parameters. Context: 500 frames, 40 seconds."""
    return LMConfig(TransformerConfig(256, 6, 8, 704, 500), TransformerConfig(96, 2, 3, 256, 16), 16,
                    text_vocab=text_vocab, audio_vocab=bins, silence=tuple(silence), sine=tuple(sine))


class Hearing(nn.Module):
    """Training only: what the user said five frames ago, read off the temporal transformer."""

    def __init__(self, config: LMConfig):
        super().__init__()
        self.head = nn.Linear(config.temporal.dim, config.text_vocab)


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over what weighs anything."""
    loss = F.cross_entropy(logits.float(), target, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def text_loss(lm: LM, tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Text alone, tokens [b, t] in the text row, no sound -> loss, share of the facts that are right."""
    columns = torch.full((*tokens.shape, lm.config.rows), NO_INPUT, device=tokens.device)
    columns[..., 0] = tokens
    columns[:, 0] = torch.tensor(lm.config.initial)
    logits = lm.text_head(lm.hidden(columns[:, :-1])).flatten(0, 1)
    target, weight = tokens[:, 1:].flatten(), weight[:, 1:].flatten()
    fact = weight > 1
    right = ((logits.argmax(-1) == target) & fact).sum() / fact.sum().clamp(min=1)
    return cross_entropy(logits, target, weight), right


def dialogue_losses(lm: LM, hearing: Hearing, talks: list, seed: int) -> dict[str, Tensor]:
    """One batch of dialogues -> the weighted parts of the loss, and two accuracies (not part of it)."""
    c, device = lm.config, lm.text_embed.device
    frames, loss, decides, speaks, stops, fact, user_text = (
        torch.from_numpy(np.stack([getattr(t, n) for t in talks])).to(device)
        for n in ("frames", "loss", "decides", "speaks", "stops", "fact", "user_text"))
    grid = delay(frames, c).transpose(1, 2)                                # [b, 1 + t, 17]
    hidden, then = lm.hidden(blur(grid[:, :-1], loss, c, seed)), grid[:, 1:]
    h, then, live = hidden.flatten(0, 1), then.flatten(0, 1), loss.flatten()
    text = then[:, 0]
    weight = torch.where(text == c.pad, WEIGHTS["pad"], WEIGHTS["word"])
    weight = weight + WEIGHTS["fact"] * fact.flatten() + WEIGHTS["first"] * (text.roll(1) == c.epad)
    weight = decides.flatten() * weight
    logits, guess, heard = lm.text_head(h), hearing.head(h), user_text.flatten()
    hear = cross_entropy(guess, heard, live * torch.where(heard == c.pad, 0.1, 1.0))
    parts = {"text": cross_entropy(logits, text, weight), "hear": WEIGHTS["hear"] * hear}
    speaks = (speaks | speaks.roll(1, 1)).flatten()
    parts |= _audio_losses(lm, h, then, live, speaks, stops.flatten(), seed)
    known = (fact & decides).flatten()
    words = (heard != c.pad) & live
    parts["fact_right"] = ((logits.argmax(-1) == text) & known).sum() / known.sum().clamp(min=1)
    parts["heard_right"] = ((guess.argmax(-1) == heard) & words).sum() / words.sum().clamp(min=1)
    return parts


def blur(columns: Tensor, live: Tensor, config: LMConfig, seed: int) -> Tensor:
    """Spoil some of the sound that the model reads, columns [b, t, 17], lest it know clips by heart or lean
    on its last codes: a tenth silenced, a twentieth wrong, a fifth of frames without user acoustics.
    """
    dice = torch.Generator().manual_seed(seed)
    shape = columns[..., 1:].shape
    chance = torch.rand(shape, generator=dice)
    wrong = torch.randint(config.audio_vocab, shape, generator=dice)
    chance[torch.rand(shape[:2], generator=dice) < 0.2, config.codebooks + 1:] = 0.1
    chance, wrong = chance.to(columns.device), wrong.to(columns.device)
    sound = torch.where(chance < 0.05, wrong, torch.where(chance < 0.15, NO_INPUT, columns[..., 1:]))
    sound = torch.where(live[..., None], sound, columns[..., 1:])
    return torch.cat([columns[..., :1], sound], -1)


def _audio_losses(lm: LM, h: Tensor, then: Tensor, live: Tensor, speaks: Tensor, stops: Tensor,
                  seed: int) -> dict[str, Tensor]:
    """The agent's codes wherever it speaks, on some silent frames, and above all where it falls silent for
    the user; the user's on a few frames.
    """
    c, dice = lm.config, torch.rand(len(h), generator=torch.Generator().manual_seed(seed)).to(h.device)
    q, out = c.codebooks, {}
    chosen = (live & (speaks | stops | (dice < 0.08))).nonzero()[:, 0]
    logits = lm.depth(h[chosen], then[chosen, 0], then[chosen, 1:1 + q]).float()
    error = F.cross_entropy(logits.flatten(0, 1), then[chosen, 1:1 + q].flatten(), reduction="none")
    error = error.view(-1, q)
    weight = torch.where(stops[chosen], WEIGHTS["stop"], torch.where(speaks[chosen], 1.0, 0.3))
    error = (error * weight[:, None]).sum(0) / weight.sum().clamp(min=1)
    out["semantic"], out["acoustic"] = WEIGHTS["semantic"] * error[0], WEIGHTS["acoustic"] * error[1:].mean()
    few = (live & (dice > 0.97)).nonzero()[:, 0]
    if len(few):
        codes = then[few, 1:]
        guess = lm.depth(h[few], then[few, 0], codes)[:, q:].float()
        out["user"] = WEIGHTS["user"] * F.cross_entropy(guess.flatten(0, 1), codes[:, q:].flatten())
    return out


class Batches:
    """Every batch is a function of (seed, rank, step): a resumed run sees what an unbroken one would have."""

    def __init__(self, dialogues: Dialogues, text: Text, seed: int, rank: int, world: int):
        self.dialogues, self.text, self.seed, self.rank, self.world = dialogues, text, seed, rank, world

    def rng(self, step: int) -> Random:
        return Random((self.seed * 1_000_003 + step) * self.world + self.rank)

    def talk(self, step: int, size: int, frames: int) -> list:
        rng = self.rng(step)
        return [self.dialogues.draw(rng, frames) for _ in range(size)]

    def read(self, step: int, size: int = 8, tokens: int = 120) -> tuple[Tensor, Tensor]:
        rng = self.rng(-1 - step)
        pairs = [text_only(rng, self.text, "train", tokens) for _ in range(size)]
        return tuple(torch.from_numpy(np.stack(x)) for x in zip(*pairs))


def train(data: Path | str, out: Path | str, steps: int, read: int = 1250, seed: int = 0, batch: int = 5,
          frames: int = 320, peak: float = 1.5e-3, warm: Path | str | None = None) -> Path:
    """`read` steps of text alone, then dialogues with every fifth step text. Resumes.

    data : folder of encoded clips (rooms.npz, train/, the codec). out : folder with tokenizer.model, where
    checkpoints, samples and `lm.safetensors` go. batch, frames : dialogues a step and process, and their
    length (80 ms each).
    warm : folder of another training (last.pt, tokenizer.model) whose weights to begin with, or None.
    """
    rank, world, device = start()
    torch.manual_seed(seed)
    run, text = Run(out, rank), Text(Path(out) / "tokenizer.model")
    with np.load(Path(data) / "rooms.npz") as rooms:
        config = lite_lm(len(text), rooms["silence"].tolist(), rooms["sine"].tolist())
    both = nn.ModuleDict({"lm": LM(config), "hearing": Hearing(config)}).to(device)
    adam = torch.optim.AdamW(both.parameters(), peak, betas=(0.9, 0.95), weight_decay=0.02, foreach=True)
    if warm is not None:
        begin_with(both, Path(warm), text)
    first = run.resume(both=both, adam=adam)
    batches = Batches(Dialogues(Library(Path(data) / "train"), text, config), text, seed, rank, world)
    heard = batches.dialogues.sample(Random(seed), frames)
    bar = tqdm(range(first, steps), initial=first, total=steps, desc="lm", disable=rank > 0, mininterval=5)
    mimi, smooth = listen.codec_of(Path(data), device), {}
    for step in bar:
        lr = cosine(step, read, peak) if step < read else cosine(step - read, steps - read, peak)
        parts = _losses(both, batches, step, read, batch, frames, device)
        update(both, adam, sum(v for n, v in parts.items() if not n.endswith("_right")), lr, world)
        for name, value in parts.items():
            smooth[name] = 0.95 * smooth.get(name, value.item()) + 0.05 * value.item()
        if step % 25 == 24:
            bar.set_postfix({k: f"{v:.3f}" for k, v in smooth.items()})
            run.log(step=step + 1, lr=lr, **smooth)
        if step % SAVE_EVERY == SAVE_EVERY - 1 or step + 1 == steps:
            run.save(step + 1, both=both, adam=adam)
            if rank == 0:
                export(both["lm"], run.folder)
                listen.talk(both["lm"], mimi, text, heard, run.folder, step + 1)
    return run.folder / "lm.safetensors"


def begin_with(both: nn.ModuleDict, folder: Path, text: Text) -> None:
    """Load another training's weights; a new piece begins as the mean of the old pieces it is made of."""
    old, saved = Text(folder / "tokenizer.model"), torch.load(folder / "last.pt", weights_only=True)["both"]
    pieces = [text.pieces.id_to_piece(i) for i in range(len(text))]
    rows = [[old.pieces.piece_to_id(p)] if p in ("<unk>", "<s>", "</s>", "<pad>") else
            [i for i in old.encode(p.replace("\u2581", " ").strip()) if i > 3] or [3] for p in pieces]
    for name, now in both.state_dict().items():
        then = saved[name]
        if then.shape != now.shape:         # text tables; embeddings have a last row for the start
            grown = [then[r].mean(0) for r in rows] + list(then[len(old):])
            then = torch.stack(grown)
        now.copy_(then)


def _losses(both: nn.ModuleDict, batches: Batches, step: int, read: int, batch: int, frames: int,
            device: torch.device) -> dict[str, Tensor]:
    """What one step learns from: text alone, or a batch of dialogues."""
    with torch.autocast(device.type, torch.bfloat16):
        if step < read or step % READ_EVERY == 0:
            loss, right = text_loss(both["lm"], *(x.to(device) for x in batches.read(step)))
            return {"read": loss, "read_right": right}
        return dialogue_losses(both["lm"], both["hearing"], batches.talk(step, batch, frames), step)


def export(lm: LM, folder: Path) -> None:
    """Write the weights as they will ship (bf16, official names) and their config. Not averaged: an average
    over the last thousand steps answered less often (docs/training-log.md)."""
    save(lm, folder / "lm.safetensors", torch.bfloat16)
    (folder / "lm.json").write_text(json.dumps(to_dict(lm.config), indent=1))
