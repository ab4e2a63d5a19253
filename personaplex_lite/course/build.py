"""One source a notebook: from it the learner's version and the solution are made, run and kept with outputs.

`personaplex_lite/course/source/NN_name.py` is a script in percent format:

    # %% [markdown]     what follows, each line behind `# `, is text
    # %%                code
    # %% setup          the shared cell that finds the project, wherever the notebook was opened
    # %% gpu            code that needs a GPU and the 7B's weights, or says that there are none

Code between `# solution` and `# end` stands in `solutions/` only; the learner sees a line to fill in.

`make.py` runs what this builds.
"""
from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..places import VERSION

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent / "source"
BOOKS = ROOT / "notebooks"
LINES, COLUMNS, BYTES = 12, 115, 3_000_000
SETUP = f'''\
import importlib.util, subprocess, sys
WHEEL = "personaplex_lite-{VERSION}-py3-none-any.whl"      # its path or address
if importlib.util.find_spec("personaplex_lite") is None:      # on Colab or a hub, usually
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"{{WHEEL}}[notebooks]"], check=True)
from personaplex_lite.course import lay
lay.enter()                                                   # be where ../data is'''


def cells(source: str) -> list[tuple[set[str], str]]:
    """(flags, text) of each cell of a source; a heading and an exercise begin a cell of their own.

    Raises ValueError on a flag that is not known.
    """
    found = []
    for part in re.split(r"^# %%", source, flags=re.M)[1:]:
        head, _, text = part.partition("\n")
        flags = set(head.replace("[markdown]", "markdown").split())
        if unknown := flags - {"markdown", "setup", "gpu"}:
            raise ValueError(f"no such cell: {unknown}")
        text = text.strip("\n")
        if "markdown" in flags:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
            found += [(flags, piece) for piece in re.split(r"\n+(?=\*\*Exercise|## )", text)]
        else:
            found.append((flags, SETUP if "setup" in flags else text))
    return found


def told(text: str, solved: bool) -> str:
    """A code cell as the learner sees it, or with its solution."""
    def turn(match: re.Match) -> str:
        indent, inside = match[1], match[2]
        if solved:
            return inside
        lines = sum(1 for line in inside.splitlines() if line.strip())
        body = f"{indent}...{' ' * 20}" if indent else ""      # a cell that ends with ... shows `Ellipsis`
        return f"{body}# fill me in (about {lines} line{'s' * (lines > 1)})\n"
    return re.sub(r"^([ ]*)# solution\n(.*?)^[ ]*# end\n?", turn, text + "\n", flags=re.M | re.S).rstrip("\n")


def slide(text: str, flags: set[str], skipping: bool) -> str | None:
    """Where Jupyter's own slides put a cell: a heading goes on to the right, a text down; no exercises."""
    if skipping or "setup" in flags:
        return "skip"
    if "markdown" in flags:
        return "slide" if text.startswith("#") else "subslide"
    return None


def book(path: Path, solved: bool):
    """The notebook of a source, not yet run."""
    import nbformat
    made, skipping = [], False
    for i, (flags, text) in enumerate(cells(path.read_text(encoding="utf-8"))):
        if solved:
            text = re.sub(r"""(?<=["'(])\.\./(?=\w)""", "../../", text)
        if "markdown" in flags:
            cell = nbformat.v4.new_markdown_cell(text)
            skipping = text.startswith("**Exercise") or (skipping and not text.startswith("#"))
        else:
            cell = nbformat.v4.new_code_cell(told(text, solved))
            if flags & {"setup", "gpu"}:
                cell.metadata.tags = sorted(flags)
            if "setup" in flags:
                cell.metadata.jupyter = {"source_hidden": True}
        if kind := slide(text, flags, skipping):
            cell.metadata.slideshow = {"slide_type": kind}
        if "pp.check." in text:
            skipping = False
        cell.id = f"c{i:02d}"
        made.append(cell)
    result = nbformat.v4.new_notebook(cells=made)
    result.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    result.metadata.language_info = {"name": "python"}
    result.metadata.personaplex_lite = {"lite": fingerprint()}
    return result


def fingerprint() -> str:
    """Twelve digits that change when the weights of `lite` do."""
    whole = hashlib.sha256()
    for path in sorted((ROOT / "data" / "lite").glob("*.safetensors")):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


def faults(made) -> list[str]:
    """What makes a cell hard to read or to hear, one sentence each; outputs included."""
    import nbformat
    found = []
    for cell in made.cells:
        lines = cell.source.splitlines()
        if cell.cell_type == "code" and len(lines) > LINES:
            found.append(f"{cell.id}: {len(lines)} lines, at most {LINES}")
        if cell.cell_type == "code" and max(map(len, lines), default=0) > COLUMNS:
            found.append(f"{cell.id}: more than {COLUMNS} columns")
    if (size := len(nbformat.writes(made))) > BYTES:
        found.append(f"{size:,} bytes, at most {BYTES:,}")
    return found


def target(path: Path, solved: bool) -> Path:
    return BOOKS / ("solutions" if solved else "") / f"{path.stem}.ipynb"


def stale(path: Path, solved: bool) -> str | None:
    """Why a notebook must be made again, or None."""
    import nbformat
    if not (there := target(path, solved)).exists():
        return "not there"
    old, new = nbformat.read(there, 4), book(path, solved)
    if [(c.cell_type, c.source) for c in old.cells] != [(c.cell_type, c.source) for c in new.cells]:
        return "its source has changed"
    if old.metadata.get("personaplex_lite") != new.metadata.personaplex_lite:
        return "`lite` has changed"
    return None
