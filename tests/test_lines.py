"""The size of the package is a feature, so it is tested like one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import lines  # noqa: E402


def test_everything_stays_small():
    _, faults = lines.check()
    assert not faults, "\n".join(faults)


def test_the_check_bites(tmp_path):
    body = "\n".join(f"    x = {i}" for i in range(lines.FUNCTION))
    (tmp_path / "long.py").write_text(f"def f():\n{body}\n" + "# " + "-" * lines.COLUMNS + "\n" * lines.FILE)
    (tmp_path / "lm.py").write_text("\n" * (lines.CORE_LINES + 1))
    _, faults = lines.check(tmp_path)
    assert len(faults) == 5, faults  # two files, one function, one line, the core
