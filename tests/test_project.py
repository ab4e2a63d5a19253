"""The promises made to a newcomer: importing is light, the public names are there, the README's code runs."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
# Each ```python block runs here, on its own; one that needs a GPU or the hub is fenced as ```py.
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
HEAVY = """matplotlib IPython ipywidgets anywidget huggingface_hub sentencepiece soundfile soxr librosa scipy
           onnxruntime silero_vad faster_whisper resemblyzer hibari_tts torchaudio transformers""".split()


def python(code, cwd):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def test_import_is_light_and_silent(tmp_path):
    code = f"""
import sys, torch
before = set(sys.modules)
import personaplex_lite
heavy = (set(sys.modules) - before) & set({HEAVY!r})
assert not heavy, f"import these inside functions: {{heavy}}"
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout and not list(tmp_path.iterdir())


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_public_names():
    import personaplex_lite as pp

    assert {"device", "weights"} <= parameters(pp.load)
    assert {"voice", "role"} <= parameters(pp.Persona)
    assert {"path", "config", "device", "dtype"} <= parameters(pp.checkpoint.load_lm)
    assert {"path", "config", "device"} <= parameters(pp.checkpoint.load_mimi)
    assert callable(pp.LMConfig.from_official) and callable(pp.MimiConfig.from_official)
    assert pp.SamplingConfig()
    assert all(callable(getattr(pp.config, preset)) for preset in ("personaplex_7b", "moshiko", "tiny"))


# What people's code may rely on: a name that goes breaks it, a name that comes is a promise.
PUBLIC = {
    "package": """Agent CheckpointError Frame HubError LMConfig MimiConfig Moment Persona Reply SamplingConfig
                  Session Talk Trace TransformerConfig Voice audio check checkpoint config convert
                  duplex_bench load plan viz""",
    "Agent": "chat device lm mimi sampling text voice voices",
    "Frame": "codes ms of pcm t text trace",
    "Moment": "began calls owed state",
    "Persona": "role voice",
    "Reply": "codes config frames pcm play plot save text user words",
    "Session": """agent began calls clock config fork grid keep_persona last owed personas predict_user read
                  reset restore ring rows run sampling save seeds state step stream trace""",
    "Voice": "cache codes embeddings from_wav load name save",
}


@pytest.fixture(scope="module")
def surface(tiny_agent):
    """The names that there are, of the package and of one thing of each class."""
    import personaplex_lite as pp

    chat = tiny_agent.chat(pp.Persona(role="hi"), progress=False)
    with pytest.warns(UserWarning, match="silent"):
        reply = chat.run(np.zeros(9_600, "float32"), wait=0.0, progress=False)
    voice = pp.Voice(codes=tiny_agent.mimi.encode(np.zeros(1_920, "float32"))[0])
    things = (tiny_agent, reply.frames[0], chat.save(), pp.Persona(), reply, chat, voice)
    on_demand = re.findall(r'name == "(\w+)"', inspect.getsource(pp.__getattr__))
    found = {"package": {*pp.__all__, *on_demand}}
    for thing in things:
        found[type(thing).__name__] = {name for name in dir(thing) if not name.startswith("_")}
    return found


@pytest.mark.parametrize("owner", PUBLIC)
def test_no_public_name_goes_or_comes_unseen(surface, owner):
    promised = set(PUBLIC[owner].split())
    gone = promised - surface[owner]
    new = surface[owner] - promised
    assert not gone and not new, f"{owner}: gone {sorted(gone)}, new {sorted(new)}; see PUBLIC above"


def test_every_public_name_can_be_had():
    import personaplex_lite as pp

    pytest.importorskip("anywidget", reason="the [notebooks] extra brings it: pip install -e '.[notebooks]'")
    for name in PUBLIC["package"].split():
        assert getattr(pp, name) is not None


