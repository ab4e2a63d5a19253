"""JupyterLab on loopback, a Chromium whose microphone plays a file, and a wire between them to cut.

Used by the tests beside it and by benchmarks/live.py.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCKED = 600        # seconds that we wait for another program that installs packages
AGAIN = 5           # seconds between two looks whether it has ended
INSTALL = 900       # seconds that an update or an installation may take after that
SLOW = 180_000      # milliseconds in which a page must have come, on a machine that does much else
CONTEXT = "window.jupyterapp?.shell?.currentWidget?.sessionContext"
TALK = "document.querySelector('.pp-talk')"
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
           --disable-component-update --disable-sync --use-fake-ui-for-media-stream
           --use-fake-device-for-media-stream""".split()
# What reaches the loudspeaker, as the audio thread hands it over: window.played[context] = [samples, …]
TAP = """
class Tap extends AudioWorkletProcessor {
  process([input]) { if (input[0]) this.port.postMessage(input[0].slice()); return true; }
}
registerProcessor("tap", Tap);
"""
INIT = f"""
window.played = [];
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {{
  if (to instanceof AudioDestinationNode) {{
    const url = URL.createObjectURL(new Blob([{json.dumps(TAP)}], {{ type: "text/javascript" }}));
    const heard = [];
    window.played.push(heard);
    this.context.audioWorklet.addModule(url).then(() => {{
      const tap = new AudioWorkletNode(this.context, "tap");
      tap.port.onmessage = ({{ data }}) => heard.push(data);
      connect.call(this, tap);
    }});
  }}
  return connect.call(this, to, ...rest);
}};
"""


def chromium() -> str:
    """The browser's path; installed with apt-get where that can be. Raises RuntimeError with the reason."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError("no Chromium on this machine, and it cannot be installed here (not root, or no "
                           "apt-get): install the package `chromium` and run `make test-browser`")
    apt_get("update")           # may fail: older lists may do
    said = apt_get("install", "-y", "chromium")
    path = shutil.which("chromium")
    if path is None:
        raise RuntimeError(f"apt-get could not install chromium: {said.strip()[-300:]}")
    return path


def apt_get(*command: str) -> str:
    """Run apt-get, waiting while another program holds its locks; returns its complaint, '' if it has none.

    It waits by itself for the lock of installed packages, but not for those of the lists and the downloads.
    """
    words = ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={LOCKED}", *command]
    plain = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    end = time.monotonic() + LOCKED
    while True:
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=LOCKED + INSTALL, env=plain)
        except subprocess.TimeoutExpired:
            return f"it did not end in {LOCKED + INSTALL} seconds"
        if done.returncode == 0:
            return ""
        locked = "Could not get lock" in done.stderr or "Unable to lock" in done.stderr
        if not locked or time.monotonic() > end:
            return done.stderr
        time.sleep(AGAIN)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def notebook(path: Path, *cells: str) -> Path:
    import nbformat
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


@contextmanager
def lab(folder: Path, config: Path | None = None, **environment: str):
    """A JupyterLab in `folder` that knows nothing of the user's settings -> its port."""
    port, private = free_port(), folder / ".jupyter"
    quiet = private / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    settings = {"fetchNews": "false", "checkForUpdates": False}
    (quiet / "notification.jupyterlab-settings").write_text(json.dumps(settings))
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(private), "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
           "IPYTHONDIR": str(private / "ipython"), "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
           "JUPYTER_PLATFORM_DIRS": "1", **environment}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}", "--allow-root",
               "--ServerApp.port_retries=0", "--IdentityProvider.token=",
               "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={folder}",
               "--expose-app-in-browser", *([f"--config={config}"] if config else [])]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            for _ in range(300):
                with suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2)
                    break
                if server.poll() is not None:
                    raise RuntimeError((folder / "lab.log").read_text()[-2000:])
                time.sleep(0.2)
            yield port
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(15)
            server.kill()


