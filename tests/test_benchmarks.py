"""The benchmarks' own side at tiny size: they run, compare like with like, and say what they did not do."""
from dataclasses import replace

import pytest
import torch

import personaplex_lite as pp
from benchmarks import fullsize, gpu, report, speed
from benchmarks.pipe import Side


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder in the official layout, of sizes that the official code can be, too."""
    lm, mimi = pp.config.tiny()
    lm = replace(lm, temporal=replace(lm.temporal, hidden=64), depth=replace(lm.depth, hidden=32))
    return fullsize.make(tmp_path_factory.mktemp("tiny"), lm, mimi), lm, mimi


def test_no_public_package_no_ratio(tiny, monkeypatch):
    """Ours is measured alone, and the page says what would be needed for more."""
    folder, lm, mimi = tiny
    monkeypatch.setattr("benchmarks.pipe.OFFICIAL", folder / "nowhere")
    page = report.Report(rounds=2, frames=2, threads=1)
    speed.lm(page, folder, lm, "tiny", ("f32",), needs=0.1)
    text = page.page()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ours") and "f32" in line]
    assert [row[0] for row in rows] == ["| ours", "| ours, after 240 s"]
    assert all(float(row[2].split()[0]) > 0 and row[5].strip() == "" for row in rows)
    assert "benchmarks.speed setup` installs it" in text and "There was nobody to compare with" in text


def test_a_full_ring_is_what_a_long_talk_leaves(tiny):
    """`age` must hide nothing and show everything: the same slots as a talk that went that far."""
    from benchmarks.peers import OurLM
    from personaplex_lite.weights import sizes
    from personaplex_lite.weights.hub import OFFICIAL as NAMES
    folder, lm, _ = tiny
    young, old = (OurLM(str(folder / NAMES["moshi_name"]), sizes.to_dict(lm), "f32") for _ in "ab")
    young.age()
    for _ in range(lm.temporal.context + 11):
        old.frame()
    state = young.chat.state.tensors(), old.chat.state.tensors()
    assert torch.equal(*(s["temporal.pos"] for s in state)) and torch.equal(*(s["t"] for s in state))
    assert young.chat.calls == old.chat.calls and {"frame", "temporal", "depth"} <= young.frame().keys()


def test_the_child_answers_and_its_errors_come_back(tiny):
    folder, lm, mimi = tiny
    path = folder / "tokenizer-e351c8d8-checkpoint125.safetensors"
    with Side("ours mimi", 1, path, mimi) as side:
        said = side.ask("tokens", frames=3)
        whole = pp.checkpoint.load_mimi(path, mimi)
        sounds = 0.1 * torch.randn(3, 1, 1, 1920, generator=torch.Generator().manual_seed(0))
        assert said["codes"] == whole.encode(sounds.reshape(1, 1, -1))[0].tolist()
        assert {"encode", "decode"} == side.ask("frames", n=1)[0].keys()
        assert side.ask("profile", n=1)["calls"] > 100
        with pytest.raises(RuntimeError, match="AttributeError.*nonsense"):
            side.ask("nonsense")
    assert side.child.poll() == 0
    with pytest.raises(RuntimeError, match="CheckpointError"):
        Side("ours lm", 1, path, lm)


def test_sides_that_disagree_are_not_timed():
    with pytest.raises(SystemExit, match="disagree"):
        speed.same("codes", [1, 2], [1, 3])


def test_bytes_of_a_frame():
    """The 7B's frame reads its temporal transformer and half of its depth steps (facts: about 13 GB)."""
    lm, _ = pp.config.personaplex_7b()
    gb = {kind: speed.gb_read(lm, kind) for kind in speed.BYTES}
    assert gb["f32"] == 2 * gb["bf16"] and 13 < gb["bf16"] < 16
    assert 0.5 < gb["int8"] / gb["bf16"] < 0.55 and 0.3 < gb["int4"] / gb["bf16"] < 0.37


def test_a_persons_words_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    report.write("speed", "Speed", "one")
    path = tmp_path / "docs" / "speed.md"
    path.write_text(path.read_text().replace("# Speed\n", "# Speed\n\nMine.\n"))
    report.write("speed", "Speed", "two")
    assert "Mine." in path.read_text() and path.read_text().endswith("two") and "one" not in path.read_text()


@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_the_gpu_table_at_tiny_size_on_a_cpu(kind, monkeypatch, tmp_path):
    """What the card would run, eager twin for graph; the frames are compared inside."""
    monkeypatch.setattr(gpu, "OFFICIAL", tmp_path)
    lm, mimi = pp.config.tiny()
    lm = replace(lm, temporal=replace(lm.temporal, hidden=64),
                 depth=replace(lm.depth, dim=32, hidden=32))        # int4 counts in groups of 32
    took, gb, why = gpu.measure(lm, mimi, kind, 2, "cpu", rounds=2, frames=1, read=4000)
    assert {"captured", "eager", "read"} <= took.keys() and all(ms > 0 for of in took.values() for ms in of)
    assert gb > 0 and ("not measured: No module" in why) == (kind == "bf16")
    assert len(gpu.reached(took, 2)) == 1


def test_no_card_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main()
    assert capsys.readouterr().out == ("No CUDA card here: run this on a machine that has one; docs/gpu.md "
                                       "stays as it is.\n")
