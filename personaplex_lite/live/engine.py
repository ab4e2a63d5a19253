"""The kernel's side of a live conversation: messages in, messages out, and one thread that does the work.

There is no server and no port. Every 80 ms of sound is one widget message, so whatever carries a notebook
carries a conversation. What the messages are stands in messages.py.

Messages may come on any thread; all work of the model is done by one, the worker. Nothing queues without
end: when the model is too slow the oldest frames are lost, counted and shown. And nothing that a page sends
can end the worker: what is not a message is counted and dropped, an error of the model ends only the talk.
"""
from __future__ import annotations

import statistics
import threading
import time
from base64 import b64encode
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import torch

from .. import audio
from ..model.config import SamplingConfig
from ..model.units import FRAME_RATE, FRAME_SAMPLES
from ..places import QUESTIONS
from ..talk.persona import Persona
from ..talk.reply import Reply
from . import messages
from .past import Past, Settings

ASKED = {path.stem: path for path in sorted(QUESTIONS.glob("*.wav"))}
QUEUE = 3                  # frames that may wait for the model; more would only be delay
JOBS = 8                   # buttons pressed that may wait
BEAT = 0.2                 # seconds between two signs of life
IDLE = 30.0                # seconds without sound until a talk is over: JupyterLab may take fifteen to be
                           # back after losing the network for two
STEP = round(IDLE * FRAME_RATE)    # from one frame to the next, at most: after more the talk is over anyway


class Job(NamedTuple):
    """What the worker is asked to do."""
    busy: str              # what a page says meanwhile
    call: object
    args: tuple
    future: Future