@contextmanager
def browser(microphone: Path | None, *flags: str):
    """A Chromium whose microphone plays a 48 kHz PCM16 file, over and over."""
    from playwright.sync_api import sync_playwright
    speak = [f"--use-file-for-fake-audio-capture={microphone}"] if microphone else []
    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=chromium(), args=[*FLAGS, *speak, *flags])
        try:
            yield chrome
        finally:
            chrome.close()


class Page:
    """One tab with one notebook in it, run; `talk` reaches the widget's engine."""

    def __init__(self, chrome, port: int, name: str, microphone: bool = True, run: bool = True, **options):
        self.errors = []
        self.context = chrome.new_context(permissions=["microphone"] if microphone else [], **options)
        self.context.add_init_script(INIT)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        workspace = f"pp-{time.time_ns()}"
        self.page.goto(f"http://127.0.0.1:{port}/lab/workspaces/{workspace}/tree/{name}", timeout=SLOW)
        self.page.wait_for_function(f"{CONTEXT}?.isReady", timeout=SLOW)
        self.page.wait_for_function(f"""(() => {{ const k = {CONTEXT}.session?.kernel;
            return k?.status === "idle" && k.connectionStatus === "connected"; }})()""", timeout=SLOW)
        if run:
            self.run_all()

    def command(self, name: str) -> None:
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name); }", name)

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector(".pp-talk .pp-start:enabled", timeout=SLOW)

    @property
    def kernel_id(self) -> str:
        return self.page.evaluate(f"{CONTEXT}.session.kernel.id")

    def talk(self, expression: str):
        """A JavaScript expression of `talk`, the engine."""
        return self.page.evaluate(f"(() => {{ const talk = {TALK}.talk; return {expression}; }})()")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Until a JavaScript expression of `talk` is true."""
        found = f"(() => {{ const talk = {TALK}?.talk; return talk && ({expression}); }})()"
        self.page.wait_for_function(found, timeout=1000 * seconds, polling=100)

    def click(self, name: str) -> None:
        self.page.click(f".pp-talk .pp-{name}")

    def start(self, clean: bool = False) -> None:
        self.page.set_checked(".pp-talk .pp-clean", clean)      # the file is the test, not the echo canceller
        self.click("start")
        self.wait("talk.live?.confirmed")

    @property
    def status(self) -> str:
        """What stands there once the view has drawn what the engine says."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page.inner_text(".pp-talk .pp-status")

    def close(self) -> None:
        self.context.close()


class Kernel:
    """A second client of a running kernel: code in, what it prints as JSON out."""

    def __init__(self, folder: Path, kernel: str):
        from jupyter_client import BlockingKernelClient
        self.client = BlockingKernelClient()
        self.client.load_connection_file(str(folder / ".jupyter" / "runtime" / f"kernel-{kernel}.json"))
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)          # only while no sound streams

    def __call__(self, code: str, timeout: float = 60):
        said = []

        def take(message):
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                said.append(message["content"]["text"])
        reply = self.client.execute_interactive(code, timeout=timeout, output_hook=take, store_history=False)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"].get("traceback", ["?"]))[-3000:])
        return json.loads("".join(said)) if "".join(said).strip() else None

    def close(self) -> None:
        self.client.stop_channels()


class Wire:
    """Stands between browser and server, so that a test can cut the network for a while."""

    def __init__(self, port: int):
        self.target, self.port, self.flows, self.up = port, free_port(), threading.Event(), True
        self.flows.set()
        self.pairs, self.listener = [], socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self.listener.fileno() >= 0:
            with suppress(OSError):
                near, _ = self.listener.accept()
                if not self.up:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
                self.pairs += [near, far]
                for s in (near, far):
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one, other) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                self.flows.wait()
                other.sendall(data)
        for s in (one, other):
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def stall(self, seconds: float) -> None:
        """Nothing passes, nothing is lost."""
        self.flows.clear()
        time.sleep(seconds)
        self.flows.set()

    def cut(self, seconds: float) -> None:
        """Every connection dies, and none can be made."""
        self.up = False
        for s in self.pairs:
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        self.pairs.clear()
        time.sleep(seconds)
        self.up = True

    def close(self) -> None:
        self.listener.close()
