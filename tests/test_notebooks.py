"""Every notebook keeps the course's rules (personaplex_lite/course/rules.py), and every rule can be broken.

Here the notebooks are only read; `make test-notebooks` runs them and compares what they put out.
"""

import re
import subprocess
import sys
from functools import cache

import nbformat
import pytest

from personaplex_lite.course import build, compare
from personaplex_lite.course.rules import (
    code,
    compared,
    executed,
    exercises,
    framed,
    linked,
    marks,
    sensed,
    told,
    unbroken,
    verdicts,
)

SOURCES = sorted(build.SOURCES.glob("*.py"))
NOTEBOOKS = [pytest.param(path, solved, id=build.target(path, solved).relative_to(build.BOOKS).as_posix())
             for path in SOURCES for solved in (False, True)]

@cache
def kept(path, solved):
    if not (there := build.target(path, solved)).exists():
        pytest.fail(f"{there.name} is not there: make notebooks", pytrace=False)
    return nbformat.read(there, 4)


def test_every_notebook_has_a_source():
    there = {path.relative_to(build.BOOKS) for path in build.BOOKS.rglob("*.ipynb")
             if ".ipynb_checkpoints" not in path.parts}
    assert SOURCES and there <= {build.target(*p.values).relative_to(build.BOOKS) for p in NOTEBOOKS}


@pytest.mark.parametrize("path, solved", NOTEBOOKS)
def test_it_is_what_its_source_and_lite_give(path, solved):
    assert not (why := build.stale(path, solved)), f"{why}: make notebooks"


@pytest.mark.parametrize("path, solved", NOTEBOOKS)
@pytest.mark.parametrize("rule", [executed, unbroken, compared, marks, framed, told, sensed, build.faults])
def test_notebook(rule, path, solved):
    assert not (found := list(rule(kept(path, solved)))), "\n".join(found)


@pytest.mark.parametrize("path, solved", NOTEBOOKS)
def test_checks_and_links(path, solved):
    book, folder = kept(path, solved), build.target(path, solved).parent
    assert not (found := [*verdicts(book, solved), *linked(book, folder)]), "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=[path.stem for path in SOURCES])
def test_exercises(path):
    assert not (found := list(exercises(path.read_text(encoding="utf-8")))), "\n".join(found)


# Each of these can fail: a small notebook without a fault, and then with one.

WIDGET = "application/vnd.jupyter.widget-view+json"


def sample():
    """A notebook that keeps every rule."""
    new = nbformat.v4
    book = new.new_notebook(cells=[
        new.new_markdown_cell("# Why?\n**Time** 5 minutes. **Hardware** none. **Afterwards** you can."),
        new.new_code_cell("import os", metadata={"tags": ["setup"]}),
        new.new_markdown_cell("Listen."),
        new.new_code_cell("play()", outputs=[new.new_output(
            "display_data", {"text/html": "<audio>", "text/plain": "<IPython.lib.display.Audio object>"})]),
        new.new_markdown_cell("Count."),
        new.new_code_cell("print(7)", outputs=[new.new_output("stream", text="7 codes in 3.2 s\n")]),
        new.new_markdown_cell("The check."),
        new.new_code_cell("pp.check.x(1)", outputs=[new.new_output("stream", text="right: one\n")]),
        new.new_markdown_cell("Look."),
        new.new_code_cell("x", outputs=[new.new_output("execute_result", {"text/plain": "5"})]),
        new.new_markdown_cell("## What we left out\n**Where next?** [x](../personaplex_lite/course/source)")])
    for i, cell in enumerate(book.cells):
        cell.id = f"c{i:02d}"
    for i, cell in enumerate(code(book), 1):
        cell.execution_count = i
    return book


def rights(book):
    return verdicts(book, True)


def links(book):
    return linked(book, build.BOOKS)


RULES = [executed, unbroken, compared, marks, framed, told, sensed, build.faults, rights, links]


def test_a_good_notebook_has_no_faults():
    assert [rule.__name__ for rule in RULES if list(rule(sample()))] == []


def output(kind, *args, **named):
    return lambda cell: cell.update(outputs=[nbformat.v4.new_output(kind, *args, **named)])


def source(text):
    return lambda cell: cell.update(source=text)


