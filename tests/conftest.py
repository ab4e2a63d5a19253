"""A model of random weights, small enough to talk in milliseconds, for every test that needs one."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

import personaplex_lite as pp
from personaplex_lite.model.lm import LM
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.talk.text import Text

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_agent(tmp_path_factory):
    """config.tiny() with its own small tokenizer; the codec's layer scale is raised so its memory counts."""
    from personaplex_lite.training import tokenizer

    text = Text(tokenizer.train(tmp_path_factory.mktemp("tiny") / "tokenizer.model", size=120, lines=300))
    lm, mimi = pp.config.tiny()
    lm = replace(lm, text_vocab=len(text))
    mimi = replace(mimi, transformer=replace(mimi.transformer, layer_scale=0.5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [model.eval().requires_grad_(False) for model in (LM(lm), Mimi(mimi))]
    return pp.Agent(*models, text)


@pytest.fixture
def sounds():
    """Three users' noise, 80 frames each: float32 [80, 3, 1920]."""
    return torch.randn(80, 3, 1920, generator=torch.Generator().manual_seed(1)) * 0.1


def pytest_terminal_summary(terminalreporter):
    """A browser, a judge or a GPU that could not be had is said at the end, with what it would have shown."""
    tests = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        file = report.nodeid.split("::")[0]
        _, _, reason = report.longrepr
        tests[file, reason.removeprefix("Skipped: ")] += 1
    if not tests:
        return
    terminalreporter.section("THESE DID NOT RUN", red=True, bold=True)
    for (file, reason), count in sorted(tests.items()):
        terminalreporter.line(f"{file}, {count} skipped: {reason}")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
