"""What a person gets who installs a wheel: the whole product, talked to from a folder of their own."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 60e6
TALK = """
import pathlib, sys
import personaplex_lite as pp
home = pathlib.Path(pp.__file__).parent
assert home.is_relative_to(sys.prefix), home
agent = pp.load()
question = home / "data/questions/open.wav"
reply = agent.chat(pp.Persona(voice="NATF0", role="you are anna"), seed=0, progress=False).run(question)
assert reply.pcm.abs().max() > 0.01, "it said nothing"
talk = pp.Talk(agent.chat(pp.Persona(role="you are anna"), progress=False))
assert callable(pp.check.residual_codes) and callable(pp.duplex_bench.turn_taking)
from personaplex_lite.live import engine
assert "open" in engine.ASKED
from personaplex_lite.training import world
from personaplex_lite.evaluation.duplex import table
assert table.published()
"""


def done(*command, cwd, **options):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"MPLBACKEND": "Agg"}
    run = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True,
                         timeout=600, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from what the repository holds, as `pip wheel .` does."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder,
         ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """(python, what is new) of a fresh environment: the wheel, and this one's other packages by a path.

    A .pth file adds the folder but does not read the .pth files in it, so our editable install stays out.
    """
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=True)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(done(python, "-c", where, cwd=home).strip())
    before = {path.name for path in site.iterdir()}
    done(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    new = {path.name for path in site.iterdir()} - before
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python, new


def test_the_wheel_is_small_and_holds_nothing_else(wheel):
    assert wheel.stat().st_size < MOST_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"personaplex_lite"}
    assert not [name for name in names if "__pycache__" in name or "/out/" in name or "checkpoints/" in name]


@pytest.mark.slow
def test_only_our_package_appears(installed):
    assert {name for name in installed[1] if not name.endswith(".dist-info")} == {"personaplex_lite"}


@pytest.mark.slow
def test_it_talks_from_another_folder(installed, tmp_path):
    done(installed[0], "-c", TALK, cwd=tmp_path)


@pytest.mark.slow
def test_its_command_talks_and_lays_the_course(installed, tmp_path):
    command = installed[0].with_name("personaplex-lite")
    assert "picture" in done(command, "talk", cwd=tmp_path)
    said = done(command, "course", "course", cwd=tmp_path)
    assert "00_hear_it.ipynb" in said and (tmp_path / "course/data/questions/open.wav").is_file()
    assert not (tmp_path / "course/notebooks/solutions").exists()
    again = subprocess.run([command, "course", "course"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and "nothing is overwritten" in again.stderr
    cell = "import json; print(''.join(json.load(open('00_hear_it.ipynb'))['cells'][1]['source']))"
    folder = tmp_path / "course" / "notebooks"
    setup = done(installed[0], "-c", cell, cwd=folder)
    done(installed[0], "-c", setup + "\nassert open('../data/questions/open.wav')", cwd=folder)


@pytest.mark.slow
def test_a_notebook_far_from_everything_finds_the_data(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    code = "from personaplex_lite.course import lay; lay.enter(); assert open('../data/questions/open.wav')"
    (tmp_path / "me").mkdir()
    done(installed[0], "-c", code, cwd=tmp_path)
    done(installed[0], "-c", code, cwd=tmp_path)
