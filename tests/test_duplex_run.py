"""The benchmark's runner: layout, batches, a run cut off and resumed, who may share a column, the judge."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile

from personaplex_lite import audio
from personaplex_lite.evaluation import judges as judge
from personaplex_lite.evaluation.duplex import bench, instruments
from personaplex_lite.evaluation.duplex import data as duplex_data
from personaplex_lite.evaluation.duplex import run as duplex_run
from personaplex_lite.evaluation.duplex import table as duplex_table
from personaplex_lite.evaluation.duplex.data import CATEGORIES, find
from personaplex_lite.places import LITE
from personaplex_lite.training import world

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "data" / "duplex_mini"
NOTES = {"pause.json": [{"text": "[PAUSE]", "timestamp": [0.4, 0.8]}],
         "turn_taking.json": [{"text": "[TURN-TAKING]", "timestamp": [0.9, 1.1]}],
         "interrupt.json": [{"context": "hello", "interrupt": "when do you open", "timestamp": [0.6, 1.0],
                             "want": ["open", "eight"]}]}
SETTINGS = {"model": "nobody", "device": "cpu", "weights": None, "seed": 0, "voice": None, "rows": 2,
            "words": "whisper", "speaker": "ge2e", "judge": None, "judge_model": ""}


@pytest.fixture
def data(tmp_path):
    """Three files of noise a category, one to three seconds long, in the official layout."""
    rng = np.random.default_rng(0)
    for category, (_, note, _) in CATEGORIES.items():
        for i in range(3):
            folder = tmp_path / "data" / "v1_0" / category / str(i)
            folder.mkdir(parents=True)
            sound = rng.normal(0, 0.05, 16_000 + 8000 * i).astype("float32")
            soundfile.write(folder / "input.wav", sound, 16_000)
            (folder / "persona.json").write_text(json.dumps({"role": "hi"}))    # tiny models forget soon
            if note:
                (folder / note).write_text(json.dumps(NOTES[note]))
    (tmp_path / "data" / "icc_gt_distribution.json").write_text(json.dumps({"0": [1, 2, 3, 2], "1": [1, 1]}))
    return tmp_path / "data"


class Ears:
    """Four words, as far as the sound goes."""
    name = "a stand-in"

    def __call__(self, pcm):
        words = [(f"w{i}", 0.1 + i * 0.2, 0.25 + i * 0.2) for i in range(4)]
        return [word for word in words if word[2] < len(pcm) / 24_000]


@pytest.fixture
def worker(tiny_agent, monkeypatch):
    """A worker that loads nothing: random weights talk, stand-ins listen."""
    monkeypatch.setattr(judge, "voiced", lambda pcm: [(0.1, 0.6)])
    monkeypatch.setattr(instruments, "voice_segments", lambda pcm, rate=24_000, resampled=True: [(0.1, 0.6)])
    made = object.__new__(duplex_run.Worker)
    made.settings, made.agent, made.prompts = SETTINGS, tiny_agent, {}
    made.words, made.judge = Ears(), instruments.Facts()
    made.speaker = lambda pcm: np.ones(3)
    made.names = {"words": "a stand-in", "speaker": "a stand-in", "judge": made.judge.name}
    return made


def engine_of(worker, after=None, seen=None):
    """An engine that dies after so many files."""
    def engine(settings, todo):
        count = 0
        for batch in todo:
            for result in worker(batch):
                if after is not None and count >= after:
                    raise KeyboardInterrupt
                count += 1
                if seen is not None:
                    seen.append(result[0].key)
                yield result
    return engine


def sounds(out):
    """{category/name: int32 [n]} of everything that was said."""
    return {f"{p.parts[-3]}/{p.parts[-2]}": soundfile.read(p, dtype="int16")[0].astype(int)
            for p in out.glob("*/*/output.wav")}


def test_every_category_gets_its_numbers(data, worker, tmp_path):
    results = duplex_run.run(SETTINGS | {"data": str(data)}, tmp_path / "out", engine_of(worker))
    assert list(results["figures"]) == list(CATEGORIES) and len(results["files"]) == 15
    names = {c: set(parts["official"]) for c, parts in results["figures"].items()}
    assert names["candor_turn_taking"] == {"TOR", "latency"} and names["candor_pause_handling"] == {"TOR"}
    assert names["icc_backchannel"] == set(results["figures"]["icc_backchannel"]["old rules"])
    assert names["synthetic_user_interruption"] == {"TOR", "latency", "score", "similarity"}
    assert {record["role"] for record in results["files"].values()} == {"hi"}
    assert json.loads((tmp_path / "out/results.json").read_text()) == json.loads(json.dumps(results))
    for key in results["files"]:
        heard = soundfile.info(data / "v1_0" / key / "input.wav")
        mine = soundfile.info(tmp_path / "out" / key / "output.wav")
        assert mine.samplerate == 24_000 and mine.duration == pytest.approx(heard.duration, abs=1e-3)
    similar = results["figures"]["synthetic_user_interruption"]["official"]["similarity"]
    assert similar["value"] is None and similar["reason"], "without voices there is no prompt to compare"


def test_an_interruption_is_heard_after_it(data, worker):
    """Words after the cut, in the time of the whole file, and as official output.json."""
    sample = next(s for s in find(data) if s.key == "synthetic_user_interruption/2")
    record = worker.measure(sample, np.zeros(48_000, np.float32), np.zeros(48_000, np.float32), None)
    assert [w for w, _, _ in record["after"]] == ["w0", "w1", "w2", "w3"] and record["after"][0][1] == 1.1
    assert record["official"]["latency"]["value"] == pytest.approx(0.1)
    assert record["official"]["score"]["value"] == 0 and len(record["replies"]) == 1


@pytest.mark.slow
def test_killed_and_resumed(data, worker, tmp_path):
    """No file lost, none done twice, and the same sound as a run in one go, whatever the batches."""
    whole, part, seen = tmp_path / "whole", tmp_path / "part", []
    settings = SETTINGS | {"data": str(data)}
    duplex_run.run(settings, whole, engine_of(worker))
    for after in (4, 5):
        with pytest.raises(KeyboardInterrupt):
            duplex_run.run(settings, part, engine_of(worker, after, seen))
        assert not (part / "results.json").exists()
    results = duplex_run.run(settings | {"rows": 3}, part, engine_of(worker, seen=seen))
    assert len(seen) == len(set(seen)) == 15 == len(results["files"])
    before, after = sounds(whole), sounds(part)
    assert before.keys() == after.keys() and len(before) == 15
    assert all(np.abs(before[key] - after[key]).max() <= 2 for key in before), "float noise at most"
    nobody = duplex_run.run(settings, part, engine_of(worker, after=0))
    assert nobody["figures"] == results["figures"], "all is there: nothing to do but to count"


def test_a_folder_belongs_to_one_run(data, worker, tmp_path):
    settings = SETTINGS | {"data": str(data)}
    duplex_run.run(settings, tmp_path / "out", engine_of(worker), limit=1)
    with pytest.raises(ValueError, match="another seed: name another --out"):
        duplex_run.run(settings | {"seed": 1}, tmp_path / "out", engine_of(worker))
    more = duplex_run.run(settings, tmp_path / "out", engine_of(worker), limit=2)
    assert len(more["files"]) == 10, "the same run, only longer"
    (data / "v1_0/candor_turn_taking/2/input.wav").write_bytes(b"other")
    with pytest.raises(ValueError, match="another files"):
        duplex_run.run(settings, tmp_path / "out", engine_of(worker))


def test_the_layout_is_checked(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="Google Drive.*DanielLin94144"):
        find(tmp_path / "nowhere")
    assert [s.key for s in find(data)] == [s.key for s in find(data / "v1_0")]
    for told in data.rglob("persona.json"):
        told.unlink()
    roles = {s.category: s.role for s in find(data)}
    assert roles.pop("synthetic_user_interruption").startswith("You are a wise and friendly teacher.")
    assert set(roles.values()) == {"You enjoy having a good conversation."}
    (data / "v1_0/icc_backchannel/1_old").mkdir()
    samples = [s for s in find(data) if s.category == "icc_backchannel"]
    assert [(s.name, s.listeners) for s in samples] == [("0", [1, 2, 3, 2]), ("1", [1, 1]), ("2", None)]
    note = data / "v1_0/candor_turn_taking/1/turn_taking.json"
    note.write_text('[{"timestamp": [1.0]}]')
    with pytest.raises(ValueError, match="turn_taking.json is not an annotation"):
        find(data)
    note.unlink()
    with pytest.raises(FileNotFoundError, match="1 has no turn_taking.json"):
        find(data)


def test_the_small_set_is_what_it_says():
    """At most 3 MB, five categories, exact annotations, nothing from training's lips."""
    assert sum(p.stat().st_size for p in MINI.rglob("*") if p.is_file()) <= 3_000_000
    samples, said = find(MINI), set()
    for kind in world.KINDS:
        said |= {text.format(item=item) for text in world.phrasings(kind, "train") for item in world.ITEMS}
    said |= {*getattr(world, "STORY", ()), *getattr(world, "STORY_ENDS", ())}
    assert {s.category for s in samples} == set(CATEGORIES)
    for s in samples:
        pcm = audio.read(Path(s.folder) / "input.wav").numpy()
        words = json.loads((Path(s.folder) / "transcription.json").read_text())[0]["item"]
        text, end = " ".join(w["text"] for w in words), words[-1]["timestamp"][1]
        assert not [line for line in said if len(line.split()) > 4 and f" {line} " in f" {text} "], text
        assert end <= len(pcm) / 24_000 <= 30 and s.role.islower()
        if s.category.endswith("pause_handling"):
            a, b = s.note["timestamp"]
            assert 0.35 <= b - a <= 1.2 and len(pcm) / 24_000 - end < 0.2
            assert np.abs(pcm[int((a + 0.1) * 24_000):int((b - 0.1) * 24_000)]).max() < 0.01
        elif s.category == "candor_turn_taking":
            assert s.note["timestamp"][0] == end and len(pcm) / 24_000 - end >= 5
        elif s.category == "synthetic_user_interruption":
            assert s.note["timestamp"][1] == end and len(pcm) / 24_000 - end >= 5 and s.note["want"]
        else:
            assert len(pcm) / 24_000 >= 15 and sum(s.listeners) == pytest.approx(1, abs=1e-3)


