"""The curves of a training as a picture: one panel a loss, one line a run, steps along the bottom."""
from __future__ import annotations

import json
from pathlib import Path

PANELS = {"spectra": "codec: spectra", "phone": "codec: phonemes (× 0.2)", "semantic": "semantic codes",
          "acoustic": "acoustic codes (× 0.4)", "text": "text row", "read_right": "reading: facts right",
          "heard_right": "user's words heard", "fact_right": "facts right, teacher-forced"}


def read(folder: Path | str) -> list[dict]:
    """The reports of a run in order; where it was cut off and went on, the later ones count."""
    reports: dict[int, dict] = {}
    for line in (Path(folder) / "log.jsonl").read_text().splitlines():
        report = json.loads(line)
        reports = {step: r for step, r in reports.items() if step < report["step"]}
        reports[report["step"]] = report
    return list(reports.values())


def draw(folders: list[Path | str], out: Path | str) -> Path:
    """Draw every panel that any of the runs in `folders` has numbers for; out : a .png or .svg."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    runs = {str(folder): read(folder) for folder in folders}
    panels = [name for name in PANELS if any(name in r for run in runs.values() for r in run)]
    columns = -(-len(panels) // 2)
    figure, axes = plt.subplots(2, columns, figsize=(2.7 * columns + 1, 4.6), squeeze=False)
    for name, axis in zip(panels, axes.flat):
        for label, reports in runs.items():
            points = [(r["step"], r[name]) for r in reports if name in r]
            if points:
                axis.plot(*zip(*points), linewidth=1, label=label)
        axis.set_title(PANELS[name], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6, frameon=False)
    for axis in axes.flat[len(panels):]:
        axis.axis("off")
    figure.tight_layout()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return Path(out)
