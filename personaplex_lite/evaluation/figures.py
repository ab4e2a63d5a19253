"""Answers in, figures out: how many are right, how late, in which voice; and what the codec alone costs."""
from __future__ import annotations

import time
from collections import Counter
from random import Random

import numpy as np
import torch

from .. import audio
from ..agent import Agent
from ..audio import FRAME
from ..model.units import FRAME_SECONDS
from ..talk.persona import Persona
from ..training import world
from . import seeds
from .judges import hear, need, number, right, share, speaker, speech_figures
from .questions import KINDS, Answer, Question, sound_of

Figures = dict[str, dict]                   # name -> {"value", "n", and of a share "low", "high"}
Samples = dict[str, np.ndarray]             # name of a voice -> embedding of its prompt's sound
WARM_UP = 5                                 # frames before the clock counts


def answer_figures(answers: list[Answer]) -> Figures:
    """Right answers, all and by kind; seconds from the user's end to the answer; too early; not at all."""
    figures = {"right": share(sum(a.right for a in answers), len(answers))}
    for kind in KINDS:
        mine = [a.right for a in answers if a.question.kind == kind]
        figures[f"right, {kind}"] = share(sum(mine), len(mine))
    facts = [a.right for a in answers if a.question.kind != "unknown"]
    figures["right, facts"] = share(sum(facts), len(facts))
    text = [a.start - a.question.end for a in answers if a.start is not None]
    sound = [a.onset - a.question.end for a in answers if a.onset is not None]
    for what, seconds in (("text", text), ("sound", sound)):
        figures[f"seconds until {what}, median"] = number(np.median(seconds or [0]), len(seconds))
    early = [is_early(a) for a in answers]
    figures["early"] = share(sum(early), len(answers))
    figures["no word"] = share(sum(not a.text for a in answers), len(answers))
    return figures


def is_early(answer: Answer) -> bool:
    """Whether it begins, in text or sound, before the user is done; silence does not."""
    begins = [second for second in (answer.start, answer.onset) if second is not None]
    return bool(begins) and min(begins) < answer.question.end


def voice_figures(samples: Samples, answers: list[Answer]) -> Figures:
    """How often the voice heard is the one that was (or would have been) prompted."""
    return nearest(samples, [(a.question.voice, speaker(a.pcm)) for a in answers])


def nearest(samples: Samples, spoken: list[tuple[str, np.ndarray | None]]) -> Figures:
    """Pairs (voice meant, embedding) -> the share for which it is the nearest of the samples."""
    known = [(name, heard) for name, heard in spoken if heard is not None and samples]
    hits = sum(closest(samples, heard) == name for name, heard in known)
    return {"voice as prompted": share(hits, len(known))}


def closest(samples: Samples, heard: np.ndarray) -> str:
    """The voice whose sample is most like an embedding."""
    return max(samples, key=lambda name: samples[name] @ heard)


def prompt_samples(agent: Agent) -> Samples:
    """Embeddings of the voices that a checkpoint ships, but for those too short to be recognised."""
    samples = {}
    for name in sorted(agent.voices):
        embedding = speaker(sound_of(agent, agent.voice(name).codes))
        if embedding is not None:
            samples[name] = embedding
    return samples


def codec_figures(agent: Agent, n: int, seed: int, samples: Samples) -> Figures:
    """The codec by itself: n agent sentences of the test split, spoken afresh, through it and back."""
    from tqdm import tqdm

    from ..training.clips import inventory
    synth = need("personaplex_lite.training.speech").synth
    originals, decoded = [], []             # (text, voice, what was heard, embedding) each
    specs = [spec for spec in inventory("test", 10 * n + 200, 0, seed) if spec.side == "agent"][:n]
    for i, spec in enumerate(tqdm(specs, desc="codec")):
        spoken = synth(spec.text, spec.voice, seeds.fresh(seed, i))
        pcm = np.pad(spoken.pcm, 5 * FRAME)
        codes = agent.mimi.encode(torch.from_numpy(pcm).to(agent.device))
        again = sound_of(agent, codes[0])[:len(pcm)]
        originals.append((spec.text, spec.voice, hear(pcm), speaker(pcm)))
        decoded.append((spec.text, spec.voice, hear(again), speaker(again)))
    before = _sentences(originals, samples)
    after = _sentences(decoded, samples)
    rate = after["word error rate"]
    lost = rate["value"] - before["word error rate"]["value"]
    alike = [one @ other for (*_, one), (*_, other) in zip(originals, decoded)
             if one is not None and other is not None]
    return ({f"original, {name}": figure for name, figure in before.items()} | after
            | {"words lost to it": number(lost, rate["n"]),
               "speaker similarity": number(np.mean(alike or [0]), len(alike))})


def _sentences(spoken: list[tuple], samples: Samples) -> Figures:
    """Sentences (text, voice, what was heard, embedding) -> how well words and voices came through."""
    words = speech_figures([(text, heard) for text, _, heard, _ in spoken])
    return words | nearest(samples, [(voice, embedding) for _, voice, _, embedding in spoken])


def codec_time(agent: Agent, frames: int = 100) -> Figures:
    """CPU time of streaming encode + decode of one frame, one core, median, as a share of its 80 ms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    mimi = agent.mimi
    ears, mouth = mimi.new_ears(), mimi.new_mouth()
    sound = 0.05 * torch.randn(1, 1, FRAME, device=agent.device)
    times = []
    for _ in range(frames + WARM_UP):
        began = time.process_time()
        mimi.decode(mimi.encode(sound, ears), mouth).cpu()
        times.append(time.process_time() - began)
    torch.set_num_threads(threads)
    return {"share of real time": number(np.median(times[WARM_UP:]) / FRAME_SECONDS, frames)}


def frame_times(agent: Agent, question: Question) -> Figures:
    """Milliseconds of one frame of one conversation, by stage: median and 95th of a hundred."""
    chat = agent.chat(Persona(question.voice, question.role), question.seed, progress=False)
    pieces = audio.frames(torch.from_numpy(question.sound))
    frames = [chat.step(piece) for piece in pieces][WARM_UP:]
    stages = {name: [frame.ms[name] for frame in frames] for name in frames[0].ms}
    stages["all"] = np.sum(list(stages.values()), 0)
    figures = {}
    for name, ms in stages.items():
        figures[f"{name}, median"] = number(np.percentile(ms, 50), len(frames))
        figures[f"{name}, 95 %"] = number(np.percentile(ms, 95), len(frames))
    return figures


def most_frequent(seed: int, n: int = 6000) -> str:
    """What an agent in training says most often to the kinds of question asked here."""
    rng = Random(seed)
    said: Counter[str] = Counter()
    for i in range(n):
        facts = world.make_facts(rng)
        _, _, _, answer = world.exchange(facts, rng, "train", KINDS[i % len(KINDS)])
        said[answer] += 1
    return said.most_common(1)[0][0]


def always(sets: dict[str, list[Question]], seed: int) -> dict[str, Figures]:
    """The baseline that says what agents in training say most often, whatever is asked."""
    what = most_frequent(seed)
    figures, unknown = {}, []
    for label, questions in sets.items():
        facts = [right(what, q.want) for q in questions if q.kind != "unknown"]
        figures[f"{label}: right, facts"] = share(sum(facts), len(facts))
        unknown += [right(what, q.want) for q in questions if q.kind == "unknown"]
    figures["right, unknown"] = share(sum(unknown), len(unknown))
    return {f"always {what!r}": figures}
