"""The 7B's way in, at a small size: official folder, hub, voices, quantised loading, converted folder, plan.

Full size is `make fullsize`; here the same functions meet a small model of random weights, and the hub's real
client a hub on this machine.
"""

import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import personaplex_lite as pp
from benchmarks import fullsize
from personaplex_lite import cli
from personaplex_lite.model.quantize import QuantLinear
from personaplex_lite.training import tokenizer
from personaplex_lite.weights import checkpoint, hub


@pytest.fixture(scope="module")
def sizes():
    """tiny(), with widths that int4 takes."""
    lm, mimi = pp.config.tiny()
    return replace(lm, text_vocab=600, temporal=replace(lm.temporal, dim=64, hidden=96, context=64),
                   depth=replace(lm.depth, dim=32, hidden=64)), mimi


@pytest.fixture(scope="module")
def official(sizes, tmp_path_factory):
    """A folder as the hub has it, voices.tgz and all."""
    folder = tmp_path_factory.mktemp("official")
    tokenizer.train(folder / "any.model", size=120, lines=300)
    return fullsize.make(folder / "model", *sizes, folder / "any.model")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Caches of this test alone."""
    from huggingface_hub import constants
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return home


@pytest.mark.slow
@pytest.mark.parametrize("weights, error", [("f32", 1e-6), ("bf16", 0.01), ("int8", 0.02), ("int4", 0.15)])
def test_the_whole_way(official, weights, error):
    found = fullsize.measure(official, weights)
    assert found["values"] <= error and found["restored"] and found["frames"] == 20


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_converted_folder_is_the_same_model(official, tmp_path, weights):
    folder = pp.convert(official, tmp_path / "small", weights)
    again, direct = pp.load(folder), pp.load(official, weights=weights)
    ours, theirs = again.lm.state_dict(), direct.lm.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert isinstance(again.lm.temporal.layers[0].mlp.linear_in, QuantLinear)
    assert isinstance(again.lm.depth.layers[0].in_proj, QuantLinear)
    assert again.voices.keys() == direct.voices.keys() == {fullsize.VOICE}
    voice, original = again.voice(fullsize.VOICE), direct.voice(fullsize.VOICE)
    assert torch.equal(voice.embeddings, original.embeddings) and torch.equal(voice.cache, original.cache)
    file, was = folder / hub.OURS["moshi_name"], official / hub.OFFICIAL["moshi_name"]
    assert file.stat().st_size < was.stat().st_size
    for other in {"int8", "int4", "bf16"} - {weights}:
        with pytest.raises(checkpoint.CheckpointError, match=f"holds {weights}.*convert the original again"):
            pp.load(folder, weights=other)
    with pytest.raises(checkpoint.CheckpointError, match=f"holds {weights} weights already"):
        pp.convert(folder, tmp_path / "twice", weights)


def test_checksums_are_what_sha256sum_reads_and_bite(official, tmp_path):
    folder = pp.convert(official, tmp_path / "small", "int4")
    lines = dict(reversed(line.split("  ")) for line in (folder / hub.SUMS).read_text().splitlines())
    assert lines == {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
                     for p in folder.rglob("*") if p.is_file() and p.name != hub.SUMS}
    path = folder / hub.OURS["moshi_name"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(checkpoint.CheckpointError, match="lm.safetensors is not what it was.*copy it again"):
        pp.load(folder)
    path.unlink()
    with pytest.raises((checkpoint.CheckpointError, FileNotFoundError), match="lm.safetensors"):
        pp.load(folder)


def test_no_second_copy_in_memory(tmp_path):
    """120 MB of weights: what loading takes beside them is a tensor or two of 10 MB, not another 120."""
    lm, mimi = pp.config.tiny()
    lm = replace(lm, temporal=replace(lm.temporal, dim=512, hidden=1536, layers=16, heads=4),
                 depth=replace(lm.depth, dim=32, hidden=64))
    folder = fullsize.make(tmp_path, lm, mimi)
    pp.checkpoint.load_mimi(folder / hub.OFFICIAL["mimi_name"], mimi)          # libraries are in by now
    for weights, dtype in ((None, torch.bfloat16), ("int8", torch.bfloat16)):
        with fullsize.Memory() as memory:
            model = checkpoint.load_lm(folder / hub.OFFICIAL["moshi_name"], lm, dtype=dtype, weights=weights)
        size = sum(t.nbytes for t in model.state_dict().values())
        assert 50e6 < size and memory.peak - memory.before < size + 60e6
        del model


def test_eight_depth_steps_stay_eight(sizes, tmp_path):
    lm = replace(sizes[0], depth_steps=8, depth=replace(sizes[0].depth, context=8))
    folder = fullsize.make(tmp_path, lm, sizes[1])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dep_q": 16}))     # the file itself knows better
    agent = pp.load(folder, weights="int8")
    assert agent.lm.config.depth_steps == agent.lm.depth.steps == 8
    chat = agent.chat()
    chat.step(torch.zeros(1920))
    with pytest.raises(ValueError, match="no depth steps for the user"):
        chat.step()


def test_a_shorter_context_takes_less(official):
    agent = pp.load(official, context=16)
    assert agent.lm.new_state(1).k.shape[3] == 16
    with pytest.raises(ValueError, match="remembers 1 to 64 frames"):
        pp.load(official, context=65)


def test_names_in_a_config_are_not_paths(official, tmp_path):
    config = json.loads((official / "config.json").read_text())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"moshi_name": str(official / "x.bin")}))
    with pytest.raises(FileNotFoundError, match=f"no weights at {tmp_path}/a/x.bin"):
        pp.load(tmp_path / "a")


def test_wrong_files_in_an_official_folder(official, tmp_path):
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(checkpoint.CheckpointError, match="not a config of this project"):
        pp.load(folder)
    save_file({"model.embed_tokens.weight": torch.zeros(2, 2)}, str(folder / "model.safetensors"))
    with pytest.raises((checkpoint.CheckpointError, MemoryError)):
        pp.load(folder)
    tensors = load_file(str(official / "model.safetensors"))
    tensors.pop("out_norm.alpha")
    save_file(tensors, str(folder / "model.safetensors"))
    (folder / "config.json").write_bytes((official / "config.json").read_bytes())
    with pytest.raises(checkpoint.CheckpointError, match="missing: out_norm.alpha"):
        pp.convert(folder, tmp_path / "out", "int4")


# voices.tgz

def archive(path: Path, *members) -> Path:
    """A voices.tgz of (name, bytes), (name, None, field=value …) or ready TarInfo members."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data, *fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields:
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_voices_are_unpacked_beside_nothing_of_yours(tmp_path, home):
    good = io.BytesIO()
    torch.save({"embeddings": torch.zeros(3, 1, 1, 64), "cache": torch.zeros(1, 17, 4)}, good)
    path = archive(tmp_path / "voices.tgz", ("voices", b"", ("type", tarfile.DIRTYPE)),
                   ("voices/NATF0.pt", good.getvalue()), ("voices/._NATF0.pt", b"apple"),
                   ("voices/README.md", b"hello"), ("voices/run.sh", b"rm", ("mode", 0o777)))
    voices = hub.unpack(path)
    assert home in voices.parents and [p.name for p in voices.iterdir()] == ["NATF0.pt"]
    assert pp.Voice.load(voices / "NATF0.pt").embeddings.shape == (3, 1, 1, 64)
    assert hub.unpack(path) == voices and list(tmp_path.iterdir()) == [path]


