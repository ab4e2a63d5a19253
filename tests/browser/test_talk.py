"""The live widget where it lives: real JupyterLab, real Chromium, a microphone that plays a file.

First a whole talk with `lite`, compared sound by sound; then everything that goes wrong, provoked.
"""

import signal
import subprocess
import time
import urllib.request

import lab
import numpy as np
import pytest
import soundfile

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PIECE = 1920          # samples: what is compared at a time, so that a lost frame spoils nothing else


def found(piece, whole):
    """How well the best place for `piece` in `whole` fits, as a correlation."""
    n = len(whole) + len(piece)
    match = np.fft.irfft(np.fft.rfft(whole, n) * np.conj(np.fft.rfft(piece, n)), n)
    match = match[:len(whole) - len(piece) + 1]
    sums = np.cumsum(np.r_[0, np.square(whole, dtype=np.float64)])
    power = sums[len(piece):] - sums[:-len(piece)]
    return float((match / np.sqrt(np.maximum(power, 1e-9) * np.square(piece).sum())).max())


def agreement(sound, whole):
    """Which share of the loud pieces of a sound is found in another."""
    pieces = [sound[i:i + PIECE] for i in range(0, len(sound) - PIECE, PIECE)]
    loud = [piece for piece in pieces if np.sqrt(np.square(piece).mean()) > 0.02]
    assert loud, "nothing to compare"
    return np.mean([found(piece, whole) > 0.9 for piece in loud])


def played(page):
    """What the page's last audio context sent to the loudspeaker, float32 at 24 kHz."""
    text = page.page.evaluate("""() => {
        const all = window.played.at(-1), out = new Float32Array(all.length * 128);
        all.forEach((block, i) => out.set(block, i * 128));
        return Array.from(new Uint8Array(out.buffer), (x) => String.fromCharCode(x)).join(""); }""")
    return np.frombuffer(text.encode("latin-1"), "<f4")


def question():
    return soundfile.read(lab.ROOT / "data" / "questions" / "open.wav", dtype="float32")[0]


def test_a_whole_talk(chrome, port, folder):
    page = lab.Page(chrome, port, "lite.ipynb")
    kernel = lab.Kernel(folder, page.kernel_id)
    page.start()
    page.wait("talk.words.length > 3", 90)
    page.wait("!talk.strips.slice(-12).some((strip) => talk.isLoud(strip, 'agent'))", 90)   # finished
    assert kernel("import json; print(json.dumps(said))") == "other cells run"
    numbers = [page.page.inner_text(f".pp-talk .pp-{name}") for name in ("ms", "ear", "lost", "used")]
    assert all(any(c.isdigit() for c in text) for text in numbers), numbers
    page.click("start")
    page.wait("!talk.live")
    assert page.status == "Stopped."
    said = kernel("""import json, numpy as np
reply = talk.reply
np.savez("heard.npz", user=reply.user, agent=reply.pcm)
print(json.dumps([reply.text, talk.meter["lost"], talk.engine.run]))""")
    sounds = np.load(folder / "heard.npz")
    assert agreement(sounds["user"], question()) > 0.7 and len(sounds["user"]) > 48_000
    assert agreement(sounds["agent"], played(page)) > 0.5           # in a busy machine there are gaps
    assert agreement(sounds["agent"], question()) < 0.2             # the comparison can say no
    assert said[2] is None and said[0].split() == page.page.inner_text(".pp-talk .pp-words").split()

    page.click("save")
    page.page.wait_for_function("document.querySelector('.pp-status').innerText.startsWith('Saved to')")
    saved = next(folder.glob("out/talk-*"))
    assert soundfile.info(saved / "talk.wav").channels == 2 and np.load(saved / "tokens.npy").shape[0] == 17
    assert said[0].split()[0] in (saved / "transcript.txt").read_text()

    strips = page.talk("talk.strips.length")
    page.start()                                                            # and goes on
    page.wait(f"talk.strips.length > {strips + 10}")
    page.click("start")
    page.wait("!talk.live")
    assert not page.errors, page.errors
    kernel.close()
    page.close()