def test_what_could_not_run_is_said_at_the_end(request):
    said = []
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    end = conftest.pytest_terminal_summary
    why = ("test_talk.py", 1, "Skipped: no Chromium")
    skipped = [SimpleNamespace(nodeid=f"tests/browser/test_talk.py::{name}", longrepr=why)
               for name in ("one", "two")]
    reporter = SimpleNamespace(stats={"skipped": skipped},
                               section=lambda title, **_: said.append(title),
                               line=said.append)
    end(reporter)
    assert said == ["THESE DID NOT RUN", "tests/browser/test_talk.py, 2 skipped: no Chromium"]
    reporter.stats.clear()
    end(reporter)
    assert len(said) == 2                # nothing was skipped, nothing is said


@pytest.fixture
def boot(tmp_path, monkeypatch):
    """tools/bootstrap.py with a note of its own; it installs nothing, and tells what it would."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import bootstrap

    asked = []
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "bootstrap.json")
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(bootstrap, "make_venv", lambda: None)
    monkeypatch.setattr(bootstrap, "install_torch", lambda *_: None)
    monkeypatch.setattr(bootstrap, "pip", lambda *args: asked.append(args[-1]) or "")
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "--extras", "dev"])
    return bootstrap, asked


DAMAGED = (b"", b"{", b"null", b"[]", b"{}", b"\xff",
           b'{"extras": 3}', b'{"extras": [[]]}', b'{"extras": ["x"]}')


@pytest.mark.parametrize("written", DAMAGED)
def test_a_damaged_note_of_what_is_installed_is_made_anew(boot, written):
    bootstrap, asked = boot
    bootstrap.STAMP.write_bytes(written)
    bootstrap.main()
    assert asked == [".[dev]"] and bootstrap.installed()["extras"] == ["dev"]
    bootstrap.main()
    assert len(asked) == 1               # nothing has changed, nothing happens


@pytest.mark.slow
def test_public_surface_of_a_conversation(tmp_path):
    import personaplex_lite as pp

    wav = np.sin(np.arange(24_000) * 0.05).astype("float32") * 0.1
    soundfile.write(tmp_path / "question.wav", wav, 24_000)
    agent = pp.load()
    codes = agent.mimi.encode(wav)
    assert codes.shape[:2] == (1, 8) and agent.mimi.decode(codes).shape == (1, 1, 1920 * codes.shape[2])

    chat = agent.chat(pp.Persona(role="You are a helpful agent."), seed=0)
    here, other = chat.save(), chat.fork()
    frame = next(iter(other.stream(tmp_path / "question.wav")))
    assert all(hasattr(frame, name) for name in ("t", "pcm", "text", "codes"))
    reply = chat.run(str(tmp_path / "question.wav"))
    assert isinstance(reply.text, str)
    assert all(hasattr(reply, name) for name in ("pcm", "words", "frames", "play", "plot"))
    reply.save(tmp_path / "reply.wav")
    assert soundfile.info(tmp_path / "reply.wav").samplerate == 24_000
    chat.restore(here)


def test_readme_has_code():
    assert BLOCKS, "README.md shows no ```python block"


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_readme_code_runs(block, tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    done = python(block, tmp_path)
    assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("as_torch", [False, True])
def test_pictures_draw(as_torch):
    import matplotlib
    import torch

    from personaplex_lite import viz

    matplotlib.use("Agg")
    kind = torch.tensor if as_torch else np.asarray
    words = [("hello", 0.5, 0.8), ("there", 0.6, 1.0), ("$a_{$", 1.5, 2.0)]     # the last is no mathematics
    tokens = np.random.default_rng(0).integers(-2, 500, (17, 40))
    pcm = np.sin(np.arange(48_000) * 0.05).astype("float32")
    grid = viz.plot_grid(kind(tokens), words, silence=tokens[1:9, 0])
    for ax in (grid, viz.plot_talk(kind(pcm), kind(pcm), words)):
        ax.figure.canvas.draw()
        assert {"hello", "there", "$a_{$"} <= {text.get_text() for text in ax.texts}
        matplotlib.pyplot.close(ax.figure)
    with pytest.raises(ValueError, match="17, frames"):
        viz.plot_grid(kind(tokens[:9]))