LINK, HARD, DEVICE = (("type", t) for t in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE))


@pytest.mark.parametrize("member", [
    ("../evil.pt", b"x"), ("voices/../../evil.pt", b"x"), ("/tmp/evil.pt", b"x"),
    ("voices/a.pt", b"", LINK, ("linkname", "/etc/passwd")), ("voices/a.pt", b"", HARD, ("linkname", "../b")),
    ("voices/a.pt", b"", DEVICE), ("voices", b"", LINK, ("linkname", "/tmp"))], ids=lambda m: m[0])
def test_archives_that_lead_elsewhere_are_refused(tmp_path, home, member):
    with pytest.raises(checkpoint.CheckpointError, match="not to be trusted"):
        hub.unpack(archive(tmp_path / "voices.tgz", ("voices/good.pt", b"x"), member))
    assert not list(home.rglob("*.pt")) and list(tmp_path.rglob("*.pt")) == []


def test_archives_that_are_too_large_are_refused(tmp_path, home, monkeypatch):
    many = archive(tmp_path / "many.tgz", *[(f"voices/{i}.pt", b"") for i in range(hub.MOST_FILES + 1)])
    monkeypatch.setattr(hub, "MOST_BYTES", 1000)
    large = archive(tmp_path / "large.tgz", ("a.pt", bytes(600)), ("b.bin", bytes(600)))
    for path in (many, large):
        with pytest.raises(checkpoint.CheckpointError, match="not to be trusted: it unpacks to more than"):
            hub.unpack(path)
    assert not list(home.rglob("*.pt"))