# ---- other cells

@pytest.mark.parametrize("code", ["import time; time.sleep(3)",
                                  "talk.layout.width = '99%'; import time; time.sleep(3)",
                                  "import numpy\nfor _ in range(40): numpy.linalg.svd(numpy.eye(150))"])
def test_the_talk_goes_on_while_a_cell_runs(page, code):
    page.start()
    page.wait("talk.meter.trip.length > 5")
    arrived = page.kernel(f"""import json
before = talk.engine.newest
{code}
print(json.dumps(talk.engine.newest - before))""")
    assert arrived > 0                                  # where cells block messages, none can
    page.wait("talk.status.kind === 'live'")


def test_interrupting_the_kernel(page, port):
    page.start()
    page.page.evaluate("""window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
        .requestExecute({ code: "import time; time.sleep(60)" }); 0""")
    time.sleep(1)
    url = f"http://127.0.0.1:{port}/api/kernels/{page.kernel_id}/interrupt"
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=20)
    strips = page.talk("talk.strips.length")
    page.wait(f"talk.live && talk.strips.length > {strips + 12}")
    page.kernel("1")                                    # the cell has ended, too


# ---- what the model does

def test_a_model_that_is_too_slow(page):
    page.kernel("""import time
quick = talk.chat.step
def slow(sound):
    time.sleep(0.2)
    return quick(sound)
talk.chat.step = slow""")
    page.start()
    page.wait("talk.meter.lost > 5 && talk.meter.gaps > 0")
    assert "too slow" in page.page.inner_text(".pp-talk .pp-advice")
    page.click("start")
    page.wait("!talk.live")
    page.kernel("talk.chat.step = quick")


def test_a_model_that_fails(page):
    page.kernel("""quick = talk.chat.step
def broken(sound):
    raise RuntimeError("the device is on fire")
talk.chat.step = broken""")
    page.page.click(".pp-talk .pp-start")
    page.wait("!talk.live && talk.status.kind === 'error'")
    assert page.status == "RuntimeError: the device is on fire"
    page.kernel("talk.chat.step = quick")
    page.start()
    strips = page.talk("talk.strips.length")
    page.wait(f"talk.strips.length > {strips + 5}")


def test_rewind_persona_and_new_conversation(page):
    page.start()
    page.wait("talk.strips.length > 30")
    page.click("start")
    page.wait("!talk.live")
    page.page.fill(".pp-talk .pp-at", "20")
    page.click("back")
    page.wait("talk.strips.length === 20 && !talk.busy")
    page.page.evaluate("document.querySelector('.pp-talk .pp-persona').open = true")
    page.page.fill(".pp-talk .pp-role", "you are anna")
    page.page.fill(".pp-talk .pp-seed", "5")
    page.page.fill(".pp-talk .pp-at", "10")
    page.click("fork")
    page.wait("talk.strips.length === 10 && !talk.busy && talk.about.settings.role === 'you are anna'")
    now = page.kernel("""import json
settings = talk.engine.past.settings
print(json.dumps([settings.persona.role, settings.seed, len(talk.reply.frames)]))""")
    assert now == ["you are anna", 5, 10]
    page.start()
    page.wait("talk.strips.length > 15")
    page.click("new")                                   # while talking: it is read, and then heard again
    page.wait("talk.live && talk.strips.length > 3 && talk.strips.length < 15 && !talk.busy")
    page.page.fill(".pp-talk .pp-text", "-1")
    page.click("new")
    page.wait("talk.status.kind === 'error'")
    assert "temperatures must be" in page.status


# ---- front ends that are not quite so