class Engine:
    """Takes messages on any thread, works on one; knows nothing of widgets.

    past : the conversation
    send : called with a message's content (dict) and its buffers (list of bytes)
    """

    def __init__(self, past: Past, send=None):
        self.past = past
        self.send = send

        # what waits for the worker; whoever changes it holds `wake`
        self.wake = threading.Condition()
        self.worker: threading.Thread | None = None
        self.jobs: deque[Job] = deque()
        self.sounds: deque[tuple[int, torch.Tensor]] = deque()      # (number, float32 [1920])

        # what waits to be sent, and the lock that keeps its order
        self.outbox: deque[tuple[dict, list[bytes]]] = deque(maxlen=256)
        self.order = threading.Lock()

        # who talks
        self.owner: str | None = None           # the page
        self.run: str | None = None             # its talk
        self.newest = -1                        # the number of the newest frame that has come

        # what the front end can do
        self.seen = False                       # a page has said hello
        self.plain = False                      # it loses buffers: base64 instead
        self.inline = False                     # it loses what the worker sends: only handlers send

        # how it goes
        self.lost = 0                           # frames
        self.ignored = 0                        # messages
        self.milliseconds: deque[float] = deque(maxlen=1500)        # the model's work for a frame
        self.error: Exception | None = None     # the last one

    # ---- messages, on whatever thread they come

    def receive(self, message, buffers=()) -> None:
        """Take a message of a page. Never raises, whatever it is, and never waits for the model."""
        try:
            messages.check(message)
            if message.get("plain"):
                self.plain = True
            handle = getattr(self, "_on_" + message["kind"])
            handle(message, buffers)
        except Exception:               # malformed, foreign or late
            self.ignored += 1
        self._flush()

    def _on_hello(self, message, buffers) -> None:
        self.seen = True
        chat = self.past.chat
        carries = len(buffers) == 1 and buffers[0] == messages.PROBE
        about = {
            "to": message["client"],
            "plain": not carries,
            "voices": sorted(chat.agent.voices),
            "questions": list(ASKED),
            "context": chat.config.temporal.context,
            "pad": chat.config.pad,
            "epad": chat.config.epad,
            "silence": chat.config.silence,
        }
        record, strips = self.past.record()
        self._tell("ready", [messages.PROBE, strips], **about, **record)

    def _on_start(self, message, buffers) -> None:
        with self.wake:
            # whoever starts takes over
            self.owner = message["client"]
            self.run = message["run"]
            self.inline = bool(message.get("inline"))
            self.newest = -1
            self.lost = 0
            self.error = None
            self.sounds.clear()
            self.milliseconds.clear()
            self._rouse()

    def _on_sound(self, message, buffers) -> None:
        sound = messages.sound_of(message, buffers)
        number = message["number"]
        talk = (message["client"], message["run"])
        with self.wake:
            if self.run is None:
                self._tell("stopped", run=message["run"], why="No sound had come for a while.")
            if talk != (self.owner, self.run):
                raise ValueError("the sound of another talk")
            if not self.newest < number <= self.newest + STEP:
                raise ValueError("a sound that comes late, or from nowhere")

            # count those that never came; forget the oldest that waits if too many do
            self.lost += number - self.newest - 1
            self.newest = number
            if len(self.sounds) == QUEUE:
                self.sounds.popleft()
                self.lost += 1
            self.sounds.append((number, sound))
            self._rouse()

    def _on_stop(self, message, buffers) -> None:
        if message["client"] != self.owner:
            raise ValueError("a page that does not talk")
        self.stop()

    def _on_new(self, message, buffers) -> None:
        settings = self._settings(message["settings"])
        self._act(message, "reading the persona", self.past.new, settings)

    def _on_rewind(self, message, buffers) -> None:
        panel = message.get("settings")
        settings = None if panel is None else self._settings(panel)
        self._act(message, "going back", self.past.rewind, message["at"], settings)

    def _on_save(self, message, buffers) -> None:
        folder = Path("out", time.strftime("talk-%Y%m%d-%H%M%S"))
        self._act(message, "saving", self.past.save, folder)

    def _on_question(self, message, buffers) -> None:
        path = ASKED[message["name"]]
        self._act(message, "reading the question", path.read_bytes)

    def _act(self, message, busy: str, call, *args) -> None:
        """Have the worker do what a button asks for, then tell the pages how it went."""
        def report(future: Future) -> None:
            error = future.exception()
            if error is not None:
                self._tell("error", why=messages.sentence(error))
                return
            result = future.result()
            about = {"to": message["client"], "what": message["kind"]}
            if isinstance(result, bytes):
                self._tell("done", [result], where="", **about)
            else:
                self._tell("done", where=str(result or ""), **about)
        self.ask(busy, call, *args).add_done_callback(report)

    def _settings(self, panel: dict) -> Settings:
        """What the persona panel says. Raises ValueError, and tells the pages, if it cannot be."""
        now = self.past.settings
        voice = panel["voice"]
        if voice not in self.past.chat.agent.voices:
            voice = now.persona.voice
        try:
            sampling = SamplingConfig(
                audio_temperature=panel["audio_temperature"],
                audio_top_k=now.sampling.audio_top_k,
                text_temperature=panel["text_temperature"],
                text_top_k=now.sampling.text_top_k,
            )
        except ValueError as error:
            self._tell("error", why=messages.sentence(error))
            raise
        return Settings(Persona(voice, panel["role"]), panel["seed"], sampling)

    def stop(self, why: str = "") -> None:
        """End the talk, if there is one; the conversation stays as it is."""
        with self.wake:
            self._end(why)
        self._flush()

    def _end(self, why: str) -> None:
        run = self.run
        self.run = None
        self.owner = None
        self.sounds.clear()
        if run is not None:
            self._tell("stopped", run=run, why=why)

    # ---- work, on one thread

    def ask(self, busy: str, call, *args) -> Future:
        """Have the worker call something; `busy` says what it does. Raises ValueError if too much waits."""
        future = Future()
        with self.wake:
            if len(self.jobs) >= JOBS:
                raise ValueError("too much is waiting: try again in a moment")
            self.jobs.append(Job(busy, call, args, future))
            self._rouse()
        return future

    def _rouse(self) -> None:
        if self.worker is None:
            self.worker = threading.Thread(target=self._work, name="talk", daemon=True)
            self.worker.start()
        self.wake.notify()

    def _work(self) -> None:
        """The worker: turn after turn, until there has been nothing to do for a while. No error ends it."""
        last = time.monotonic()
        while not self._retire(last):
            try:
                if self._turn():
                    last = time.monotonic()
            except Exception as error:
                self.error = error
        self._flush()

    def _retire(self, last: float) -> bool:
        """Has there been nothing to do since `last`, and for so long that the talk and the worker end?"""
        with self.wake:
            waits = bool(self.jobs or self.sounds)
            if waits or time.monotonic() - last <= IDLE:
                return False
            self.worker = None
            self._end(f"No sound came for {IDLE:.0f} s.")
            return True

    def _turn(self) -> bool:
        """A job if one waits, else a sound, else a sign of life. Was there something to do?"""
        job = None
        sound = None
        with self.wake:
            if not self.jobs and not self.sounds:
                self.wake.wait(BEAT)
            if self.jobs:
                job = self.jobs.popleft()
            elif self.sounds:
                sound = self.sounds.popleft()

        if job is not None:
            self._do(job)
        elif sound is not None:
            self._live(*sound)
        elif self.run is not None:
            self._tell("beat", number=self.newest)
        self._flush(worker=True)
        return job is not None or sound is not None

    def _do(self, job: Job) -> None:
        """A job, and then the record anew, which it may have changed."""
        self._tell("busy", what=job.busy)
        self._flush(worker=True)
        try:
            result = job.call(*job.args)
        except Exception as error:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

        # what was spoken meanwhile is not heard
        with self.wake:
            self.sounds.clear()
        record, strips = self.past.record()
        self._tell("record", [strips], number=self.newest, **record)

    def _live(self, number: int, sound: torch.Tensor) -> None:
        """A frame of a talk. An error of the model is told and ends the talk; the engine stays usable."""
        try:
            self.answer(sound, number)
        except Exception as error:
            self.error = error
            self._tell("error", why=messages.sentence(error))
            self.stop()

    def answer(self, sound: torch.Tensor, number: int | None = None) -> None:
        """80 ms of the user in, float32 [1920]; 80 ms of the agent out, as a message."""
        began = time.perf_counter()
        frame = self.past.step(sound)
        if frame is None:
            pcm = torch.zeros(FRAME_SAMPLES)
            piece = ""
        else:
            pcm = frame.pcm
            piece = frame.text
        data = messages.bytes_of(pcm)
        milliseconds = 1e3 * (time.perf_counter() - began)
        self.milliseconds.append(milliseconds)

        strips = self.past.strips
        about = {
            "number": number,
            "piece": piece,
            "ms": milliseconds,
            "length": len(strips),
            "lost": self.lost,
            "ignored": self.ignored,
            "used": self.past.chat.calls[0],
        }
        self._tell("answer", [data, strips[-1].tobytes()], **about)

    def hear(self, sound: torch.Tensor, wait: float) -> Reply:
        """Answer a recording, float32 [n], and `wait` seconds of silence; called by the worker."""
        silence = int(wait * audio.RATE)
        padded = torch.nn.functional.pad(sound, (0, silence))
        for piece in audio.frames(padded):
            self.answer(piece)
            self._flush(worker=True)
        return self.past.reply

    # ---- what goes out

    def _tell(self, kind: str, buffers=(), **content) -> None:
        """Put a message into the outbox, if a page is there to read it."""
        if not self.seen:
            return
        content = {"kind": kind, "owner": self.owner, "run": self.run, **content}
        if self.plain:
            content["b64"] = [b64encode(data).decode() for data in buffers]
            buffers = ()
        self.outbox.append((content, list(buffers)))

    def _flush(self, worker: bool = False) -> None:
        """Send what waits. A message that cannot be sent is dropped: the next one may get through."""
        if worker and self.inline:
            return
        with self.order:
            while self.outbox and self.send is not None:
                content, buffers = self.outbox.popleft()
                try:
                    self.send(content, buffers)
                except Exception as error:
                    self.error = error

    @property
    def meter(self) -> dict:
        """Of the last talk: frames, lost, ignored messages, median ms of work for a frame (or None)."""
        return {
            "frames": self.newest + 1,
            "lost": self.lost,
            "ignored": self.ignored,
            "ms": statistics.median(self.milliseconds) if self.milliseconds else None,
        }
