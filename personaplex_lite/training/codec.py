"""Training the small Mimi from scratch.

There is no adversary and no giant data. What made it work on one core
(docs/training-log.md): small batches and many steps; no quantiser for the first steps, then codebooks from
k-means; a helper head that reads mel frames off the decoder's transformer, thrown away afterwards; and
phoneme classes distilled into the semantic codebook: the language model has to learn "what is said".
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..model.config import MimiConfig, TransformerConfig
from ..model.mimi import Mimi
from ..model.rvq import Codebook, SplitRVQ
from ..weights.checkpoint import load_mimi
from ..weights.sizes import to_dict
from ..weights.writer import save
from . import listen
from .common import Average, Run, average, cosine, same, start, update

SCALES = ((256, 24), (512, 48), (1024, 80), (2048, 80))     # STFT size, mel bands
FLOOR = 3e-4                                                # of a log-mel: weak consonants are above it
SAVE_EVERY = 500                                            # steps
SAMPLE = 2**31                                              # the batch to listen to, the same at every step
LABEL_HOP = 480                                             # samples per phoneme label


def lite_mimi() -> MimiConfig:
    """3.5 M parameters: 8 codebooks of 256."""
    return MimiConfig(dim=160, filters=16, bins=256, codebook_dim=64, codebooks_stored=8,
                      transformer=TransformerConfig(160, 2, 4, 640, 50, "mimi", layer_scale=0.1))


class Clips:
    """Every clip of a folder of shards, and random pieces of them."""

    def __init__(self, folder: Path | str, seed: int = 0):
        self.pcm, self.phones, self.seed = [], [], seed
        for path in sorted(Path(folder).glob("shard_*.npz")):
            shard = np.load(path)
            at, ph = shard["offsets"], shard["phone_offsets"]
            pcm, phones = shard["pcm"], shard["phones"]
            self.pcm += [pcm[a:b] for a, b in zip(at, at[1:])]
            self.phones += [phones[a:b] for a, b in zip(ph, ph[1:])]
        if not self.pcm:
            raise FileNotFoundError(f"no clips in {folder}: make them with `personaplex-lite train data`")

    def batch(self, size: int, samples: int, step: int) -> tuple[Tensor, Tensor]:
        """Random pieces [b, 1, n] float32 with gain and a little noise, and their phonemes [b, n / 480]."""
        rng = np.random.default_rng([self.seed, step])
        wav, label = np.zeros((size, samples), np.float32), np.zeros((size, samples // LABEL_HOP), np.int64)
        for i in range(size):
            clip = rng.integers(len(self.pcm))
            pcm, phones = self.pcm[clip], self.phones[clip]
            at = LABEL_HOP * rng.integers(-10, max(1, len(pcm) // LABEL_HOP - 20))    # < 0: silence first
            skip, at = max(0, -at), max(0, at)
            piece = pcm[at:at + samples - skip] / 32768
            wav[i, skip:skip + len(piece)] = piece * 10 ** rng.uniform(-0.4, 0.3)
            p = phones[at // LABEL_HOP:][:(samples - skip) // LABEL_HOP]
            label[i, skip // LABEL_HOP:][:len(p)] = p
            if rng.random() < 0.3:
                wav[i] += rng.standard_normal(samples) * 10 ** rng.uniform(-4, -2)
        return torch.from_numpy(wav)[:, None], torch.from_numpy(label)


def mel_filters(n_fft: int, bands: int, rate: int = 24_000) -> Tensor:
    """Triangular mel filters [n_fft / 2 + 1, bands]."""
    def mel(f: np.ndarray | float) -> np.ndarray | float:
        return 2595 * np.log10(1 + f / 700)
    edges = 700 * (10 ** (np.linspace(mel(0), mel(rate / 2), bands + 2) / 2595) - 1)
    f = np.linspace(0, rate / 2, n_fft // 2 + 1)[:, None]
    up, down = (f - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - f) / np.diff(edges)[1:]
    filters = np.maximum(0, np.minimum(up, down))
    return torch.from_numpy(filters / (filters.sum(0, keepdims=True) + 1e-8)).float()


class Spectra(nn.Module):
    """Distance between sounds: log-mel and linear magnitude, at two of four time scales a step."""

    def __init__(self):
        super().__init__()
        for n, bands in SCALES:
            window = torch.hann_window(n)
            self.register_buffer(f"window{n}", window / window.square().sum().sqrt())
            self.register_buffer(f"mel{n}", mel_filters(n, bands))

    def mels(self, wav: Tensor, n: int, hop: int) -> tuple[Tensor, Tensor]:
        """wav [b, samples] -> magnitudes, log-mels [b, frames, bands]"""
        magnitude = torch.stft(wav, n, hop, window=getattr(self, f"window{n}"), return_complex=True).abs().mT
        return magnitude, (magnitude @ getattr(self, f"mel{n}")).clamp(min=FLOOR).log()

    def forward(self, ours: Tensor, theirs: Tensor, scales: Iterable[int]) -> Tensor:
        loss = 0.0
        for i in scales:
            n = SCALES[i][0]
            (m1, l1), (m2, l2) = self.mels(ours, n, n // 4), self.mels(theirs, n, n // 4)
            loss = loss + (l1 - l2).abs().mean() + 0.3 * (m1 - m2).abs().mean() / m2.mean().clamp(min=1e-2)
        return loss / len(scales)


class Helpers(nn.Module):
    """Heads that exist in training only: mel frames from the decoder, phonemes from the semantic code."""

    def __init__(self, config: MimiConfig, phones: int = 48):
        super().__init__()
        self.mel = nn.Linear(config.dim, 4 * 48)
        self.phone = nn.Linear(config.codebook_dim, 4 * phones)
        nn.init.constant_(self.mel.bias, -3.0)


@torch.no_grad()
def learn_book(book: Codebook, x: Tensor, decay: float = 0.998) -> None:
    """Move a codebook towards the vectors x [n, d] that it was given (all processes' mean); restart entries
    nobody uses.
    """
    ids = book.encode(x)
    hot = F.one_hot(ids, len(book.cluster_usage)).to(x.dtype)
    book.cluster_usage.lerp_(average(hot.sum(0)), 1 - decay)
    book.embedding_sum.lerp_(average(hot.T @ x), 1 - decay)
    mean = book.cluster_usage.mean()
    dead = (book.cluster_usage < 0.1 * mean).nonzero()[:, 0][:len(x)]
    if len(dead):
        fresh = same(x[torch.randperm(len(x))[:len(dead)]])
        book.cluster_usage[dead] = mean * 0.5
        book.embedding_sum[dead] = fresh * mean * 0.5


@torch.no_grad()
def kmeans(x: Tensor, k: int, rounds: int = 12) -> Tensor:
    """k centres [k, d] of the vectors x [n, d]."""
    centres = x[torch.randperm(len(x))[:k]].clone()
    for _ in range(rounds):
        ids = (centres.square().sum(-1) - 2 * x @ centres.T).argmin(-1)
        count = torch.bincount(ids, minlength=k).clamp(min=1)
        centres = torch.zeros_like(centres).index_add_(0, ids, x) / count[:, None]
        lost = torch.bincount(ids, minlength=k) == 0
        centres[lost] = x[torch.randperm(len(x))[:int(lost.sum())]]
    return centres


def nearest_entries(rvq: SplitRVQ, latent: Tensor, mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """latent [b, t, dim] -> (what the decoder gets, semantic vector [b, t, d], commitment loss).

    mode "none": pass through the projections; "half": codes for every second item only; "all"; "fixed":
    all, and the codebooks do not learn.
    """
    out = 0.0
    semantic = None
    commit = latent.new_zeros(())
    coded = torch.full((len(latent), 1, 1), float(mode != "none"), device=latent.device)
    if mode == "half":
        coded[::2] = 0.0
    for part, count in ((rvq.semantic, 1), (rvq.acoustic, rvq.use - 1)):
        x = part.input_proj(latent).float()
        rest = x.detach()
        total = torch.zeros_like(x)
        if mode != "none":
            # each codebook names what the ones before it leave over
            for book in part.codebooks[:count]:
                if mode != "fixed":
                    learn_book(book, rest.flatten(0, 1))
                entry = book.decode(book.encode(rest))
                rest = rest - entry
                total = total + entry
            commit = commit + (x - total).square().mean()
        # straight through: the decoder gets the entries, the encoder their gradient
        y = x + coded * (total - x).detach()
        semantic = y if semantic is None else semantic
        out = out + part.output_proj(y)
    return out, semantic, commit


def start_books(model: Mimi, clips: Clips) -> None:
    """Every codebook from k-means on what the ones before it leave over."""
    with torch.no_grad():
        pieces = (clips.batch(16, 23_040, 10**6 + i)[0] for i in range(100))
        latents = torch.cat([model.latent(x.to(model.downsample.weight.device)) for x in pieces])
        for part, count in ((model.rvq.semantic, 1), (model.rvq.acoustic, model.rvq.use - 1)):
            rest = part.input_proj(latents).flatten(0, 1)
            for book in part.codebooks[:count]:
                centres, usage = kmeans(rest, len(book.cluster_usage)), 24 / len(book.cluster_usage)
                book.cluster_usage.fill_(usage)                # on the scale of what one step brings
                book.embedding_sum.copy_(same(centres * usage))
                rest = rest - book.decode(book.encode(rest))


def losses(model: Mimi, helpers: Helpers, spectra: Spectra, wav: Tensor, phones: Tensor, mode: str,
           step: int) -> dict[str, Tensor]:
    """wav [b, 1, n], phones [b, n / 480] -> the weighted parts of the loss."""
    felt = []
    hook = model.decoder_transformer.register_forward_hook(lambda m, i, o: felt.append(o))
    with torch.autocast(wav.device.type, torch.bfloat16):
        latent = model.latent(wav)
        with torch.autocast(wav.device.type, enabled=False):
            coded, semantic, commit = nearest_entries(model.rvq, latent.float(), mode)
        ours = model.synthesise(coded).float()[:, 0]
        mel = helpers.mel(felt[0]).float().unflatten(-1, (4, -1)).flatten(1, 2)
        logits = helpers.phone(semantic).float().unflatten(-1, (4, -1)).flatten(1, 2)
    hook.remove()
    theirs = wav[:, 0]
    scales = np.random.default_rng(step).choice(4, 2, replace=False)
    centred = F.pad(theirs[:, 120:], (0, 120))            # mel frame j covers the j-th 10 ms
    target = spectra.mels(centred, 512, 240)[1][:, :mel.shape[1]]
    return {"spectra": spectra(ours, theirs, scales), "mel": 0.3 * (mel - target).abs().mean(),
            "commit": 0.1 * commit, "phone": 0.2 * F.cross_entropy(logits.flatten(0, 1), phones.flatten())}


class Work:
    """What a training of the codec has in hand: the model, its helpers, the clips, and where it is kept."""

    def __init__(self, data: Path | str, out: Path | str, seed: int):
        self.rank, self.world, self.device = start()
        torch.manual_seed(seed)
        config = lite_mimi()
        self.seed = seed
        self.model = Mimi(config)
        self.helpers = Helpers(config)
        self.both = nn.ModuleDict({"model": self.model, "helpers": self.helpers}).to(self.device)
        self.spectra = Spectra().to(self.device)
        self.clips = Clips(data, seed * 1000 + self.rank)
        self.run = Run(out, self.rank)

    def loop(self, plan: Plan, mean: Average, adam: torch.optim.Optimizer) -> Path:
        """The steps that are left of a plan -> the path of the weights."""
        run, saved = self.run, {"both": self.both, "mean": mean, "adam": adam}
        first = run.resume(**saved)
        smooth = {}
        bar = tqdm(range(first, plan.steps), initial=first, total=plan.steps, desc=plan.name,
                   disable=self.rank > 0, mininterval=5)
        for step in bar:
            # a resumed run draws what an unbroken one would
            torch.manual_seed(self.seed * 1_000_003 + step)
            if step == plan.books_at:
                start_books(self.model, self.clips)
            mode = plan.mode(step)
            parts = self.losses(plan, step, mode)
            lr = cosine(step, plan.steps, plan.peak)
            update(self.both, adam, sum(parts.values()), lr, self.world)
            mean.update(self.model)
            smooth = {n: 0.99 * smooth.get(n, v.item()) + 0.01 * v.item() for n, v in parts.items()}
            if step % 100 == 99:
                bar.set_postfix({k: f"{v:.3f}" for k, v in smooth.items()})
                run.log(step=step + 1, mode=mode, lr=lr, **smooth)
            if step % SAVE_EVERY == SAVE_EVERY - 1 or step + 1 == plan.steps:
                run.save(step + 1, **saved)
                export(self.model, mean, run.folder)
                if self.rank == 0:
                    heard, _ = self.clips.batch(3, 30 * self.model.config.frame_size, SAMPLE)
                    listen.codec(self.model, heard, run.folder, step + 1)
        return run.folder / "mimi.safetensors"

    def losses(self, plan: Plan, step: int, mode: str) -> dict[str, Tensor]:
        """The parts of the loss that this plan learns from, on one batch of its own."""
        draw = plan.first_batch + step * self.world + self.rank
        wav, phones = self.clips.batch(plan.batch, plan.frames * self.model.config.frame_size, draw)
        parts = losses(self.model, self.helpers, self.spectra, wav.to(self.device), phones.to(self.device),
                       mode, step)
        return {name: part for name, part in parts.items() if name in plan.learns}


@dataclass(frozen=True)
class Plan:
    """How a training goes: `mode(step)` says what is quantised, `learns` names the parts of the loss."""
    name: str
    steps: int
    batch: int                          # pieces a step and process
    frames: int                         # length of a piece, 80 ms each
    peak: float                         # learning rate
    mode: Callable[[int], str]
    learns: tuple[str, ...] = ("spectra", "mel", "commit", "phone")
    books_at: int | None = None         # the step at which the codebooks come from k-means
    first_batch: int = 0


def train(data: Path | str, out: Path | str, steps: int = 40_000, seed: int = 0, batch: int = 2,
          frames: int = 12, free: int = 1500, peak: float = 1.5e-3, warm: Path | str | None = None) -> Path:
    """Train the codec on the clips in `data`; checkpoints and `mimi.safetensors` go to `out`. Resumes.

    free : steps before anything is quantised.
    warm : folder of another training whose weights and codebooks to begin with (free = 0), or None.
    """
    work = Work(data, out, seed)
    with torch.no_grad():
        work.model.encoder.first.weight.mul_(5)
        work.model.decoder.last.weight.mul_(0.1)
    mean = Average(work.model)
    adam = torch.optim.AdamW(work.both.parameters(), peak, betas=(0.8, 0.99), weight_decay=1e-3, foreach=True)
    if warm is not None:
        Run(warm, work.rank).resume(both=work.both, mean=mean)

    def mode(step: int) -> str:
        if step < free:
            return "none"
        return "half" if step < 0.6 * steps else "all"

    books_at = free if warm is None else None
    return work.loop(Plan("codec", steps, batch, frames, peak, mode, books_at=books_at), mean, adam)


def polish(data: Path | str, out: Path | str, steps: int = 6000, seed: int = 0, batch: int = 2,
           frames: int = 12, peak: float = 5e-4) -> Path:
    """The decoder alone, a little longer: encoder and codebooks of `out`/mimi.safetensors stay as they are,
    so that what was encoded with them, and learnt from that, stays valid. Resumes from `out`/polish.
    """
    work = Work(data, Path(out) / "polish", seed)
    model = work.model
    Run(out, work.rank).resume(both=work.both)
    model.load_state_dict(load_mimi(Path(out) / "mimi.safetensors", model.config).state_dict())
    for part in (model.encoder, model.encoder_transformer, model.downsample, model.rvq):
        part.requires_grad_(False)
    model.rvq.semantic.output_proj.requires_grad_(True)
    model.rvq.acoustic.output_proj.requires_grad_(True)
    learning = [p for p in work.both.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(learning, peak, betas=(0.8, 0.99))
    plan = Plan("polish", steps, batch, frames, peak, lambda step: "fixed", ("spectra", "mel"),
                first_batch=10**7)
    return work.loop(plan, Average(model), adam)


@torch.no_grad()
def export(model: Mimi, mean: Average, folder: Path) -> None:
    """Write the averaged weights, codebooks as plain entries, rounded to bf16 as they will ship."""
    model = mean.applied(model)
    for book in (*model.rvq.semantic.codebooks, *model.rvq.acoustic.codebooks):
        book.embedding_sum.copy_(book.entries.clone())
        book.cluster_usage.fill_(1)
    save(model, folder / "mimi.safetensors", torch.bfloat16)
    (folder / "mimi.json").write_text(json.dumps(to_dict(model.config), indent=1))