@pytest.mark.parametrize("rule, at, change", [
    (executed, 5, lambda cell: cell.update(execution_count=None)),
    (executed, 5, lambda cell: cell.update(execution_count=9)),
    (unbroken, 5, output("error", ename="ValueError", evalue="no", traceback=[])),
    (unbroken, 5, output("stream", name="stderr", text="Traceback (most recent call last):")),
    (compared, 5, lambda cell: cell.update(outputs=[])),
    (compared, 5, output("stream", name="stderr", text="7 codes")),
    (compared, 5, output("stream", text="\n")),
    (compared, 5, output("stream", text="3.2 s\n")),
    (compared, 5, output("display_data", {"image/png": "iVBO", "text/plain": "a picture"})),
    (compared, 5, output("execute_result", {"text/plain": "<Figure size 9x9 with 1 Axes>"})),
    (compared, 5, output("display_data", {WIDGET: {}, "text/plain": "Talk"})),
    (compared, 5, output("display_data", {"text/html": "<audio>", "text/plain": "<a.Audio object>"})),
    (compared, 5, source("# NBVAL_IGNORE_OUTPUT\n# what was heard may differ\nprint(7)")),
    (compared, 5, source("# NBVAL_SKIP\n# what was heard may differ\nprint(7)")),
    (marks, 5, source("# NBVAL_IGNORE_OUTPUT\nprint(7)")),
    (marks, 5, source("# NBVAL_SKIP\n\n# what was heard may differ\nprint(7)")),
    (marks, 5, source("# NBVAL_RAISES_EXCEPTION\n# NBVAL_IGNORE_OUTPUT\nprint(7)")),
    (marks, 5, source("# NBVAL_IGNORE_OUTPUT what was heard may differ\nprint(7)")),
    (marks, 5, source("print(7)  # NBVAL_IGNORE_OUTPUT\n# what was heard may differ")),
    (marks, 5, lambda cell: cell.metadata.update(tags=["nbval-skip"])),
    (marks, 5, lambda cell: cell.metadata.update(tags=["raises-exception"])),
    (framed, 0, source("# Why?\n**Time** 5 minutes. **Hardware** none.")),
    (framed, 0, source("# Why\n**Time** 5 minutes. **Hardware** none. **Afterwards** you can.")),
    (framed, 1, lambda cell: cell.metadata.update(tags=[])),
    (framed, 10, source("That was all.")),
    (told, 4, lambda cell: cell.update(cell_type="code", outputs=[], execution_count=3)),
    (sensed, 3, lambda cell: cell.update(outputs=[])),
    (build.faults, 5, source("x\n" * 13)),
    (build.faults, 5, source("x" * 116)),
    (build.faults, 3, output("display_data", {"text/html": "A" * 3_000_000})),
    (rights, 7, output("stream", text="not yet: fill in\n")),
    (rights, 7, output("stream", text="all right: one\n")),
    (rights, 7, lambda cell: cell.update(outputs=[])),
    (links, 10, source("[there](../personaplex_lite/nowhere.py)")),
])
def test_a_notebook_can_fail(rule, at, change):
    book = sample()
    change(book.cells[at])
    assert list(rule(book)), "a fault was not found"


def test_a_learner_must_not_be_told_that_it_is_right():
    assert list(verdicts(sample(), False))


EXERCISE = """\
# %% [markdown]
# **Exercise {n}** ●○○, 5 minutes. Add one.
#
# <details><summary>Hint</summary>Add.</details>

# %%
def more(x):
    # solution
    return x + 1
    # end

# %% [markdown]
# The check.

# %%
pp.check.columns_of(more)

"""
COURSE = "".join(EXERCISE.format(n=n) for n in (1, 2, 3))


def test_good_exercises_have_no_faults():
    assert list(exercises(COURSE)) == []


@pytest.mark.parametrize("old, new", [
    ("●○○, 5", "5"), ("●○○", "●○●"), ("5 minutes", "short"), ("Exercise 3", "Exercise 2"),
    ("<details>", ""), ("</details>", ""),
    ("    return x + 1\n", ""), ("return x + 1", "..."), ("    # solution\n", ""), ("    # end\n", ""),
    ("pp.check.columns_of(more)", "more(1)"), ("columns_of", "no_such_check"), ("pp.check", "check"),
    (EXERCISE.format(n=3), ""), ("# %%\ndef more", "# %% [markdown]\n# def more"),
    ("# %% [markdown]\n# **Exercise 1", "# %%\n# solution\nx = 2\n# end\n# %% [markdown]\n# **Exercise 1"),
])
def test_an_exercise_can_fail(old, new):
    assert old in COURSE and list(exercises(COURSE.replace(old, new)))


