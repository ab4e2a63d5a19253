"""Results of the duplex benchmark beside the published rows, for people.

What departs from the textbook: a column is a metric *and* what it was measured with: the data, who heard the
words, which rule. A number of another origin gets another column, however alike the two may look.
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
    tools, data = result["instruments"], result["data"]
    return [Cell(result["system"], category, metric, origin(category, metric, tools, data, rules),
                 Value(**value)) for category, parts in result["figures"].items() for rules in SEGMENTS
            for metric, value in parts[rules].items()]


def published() -> list[Cell]:
    """The rows of published.json, which says where each was read."""
    book = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return [Cell(row["system"], category, metric,
                 origin(category, metric, book["instruments"], PAPER, "old rules"), Value(value))
            for row in book["rows"] for category in TITLES for metric, value in row.get(category, {}).items()]


def origin(category: str, metric: str, tools: dict, data: str, rules: str) -> str:
    """What two numbers must have in common to be compared."""
    with_what = {"similarity": tools["speaker"], "score": f"{tools['words']}, judge: {tools['judge']}"}
    by_voice = {"icc_backchannel": f"{tools['words']}, {SEGMENTS[rules]}"}
    return f"{data}; {with_what.get(metric) or by_voice.get(category) or tools['words']}"


def column(mixed: list[Cell]) -> dict[str, Value]:
    """Cells -> system: value. Raises ValueError unless all are of one metric and one origin."""
    if len({(cell.category, cell.metric, cell.origin) for cell in mixed}) > 1:
        raise ValueError("these numbers cannot share a column: "
                         + " | ".join(sorted({f"{cell.metric}: {cell.origin}" for cell in mixed})))
    return {cell.system: cell.value for cell in mixed}


def table(results: list[dict], rows: bool = True) -> str:
    """By category: a line for each system, a column for each metric and origin. rows: published ones, too."""
    everything = [cell for result in results for cell in cells(result)] + (published() if rows else [])
    letters: dict[str, str] = {}
    blocks = []
    for category, title in TITLES.items():
        mine = [cell for cell in everything if cell.category == category]
        if any(cell.category == category for result in results for cell in cells(result)):
            blocks.append(block(title, category, mine, letters))
    legend = [f"  {letter}  {what}" for what, letter in letters.items()]
    beyond = [unseen(result) for result in results]
    legend = "\n".join(["Measured on, and with (different letters: not comparable)", *legend])
    return "\n\n".join([*blocks, legend, *beyond, *(["Sources\n" + sources()] if rows else [])])


def block(title: str, category: str, mine: list[Cell], letters: dict[str, str]) -> str:
    """One category as text. letters: origin -> its letter, grows."""
    columns = {}
    for key in dict.fromkeys((cell.metric, cell.origin) for cell in mine):
        letter = letters.setdefault(key[1], "abcdefghijklmnopqrstuvwxyz"[len(letters) % 26])
        arrow = ARROWS.get(key[0]) or ("↑" if category in TAKING else "↓")
        columns[f"{key[0]} {arrow} {letter}"] = column([c for c in mine if (c.metric, c.origin) == key])
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
    return f"{value.value:.3f}" + (f" {value.low:.2f}–{value.high:.2f}" if value.low is not None else "")


def unseen(result: dict) -> str:
    """What the official numbers do not see, by category."""
    lines = [f"What they do not see: {result['system']} on {result['data']}"]
    for category, parts in result["figures"].items():
        floor = parts["floor transfers"]
        told = [f"{name} {show(Value(**value))}" for name, value in parts["beyond"].items()]
        if floor["n"]:
            low, middle, high = floor["10, 50, 90 %"]
            told.append(f"user → agent {middle:+.2f} s, median of {floor['n']} ({low:+.2f} … {high:+.2f})")
        lines += [f"  {TITLES[category]} ({parts['files']} files)", *(f"    {text}" for text in told)]
        both = parts["official"] | parts["beyond"]
        why = [f"{name}: {value['reason']}" for name, value in both.items() if value.get("reason")]
        lines += [f"    undefined: {'; '.join(why)}"] if why else []
    return "\n".join(lines)


def sources() -> str:
    book = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return "\n".join([*(f"  {row['system']}: {row['source']}" for row in book["rows"]), f"  {book['about']}"])