@pytest.mark.parametrize("keep", [0, 20, -30])
def test_broken_archives(tmp_path, keep):
    path = archive(tmp_path / "voices.tgz", ("a.pt", os.urandom(5000)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(checkpoint.CheckpointError, match="not a whole archive.*download it again"):
        hub.unpack(path)


def test_a_voice_that_is_a_program_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    torch.save({"embeddings": Evil(), "cache": 0}, tmp_path / "evil.pt")
    voices = hub.unpack(archive(tmp_path / "voices.tgz", ("evil.pt", (tmp_path / "evil.pt").read_bytes())))
    with pytest.raises(ValueError, match="not a voice"):
        pp.Voice.load(voices / "evil.pt")
    assert not (tmp_path / "was here").exists()


# the hub

class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as the client asks for: one repository, "owner/model"."""
    protocol_version, commit = "HTTP/1.1", "a" * 40
    refusal = {"gated": (403, "GatedRepo"), "unknown": (404, "RepoNotFound"), "bad token": (401, ""),
               "revision": (404, "RevisionNotFound")}

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0]
        server.asked.append(path)
        sizes = {p.relative_to(server.folder).as_posix(): p.stat().st_size
                 for p in server.folder.rglob("*") if p.is_file()}
        if "/tree/" in path:
            return self.answer(json.dumps([{"type": "file", "path": n, "size": s, "oid": "b" * 40}
                                           for n, s in sizes.items()]).encode())
        if path.startswith("/api/models/"):
            files = [{"rfilename": n, "size": server.pretend or s} for n, s in sizes.items()]
            return self.answer(json.dumps({"id": "owner/model", "sha": self.commit, "siblings": files,
                                           "private": False, "tags": []}).encode())
        if server.mode in self.refusal:
            code, kind = self.refusal[server.mode]
            return self.answer(b"", code, {"X-Error-Code": kind})
        name = path.split(f"/resolve/{path.split('/resolve/')[1].split('/')[0]}/")[1]
        if name not in sizes:
            return self.answer(b"", 404, {"X-Error-Code": "EntryNotFound"})
        data = (server.folder / name).read_bytes()
        tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.commit}
        self.answer(data, 200, tag)

    do_HEAD = do_GET

    def answer(self, data, code=200, headers=None):
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def look_for_hub_at(port, monkeypatch):
    from huggingface_hub import constants
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def server(official, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.mode, server.asked, server.pretend = official, "open", [], None
    look_for_hub_at(server.server_port, monkeypatch)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_from_the_hub_once_then_without_it(server, official, tmp_path, monkeypatch):
    (official / "pytorch_model.bin").write_bytes(b"not asked for")
    agent = pp.load("owner/model", weights="int8")
    assert list(agent.voices) == [fullsize.VOICE] and agent.lm.config.temporal.dim == 64
    assert not any("pytorch_model" in path for path in server.asked if "/resolve/" in path)
    look_for_hub_at(9, monkeypatch)          # where nobody answers
    again = pp.load("owner/model", weights="int8")
    assert torch.equal(agent.lm.text_embed, again.lm.text_embed)
    with pytest.raises(pp.HubError, match="other/model is not in this machine's cache and the hub cannot be"):
        pp.load("other/model")


def test_offline_is_respected(server, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(pp.HubError, match="not in this machine's cache and HF_HUB_OFFLINE is set"):
        pp.load("owner/model")
    assert not server.asked


@pytest.mark.parametrize("mode, token, said", [
    ("gated", None, "owner/model is gated: accept the licence at https://huggingface.co/owner/model, make a "
                    "token at https://huggingface.co/settings/tokens, and set HF_TOKEN to it"),
    ("gated", "hf_x", "your HF_TOKEN may not read owner/model: accept the licence at"),
    ("unknown", None, "owner/model is neither a folder here nor a model on the hub: check the spelling"),
    ("bad token", "hf_x", "the hub does not know your HF_TOKEN: make a new one at"),
    ("revision", None, "owner/model has no revision 'v9': choose one of https://huggingface.co/owner/model")])
def test_what_the_hub_refuses_is_one_sentence(server, monkeypatch, mode, token, said):
    server.mode = mode
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(pp.HubError) as error:
        pp.load("owner/model", revision="v9" if mode == "revision" else None)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_a_full_disk_is_noticed_before_the_download(server):
    server.pretend = 10**15
    with pytest.raises(pp.HubError, match=r"GB are to be written.*full: free [\d.]+ GB there, or set HF_"):
        pp.load("owner/model")
    assert not any("safetensors" in path for path in server.asked)


def test_a_repository_of_something_else(server, tmp_path):
    server.folder = tmp_path
    (tmp_path / "README.md").write_text("a data set")
    with pytest.raises(pp.HubError, match="owner/model has no config.json: it is not a model of this kind"):
        pp.load("owner/model")


def test_revisions_are_for_the_hub(official):
    with pytest.raises(ValueError, match="revision='v1' is for models on the hub"):
        pp.load(official, revision="v1")


# plan

@pytest.fixture
def room(monkeypatch):
    """A machine with 15 GB free."""
    plan = sys.modules["personaplex_lite.weights.plan"]
    monkeypatch.setattr(plan, "free_memory", lambda: {"cpu": 15_000_000_000})
    return plan


@pytest.mark.fullsize
@pytest.mark.parametrize("source", hub.KNOWN)
def test_plans_need_no_network(source, room, capsys, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    plan = pp.plan(source, weights="int4")
    assert str(plan) in capsys.readouterr().out
    needs = {need.weights: need for need in plan.needs}
    names = json.loads((Path(__file__).parent / "names_full.json").read_text())
    lm = names["moshiko_lm_dep_q8" if "moshi" in source else "personaplex_lm_dep_q16"]["bf16_bytes"]
    assert needs["bf16"].model == lm + 4 * names["mimi"]["total_elements"]
    assert needs["f32"].model > needs["int8"].model * 3 > needs["int4"].model * 4
    assert 1.57e9 < needs["bf16"].talks < 1.6e9         # 3000 frames of 32 layers, the codec's rings
    assert plan.best == ("cpu", "int4")
    assert pp.plan(source).best == ("cpu", "int8") and pp.plan(source, weights="bf16").best is None


@pytest.mark.fullsize
def test_what_does_not_fit_is_said_before_anything_is_fetched(room, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    with pytest.raises(MemoryError, match="'bf16' needs 19.3 GB on cpu, 15.0 are free: weights='int8'"):
        pp.load("nvidia/personaplex-7b-v1")


def test_plan_counts_what_is_there(official, tmp_path):
    agent = pp.load(official, weights="int4")
    need = {n.weights: n for n in pp.plan(official).needs}["int4"]
    parts = [t for m in (agent.lm, agent.mimi) for t in m.state_dict().values()]
    assert need.model == sum(t.nbytes for t in parts)
    chat = agent.chat([pp.Persona()] * 2, seed=[1, 2])
    states = (chat.state.temporal, chat.state.ears, chat.state.mouth)
    assert pp.plan(official, "int4", conversations=2).needs[-1].talks == sum(s.nbytes for s in states)
    assert [n.weights for n in pp.plan(pp.convert(official, tmp_path / "small", "int8")).needs] == ["int8"]
    with pytest.raises(ValueError, match="weights='int3'"):
        pp.plan(official, "int3")


# command line

def test_commands(official, tmp_path, capsys):
    assert cli.main(["convert", str(official), str(tmp_path / "small"), "--weights", "int8"]) == 0
    assert "is whole" in capsys.readouterr().out
    assert cli.main(["plan", str(tmp_path / "small")]) == 0
    assert "int8" in capsys.readouterr().out
    assert cli.main(["plan", str(tmp_path)]) == 2
    assert "no checkpoint in" in capsys.readouterr().err


def test_an_interrupted_conversion_is_no_checkpoint(official, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["personaplex_lite.weights.convert"], "asdict", stop)
    with pytest.raises(KeyboardInterrupt):
        pp.convert(official, tmp_path / "small", "int4")
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        pp.load(tmp_path / "small")
