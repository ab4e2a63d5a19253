"""The size of the package is a feature, so it is tested like one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import lines  # noqa: E402


def test_everything_stays_small():
    _, faults = lines.check()
    assert not faults, "\n".join(faults)


def test_only_code_counts():
    source = '"""A docstring."""\n\n\ndef f(x):\n    """Another."""\n    # a comment\n    return x + 1\n'
    assert lines.tokens(source) == (10, 2)  # def f ( x ) :   return x + 1


def test_the_check_bites(tmp_path, monkeypatch):
    body = "\n".join(f"    x = {i}" for i in range(lines.FUNCTION))
    (tmp_path / "long.py").write_text(f"def f():\n{body}\n" + "# " + "-" * lines.COLUMNS + "\n" * lines.FILE)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/lm.py").write_text("x = 1\n" * (lines.CORE_TOKENS // 3 + 1))
    monkeypatch.setattr(lines, "FILE", 10**6)
    _, faults = lines.check(tmp_path)
    assert len(faults) == 3, faults  # one function, one line, the core
    monkeypatch.undo()
    _, faults = lines.check(tmp_path)
    assert len(faults) == 5, faults  # … and two files