def test_the_table_that_ships_is_of_the_lite_that_ships(tmp_path):
    """What only tells about a checkpoint may change; another byte of its weights, and the table is stale."""
    shipped = json.loads((MINI / "lite.json").read_text())["settings"]["checkpoint"]
    assert shipped == duplex_run.weights_of(str(LITE))
    lite = tmp_path / "lite"
    shutil.copytree(LITE, lite)
    (lite / "README.md").write_text("another card")
    assert shipped == duplex_run.weights_of(str(lite))
    (lite / "mimi.safetensors").write_bytes((lite / "mimi.safetensors").read_bytes()[:-1] + b"x")
    assert shipped != duplex_run.weights_of(str(lite))


def result_of(words="whisper tiny.en + silero", data="duplex_mini", value=0.5):
    official = {"TOR": {"value": value, "n": 4, "low": 0.2, "high": 0.8},
                "latency": {"value": None, "n": 0, "reason": "no take-over"}}
    parts = {"official": official, "old rules": {}, "beyond": {}, "files": 4,
             "floor transfers": {"n": 0, "10, 50, 90 %": None, "all": []}}
    tools = {"words": words, "speaker": "s", "judge": "j"}
    return {"system": "lite", "data": data, "instruments": tools, "figures": {"candor_turn_taking": parts}}


