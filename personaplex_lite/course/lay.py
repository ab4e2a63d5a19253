"""Lay the course into a folder of one's own: notebooks, pictures, and the data that they read.

    personaplex-lite course FOLDER [--solutions]
"""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..places import DATA, DOCS, NOTEBOOKS

HOME = "personaplex_course"             # where a notebook lays the data if there is none near it


def lay(folder, solutions: bool = False) -> Path:
    """Copy the course to `folder`/notebooks, data/ and docs/ beside it; return the first notebook.

    Raises FileExistsError if `folder` holds any of them already: nothing is ever overwritten.
    """
    folder = Path(folder)
    # all is checked before anything is written
    taken = [folder / name for name in ("notebooks", "data", "docs") if (folder / name).exists()]
    if taken:
        raise FileExistsError(f"{taken[0]} is there already, and nothing is overwritten: name another folder")
    skipped = shutil.ignore_patterns(".ipynb_checkpoints", *([] if solutions else ["solutions"]))
    shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=skipped)
    shutil.copytree(DATA, folder / "data")
    shutil.copytree(DOCS, folder / "docs")
    return min((folder / "notebooks").glob("*.ipynb"))


def enter() -> None:
    """Called by each notebook's setup cell: be where `../data` is; lay the course if that is nowhere near."""
    here = Path.cwd()
    solved = here.name == "solutions"
    root = here.parents[1] if solved else here.parent
    if (root / "data" / "questions").is_dir():
        return
    root = Path.home() / HOME
    if not (root / "data" / "questions").is_dir():
        lay(root, solutions=True)
    os.chdir(root / "notebooks")
