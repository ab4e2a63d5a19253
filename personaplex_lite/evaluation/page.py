"""Tables of measurements, and their place in a page that people write."""
from __future__ import annotations

from pathlib import Path


def table(*rows: tuple) -> str:
    """Markdown; the first row is the head."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    rule = "|" + "---|" * len(rows[0])
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def put(path: Path, name: str, text: str) -> None:
    """Write text between the marks NAME of a page; what people wrote around them stays."""
    replace(path, f"<!-- written by {name} -->", text, f"<!-- end of {name} -->")


def replace(path: Path, begin: str, text: str, end: str | None = None) -> None:
    """Write text behind the mark `begin` of a page, up to the mark `end`; without one, to the page's end."""
    above, _, old = path.read_text(encoding="utf-8").partition(begin)
    below = ""
    if end is not None:
        rest = old.partition(end)[2]
        below = f"\n{end}" + (rest or "\n")
    path.write_text(f"{above}{begin}\n\n{text}{below}", encoding="utf-8")
