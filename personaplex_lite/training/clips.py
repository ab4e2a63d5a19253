"""The sentences of the little world, spoken and kept: the store that the codec and the dialogues draw from.

    personaplex-lite train data --out runs/clips --split train

A folder holds shards of some 400 clips, each a fair sample of the whole:

    shard_0000.npz   pcm int16 [samples] at 24 kHz, offsets int64 [n + 1] into it,
                     phones int8 [labels] at 50 Hz, phone_offsets int64 [n + 1] into them
    shard_0000.json  n records: text, voice, seed, side, kind, slots, split, seconds,
                     words [[word, start, end], ...]

Both files appear complete or not at all, the JSON last: a shard may be read as soon as its JSON is there, and
a run that was cut off goes on with the shards that are missing.
"""
from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from tqdm import tqdm

from . import world
from .cast import CASTS, check_teachers
from .speech import Utterance, synth

SHARD = 400                                     # clips
AGENT_SHARES = {"price": .37, "unpriced": .07, "greeting": .19, "company": .10, "open": .04, "close": .05,
                "name": .05, "rule": .03, "talk": .05, "murmur": .01, "unknown": .015, "thanks": .01,
                "bye": .01, "story": .005}
USER_SHARES = {"price": .38, "open": .06, "close": .06, "name": .05, "company": .05, "unknown": .07,
               "rule": .05, "talk": .05, "rest": .08, "lead": .02, "story": .04, "barge": .01, "change": .01,
               "again": .01, "greeting": .02, "thanks": .02, "bye": .02}
SECOND_SHARES = {"agent": {"outside": .03}, "user": {"outside": .07, "correction": .12}}   # added to those
VOICE_SEEDS = {"train": 5, "test": 1}           # how often each voice says each prompt sentence
TEST_SEEDS = 1_000_000                          # test seeds start here: no test clip is also a training clip


@dataclass(frozen=True)
class ClipSpec:
    """One clip to make. side: "agent", "user" or "voice" (a voice prompt); slots: the facts in the text."""
    text: str
    voice: str
    seed: int
    side: str
    kind: str
    slots: dict = field(default_factory=dict)
    split: str = "train"
    generation: str = "first"


def agent_sentences(kind: str, split: str, generation: str = "first") -> list[tuple[str, dict]]:
    """All (text, slots) an agent can say for `kind` with the facts of `split`."""
    told = world.CHOICES[generation]
    pairs = {
        "price": [{"item": item, "price": price} for item in world.ITEMS
                  for price in world.choices_for(item, told.prices, split)],
        "unpriced": [{"item": item} for item in world.ITEMS],
        "greeting": [{"name": name, "company": company} for company in world.COMPANIES
                     for name in world.choices_for(company, world.NAMES, split)],
        "company": [{"company": company} for company in world.COMPANIES],
        "name": [{"name": name} for name in world.NAMES],
        "open": [{"opens": hour} for hour in told.opens],
        "close": [{"closes": hour} for hour in told.closes],
        "rule": [{"rule": rule} for rule in world.RULES],
    }
    fixed = {"murmur": world.MURMURS, "story": [world.STORY_ANSWER],
             "talk": [text for talk in world.TALKS.values()
                      for text in (talk["hello"], *(answer for _, answer in talk["pairs"]))]}
    if kind in fixed:
        return [(text, {}) for text in fixed[kind]]
    sentences = []
    for slots in pairs.get(kind, [{}]):
        known = {"name": "", "company": "", "opens": "", "closes": "", "rule": ""} | slots
        item, price = known.pop("item", None), known.pop("price", None)
        sentences.append((world.answer(kind, world.Facts(prices={item: price}, **known), item), slots))
    return sentences


def user_sentences(kind: str, split: str, generation: str = "first") -> list[tuple[str, dict]]:
    """All (text, slots) a user can say for `kind`; a price question about every item, whoever sells it."""
    fixed = {"lead": [*world.ASKING, *world.LEADS], "story": [*world.STORY, *world.STORY_ENDS],
             "barge": world.BARGES, "change": world.CHANGES, "again": world.AGAIN[split],
             "talk": [asked for talk in world.TALKS.values() for asked, _ in talk["pairs"]]}
    if kind in fixed and not (generation == "second" and kind == "again"):
        return [(text, {}) for text in fixed[kind]]
    items = [{"item": item} for item in world.ITEMS] if kind in ("price", "correction") else [{}]
    if kind == "rest":          # what follows "can you tell me"
        return [(text.format(item=item), {"about": about} | ({"item": item} if item else {}))
                for about, texts in world.INDIRECT.items() for text in texts
                if generation == "first" or not world.outside(text)
                for item in (world.ITEMS if "{item}" in text else [None])]
    return [(phrasing.format(**slots), slots) for phrasing in world.ways(kind, split, generation)
            for slots in items]


