"""Results of the duplex benchmark beside the published rows, for people.

A column is a metric *and* what it was measured with: the data, who heard the words, which rule. A number of
another origin gets another column, however alike the two may look.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .bench import Value

TITLES = {"candor_pause_handling": "Pause handling, spontaneous (Candor)",
          "synthetic_pause_handling": "Pause handling, synthetic", "icc_backchannel": "Backchannel (ICC)",
          "candor_turn_taking": "Smooth turn-taking (Candor)",
          "synthetic_user_interruption": "User interruption (synthetic)"}
ARROWS = {"frequency": "↑", "JSD": "↓", "latency": "↓", "score": "↑", "similarity": "↑"}
TAKING = ("candor_turn_taking", "synthetic_user_interruption")      # where taking over is good
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PAPER = "Full-Duplex-Bench v1.0"
SEGMENTS = {"official": "silero at 16 kHz, r2", "old rules": "silero, 24 kHz read as 16 kHz, r1"}


@dataclass(frozen=True)
class Cell:
    """One number: whose, of which metric, and `origin`: the data and the instruments it comes from."""
    system: str
    category: str
    metric: str
    origin: str
    value: Value


def cells(result: dict) -> list[Cell]:
    """A results.json -> its official numbers, by the current rules and by the old ones."""
    found = []
    for category, parts in result["figures"].items():
        for rules in SEGMENTS:
            for metric, value in parts[rules].items():
                where = origin(category, metric, result["instruments"], result["data"], rules)
                found.append(Cell(result["system"], category, metric, where, Value(**value)))
    return found


def _book() -> dict:
    """published.json."""
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def published() -> list[Cell]:
    """The rows of published.json, which says where each was read."""
    book = _book()
    found = []
    for row in book["rows"]:
        for category in TITLES:
            for metric, value in row.get(category, {}).items():
                where = origin(category, metric, book["instruments"], PAPER, "old rules")
                found.append(Cell(row["system"], category, metric, where, Value(value)))
    return found


def origin(category: str, metric: str, tools: dict, data: str, rules: str) -> str:
    """What two numbers must have in common to be compared."""
    if metric == "similarity":
        tool = tools["speaker"]
    elif metric == "score":
        tool = f"{tools['words']}, judge: {tools['judge']}"
    elif category == "icc_backchannel":
        tool = f"{tools['words']}, {SEGMENTS[rules]}"
    else:
        tool = tools["words"]
    return f"{data}; {tool}"


def column(mixed: list[Cell]) -> dict[str, Value]:
    """Cells -> system: value. Raises ValueError unless all are of one metric and one origin."""
    origins = {(cell.category, cell.metric, cell.origin) for cell in mixed}
    if len(origins) > 1:
        both = sorted({f"{metric}: {where}" for _, metric, where in origins})
        raise ValueError(f"these numbers cannot share a column: {' | '.join(both)}")
    return {cell.system: cell.value for cell in mixed}


def table(results: list[dict], rows: bool = True) -> str:
    """By category: a line for each system, a column for each metric and origin. rows: published ones, too."""
    measured = [cell for result in results for cell in cells(result)]
    everything = measured + (published() if rows else [])
    letters: dict[str, str] = {}
    blocks = []
    for category, title in TITLES.items():
        if any(cell.category == category for cell in measured):
            mine = [cell for cell in everything if cell.category == category]
            blocks.append(block(title, category, mine, letters))
    legend = ["Measured on, and with (different letters: not comparable)"]
    legend += [f"  {letter}  {what}" for what, letter in letters.items()]
    blocks.append("\n".join(legend))
    blocks += [unseen(result) for result in results]
    if rows:
        blocks.append("Sources\n" + sources())
    return "\n\n".join(blocks)


def block(title: str, category: str, mine: list[Cell], letters: dict[str, str]) -> str:
    """One category as text. letters: origin -> its letter, grows."""
    columns = {}
    for metric, where in dict.fromkeys((cell.metric, cell.origin) for cell in mine):
        letter = letters.setdefault(where, LETTERS[len(letters) % len(LETTERS)])
        arrow = ARROWS.get(metric) or ("↑" if category in TAKING else "↓")
        alike = [cell for cell in mine if (cell.metric, cell.origin) == (metric, where)]
        columns[f"{metric} {arrow} {letter}"] = column(alike)
    lines = [[title, *columns]]
    for system in dict.fromkeys(cell.system for cell in mine):
        lines.append([f"  {system}", *(show(values.get(system)) for values in columns.values())])
    widths = [max(map(len, texts)) for texts in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def show(value: Value | None) -> str:
    """0.875 0.53–0.98: the mean and its 95 % interval; –: undefined; nothing: not measured."""
    if value is None:
        return ""
    if value.value is None:
        return "–"
    text = f"{value.value:.3f}"
    if value.low is not None:
        text += f" {value.low:.2f}–{value.high:.2f}"
    return text


def unseen(result: dict) -> str:
    """What the official numbers do not see, by category."""
    lines = [f"What they do not see: {result['system']} on {result['data']}"]
    for category, parts in result["figures"].items():
        lines.append(f"  {TITLES[category]} ({parts['files']} files)")
        lines += [f"    {name} {show(Value(**value))}" for name, value in parts["beyond"].items()]
        floor = parts["floor transfers"]
        if floor["n"]:
            low, middle, high = floor["10, 50, 90 %"]
            lines.append(f"    user → agent {middle:+.2f} s, median of {floor['n']} "
                         f"({low:+.2f} … {high:+.2f})")
        both = parts["official"] | parts["beyond"]
        why = [f"{name}: {value['reason']}" for name, value in both.items() if value.get("reason")]
        if why:
            lines.append(f"    undefined: {'; '.join(why)}")
    return "\n".join(lines)


def sources() -> str:
    """Where each published row was read."""
    book = _book()
    lines = [f"  {row['system']}: {row['source']}" for row in book["rows"]]
    lines.append(f"  {book['about']}")
    return "\n".join(lines)
