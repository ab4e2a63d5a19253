"""The size table, in code tokens, and the budget that keeps "lite" lite: exit 1 and what is too long.

Tokens, not lines: a limit of lines makes people put two thoughts on one. Comments, docstrings, line breaks
and indentation are free; a name, a number, a string, an operator or a bracket counts one.
"""
from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "personaplex_lite"
CORE = ("model", "talk")                                     # what a conversation is made of
APART = ("evaluation", "training", "course")                 # read apart from the package
CORE_TOKENS, PACKAGE_TOKENS = 20_000, 45_000
FUNCTION, FILE, COLUMNS = 40, 400, 110                       # lines, lines, characters
FREE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENCODING, tokenize.ENDMARKER}


def docstring_lines(tree: ast.AST) -> set[int]:
    """The numbers of all lines that belong to docstrings."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            found.update(range(text.lineno, text.end_lineno + 1))
    return found


def tokens(source: str) -> tuple[int, int]:
    """(code tokens, lines that hold at least one) of a file."""
    free = docstring_lines(ast.parse(source))
    counted = [token.start[0] for token in tokenize.generate_tokens(io.StringIO(source).readline)
               if token.type not in FREE and token.start[0] not in free]
    return len(counted), len(set(counted))


def functions(source: str) -> list[tuple[int, str]]:
    """(lines, name) of every function, methods and inner ones included; decorators and docstring are free."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            text = docstring_lines(ast.Module([node], [])) & docstring_lines(node)
            found.append((node.end_lineno - node.lineno + 1 - len(text), node.name))
    return found


def check(package: Path = PACKAGE) -> tuple[list[tuple], list[str]]:
    """Rows (file, tokens, code lines, longest function's lines, its name), and a sentence for each fault."""
    rows, faults = [], []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name.startswith(("course/source", "notebooks", "data")):
            continue
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        longest = max(functions(source), default=(0, ""))
        rows.append((name, *tokens(source), *longest))
        if len(lines) > FILE:
            faults.append(f"{name}: {len(lines)} lines, at most {FILE}")
        if longest[0] > FUNCTION:
            faults.append(f"{name}: {longest[1]}() has {longest[0]} lines, at most {FUNCTION}")
        faults += [f"{name}:{number}: {len(line)} columns, at most {COLUMNS}"
                   for number, line in enumerate(lines, 1) if len(line) > COLUMNS]
    for what, count, most in (("core", core(rows), CORE_TOKENS), ("package", whole(rows), PACKAGE_TOKENS)):
        if count > most:
            faults.append(f"the {what} has {count} code tokens, at most {most}")
    return rows, faults


def core(rows: list[tuple]) -> int:
    """Code tokens of what a conversation is made of."""
    return sum(row[1] for row in rows if row[0].startswith(CORE))


def whole(rows: list[tuple]) -> int:
    """Code tokens of the package without evaluation, training and course."""
    return sum(row[1] for row in rows if not row[0].startswith(APART))


def main() -> int:
    rows, faults = check()
    print(f"  {'file':36}{'tokens':>8}{'a line':>8}   longest function")
    rooms: dict[str, list[tuple]] = {}
    for row in rows:
        rooms.setdefault(row[0].rpartition("/")[0] or ".", []).append(row)
    for room, files in rooms.items():
        count, lines = sum(row[1] for row in files), sum(row[2] for row in files)
        print(f"{room + '/':38}{count:8}{count / max(1, lines):8.1f}")
        for name, count, lines, longest, function in files:
            rate = f"{count / lines:8.1f}" if lines else " " * 8
            end = f"{longest:3} {function}" if longest else ""
            print(f"    {name.rpartition('/')[2]:34}{count:8}{rate}   {end}")
    print(f"core {core(rows)} of {CORE_TOKENS} code tokens, package {whole(rows)} of {PACKAGE_TOKENS}")
    for fault in faults:
        print(f"too long: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