def inventory(split: str = "train", n_agent: int = 10_000, n_user: int = 7500, seed: int = 0,
              generation: str = "first") -> list[ClipSpec]:
    """All clips of a split, shuffled: about n_agent and n_user clips and the voice prompts, no two alike.

    Within a kind, sentences x voices are drawn without replacement; once used up, again with the next seed.
    """
    rng = Random(seed)
    agents = CASTS[generation].agents
    added = SECOND_SHARES if generation == "second" else {}
    sides = [("agent", n_agent, AGENT_SHARES, agent_sentences, agents),
             ("user", n_user, USER_SHARES, user_sentences, CASTS[generation].users)]
    first = TEST_SEEDS if split == "test" else 1000 * seed      # another seed, other clips
    specs = []
    for side, n, shares, sentences, voices in sides:
        for kind, share in (shares | added.get(side, {})).items():
            deck = [(text, slots, voice) for text, slots in sentences(kind, split, generation)
                    for voice in voices]
            for index in range(round(n * share)):
                if index % len(deck) == 0:
                    rng.shuffle(deck)
                text, slots, voice = deck[index % len(deck)]
                take = first + index // len(deck)
                specs.append(ClipSpec(text, voice, take, side, kind, slots, split, generation))
    specs += [ClipSpec(text, voice, first + again, "voice", "voice", {}, split, generation)
              for voice in agents for text in world.VOICE_SENTENCES for again in range(VOICE_SEEDS[split])]
    rng.shuffle(specs)
    return specs


def build(folder: Path | str, specs: list[ClipSpec], workers: int = 2) -> None:
    """Speak `specs` into shards under `folder` with `workers` processes; shards already there are kept.

    Raises ValueError, before anything is spoken, if a voice is kept for tests.
    """
    check_teachers(asdict(spec) for spec in specs)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / f"shard_{index:04d}", specs[start: start + SHARD])
            for index, start in enumerate(range(0, len(specs), SHARD))]
    jobs = [job for job in jobs if not job[0].with_suffix(".json").exists()]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in tqdm(pool.imap(_write_shard, jobs), total=len(jobs), unit="shard"):
            pass


def _write_shard(job: tuple[Path, list[ClipSpec]]) -> None:
    """Synthesise one shard and put its two files in place."""
    path, specs = job
    specs, spoken = zip(*((spec, clip) for spec in specs if (clip := _spoken(spec)) is not None))
    pcm = [np.round(np.clip(clip.pcm, -1, 1) * 32767).astype(np.int16) for clip in spoken]
    phones = [clip.phones for clip in spoken]
    records = [asdict(spec) | {"words": clip.words, "seconds": round(clip.seconds, 4)}
               for spec, clip in zip(specs, spoken)]
    partial = path.with_name(path.name + ".part.npz")
    np.savez(partial, pcm=np.concatenate(pcm), offsets=_offsets(pcm),
             phones=np.concatenate(phones), phone_offsets=_offsets(phones))
    os.replace(partial, path.with_suffix(".npz"))
    partial.write_text(json.dumps(records))
    os.replace(partial, path.with_suffix(".json"))


def _spoken(spec: ClipSpec) -> Utterance | None:
    """One clip; None where words and phones cannot be matched."""
    try:
        return synth(spec.text, spec.voice, spec.seed, spec.generation)
    except ValueError:
        return None


def _offsets(arrays: list[np.ndarray]) -> np.ndarray:
    """n arrays -> int64 [n + 1]: where each begins in their concatenation, and the end."""
    return np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64)


def load_shard(path: Path | str) -> tuple[list[dict], list[np.ndarray], list[np.ndarray]]:
    """Path of a shard -> (records, pcm: list of int16 [N], phones: list of int8 [ceil(N / 480)])."""
    path = Path(path)
    records = json.loads(path.with_suffix(".json").read_text())
    with np.load(path.with_suffix(".npz")) as data:
        pcm = np.split(data["pcm"], data["offsets"][1:-1])
        phones = np.split(data["phones"], data["phone_offsets"][1:-1])
    return records, pcm, phones
