"""One JupyterLab, one Chromium and a few notebooks for all tests; without a Chromium all are skipped."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab  # noqa: E402

QUESTION = lab.ROOT / "data" / "questions" / "open.wav"
ROLE = ("you are kevin and you work at diamond car wash we open at ten and close at two "
        "vacuum costs eight dollars polish costs three dollars")
LITE = f"""import personaplex_lite as pp
chat = pp.load().chat(pp.Persona("NATF0", "{ROLE}"), progress=False)
talk = pp.Talk(chat)
talk"""
TINY = """import personaplex_lite as pp
from stand_in import agent
talk = pp.Talk(agent().chat(pp.Persona(role="hi"), progress=False))
talk"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Notebooks, and what the microphone plays: a second of silence, a question, five of silence, again."""
    import soundfile
    import soxr
    folder = tmp_path_factory.mktemp("lab")
    lab.notebook(folder / "lite.ipynb", LITE, "said = 'other cells run'")
    for name in ("tiny", "second", "third"):
        lab.notebook(folder / f"{name}.ipynb", TINY)
    question, rate = soundfile.read(QUESTION, dtype="float32")
    sound = np.concatenate([np.zeros(rate), question, np.zeros(5 * rate)])
    soundfile.write(folder / "microphone.wav", soxr.resample(sound, rate, 48_000), 48_000, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def chrome(folder):
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    try:
        lab.chromium()
    except RuntimeError as reason:
        pytest.skip(str(reason))
    with lab.browser(folder / "microphone.wav") as chrome:
        yield chrome


@pytest.fixture(scope="module")
def port(folder, chrome):
    with lab.lab(folder, OMP_NUM_THREADS="1") as port:
        yield port


@pytest.fixture(scope="module")
def opened(chrome, port, folder):
    """A page with a talk of the small stand-in, and a second client of its kernel."""
    page = lab.Page(chrome, port, "tiny.ipynb")
    page.kernel = lab.Kernel(folder, page.kernel_id)
    yield page
    page.kernel.close()
    page.close()


@pytest.fixture
def page(opened):
    """The same page for each test, stopped and ready, without errors on its console."""
    opened.errors.clear()
    yield opened
    if opened.talk("Boolean(talk.live)"):
        opened.click("start")
    opened.wait("!talk.live && !talk.busy")
    assert not opened.errors