def test_where_buffers_are_lost(page):
    """Both ways: base64, by the handshake. And at another rate than 24 kHz: resampled, both ways."""
    page.page.evaluate("""() => { const talk = document.querySelector('.pp-talk').talk;
        const { send } = talk.model, receive = talk.receive.bind(talk), Context = window.AudioContext;
        window.undo = () => { talk.model.send = send; delete talk.receive; window.AudioContext = Context;
          talk.plain = { up: false, down: false }; };
        window.AudioContext = function () { return new Context({ sampleRate: 44100 }); };
        talk.model.send = (content, callbacks, buffers) => send(content, callbacks, []);
        talk.receive = (content, buffers) => receive(content, []);
        talk.about = null; talk.hello(); }""")
    page.wait("talk.about && talk.plain.up && talk.plain.down")
    page.kernel("talk.engine.past.new(talk.engine.past.settings)")
    page.start()
    page.wait("talk.strips.length > 60 && talk.meter.ear.length > 5")
    page.click("start")
    page.wait("!talk.live")
    page.kernel("import numpy as np; np.save('plain.npy', talk.reply.user); talk.engine.plain = False")
    page.page.evaluate("undo()")
    path = page.kernel("import json, os; print(json.dumps(os.path.abspath('plain.npy')))")
    assert agreement(np.load(path), question()) > 0.7


def test_keyboard_and_names(page):
    """Every control has a name; Enter and Space reach the buttons, and the notebook's own keys do not."""
    for role, name in [("button", "Start"), ("button", "Save"), ("button", "Rewind"), ("slider", "Moment"),
                       ("combobox", "Microphone"), ("button", "New conversation"),
                       ("checkbox", "echo cancelling")]:
        assert page.page.get_by_role(role, name=name).count() >= 1, name
    cells = page.page.locator(".jp-Cell").count()
    page.page.set_checked(".pp-talk .pp-clean", False)
    page.page.focus(".pp-talk .pp-start")
    page.page.keyboard.press("Enter")
    page.wait("talk.live?.confirmed")
    page.page.keyboard.press("Space")
    page.wait("!talk.live")
    for key in "bbdd":                                  # insert cells, delete a cell
        page.page.keyboard.press(key)
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.closest('.pp-talk') !== null")
    assert page.page.locator(".jp-Cell").count() == cells


def test_no_microphone(chrome, folder, port):
    """Refused: it says why, and a recording takes its place, shipped or one's own."""
    page = lab.Page(chrome, port, "second.ipynb")
    page.page.evaluate("""navigator.mediaDevices.getUserMedia = async () => {
        throw new DOMException("no", "NotAllowedError"); }; 0""")
    page.click("start")
    page.wait("talk.status.kind === 'refused'")
    assert page.status.startswith("No microphone: the browser") and page.status.endswith("too, below.")
    page.page.click(".pp-talk .pp-questions >> text=open")
    page.wait("talk.strips.some((strip) => talk.isLoud(strip, 'user'))")             # heard
    page.wait("!talk.live && talk.status.text === 'The recording is over.'", 60)
    strips = page.talk("talk.strips.length")
    page.page.set_input_files(".pp-talk .pp-pick", str(lab.ROOT / "data" / "questions" / "close.wav"))
    page.wait(f"talk.strips.length > {strips + 20}")
    page.click("start")
    page.page.set_input_files(".pp-talk .pp-pick", str(folder / "lab.log"))
    page.wait("talk.status.kind === 'error'")
    assert "cannot be played" in page.status
    page.page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined }); 0")
    page.click("start")
    page.wait("talk.status.kind === 'refused'")
    assert "https or localhost" in page.status
    page.close()


# ---- pages, networks and kernels that go away

