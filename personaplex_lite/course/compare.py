"""A pytest plugin: how the outputs of the notebooks are compared. What may differ stands in tests/nbval.cfg.

    pytest -p personaplex_lite.course.compare --nbval notebooks        (`make test-notebooks`)

What departs from nbval: kinds of output can be left out, by the list in the same file as the masks.
"""
from __future__ import annotations

import configparser
import re
from functools import cache
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[2] / "tests" / "nbval.cfg"
SECONDS = 600                           # for one cell


@cache
def rules() -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """(kinds of output that are not compared, (regular expression, what it becomes) of what may differ)."""
    from nbval.plugin import get_sanitize_patterns
    text, parser = CONFIG.read_text(encoding="utf-8"), configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return tuple(parser["not compared"]["kinds"].split()), get_sanitize_patterns(text)


def remains(cell) -> str:
    """The text of a cell's outputs that is really compared: without what may differ, the bare names of
    objects, and the words that stand in for a picture or a widget."""
    kinds, masks = rules()
    parts = []
    for output in cell.outputs:
        found = {output.get("name", "text"): output.get("text", "")} | dict(output.get("data", {}))
        if any(kind.startswith(("image/", "application/")) for kind in found):
            continue
        parts += [text for kind, text in found.items() if kind not in kinds]
    text = "\n".join(parts)
    for mask, _ in masks:
        text = re.sub(mask, "", text)
    return re.sub(r"<[\w.]+ object[^>]*>", "", text).strip()


def pytest_configure(config):
    """The one configuration, so that nobody has to repeat it on a command line."""
    option = config.option
    option.nbval_current_env, option.nbval_cell_timeout = True, SECONDS
    option.nbval_sanitize_with = str(CONFIG)


def pytest_collectstart(collector):
    """nbval has no option for it: a notebook's own list of what is skipped grows by ours."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += rules()[0]
