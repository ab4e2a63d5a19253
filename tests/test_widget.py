"""The live widget without a browser: its engine fed with messages, good and bad; how it shows itself."""

import base64
import gc
import json
import re
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import personaplex_lite as pp
from personaplex_lite.live import engine as live
from personaplex_lite.live import messages, past
from personaplex_lite.live.past import Past, Settings

ME = {"client": "me", "run": "1"}
ROLE = pp.Persona(role="you")


class Front:
    """A page's end of the line: sends messages to an engine, keeps what it answers."""

    def __init__(self, chat):
        self.engine, self.got, self.senders = live.Engine(Past(chat), self.take), [], set()
        self.unfit = []             # what no front end could carry, or messages.py does not name
        self.engine.receive({"kind": "hello", "client": "me"}, [messages.PROBE])

    def take(self, content, buffers):
        fields = set(content) - {"kind", "b64", *messages.FROM_KERNEL_ALWAYS}
        try:
            json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")
            assert fields == set(messages.FROM_KERNEL[content["kind"]])
        except Exception as error:
            self.unfit.append((error, str(content)[:300]))
            raise
        self.senders.add(threading.current_thread().name)
        self.got.append((content, buffers))

    def send(self, kind, buffers=(), **more):
        self.engine.receive({"kind": kind, **ME, **more}, buffers)

    def talk(self, *numbers, **more):
        for n in numbers:
            self.send("sound", [sound(n)], number=n, **more)

    def all(self, kind):
        return [content for content, _ in list(self.got) if content["kind"] == kind]

    def wait(self, ready, seconds=30):
        """Until ready(); the engine works on another thread."""
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, [content["kind"] for content, _ in self.got]
            time.sleep(0.01)

    def idle(self):
        self.wait(lambda: not self.engine.sounds and not self.engine.jobs)
        self.engine.ask("waiting", int).result(30)      # behind whatever was being done


def sound(n):
    return (np.sin(np.arange(1920) * 0.01 * (n + 1)) * 9000).astype("<i2").tobytes()


@pytest.fixture
def front(tiny_agent):
    front = Front(tiny_agent.chat(ROLE, seed=7, progress=False))
    yield front
    front.engine.stop()
    assert not front.unfit


def test_a_talk(front, tiny_agent):
    """Every frame is answered with what the session says to that sound, and with its place in the record."""
    front.send("start")
    for n in range(12):
        front.talk(n)
        front.wait(lambda n=n: len(front.all("answer")) == n + 1)
    alone = tiny_agent.chat(ROLE, seed=7)
    for n, (content, (pcm, strip)) in enumerate(m for m in front.got if m[0]["kind"] == "answer"):
        heard = torch.from_numpy(np.frombuffer(sound(n), "<i2").astype(np.float32) / 32768)
        frame = alone.step(heard)
        assert (np.frombuffer(pcm, "<i2") == (frame.pcm.clip(-1, 1) * 32767).numpy().astype("<i2")).all()
        strip = np.frombuffer(strip, "<i2")
        assert strip[:17].tolist() == frame.codes.tolist() and strip.shape == (35,)
        assert abs(strip[slice(*messages.STRIP["user_peaks"])].max() - heard.abs().max() * 32767) < 2
        assert (content["number"], content["length"], content["piece"]) == (n, n + 1, frame.text)
        assert content["owner"] == "me" and content["run"] == "1" and content["lost"] == 0
    assert front.engine.meter["frames"] == 12 and front.engine.meter["ms"] > 0
    assert front.engine.past.reply.codes.shape == (17, 12)