def test_two_pages(chrome, port, page):
    """The second watches, takes over when asked, and when its tab closes the first can talk again."""
    page.command("docmanager:save")
    page.start()
    other = lab.Page(chrome, port, "tiny.ipynb", run=False)
    other.ready()
    other.wait("talk.owner && talk.owner !== talk.client && talk.strips.length > 3")
    strips = other.talk("talk.strips.length")
    other.wait(f"talk.strips.length > {strips + 5}")                    # it watches
    assert other.page.inner_text(".pp-talk .pp-start") == "Take over" and not other.talk("Boolean(talk.live)")
    other.start()
    page.wait("!talk.live")
    assert "taken over" in page.status
    strips = page.talk("talk.strips.length")
    page.wait(f"talk.strips.length > {strips + 5}")                     # now the first one watches
    other.close()
    page.wait("!talk.owner")                                        # told by pagehide, or by the silence
    page.start()
    page.wait("talk.live?.confirmed")


def test_the_view_goes_away(page):
    page.start()
    page.command("notebook:clear-all-cell-outputs")
    deadline = time.monotonic() + 30
    while page.kernel("import json; print(json.dumps(talk.engine.run))") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    page.run_all()                                                  # a new widget, the same kernel


def test_the_network_goes_away(chrome, port, folder):
    wire = lab.Wire(port)
    page = lab.Page(chrome, wire.port, "third.ipynb")
    page.start()
    page.wait("talk.meter.trip.length > 5")
    wire.stall(2)
    strips = page.talk("talk.strips.length")
    page.wait(f"talk.live && talk.strips.length > {strips + 15} && talk.status.kind === 'live'")
    page.page.evaluate("""() => {
        const { talk } = document.querySelector('.pp-talk'), say = talk.say.bind(talk);
        window.seen = []; talk.say = (text, kind) => { window.seen.push(kind); say(text, kind); }; }""")
    wire.cut(2.5)
    strips = page.talk("talk.strips.length")
    page.wait(f"talk.live && talk.strips.length > {strips + 15} && talk.status.kind === 'live'", 60)
    assert "slow" in page.page.evaluate("seen")                     # it said so
    page.close()
    wire.close()


def test_a_sleeping_laptop(chrome, port, folder):
    """The browser's processes stand still for longer than a talk may be silent."""
    page = lab.Page(chrome, port, "third.ipynb")
    kernel = lab.Kernel(folder, page.kernel_id)
    kernel("from personaplex_lite.live import engine; engine.IDLE = 4.0")
    kernel.close()
    page.start()
    page.wait("talk.meter.trip.length > 5")
    mine = [int(pid) for pid in subprocess.run(["pgrep", "-f", str(folder / "microphone.wav")],
                                               capture_output=True, text=True).stdout.split()]
    for pid in mine:
        subprocess.run(["kill", f"-{signal.SIGSTOP.value}", str(pid)])
    time.sleep(6)
    for pid in mine:
        subprocess.run(["kill", f"-{signal.SIGCONT.value}", str(pid)])
    page.wait("!talk.live", 30)
    assert "No sound" in page.status and "Press Start" in page.status
    page.start()
    strips = page.talk("talk.strips.length")
    page.wait(f"talk.strips.length > {strips + 5}")
    page.close()


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_the_kernel_goes_away(chrome, port, folder, how):
    page = lab.Page(chrome, port, "third.ipynb")
    if how == "killed":
        kernel = lab.Kernel(folder, page.kernel_id)
        pid = kernel("import json, os; print(json.dumps(os.getpid()))")
        kernel.close()
    page.start()
    page.wait("talk.meter.trip.length > 5")
    if how == "killed":
        subprocess.run(["kill", "-9", str(pid)])
    else:
        page.page.evaluate(f"{lab.CONTEXT}.session.kernel.restart(); 0")
    page.wait("!talk.live && talk.status.kind === 'gone'", 60)
    assert "run the cell again" in page.status
    page.page.wait_for_function(f"{lab.CONTEXT}.session?.kernel?.status === 'idle'", timeout=60_000)
    if how == "killed":
        page.page.click("dialog button >> text=Ok")                 # JupyterLab, on the death of the kernel
    page.run_all()
    page.start()
    page.wait("talk.strips.length > 5")
    page.close()
