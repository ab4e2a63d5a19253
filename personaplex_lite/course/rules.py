"""What the course promises of each notebook. A rule gives the faults it finds, a sentence each.

A rule takes a notebook as it is kept, or a source (`exercises`). `python -m personaplex_lite.course.make`
prints the faults of what it has built; tests/test_notebooks.py fails on them, and breaks each rule once to
show that it can.
"""
from __future__ import annotations

import re
from pathlib import Path

from . import build, check
from .compare import remains

ENOUGH = 0.6            # of the code cells are really compared
MARK = re.compile(r"NBVAL_|PYTEST_VALIDATE")
REASON = re.compile(r"# \w.{8,}")


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def text_of(cell):
    """All text that a cell has put out, compared or not."""
    parts = [output.get("text", "") + output.get("evalue", "") for output in cell.outputs]
    return "\n".join(parts + [str(part) for o in cell.outputs for part in o.get("data", {}).values()])


def executed(book):
    counts = [cell.execution_count for cell in code(book)]
    return [f"not executed in order: {counts}"] * (counts != list(range(1, len(counts) + 1)))


def unbroken(book):
    for cell in code(book):
        if any(o.output_type == "error" for o in cell.outputs) or "Traceback (most recent" in text_of(cell):
            yield f"{cell.id}: stopped with an error"


def ignored(cell):
    lines = [line.strip().lstrip("# ") for line in cell.source.splitlines() if line.lstrip().startswith("#")]
    return {"NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP", "PYTEST_VALIDATE_IGNORE_OUTPUT"} & set(lines)


def compared(book):
    """Of a share that nbval really compares: not marked, and something is left that may not differ."""
    count, whole = sum(bool(remains(c)) and not ignored(c) for c in code(book)), len(code(book))
    if count < ENOUGH * whole:
        yield f"only {count} of {whole} code cells are compared, {ENOUGH:.0%} are wanted"


def marks(book):
    """nbval sees a marker only if it stands alone on its line, and it has no room for a reason there."""
    from nbval.plugin import comment_markers
    for cell in code(book):
        lines = cell.source.splitlines() + [""]
        for line, below in zip(lines, lines[1:]):
            if not MARK.search(line):
                continue
            if line.strip().lstrip("#").strip() not in comment_markers or not line.lstrip().startswith("#"):
                yield f"{cell.id}: nbval does not see a marker that is not alone on its line"
            elif "CHECK_OUTPUT" not in line and (not REASON.match(below.strip()) or MARK.search(below)):
                yield f"{cell.id}: no reason under {line.strip()}"
        if hidden := [tag for tag in cell.metadata.get("tags", []) if re.match("nbval-|raises-exc", tag)]:
            yield f"{cell.id}: the tag {hidden[0]} has no reason, a comment can have one"


def framed(book):
    """It begins with a question and the terms, and ends with what was left out and the way on."""
    first, last = book.cells[0], book.cells[-1]
    for what in ("# ", "?", "**Time**", "**Hardware**", "**Afterwards**"):
        if first.cell_type != "markdown" or what not in first.source:
            yield f"the opening has no {what.strip()!r}"
    for what in ("## What we left out", "**Where next?**"):
        if last.cell_type != "markdown" or what not in last.source:
            yield f"the last cell has no {what!r}"
    if "setup" not in book.cells[1].metadata.get("tags", []):
        yield "the setup is not the second cell"


def told(book):
    for before, cell in zip(book.cells, book.cells[1:]):
        if cell.cell_type == "code" == before.cell_type and "setup" not in before.metadata.get("tags", []):
            yield f"{cell.id}: no sentence before it"


def sensed(book):
    kinds = {kind for cell in code(book)[:3] for output in cell.outputs for kind in output.get("data", {})}
    sound = any("<audio" in text_of(cell) for cell in code(book)[:3])
    if not sound and not any(kind.startswith("image/") for kind in kinds):
        yield "no sound and no picture within three code cells"


def verdicts(book, solved):
    wanted = "right: " if solved else "not yet: "
    for cell in code(book):
        said = [o.text for o in cell.outputs if o.get("name") == "stdout"]
        if "pp.check." in cell.source and not (said and said[0].startswith(wanted)):
            yield f"{cell.id}: wanted {wanted!r}, got {''.join(said)[:80]!r}"


def linked(book, folder):
    for cell in book.cells:
        for to in re.findall(r"\]\((?!\w+:|#)([^)#]+)", cell.source if cell.cell_type == "markdown" else ""):
            if not (folder / to).exists():
                yield f"{cell.id}: the link {to} leads nowhere"


def exercises(source):
    """Each has difficulty, minutes, a folded hint, a stub that is not the solution, and a check behind it."""
    found, parts = [], []
    for flags, text in build.cells(source):
        if "markdown" in flags and text.startswith("**Exercise"):
            found.append((text, parts := []))
        elif "markdown" not in flags:
            parts.append(text)
        if not found and "# solution" in text:
            yield "a solution before the first exercise"
    if not 3 <= len(found) <= 5:
        yield f"{len(found)} exercises, 3 to 5 are wanted"
    for number, (text, parts) in enumerate(found, 1):
        for fault in exercise(number, text, parts):
            yield f"exercise {number}: {fault}"


def exercise(number, text, parts):
    if not re.match(rf"\*\*Exercise {number}\*\* (●○○|●●○|●●●), \d+ minutes?\. ", text):
        yield "its first line is not like '**Exercise 1** ●○○, 5 minutes. '"
    if not re.search(r"<details><summary>Hint.*?</summary>.*?</details>", text, re.S):
        yield "no folded hint"
    stubs = [i for i, part in enumerate(parts) if "# solution" in part]
    if not any(is_stub(part) for part in parts):
        yield "no stub that differs from the solution"
    if any(marker in build.told(part, solved) for part in parts for solved in (False, True)
           for marker in ("# solution", "# end\n")):
        yield "a solution that is not closed"
    if not any("pp.check." in part for part in parts[(stubs or [0])[0] + 1:]):
        yield "no check behind its stub"
    for name in re.findall(r"pp\.check\.(\w+)", "\n".join(parts)):
        if not hasattr(check, name):
            yield f"there is no pp.check.{name}"


def is_stub(part):
    learner, solution = build.told(part, False), build.told(part, True)
    inside = "".join(re.findall(r"# solution\n(.*?)# end", part + "\n", re.S))
    return "# fill me in" in learner and learner != solution and inside.strip(" \n.") != ""


def faults(book, path: Path, solved: bool) -> list[str]:
    """All that is wrong with a notebook that has been run, and with the source that it was made of."""
    found = [fault for rule in (executed, unbroken, compared, marks, framed, told, sensed, build.faults)
             for fault in rule(book)]
    found += [*verdicts(book, solved), *linked(book, build.target(path, solved).parent)]
    return found + list(exercises(path.read_text(encoding="utf-8")))
