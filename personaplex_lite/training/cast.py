"""Who speaks: the voices of each generation of `lite`, and who may never teach.

    cast = CASTS["second"]
    cast.agents["NATF0"]          # Voice(ratio=1.0, pace=1.0, engine="kokoro/af_aoede")

The agents of the second generation are those of Kokoro's voices that are farthest apart by GE2E. cast.json
holds who, and how alike any two voices are (`personaplex-lite train cast` measures anew). Strangers are for
tests.
"""
from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr

from .engines import engine

CAST = Path(__file__).with_suffix(".json")
LEFT_OUT = {"af_nova", "am_onyx", "bf_lily", "bm_daniel"}      # Kokoro's voices that only tests may hear
LEFT_OUT_FAMILIES = ("i", "p", "h", "ff")                      # and those whose names begin so
JUDGES = {"espeak-ng", "festival", "kal16"}                    # synthesisers that only tests may hear


@dataclass(frozen=True)
class Voice:
    """ratio: pitch and formants against the engine's own; pace: speaking speed; engine: who speaks."""
    ratio: float
    pace: float = 1.0
    engine: str = "hibari"


def left_out(name: str) -> bool:
    """Whether an engine ("kal16", "kokoro/af_nova") is kept for tests."""
    who, _, style = name.partition("/")
    return who in JUDGES or style in LEFT_OUT or style.startswith(LEFT_OUT_FAMILIES)


