"""Build the notebooks, run them and keep them with their outputs.

    python -m personaplex_lite.course.make            all that is stale
    python -m personaplex_lite.course.make 03 05      these
"""
from __future__ import annotations

import sys
from pathlib import Path

from . import build, rules


def make(path: Path, solved: bool) -> list[str]:
    """Build, run and write one notebook. Raises nbclient's CellExecutionError where a cell fails."""
    import nbformat
    from nbclient import NotebookClient
    made, to = build.book(path, solved), build.target(path, solved)
    to.parent.mkdir(exist_ok=True)
    NotebookClient(made, timeout=900, kernel_name="python3", store_widget_state=False,
                   resources={"metadata": {"path": str(to.parent)}}).execute()
    made.metadata.language_info = {"name": "python"}
    made.metadata.pop("widgets", None)
    for cell in made.cells:
        cell.metadata.pop("execution", None)                  # time stamps: nothing to keep
    nbformat.write(made, to)
    return rules.faults(made, path, solved)


def main(asked: list[str]) -> int:
    from tqdm import tqdm
    paths = [p for p in sorted(build.SOURCES.glob("*.py")) if not asked or p.stem[:2] in asked]
    jobs = [(p, solved) for p in paths for solved in (False, True) if asked or build.stale(p, solved)]
    bad = 0
    for path, solved in (bar := tqdm(jobs, unit="notebook")):
        bar.set_description(build.target(path, solved).relative_to(build.ROOT).as_posix())
        for fault in make(path, solved):
            bad += 1
            tqdm.write(f"{build.target(path, solved).name}: {fault}")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
