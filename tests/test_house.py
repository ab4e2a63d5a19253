"""Who may import whom (docs/architecture.md), and no import in a circle; both are shown able to fail."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "personaplex_lite"
NAME = PACKAGE.name
BASE = {"places", "audio", "viz"}                 # top-level files that any room but `model` may import
JOINED = BASE | {"agent", "model", "talk", "weights"}
MAY = {
    "model": set(),
    "audio": {"model"},
    "viz": {"model"},
    "places": set(),
    "talk": BASE | {"model"},
    "weights": BASE | {"model", "talk/voice"},    # a converted folder holds voices, which it writes anew
    "cli": {"places"},
    "__main__": {"cli"},
    "kernels": {"model"},
    "agent": BASE | {"kernels", "model", "talk", "weights"},
    "doctor": JOINED | {"kernels"},
    "live": JOINED,
    "training": JOINED,
    "evaluation": JOINED | {"training"},
    "course": JOINED | {"live", "evaluation", "training"},
}
REACH_UP = {"cli", "__init__", "__main__"}            # the doors of the house: to anything, lazily


def imports(path, package):
    """(module it names, whether inside a function) for each import of ours in a file."""
    name = ".".join([package.name, *path.relative_to(package).with_suffix("").parts])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(node) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))
             for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")[:-node.level] if node.level else []
            base = ".".join(parts + (node.module.split(".") if node.module else []))
            named = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in named:
            if target.split(".")[0] in (package.name, "benchmarks", "tests"):
                yield target, id(node) in inner


def module_of(target, package):
    """The file that an imported dotted name is in, as a path without ending; None for names of a package."""
    parts = target.split(".")[1:]
    for end in range(len(parts), 0, -1):
        path = package.joinpath(*parts[:end])
        if path.with_suffix(".py").exists() or path.is_dir():
            return "/".join(parts[:end])
    return "__init__"


def files(package):
    return [path for path in sorted(package.rglob("*.py")) if "source" not in path.parts]


def trespasses(package=PACKAGE):
    """A sentence for each import that the house does not allow."""
    for path in files(package):
        here = path.relative_to(package).with_suffix("").parts[0]
        for target, lazily in imports(path, package):
            where = f"{path.relative_to(package)} imports {target}"
            if target.split(".")[0] != package.name:
                yield f"{where}: nothing imports benchmarks or tests"
                continue
            module = module_of(target, package)
            room = module.split("/")[0]
            lazy = here in REACH_UP and (lazily or here == "__init__")
            if room != here and not {room, module} & MAY.get(here, set()) and not lazy:
                allowed = ', '.join(sorted(MAY.get(here, set()))) or 'nothing of ours'
                yield f"{where}: {here} may import {allowed}"


def circles(package=PACKAGE):
    """A circle of files that import each other, lazily or not; the package's own __init__ is left out."""
    graph = {}
    for path in files(package):
        name = path.relative_to(package).with_suffix("").as_posix()
        found = {module_of(target, package) for target, _ in imports(path, package)}
        graph[name] = {n for n in found if n not in (name, "__init__")}
    done, way = set(), []

    def visit(name):
        if name in way:
            return way[way.index(name):] + [name]
        if name in done or name not in graph:
            return None
        way.append(name)
        circle = next(filter(None, map(visit, sorted(graph[name]))), None)
        way.pop()
        done.add(name)
        return circle

    return next(filter(None, map(visit, sorted(graph))), None)


def test_every_room_keeps_to_its_neighbours():
    found = list(trespasses())
    assert not found, "\n".join(found)


def test_no_circle():
    found = circles()
    assert found is None, " → ".join(found)


@pytest.fixture
def planted(tmp_path):
    """A house with one clean file in two rooms; returns a function that adds a line to one of them."""
    package = tmp_path / NAME
    for room in ("model", "talk"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")
    (package / "model" / "lm.py").write_text("import math\n")
    (package / "talk" / "session.py").write_text("from ..model import lm\n")
    assert not list(trespasses(package)) and circles(package) is None

    def plant(file, line):
        path = package / file
        path.write_text(path.read_text() + line)
        return package
    return plant


@pytest.mark.parametrize("line", ["from ..talk import session\n", "import benchmarks.speed\n",
                                  "def f():\n    from ..talk.session import Session\n"])
def test_a_planted_import_is_found(planted, line):
    assert len(list(trespasses(planted("model/lm.py", line)))) == 1


def test_a_planted_circle_is_found(planted):
    package = planted("model/lm.py", "def f():\n    from ..talk import session\n")
    assert circles(package) == ["model/lm", "talk/session", "model/lm"]