def test_all_work_is_done_on_one_thread(front):
    seen, step = set(), front.engine.past.chat.step

    def spy(sound):
        seen.add(threading.current_thread().name)
        return step(sound)
    front.engine.past.chat.step = spy
    front.send("start")
    threads = [threading.Thread(target=front.talk, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    front.send("rewind", at=0)
    front.idle()
    assert seen == {"talk"}


def block(front):
    """Make the session wait in its first step -> (it has begun, let it go on)."""
    begun, go, step = threading.Event(), threading.Event(), front.engine.past.chat.step

    def slow(sound):
        begun.set()
        go.wait(30)
        return step(sound)
    front.engine.past.chat.step = slow
    return begun, go


def test_late_frames_are_lost_oldest_first(front):
    begun, go = block(front)
    front.send("start")
    front.talk(0)
    begun.wait(30)
    front.talk(*range(1, 30))                           # the model is busy with frame 0
    assert len(front.engine.sounds) == live.QUEUE
    go.set()
    front.wait(lambda: len(front.all("answer")) == 1 + live.QUEUE)
    assert [m["number"] for m in front.all("answer")] == [0, 27, 28, 29]
    assert front.engine.meter["lost"] == 26 == front.all("answer")[-1]["lost"]


def test_frames_that_never_came_are_counted(front):
    front.send("start")
    front.talk(0, 1, 5)
    front.wait(lambda: front.engine.newest == 5)
    front.talk(3, 5)                                    # late, and twice: not heard
    front.idle()
    assert front.engine.lost >= 3 and front.engine.ignored == 2
    assert len(front.engine.past.heard) <= 3


SOUND = {"kind": "sound", **ME}
BAD = [None, 5, "a", [], {}, {"kind": "sound"}, {"client": "me"}, {"kind": "nonsense", "client": "me"},
       {"kind": ["sound"], "client": "me"}, {"kind": "_init__", "client": "me"}, SOUND,
       {**SOUND, "number": "x"}, {**SOUND, "number": True}, {**SOUND, "number": 1.5},
       {**SOUND, "number": 3, "b64": "§"}, {**SOUND, "number": 3, "b64": 7}, {**SOUND, "number": -1},
       {"kind": "start", "client": "me"}, {"kind": "start", "client": "", "run": "2"},
       {"kind": "start", "client": "x" * 65, "run": "2"}, {"kind": "start", "client": 5, "run": "2"},
       {"kind": "stop", "client": "somebody"}, {"kind": "new", **ME}, {"kind": "explode", **ME},
       {"kind": "rewind", **ME, "at": -1}, {"kind": "rewind", **ME, "at": "1"},
       {"kind": "new", **ME, "settings": {"voice": "x"}}, {"kind": "new", **ME, "settings": 5},
       {"kind": "question", **ME, "name": "../../pyproject"}]


def test_malformed_messages_are_ignored_and_counted(front):
    front.send("start")
    front.talk(0)
    front.idle()
    before = len(front.engine.past.heard)
    for message in BAD:
        ignored = front.engine.ignored
        front.engine.receive(message)
        assert front.engine.ignored == ignored + 1, message
    for data in (b"", b"x", sound(0)[:-2], sound(0) + b"xx"):
        front.send("sound", [data], number=9)
    front.idle()
    front.talk(1)
    front.wait(lambda: len(front.engine.past.heard) == before + 1)
    assert front.engine.owner == "me" and front.engine.meter["ignored"] >= len(BAD) + 3


SETTINGS = {"voice": "", "role": "me", "seed": 3, "text_temperature": 0.5, "audio_temperature": 0.6}
IDS = ["\ud800", "x" * 5_000_000, "§", "a b", "", None, 5, float("nan"), ["me"], {"me": [[[]]]}, 10 ** 400]


@pytest.mark.parametrize("field", ["client", "run"])
@pytest.mark.parametrize("bad", IDS, ids=range(len(IDS)))
def test_an_id_is_short_ascii(front, field, bad):
    """Anything else ends nothing, and is never sent to a page, whether somebody talks or not."""
    for _ in range(2):
        for kind in messages.FROM_PAGE:
            if field in {"client", *messages.FROM_PAGE[kind]}:
                ignored = front.engine.ignored
                front.send(kind, [sound(0)], **{"number": 0, "settings": SETTINGS, "at": 0, "name": "open",
                                                field: bad})
                assert front.engine.ignored == ignored + 1, kind
        front.send("start")
    assert (front.engine.owner, front.engine.run) == ("me", "1")
    front.talk(0)
    front.wait(lambda: front.all("answer"))             # the worker is there
    front.idle()
    assert max(len(str(content)) for content, _ in front.got) < 5000


@pytest.mark.parametrize("changes", [
    {"role": "\ud800"}, {"role": "x" * 5_000_000}, {"role": None}, {"voice": "\udfff"}, {"voice": ["NATF0"]},
    {"seed": 10 ** 400}, {"seed": True}, {"seed": 1.0}, {"text_temperature": 10 ** 400},
    {"audio_temperature": float("nan")}, {"audio_temperature": "0.5"}, {"text_temperature": True},
    {"more": 1}], ids=range(13))
def test_settings_that_no_panel_sends(front, changes):
    for kind in ("new", "rewind"):
        front.send(kind, at=0, settings=SETTINGS | changes)
    front.idle()
    assert front.engine.ignored == 2 and front.engine.past.settings.persona is ROLE
    front.send("start")
    front.talk(0)
    front.wait(lambda: front.all("answer"))


def test_a_number_from_nowhere_refuses_no_later_frame(front):
    front.send("start")
    front.talk(0)
    for n in (2 ** 60, 2 ** 52, live.STEP + 1):
        front.talk(n)
    assert front.engine.ignored == 3 and front.engine.newest == 0
    front.talk(1, 2)
    front.idle()
    assert front.engine.newest == 2 and front.engine.lost <= 3
    front.talk(2 + live.STEP)                           # half a minute may be missing
    assert front.engine.newest == 2 + live.STEP


def test_a_message_that_cannot_be_sent_is_dropped(front):
    """The worker and the handlers outlive a wire that breaks; what comes when it works again gets through."""
    take = front.engine.send

    def broken(content, buffers):
        raise OSError("the wire is cut")
    front.engine.send = broken
    front.send("start")
    front.talk(0)
    front.idle()
    assert isinstance(front.engine.error, OSError)
    front.engine.send = take
    front.talk(1)
    front.wait(lambda: front.all("answer"))


def test_nothing_ends_the_worker(front, monkeypatch):
    """Not even an error where none should be: the next job is done, and the next frame answered."""
    record = front.engine.past.record

    def broken():
        raise RuntimeError("no record")
    monkeypatch.setattr(front.engine.past, "record", broken)
    front.idle()
    worker = front.engine.worker
    monkeypatch.setattr(front.engine.past, "record", record)
    front.send("start")
    front.talk(0)
    front.wait(lambda: front.all("answer"))
    assert front.engine.worker is worker is not None


def test_an_error_is_told_in_a_short_sentence_that_can_be_sent(front):
    def broken(sound):
        raise RuntimeError("\ud800" + "x" * 5_000_000)
    front.engine.past.chat.step = broken
    front.send("start")
    front.talk(0)
    front.wait(lambda: front.all("error"))
    assert front.all("error")[0]["why"].startswith("RuntimeError: ?xxx")
    assert len(front.all("error")[0]["why"]) == messages.SENTENCE


def test_page_and_kernel_speak_of_the_same(tmp_path):
    """talk.js and view.js send the kinds and fields of messages.py, and read no others."""
    static = Path(live.__file__).parent / "static"
    script = (static / "talk.js").read_text() + (static / "view.js").read_text()
    sent = re.findall(r"send\(\{ kind: \"(\w+)\"(.*?) \}[,)]", script)
    assert {kind for kind, _ in sent} == set(messages.FROM_PAGE)
    for kind, fields in sent:
        names = set(re.findall(r", (\w+)", fields))
        assert names == set(messages.FROM_PAGE[kind]), kind
    read = {field for fields in messages.FROM_KERNEL.values() for field in fields}
    assert set(re.findall(r"\bon_(\w+)\(", script)) <= set(messages.FROM_KERNEL)
    assert set(re.findall(r"\bm\.(\w+)", script)) <= {*read, "kind", "b64", *messages.FROM_KERNEL_ALWAYS}
    assert set(re.findall(r"\bstrip\.(\w+)", script)) <= set(messages.STRIP)
    assert set(re.findall(r"\bprotocol\.(\w+)", script)) <= set(messages.FOR_PAGE)
    # the parts of a strip lie side by side and fill it
    places = list(messages.STRIP.values())
    assert [start for start, _ in places] == [0, *(stop for _, stop in places[:-1])]
    assert places[-1][1] == messages.STRIP_SIZE


def test_another_page_takes_over(front):
    front.send("start")
    front.talk(0)
    front.engine.receive({"kind": "start", "client": "you", "run": "2"})
    front.idle()
    heard = len(front.engine.past.heard)
    front.talk(1)                                       # no longer the owner's
    front.idle()
    assert len(front.engine.past.heard) == heard and front.engine.ignored == 1
    front.engine.receive({"kind": "sound", "client": "you", "run": "2", "number": 0}, [sound(0)])
    front.wait(lambda: front.all("answer") and front.all("answer")[-1]["owner"] == "you")
    front.send("stop")                                  # nor can it stop it
    assert front.engine.owner == "you"


def test_a_page_that_comes_late_gets_everything(front):
    front.send("start")
    front.talk(0, 1, 2)
    front.idle()
    front.engine.receive({"kind": "hello", "client": "late"}, [messages.PROBE])
    ready, (probe, strips) = front.got[-1]
    assert ready["to"] == "late" and ready["owner"] == "me" and probe == messages.PROBE and not ready["plain"]
    strips = np.frombuffer(strips, "<i2").reshape(-1, 35)
    assert (strips == np.stack(front.engine.past.strips)).all() and len(ready["pieces"]) == len(strips) > 0
    assert ready["settings"]["role"] == "you" and ready["settings"]["seed"] == 7
    assert "open" in ready["questions"]


def test_base64_where_buffers_are_lost(tiny_agent):
    front = Front(tiny_agent.chat(ROLE, progress=False))
    front.send("hello")                                 # the probe did not arrive
    assert front.all("ready")[-1]["plain"]
    front.send("start", plain=True)
    front.send("sound", number=0, b64=base64.b64encode(sound(0)).decode())
    front.wait(lambda: front.all("answer"))
    content, buffers = next(m for m in front.got if m[0]["kind"] == "answer")
    assert not buffers and [len(base64.b64decode(b)) for b in content["b64"]] == [3840, 70]
    assert (front.engine.past.heard[0].numpy() * 32768 == np.frombuffer(sound(0), "<i2")).all()


def test_where_only_handlers_can_send(front):
    front.send("start", inline=True)
    front.senders.clear()
    for n in range(5):
        front.talk(n)
        front.wait(lambda n=n: len(front.engine.past.heard) == n + 1)
    # any message brings the answers out
    front.wait(lambda: front.send("sound") or len(front.all("answer")) == 5)
    assert front.senders == {"MainThread"}


def test_an_error_ends_the_talk_and_nothing_else(front):
    step = front.engine.past.chat.step

    def broken(sound):
        raise RuntimeError("the device is on fire")
    front.engine.past.chat.step = broken
    front.send("start")
    front.talk(0)
    front.wait(lambda: front.all("stopped"))
    assert front.all("error")[0]["why"] == "RuntimeError: the device is on fire"
    assert front.engine.run is None and isinstance(front.engine.error, RuntimeError)
    front.engine.past.chat.step = step
    front.send("start", run="2")
    front.talk(0, run="2")
    front.wait(lambda: front.all("answer"))
    assert front.engine.error is None


def test_stop_and_start_again(front):
    front.send("start")
    front.talk(0)
    front.idle()
    front.send("stop")
    assert front.all("stopped")[-1]["run"] == "1" and front.engine.owner is None
    front.talk(1)                                       # a straggler is told that the talk is over
    assert front.engine.ignored == 1 and len(front.all("stopped")) == 2
    heard = len(front.engine.past.heard)
    front.send("start", run="2")
    front.talk(0, run="2")
    front.wait(lambda: len(front.engine.past.heard) == heard + 1)       # the conversation goes on


def test_without_sound_it_beats_and_then_ends(front, monkeypatch):
    monkeypatch.setattr(live, "BEAT", 0.02)
    monkeypatch.setattr(live, "IDLE", 0.3)
    front.send("start")
    front.wait(lambda: front.all("stopped"))
    assert front.all("beat") and "No sound" in front.all("stopped")[0]["why"]
    front.wait(lambda: front.engine.worker is None)
    front.send("start", run="2")                        # and can be woken
    front.talk(0, run="2")
    front.wait(lambda: front.all("answer"))


def test_nothing_is_sent_before_somebody_looks(tiny_agent):
    sent = []
    engine = live.Engine(Past(tiny_agent.chat(ROLE, progress=False)), lambda *m: sent.append(m))
    engine.ask("listening", engine.hear, torch.zeros(1920 * 3), 0.0).result(30)
    assert not sent and len(engine.past.heard) == 3


def test_a_new_conversation(front, tiny_agent):
    front.send("start")
    front.talk(0, 1)
    front.send("new", settings=SETTINGS)
    front.wait(lambda: front.all("done"))
    assert front.all("busy")[0]["what"] == "reading the persona"
    assert front.all("record")[-1]["pieces"] == [] and front.all("record")[-1]["settings"] == SETTINGS
    sampling = pp.SamplingConfig(0.6, tiny_agent.sampling.audio_top_k, 0.5, tiny_agent.sampling.text_top_k)
    alone = tiny_agent.chat(pp.Persona(role="me"), 3, sampling=sampling, progress=False)
    now = front.engine.past
    sounds = torch.randn(8, 1920) * 0.1
    assert all(torch.equal(now.step(s).codes, alone.step(s).codes) for s in sounds)


@pytest.mark.parametrize("changes, says", [({"role": "you " * 200}, "shorten the role"),
                                           ({"text_temperature": -1}, "temperatures must be")])
def test_a_persona_that_cannot_be_is_an_error_to_read(front, changes, says):
    front.send("new", settings=SETTINGS | changes)
    front.wait(lambda: front.all("error"))
    assert says in front.all("error")[0]["why"]
    front.idle()
    assert front.engine.past.settings.persona.role == "you"


def test_a_question_is_sent_as_it_is(front):
    front.send("question", name="open")
    front.wait(lambda: front.all("done"))
    content, (data,) = next(m for m in front.got if m[0]["kind"] == "done")
    assert content["to"] == "me" and data[:4] == b"RIFF"


def equal(one, two):
    return len(one) == len(two) and all(torch.equal(a.codes, b.codes) and torch.equal(a.pcm, b.pcm)
                                        for a, b in zip(one, two))


@pytest.mark.parametrize("at", [0, 1, 24, 25, 31, 40])
def test_rewind_is_exact(tiny_agent, sounds, at, monkeypatch):
    """Between saved moments too, and when most of them had to be given up."""
    for room in (past.MARKS, None):
        chat = tiny_agent.chat(ROLE, seed=7, progress=False)
        monkeypatch.setattr(past, "OFTEN", 5)
        monkeypatch.setattr(past, "MARKS", room or 3 * chat.state.nbytes)
        talk = Past(chat)
        frames = [talk.step(sound) for sound in sounds[:40, 0]]
        assert len(talk.marks) <= 3 or room
        talk.rewind(at)
        assert equal(talk.frames, frames[:at]) and len(talk.strips) == len(talk.heard) == at
        assert equal([talk.step(sound) for sound in sounds[at:40, 0]], frames[at:])


def test_rewind_as_somebody_else(tiny_agent, sounds, monkeypatch):
    monkeypatch.setattr(past, "OFTEN", 5)
    chat = tiny_agent.chat(ROLE, seed=7, progress=False)
    monkeypatch.setattr(past, "MARKS", 3 * chat.state.nbytes)
    talk, other = Past(chat), Settings(pp.Persona(role="me"), 9, pp.SamplingConfig(0.5))
    first = [talk.step(sound) for sound in sounds[:20, 0]]
    talk.rewind(12, other)
    assert talk.chat is not chat and talk.settings is other and equal(talk.frames, first[:12])
    second = [talk.step(sound) for sound in sounds[12:60, 0]]
    assert not equal(second[:8], first[12:])
    talk.rewind(30)                                     # within the fork: who it is stays known
    assert talk.settings is other and talk.chat.sampling == other.sampling
    assert equal(talk.frames, first[:12] + second[:18])
    talk.rewind(8)                                      # before it
    assert talk.settings.persona is ROLE and talk.chat.sampling == chat.sampling
    assert equal([talk.step(sound) for sound in sounds[8:20, 0]], first[8:])


def test_a_large_state_is_saved_once(tiny_agent, sounds, monkeypatch):
    monkeypatch.setattr(past, "MARKS", 1)
    talk = Past(tiny_agent.chat(ROLE, seed=7, progress=False))
    frames = [talk.step(sound) for sound in sounds[:40, 0]]
    assert len(talk.marks) == 1
    talk.rewind(40)
    assert equal(talk.frames, frames[:40])


def test_save(front, tmp_path):
    import soundfile
    with pytest.raises(ValueError, match="nothing has been said"):
        front.engine.past.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    front.engine.ask("", front.engine.hear, torch.sin(torch.arange(24_000) * 0.05), 0.5).result(30)
    folder = front.engine.past.save(tmp_path / "talk")
    wav, rate = soundfile.read(folder / "talk.wav")
    tokens, n = np.load(folder / "tokens.npy"), len(front.engine.past.frames)
    assert rate == 24_000 and wav.shape == (1920 * n, 2) and tokens.shape == (17, n)
    assert np.abs(wav[:24_000, 0] - np.sin(np.arange(24_000) * 0.05)).max() < 1e-3
    assert "user   speaks for 1.0 s" in (folder / "transcript.txt").read_text()


def test_the_widget_in_a_cell(tiny_agent, tmp_path):
    chat = tiny_agent.chat(ROLE, progress=False)
    talk = pp.Talk(chat)
    assert repr(talk) == repr(pp.Talk(chat)) and "0x" not in repr(talk)
    reply = talk.hear(torch.randn(1920 * 10) * 0.1, wait=0.4)
    assert reply.codes.shape == (17, 15) and talk.chat is chat
    again = pp.Talk(chat)                               # the cell is run again
    assert again.engine is talk.engine and equal(again.reply.frames, reply.frames)
    again.rewind(0.4, pp.Persona(role="me"))
    assert len(again.reply.frames) == 5 and again.chat is not chat and talk.chat is again.chat
    assert pp.Talk(again.chat).engine is talk.engine
    assert (again.save(tmp_path / "x") / "talk.wav").is_file() and again.meter["lost"] == 0


def test_the_older_widget_says_that_it_is(tiny_agent):
    chat, said = tiny_agent.chat(ROLE, progress=False), []
    talk = pp.Talk(chat)
    pp.Talk(chat)
    talk.send = lambda content, buffers=None: said.append(content)
    talk._take(talk, {"kind": "start", **ME}, [])
    assert said[0]["kind"] == "stopped" and "newer cell" in said[0]["why"] and talk.engine.owner is None


def test_refuses_what_cannot_talk(tiny_agent):
    from dataclasses import replace
    for chat in (None, tiny_agent, tiny_agent.chat([ROLE] * 2), replace(tiny_agent, mimi=None).chat()):
        with pytest.raises(ValueError, match="one conversation"):
            pp.Talk(chat)


def test_without_anywidget_one_sentence_says_what_to_do():
    code = "import sys; sys.modules['anywidget'] = None; import personaplex_lite as pp; pp.Talk"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError: pp.Talk needs widgets: pip install" in done.stderr
    with pytest.raises(AttributeError, match="no attribute 'Tlak'"):
        pp.Tlak  # noqa: B018


def test_a_closed_widget_takes_nothing_with_it(tiny_agent):
    alive = []
    for _ in range(3):
        talk = pp.Talk(tiny_agent.chat(ROLE, progress=False))
        alive += [weakref.ref(talk), weakref.ref(talk.engine), weakref.ref(talk.chat)]
        talk.close()
        del talk
    gc.collect()
    assert not [thing() for thing in alive if thing() is not None]


@pytest.mark.slow
def test_a_notebook_without_a_front_end(tmp_path):
    """nbclient, as in nbval: displaying works, the text is stable, nothing hangs."""
    import nbformat
    from nbclient import NotebookClient
    cells = ["import personaplex_lite as pp\n"
             "talk = pp.Talk(pp.load().chat(pp.Persona('NATF0', 'you are anna'), progress=False))\ntalk",
             "talk.hear('data/questions/open.wav', wait=1.0)", "print(talk)"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    root = str(Path(__file__).parents[1])
    NotebookClient(book, timeout=300, kernel_name="python3", store_widget_state=False,
                   resources={"metadata": {"path": root}}).execute()
    shown = book.cells[0].outputs[0].data
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"] == book.cells[2].outputs[0].text.strip() and "0x" not in shown["text/plain"]
    assert book.cells[1].outputs[-1].data["text/plain"].startswith("Reply(3.")