def test_numbers_of_different_instruments_share_no_column():
    ours, theirs = duplex_table.cells(result_of()), duplex_table.published()
    tor = [c for c in ours + theirs if (c.category, c.metric) == ("candor_turn_taking", "TOR")]
    with pytest.raises(ValueError, match="cannot share a column.*parakeet.*whisper"):
        duplex_table.column(tor)
    text = duplex_table.table([result_of()])
    lines = {line.split("  ")[1].strip(): line for line in text.splitlines() if line.startswith("  ")}
    title = next(line for line in text.splitlines() if line.startswith("Smooth turn-taking"))
    assert title.count("TOR ↑") == title.count("latency ↓") == 2
    assert lines["lite"].index("0.500 0.20–0.80") == title.index("TOR ↑ a")
    assert lines["Moshi"].index("0.941") == title.index("TOR ↑ b")
    assert "–" in lines["lite"] and "latency: no take-over" in text
    same = duplex_table.table([result_of("nvidia/parakeet-tdt-0.6b-v2", duplex_table.PAPER)])
    title = next(line for line in same.splitlines() if line.startswith("Smooth"))
    assert title.count("TOR") == 1, "the paper's instruments on the paper's data: one column"


def test_published_rows_say_where_they_come_from():
    book = json.loads((ROOT / "personaplex_lite/evaluation/duplex/published.json").read_text())
    assert all(row["source"] and set(row) - {"system", "source"} <= set(CATEGORIES) for row in book["rows"])
    facts = {(c.system, c.category, c.metric): c.value.value for c in duplex_table.published()}
    assert facts["PersonaPlex, model card", "candor_turn_taking", "latency"] == 0.170
    assert facts["Moshi", "icc_backchannel", "JSD"] == 0.957


def test_words_stay_in_their_segment():
    assert judge._inside(1.0, 2.6, [(1.4, 2.5), (4.0, 5.0)]) == (1.4, 2.5)
    assert judge._inside(3.7, 3.9, [(1.4, 2.5), (4.0, 5.0)]) == (4.0, 4.0)


