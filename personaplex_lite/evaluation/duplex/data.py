"""The official data: where each file lies, what it tests, what the agent is told, which belong together.

What departs from the official layout: nothing has to be there but what is used. Ours adds persona.json, the
role of one file, where the official data has one role for a category.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GOOD_TALK = "You enjoy having a good conversation."          # both roles: the PersonaPlex paper and its card
TEACHER = ("You are a wise and friendly teacher. Answer questions or provide advice in a clear and engaging "
           "way.")
CATEGORIES = {                      # folder -> (what it tests, its annotation, the agent's role)
    "candor_pause_handling": ("pause", "pause.json", GOOD_TALK),
    "synthetic_pause_handling": ("pause", "pause.json", GOOD_TALK),
    "icc_backchannel": ("backchannel", None, GOOD_TALK),
    "candor_turn_taking": ("turn", "turn_taking.json", GOOD_TALK),
    "synthetic_user_interruption": ("interruption", "interrupt.json", TEACHER),
}
WHERE = ("The data is free but not ours to ship: the link to its Google Drive folder is in "
         "v1_v1.5/dataset/README.md of github.com/DanielLin94144/Full-Duplex-Bench (CC BY-NC 4.0, the "
         "synthetic part MIT). Unpack v1.0 so that FOLDER/v1_0/candor_turn_taking/1/input.wav is there. "
         "data/duplex_mini is a small set of our own.")


@dataclass(frozen=True)
class Sample:
    """One file: `note` is its annotation, `listeners` when people murmured (backchannel), or None."""
    category: str
    name: str
    folder: str
    note: dict | None
    role: str
    listeners: list | None = None

    @property
    def key(self) -> str:
        return f"{self.category}/{self.name}"


def find(data) -> list[Sample]:
    """The samples of a folder. Raises FileNotFoundError or ValueError with what to do about it."""
    root, samples = Path(data), []
    root = root / "v1_0" if (root / "v1_0").is_dir() else root
    listeners = next((p for p in (root, root.parent, root / "icc_backchannel")
                      if (p / "icc_gt_distribution.json").is_file()), None)
    people = json.loads((listeners / "icc_gt_distribution.json").read_text()) if listeners else {}
    for category, (_, noted, role) in CATEGORIES.items():
        folders = [p for p in sorted((root / category).glob("*")) if p.is_dir()]
        if category == "icc_backchannel":           # as officially: the name is a key of the listeners
            folders = [p for p in folders if p.name.isdigit()]
        folders.sort(key=lambda p: (len(p.name), p.name))
        for folder in folders:
            missing = [n for n in ("input.wav", noted) if n and not (folder / n).is_file()]
            if missing:
                raise FileNotFoundError(f"{folder} has no {', '.join(missing)}: is it unpacked completely?")
            note = read_note(folder / noted) if noted else None
            told = folder / "persona.json"          # ours; the official data has one role for a category
            told = json.loads(told.read_text())["role"] if told.is_file() else role
            murmurs = people.get(folder.name)
            samples.append(Sample(category, folder.name, str(folder), note, told, murmurs))
    if not samples:
        raise FileNotFoundError(f"no Full-Duplex-Bench v1.0 in {data}: none of {', '.join(CATEGORIES)}. "
                                f"{WHERE}")
    return samples


def read_note(path: Path) -> dict:
    """The first entry of an annotation; it must hold two times."""
    try:
        note = json.loads(path.read_text())[0]
        float(note["timestamp"][0]), float(note["timestamp"][1])
        return note
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f"{path} is not an annotation: it must be a list, its first entry with a "
                         "\"timestamp\" of two times in seconds") from None


def batches(samples: list[Sample], rows: int) -> Iterable[list[Sample]]:
    """Files of one category and of like length together, `rows` at a time; the same ones in every run."""
    length = {s.key: (Path(s.folder) / "input.wav").stat().st_size for s in samples}
    for category in CATEGORIES:
        mine = sorted((s for s in samples if s.category == category), key=lambda s: (length[s.key], s.key))
        yield from (mine[i:i + rows] for i in range(0, len(mine), rows))


def fingerprint(data: Iterable[Sample]) -> str:
    """What the names and sounds of all files add up to."""
    sha = hashlib.sha256()
    for sample in data:
        sha.update(sample.key.encode() + (Path(sample.folder) / "input.wav").read_bytes())
    return sha.hexdigest()[:16]
