"""How the browser comes to a machine that has none, with a stand-in for apt-get."""

import stat

import lab
import pytest

LOCK = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"
# It finds a lock the first two times, then installs; every call leaves a line in `calls`.
APT_GET = f"""#!/bin/sh
echo "$@" >> calls
if [ $(wc -l < calls) -le 2 ]; then echo "{LOCK}" >&2; exit 100; fi
case "$*" in *install*) printf '#!/bin/sh\\n' > bin/chromium; chmod +x bin/chromium;; esac
"""


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with no browser; returns a function that gives it an apt-get."""
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0)
    monkeypatch.setattr(lab, "AGAIN", 0)
    known = lab.shutil.which
    ours = lambda name: known(name, path=str(tmp_path / "bin"))
    monkeypatch.setattr(lab.shutil, "which", ours)

    def offer(script):
        path = tmp_path / "bin" / "apt-get"
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        return tmp_path
    return offer


def test_a_locked_package_manager_is_waited_for(bare):
    folder = bare(APT_GET)
    assert lab.chromium() == str(folder / "bin" / "chromium")
    calls = (folder / "calls").read_text().splitlines()
    assert [call.split()[3] for call in calls] == ["update", "update", "update", "install"]
    assert all(f"DPkg::Lock::Timeout={lab.LOCKED}" in call for call in calls)


def test_waiting_ends(bare, monkeypatch):
    monkeypatch.setattr(lab, "LOCKED", 0.5)
    bare(f"#!/bin/sh\necho '{LOCK}' >&2; exit 100\n")
    with pytest.raises(RuntimeError, match="could not install chromium: E: Could not get lock"):
        lab.chromium()


def test_another_failure_is_not_waited_for(bare):
    bare("#!/bin/sh\necho 'E: Unable to locate package chromium' >&2; exit 100\n")
    with pytest.raises(RuntimeError, match="Unable to locate package"):
        lab.chromium()