class Oracle(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that gives its replies in turn and remembers what it was asked."""
    replies, asked = [], []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers["Authorization"], body))
        reply = self.replies[(len(self.asked) - 1) % len(self.replies)]
        self.send_response(200 if reply else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def oracle():
    server = HTTPServer(("127.0.0.1", 0), Oracle)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Oracle.asked = []
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


ABOUT = NOTES["interrupt.json"][0]
RATED = "Analysis: on topic.\nI would rate the AI's response as 4."


def test_a_language_model_judges(oracle, monkeypatch, worker, data, tmp_path, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    Oracle.replies = ["4/5", RATED]
    worker.judge = instruments.LLM(oracle + "/", "some-model")
    worker.names["judge"] = worker.judge.name
    settings = SETTINGS | {"data": str(data), "judge": oracle}
    results = duplex_run.run(settings, tmp_path / "out", engine_of(worker))
    path, key, body = Oracle.asked[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer sk-very-secret")
    assert (body["model"], body["seed"]) == ("some-model", 0)
    assert "when do you open" in body["messages"][1]["content"]
    score = results["figures"]["synthetic_user_interruption"]["official"]["score"]
    assert score["value"] == 4 and results["instruments"]["judge"] == "some-model, our prompt"
    kept = [p.read_text() for p in (tmp_path / "out").rglob("*.json")] + list(capsys.readouterr())
    assert not any("sk-very-secret" in text for text in kept)


def test_a_judge_that_cannot_be_read_or_reached(oracle, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    Oracle.replies = ["I rate it four."]
    replies = instruments.LLM(oracle)(ABOUT, "at eight")
    assert len(replies) == instruments.ATTEMPTS
    words = [(f"w{i}", 1.0 + i, 1.5 + i) for i in range(4)]
    figures = bench.user_interruption(words, 1.0, replies)
    assert figures["score"].value is None and "could not be read" in figures["score"].reason
    Oracle.replies = [None]
    with pytest.raises(OSError, match="HTTP 401.*OPENAI_API_KEY") as error:
        instruments.LLM(oracle)(ABOUT, "at eight")
    assert "very-secret" not in str(error.value)
    with pytest.raises(OSError, match="gave no answer"):
        instruments.LLM("http://127.0.0.1:9/v1")(ABOUT, "at eight")


def test_the_offline_judge():
    facts = instruments.Facts()
    assert [bench.parse_rating(facts(ABOUT, text)[0])[1] for text in
            ("We open at 8:00 in the morning.", "we close at eight")] == [5, 0]
    assert facts({"context": "a", "interrupt": "b"}, "c") == [], "official files say no fact: no score"


def cli(data, out, *more):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "personaplex_lite", "bench", "duplex", "--data", data, "--out", out]
    return subprocess.Popen([*command, *more], cwd=ROOT, env=env, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [["--rows", "1"], ["--rows", "1", "--workers", "2"]], ids=["here", "ray"])
def test_lite_killed_midway_and_resumed(data, tmp_path, engine):
    """A real run is killed (SIGKILL) once three files are done; the next one does the rest, and only that."""
    pytest.importorskip("resemblyzer", reason="the [eval] extra and `make eval-deps` bring the instruments")
    if "--workers" in engine:
        pytest.importorskip("ray", reason="pip install -e '.[ray]'")
    out = tmp_path / "out"
    run = cli(data, out, *engine)
    while len(list(out.glob("*/*/record.json"))) < 3:
        assert run.poll() is None, run.communicate()[1][-2000:]
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    done = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.glob("*/*/record.json")}
    assert 3 <= len(done) < 15 and not (out / "results.json").exists()
    again = cli(data, out, *engine)
    said, wrong = again.communicate(timeout=900)
    assert again.returncode == 0, wrong[-2000:]
    assert all((p.read_bytes(), p.stat().st_mtime_ns) == was for p, was in done.items()), "done twice"
    results = json.loads((out / "results.json").read_text())
    assert len(results["files"]) == 15 and "Smooth turn-taking" in said
    processes = {record["process"] for record in results["files"].values()}
    assert len(processes) >= 2 if "--workers" in engine else len(processes) == 2


def test_batches_hold_every_file_once(data):
    samples = find(data)
    Random(0).shuffle(samples)
    for rows in (1, 2, 4):
        made = list(duplex_data.batches(samples, rows))
        assert sorted(s.key for batch in made for s in batch) == sorted(s.key for s in samples)
        assert all(len(batch) <= rows and len({s.category for s in batch}) == 1 for batch in made)
