"""The line table, and the budget that keeps "lite" lite: exit 1 with a list of what is too long."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "personaplex_lite"
# What a conversation is made of, in reading order; checkpoint, audio and the rest do not count as core.
CORE = "config state conv transformer rvq mimi lm depth grid sampling text persona session".split()
FILE, FUNCTION, COLUMNS, CORE_LINES, PACKAGE_LINES = 300, 40, 110, 1600, 4000
RECIPE_LINES = 2000     # how `lite` was made: read apart from the package


def functions(source: str) -> list[tuple[int, str]]:
    """(lines, name) of every function, methods and inner ones included, decorators not counted."""
    defs = (n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return [(d.end_lineno - d.lineno + 1, d.name) for d in defs]


def check(package: Path = PACKAGE, most_lines: int = PACKAGE_LINES) -> tuple[list[tuple], list[str]]:
    """The table's rows (file, lines, longest function, its name) and the offenders, one sentence each."""
    rows, faults = [], []
    for path in sorted(package.rglob("*.py")):
        name, source = path.relative_to(package).as_posix(), path.read_text(encoding="utf-8")
        lines, defs = source.splitlines(), functions(source)
        rows.append((name, len(lines), *max(defs, default=(0, ""))))
        if len(lines) > FILE:
            faults.append(f"{name}: {len(lines)} lines, at most {FILE}")
        faults += [f"{name}: {f}() has {n} lines, at most {FUNCTION}" for n, f in defs if n > FUNCTION]
        faults += [f"{name}:{i}: {len(line)} columns, at most {COLUMNS}"
                   for i, line in enumerate(lines, 1) if len(line) > COLUMNS]
    for what, lines, most in (("core", core(rows), CORE_LINES), (package.name, total(rows), most_lines)):
        if lines > most:
            faults.append(f"the {what} has {lines} lines, at most {most}")
    return rows, faults


def core(rows) -> int:
    return sum(lines for name, lines, *_ in rows if name.removesuffix(".py") in CORE)


def total(rows) -> int:
    return sum(lines for _, lines, *_ in rows)


def main() -> int:
    rows, faults = check()
    extra, more = check(PACKAGE.parent / "recipe", RECIPE_LINES)
    faults += more
    width = max(len(row[0]) for row in rows) + 2
    print(f"  {'file':{width}}{'lines':>5}   longest function")
    for name, lines, longest, function in rows:
        mark = "*" if name.removesuffix(".py") in CORE else " "
        print(f"{mark} {name:{width}}{lines:5}   {f'{longest:3} {function}' if longest else ''}")
    print(f"* {'core':{width}}{core(rows):5}   of {CORE_LINES}")
    print(f"  {'package':{width}}{total(rows):5}   of {PACKAGE_LINES}")
    print(f"  {'recipe':{width}}{total(extra):5}   of {RECIPE_LINES}, beside the package")
    for fault in faults:
        print(f"too long: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
