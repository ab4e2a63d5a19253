"""The version, and where what ships with the code lies: inside the package, or beside it in a clone."""
from __future__ import annotations

from pathlib import Path

VERSION = "0.2.0"
PACKAGE = Path(__file__).resolve().parent
CLONE = PACKAGE.parent                  # the repository, if this is one


def _shipped(name: str) -> Path:
    """A folder that a wheel carries inside the package and a clone has beside it."""
    installed = PACKAGE / name
    return installed if installed.is_dir() else CLONE / name


DATA = _shipped("data")
LITE = DATA / "lite"                    # the checkpoint that `pp.load()` loads
QUESTIONS = DATA / "questions"          # recorded questions, with questions.json about them
DOCS = _shipped("docs")
NOTEBOOKS = _shipped("notebooks")