@dataclass(frozen=True)
class Cast:
    """agents and users teach, strangers only test. Raises ValueError if a teacher is kept for tests."""
    agents: dict[str, Voice]
    users: dict[str, Voice]
    strangers: dict[str, Voice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, voice in (self.agents | self.users).items():
            if left_out(voice.engine):
                raise ValueError(f"{name} is spoken by {voice.engine}, which is kept for tests: take another")

    def __getitem__(self, name: str) -> Voice:
        return (self.agents | self.users | self.strangers)[name]


def check_teachers(records: Iterable[dict]) -> None:
    """Raise ValueError if one of these clips ("voice", "generation") is spoken by somebody kept for tests."""
    for name, generation in {(record["voice"], record.get("generation", "first")) for record in records}:
        cast = CASTS[generation]
        if name in cast.strangers or left_out(cast[name].engine):
            raise ValueError(f"{name} ({cast[name].engine}) is kept for tests and must not teach: "
                             "leave its clips out of the folder")


FIRST = Cast(
    agents={
        "NATF0": Voice(1.00), "NATF1": Voice(1.00, 1.00, "slt"), "NATF2": Voice(1.14),
        "NATM0": Voice(1.00, 1.00, "joe"), "NATM1": Voice(1.00, 1.20, "rms"),
        "NATM2": Voice(0.92, 1.00, "awb"), "NATM3": Voice(0.78), "VARM0": Voice(1.17, 1.15, "rms"),
    },
    users={
        "USER0": Voice(0.82, 1.00), "USER1": Voice(0.90, 1.05), "USER2": Voice(0.95, 0.97),
        "USER3": Voice(1.06, 1.05), "USER4": Voice(1.20, 0.95), "USER5": Voice(0.91, 1.00, "slt"),
        "USER6": Voice(1.10, 1.05, "slt"), "USER7": Voice(0.90, 1.20, "rms"),
        "USER8": Voice(1.08, 1.10, "rms"), "USER9": Voice(1.05, 1.00, "awb"),
        "USER10": Voice(0.84, 1.05, "awb"), "USER11": Voice(0.90, 1.00, "joe"),
        "USER12": Voice(1.10, 1.05, "joe"),
    },
    # a synthesiser and a pitch of their own
    strangers={"UNSEEN0": Voice(1.00, 1.00, "kal16"), "UNSEEN1": Voice(1.18, 1.00, "joe")},
)


def second() -> Cast:
    """Eighteen agents; as users all other voices of Kokoro that may teach, some of the agents' at another
    pitch, hibari and joe; as strangers Kokoro's voices that are left out.
    """
    told = json.loads(CAST.read_text(encoding="utf-8"))
    agents = {name: Voice(1.0, 1.0, f"kokoro/{style}") for name, style in told["agents"].items()}
    others = [style for style in told["voices"] if style not in told["agents"].values()]
    users = [Voice(1.0, 1.0, f"kokoro/{style}") for style in others]
    # a third of an octave is another person
    for index, agent in enumerate(list(agents.values())[::2]):
        users.append(Voice((0.9, 1.11)[index % 2], 1.0, agent.engine))
    users += [voice for voice in FIRST.users.values() if voice.engine in ("hibari", "joe")]
    strangers = {f"STRANGER{n}": Voice(1.0, 1.0, f"kokoro/{style}")
                 for n, style in enumerate(told["strangers"])}
    return Cast(agents, {f"USER{n}": voice for n, voice in enumerate(users)}, strangers)


CASTS = {"first": FIRST, "second": second()}


def measure(voices: list[str], sentences: list[str]) -> np.ndarray:
    """GE2E similarity of any two of Kokoro's voices [n, n], each heard in the same sentences."""
    from resemblyzer import VoiceEncoder
    ears = VoiceEncoder("cpu", verbose=False)
    marks = []
    for voice in voices:
        speak = engine(f"kokoro/{voice}")
        rng = np.random.default_rng(0)
        heard = [ears.embed_utterance(soxr.resample(speak(text, 1.0, rng)[0], 24_000, 16_000))
                 for text in sentences]
        mean = np.mean(heard, 0)
        marks.append(mean / np.linalg.norm(mean))
    return np.stack(marks) @ np.stack(marks).T


def far_apart(alike: np.ndarray, pool: list[int], size: int, chosen: list[int]) -> list[int]:
    """`size` members of `pool` that are unlike each other and those already chosen: from every possible first
    one, always the next that is least like any before; the best of these rows.
    """
    rows = []
    for first in pool:
        row = [first]
        while len(row) < size:
            rest = [one for one in pool if one not in row]
            row.append(min(rest, key=lambda one: alike[one, row + chosen].max()))
        together = alike[np.ix_(row, row + chosen)] - 2 * np.eye(size, size + len(chosen))
        rows.append((together.max(), row))
    return min(rows)[1]


def choose(voices: list[str], alike: np.ndarray) -> dict[str, str]:
    """The eighteen official names -> Kokoro's voices: NAT for natives, VAR for accents and the rest."""
    agents = {}
    chosen = []
    for sex in "fm":
        pool = [index for index, voice in enumerate(voices) if voice[1] == sex]
        row = far_apart(alike, pool, 9, chosen)
        chosen += row
        native = [voices[index] for index in row if voices[index][0] in "ab"][:4]
        others = [voices[index] for index in row if voices[index] not in native]
        agents |= {f"NAT{sex.upper()}{n}": voice for n, voice in enumerate(native)}
        agents |= {f"VAR{sex.upper()}{n}": voice for n, voice in enumerate(others)}
    return agents


def write(styles: list[str], sentences: list[str], out: Path = CAST) -> Path:
    """Measure all voices that may teach, choose the agents, and write both down."""
    voices = sorted(style for style in styles if not left_out(f"kokoro/{style}"))
    strangers = sorted(set(styles) - set(voices))
    alike = measure(voices, sentences)
    agents = choose(voices, alike)
    rows = [voices.index(style) for style in agents.values()]
    among = alike[np.ix_(rows, rows)] - 2 * np.eye(len(rows))
    told = {"agents": agents, "most alike among the agents": round(float(among.max()), 3),
            "voices": voices, "strangers": strangers}
    lines = json.dumps(told, indent=1)[:-2]
    table = ",\n  ".join(json.dumps([round(float(x), 2) for x in row]) for row in alike)
    out.write_text(f'{lines},\n "alike": [\n  {table}\n ]\n}}\n', encoding="utf-8")
    return out