def test_a_check_must_come_after_its_stub():
    stub, last = EXERCISE.split("# %%\n")[1:]
    assert list(exercises(COURSE.replace(f"# %%\n{stub}# %%\n{last}", f"# %%\n{last}# %%\n{stub}")))


@pytest.mark.parametrize("change, why", [
    (lambda book: None, None),
    (lambda book: book.cells[0].update(source="another"), "source"),
    (lambda book: book.cells.pop(), "source"),
    (lambda book: book.metadata.personaplex_lite.update(lite="0123"), "lite"),
    (lambda book: book.metadata.pop("personaplex_lite"), "lite"),
])
def test_stale(tmp_path, monkeypatch, change, why):
    path = tmp_path / "00_x.py"
    path.write_text("# %% [markdown]\n# # Why?\n\n" + COURSE, encoding="utf-8")
    monkeypatch.setattr(build, "BOOKS", tmp_path)
    monkeypatch.setattr(build, "fingerprint", lambda: "89ab")
    assert build.stale(path, False) == "not there"
    book = build.book(path, False)
    change(book)
    nbformat.write(book, build.target(path, False))
    assert why in build.stale(path, False) if why else build.stale(path, False) is None


def test_the_weights_have_a_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    weights = tmp_path / "data" / "lite" / "lm.safetensors"
    weights.parent.mkdir(parents=True)
    prints = [build.fingerprint() for _ in map(weights.write_bytes, (b"one", b"two", b"two"))]
    assert prints[0] != prints[1] == prints[2]


def test_masks_hide_what_they_should_and_no_more():
    kinds, masks = compare.rules()
    assert {"stderr", "text/html", "image/png"} <= set(kinds)
    assert not {"stdout", "text/plain", "data"} & set(kinds)

    def masked(text):
        for mask, instead in masks:
            text = re.sub(mask, instead, text)
        return text
    same = [("took 3.1 s", "took 12 s"), ("12 ms", "9.5 ms"), ("<Figure size 9x9>", "<Figure size 8x8>"),
            ("<a at 0x7f00aa10>", "<a at 0x7f00bb20>"), ("/home/a/notebooks", "/root/b/notebooks"),
            ("3.4 × real time", "2.9 × real time")]
    other = [("17 rows", "16 rows"), ("(17, 71)", "(17, 70)"), ("0.31", "0.32"), ("right: x", "not yet: x"),
             ("3 steps", "4 steps"), ("we open at ten", "we open at two"), ("70%", "71%")]
    assert all(masked(a) == masked(b) for a, b in same) and all(masked(a) != masked(b) for a, b in other)


@pytest.mark.slow
def test_what_nbval_finds(tmp_path):
    """The real thing on a small notebook: each cell with what was kept, and whether it may pass."""
    new, html = nbformat.v4, "<IPython.core.display.HTML object>"
    cases = [
        ("print(7)", [new.new_output("stream", text="7\n")], True),
        ("print(7)", [new.new_output("stream", text="8\n")], False),
        ("print(7)", [], False),
        ("x = 7", [new.new_output("stream", text="7\n")], False),
        ("# NBVAL_IGNORE_OUTPUT\nprint(7)", [new.new_output("stream", text="8\n")], True),
        ("print('took 3 ms')", [new.new_output("stream", text="took 5.1 ms\n")], True),
        ("import sys\nprint('5%|', 7, file=sys.stderr)", [], True),
        ("from IPython.display import HTML, display\ndisplay(HTML('<audio 1>'))",
         [new.new_output("display_data", {"text/html": "<audio 2>", "text/plain": html})], True),
        ("7", [new.new_output("execute_result", {"text/plain": "8"}, execution_count=9)], False),
        ("1 / 0", [new.new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])], False),
    ]
    book = new.new_notebook(cells=[new.new_code_cell(text, outputs=kept, execution_count=i)
                                   for i, (text, kept, _) in enumerate(cases, 1)])
    nbformat.write(book, tmp_path / "small.ipynb")
    command = f"-m pytest -p personaplex_lite.course.compare --nbval -rA {tmp_path / 'small.ipynb'}".split()
    done = subprocess.run([sys.executable, *command], cwd=build.ROOT, capture_output=True, text=True)
    found = re.findall(r"^(PASSED|FAILED) .*::Cell (\d+)", done.stdout, re.M)
    passed = {int(cell): word == "PASSED" for word, cell in found}
    assert passed == {i: may for i, (*_, may) in enumerate(cases)}, done.stdout
