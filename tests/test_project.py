"""The promises made to a newcomer: importing is light, the public names are there, the README's code runs."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

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
