"""The official data: where each file lies, what it tests, what the agent is told, which belong together.

Nothing has to be there but what is used. Beside the official files ours has persona.json, the role of one
file, where the official data has one role for a category.
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
    listeners: list[float] | None = None

    @property
    def key(self) -> str:
        """Its name in a results file."""
        return f"{self.category}/{self.name}"


def find(data: str | Path) -> list[Sample]:
    """The samples of a folder. Raises FileNotFoundError or ValueError with what to do about it."""
    root = Path(data)
    if (root / "v1_0").is_dir():
        root = root / "v1_0"
    listeners = read_listeners(root)
    samples = []
    for category in CATEGORIES:
        for folder in folders(root, category):
            samples.append(read_sample(folder, category, listeners.get(folder.name)))
    if not samples:
        raise FileNotFoundError(f"no Full-Duplex-Bench v1.0 in {data}: none of {', '.join(CATEGORIES)}. "
                                f"{WHERE}")
    return samples


def read_listeners(root: Path) -> dict[str, list[float]]:
    """When people murmured, by the name of a file; nothing where nobody was asked."""
    for folder in (root, root.parent, root / "icc_backchannel"):
        path = folder / "icc_gt_distribution.json"
        if path.is_file():
            return json.loads(path.read_text())
    return {}


def folders(root: Path, category: str) -> list[Path]:
    """The files' folders of one category, 2 before 10."""
    found = [path for path in (root / category).glob("*") if path.is_dir()]
    if category == "icc_backchannel":           # as officially: the name is a key of the listeners
        found = [path for path in found if path.name.isdigit()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def read_sample(folder: Path, category: str, listeners: list[float] | None) -> Sample:
    """One file. Raises FileNotFoundError if a part of it is missing, ValueError if its annotation is none."""
    _, annotation, role = CATEGORIES[category]
    needed = [name for name in ("input.wav", annotation) if name]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}: is it unpacked completely?")
    note = read_note(folder / annotation) if annotation else None
    told = folder / "persona.json"              # ours; the official data has one role for a category
    if told.is_file():
        role = json.loads(told.read_text())["role"]
    return Sample(category, folder.name, str(folder), note, role, listeners)


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
    def length(sample: Sample) -> int:
        return (Path(sample.folder) / "input.wav").stat().st_size
    for category in CATEGORIES:
        mine = [sample for sample in samples if sample.category == category]
        mine.sort(key=lambda sample: (length(sample), sample.key))
        for first in range(0, len(mine), rows):
            yield mine[first:first + rows]


def fingerprint(data: Iterable[Sample]) -> str:
    """What the names and sounds of all files add up to."""
    sha = hashlib.sha256()
    for sample in data:
        sha.update(sample.key.encode())
        sha.update((Path(sample.folder) / "input.wav").read_bytes())
    return sha.hexdigest()[:16]
