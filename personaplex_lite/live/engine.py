"""The kernel's side of a live conversation: messages in, messages out, and one thread that does the work.

What departs from the textbook: there is no server and no port. Every 80 ms of sound is one widget message,
so whatever carries a notebook carries a conversation. A message is JSON and int16 buffers (base64 where a
front end cannot carry them); `client` names a page, `run` one press of Start:

    browser -> kernel   hello · start · a (80 ms of the user) · stop · do (new, rewind, save, question)
    kernel -> browser   ready · a (80 ms of the agent) · beat · busy · record · done · error · stopped

Messages may come on any thread; all model work is done by one. Nothing queues without end: when the model is
too slow the oldest frames are lost, counted and shown.
"""
from __future__ import annotations

import statistics
import threading
import time
from base64 import b64decode, b64encode
from collections import deque
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch

from .. import audio
from ..model.config import SamplingConfig
from ..places import QUESTIONS
from ..talk.persona import Persona
from ..talk.reply import Reply
from .past import Past, Told

ASKED = {path.stem: path for path in sorted(QUESTIONS.glob("*.wav"))}
QUEUE = 3                  # frames that may wait for the model; more would only be delay
JOBS = 8                   # buttons pressed that may wait
BEAT, IDLE = 0.2, 30.0     # seconds: between signs of life; without sound until a talk is over (JupyterLab
                           # may take fifteen to be back after losing the network for two)
PROBE = b"pp\x00\xff"      # four bytes that a front end which carries buffers carries unchanged


class Engine:
    """Takes messages from any thread, works on one; knows nothing of widgets.

    send : called with a message's content (dict) and its buffers (list of bytes).
    """

    def __init__(self, past: Past, send=None):
        self.past, self.send = past, send
        self.wake, self.order, self.worker = threading.Condition(), threading.Lock(), None
        self.jobs, self.sounds, self.outbox = deque(), deque(), deque(maxlen=256)
        self.owner = self.run = self.error = None      # who talks, in which run; what went wrong last
        self.seen = self.plain = self.inline = False
        self.newest, self.lost, self.ignored, self.ms = -1, 0, 0, deque(maxlen=1500)

    # messages, on whatever thread they come

    def receive(self, message, buffers=()) -> None:
        """Never raises, never waits for the model."""
        try:
            client, handle = message["client"], getattr(self, "_on_" + message["t"])
            if not isinstance(client, str) or not 0 < len(client) <= 64:
                raise ValueError("no client")
            self.plain |= message.get("plain") is True
            handle(client, message, buffers)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            self.ignored += 1                           # malformed, foreign or late
        self._flush()

    def _on_hello(self, client, message, buffers) -> None:
        self.seen, chat = True, self.past.chat
        carries = len(buffers) == 1 and bytes(buffers[0]) == PROBE
        content, rows = self._record()
        self._tell("ready", [PROBE, *rows], to=client, plain=not carries, voices=sorted(chat.agent.voices),
                   questions=list(ASKED), context=chat.config.temporal.context, pad=chat.config.pad,
                   epad=chat.config.epad, silence=chat.config.silence, **content)

    def _on_start(self, client, message, buffers) -> None:
        if not isinstance(message["run"], str):
            raise ValueError("no run")
        with self.wake:                                 # whoever starts takes over
            self.owner, self.run, self.inline = client, message["run"], message.get("inline") is True
            self.newest, self.lost, self.error = -1, 0, None
            self.sounds.clear(), self.ms.clear()
            self._rouse()

    def _on_a(self, client, message, buffers) -> None:
        n, data = message["n"], b64decode(message["b64"]) if "b64" in message else bytes(buffers[0])
        if type(n) is not int or len(data) != 2 * audio.FRAME:
            raise ValueError("not 80 ms of sound")
        with self.wake:
            if self.run is None:
                self._tell("stopped", run=message["run"], why="No sound had come for a while.")
            if (client, message["run"]) != (self.owner, self.run) or n <= self.newest:
                raise ValueError("late, or of another talk")
            self.lost += n - self.newest - 1            # frames that never arrived
            self.newest = n
            if len(self.sounds) == QUEUE:
                self.sounds.popleft()
                self.lost += 1
            self.sounds.append((n, torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)))
            self._rouse()

    def _on_stop(self, client, message, buffers) -> None:
        if client != self.owner:
            raise ValueError("not the owner")
        self.stop()

    def _on_do(self, client, message, buffers) -> None:
        what = message["what"]
        told = self._told(**message["told"]) if what == "new" or "told" in message else None
        if what == "new":
            job = "reading the persona", self.past.new, told
        elif what == "rewind" and type(message["at"]) is int and message["at"] >= 0:
            job = "going back", self.past.rewind, message["at"], told
        elif what == "save":
            job = "saving", self.past.save, Path("out", time.strftime("talk-%Y%m%d-%H%M%S"))
        elif what == "question":
            job = "reading the question", ASKED[message["name"]].read_bytes
        else:
            raise ValueError("unknown")

        def report(future: Future) -> None:
            if error := future.exception():
                return self._tell("error", why=sentence(error), what=what)
            result = future.result()
            sound = [result] if isinstance(result, bytes) else []
            self._tell("done", sound, to=client, what=what, where="" if sound else str(result or ""))
        self.ask(*job).add_done_callback(report)

    def _told(self, voice, role, seed, text_temperature, audio_temperature) -> Told:
        """The persona panel's values."""
        if not isinstance(role, str) or type(seed) is not int or not 0 <= seed < 2 ** 53:
            raise ValueError("no persona")
        now, mine = self.past.told, voice in self.past.chat.agent.voices
        try:
            sampling = SamplingConfig(audio_temperature, now.sampling.audio_top_k,
                                      text_temperature, now.sampling.text_top_k)
        except ValueError as error:
            self._tell("error", why=sentence(error))
            raise
        return Told(Persona(voice if mine else now.persona.voice, role), seed, sampling)

    def stop(self, why: str = "") -> None:
        """End the talk, if there is one; the conversation stays as it is."""
        with self.wake:
            run, self.run, self.owner = self.run, None, None
            self.sounds.clear()
        if run is not None:
            self._tell("stopped", run=run, why=why)
            self._flush()

    # work, on one thread

    def ask(self, busy: str, call, *args) -> Future:
        """Have the worker do something; `busy` says what. Raises ValueError when too much waits already."""
        future = Future()
        with self.wake:
            if len(self.jobs) >= JOBS:
                raise ValueError("too much is waiting: try again in a moment")
            self.jobs.append((busy, call, args, future))
            self._rouse()
        return future

    def _rouse(self) -> None:
        if self.worker is None:
            self.worker = threading.Thread(target=self._work, name="talk", daemon=True)
            self.worker.start()
        self.wake.notify()

    def _work(self) -> None:
        """Jobs first, then sound, otherwise a beat; ends when there has been nothing to do for a while."""
        last = time.monotonic()
        while True:
            with self.wake:
                if not self.jobs and not self.sounds:
                    self.wake.wait(BEAT)
                job = self.jobs.popleft() if self.jobs else None
                sound = self.sounds.popleft() if self.sounds and not job else None
                if not job and not sound and time.monotonic() - last > IDLE:
                    self.worker = None
                    break
            if job or sound:
                self._do(*job) if job else self._live(*sound)
                last = time.monotonic()
            elif self.run is not None:
                self._tell("beat", n=self.newest)
            self._flush(own=True)
        self.stop(f"No sound came for {IDLE:.0f} s.")

    def _do(self, busy, call, args, future) -> None:
        self._tell("busy", what=busy)
        self._flush(own=True)
        try:
            result = call(*args)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        with self.wake:
            self.sounds.clear()                         # spoken meanwhile, to nobody
        content, rows = self._record()
        self._tell("record", rows, n=self.newest, **content)

    def _live(self, n, sound) -> None:
        try:
            self.answer(sound, n)
        except Exception as error:                      # of the model: say it, end the talk, stay usable
            self.error = error
            self._tell("error", why=sentence(error))
            self.stop()

    def answer(self, sound: torch.Tensor, n: int | None = None) -> None:
        """80 ms of the user in, 80 ms of the agent out."""
        began = time.perf_counter()
        frame = self.past.step(sound)
        pcm = np.zeros(audio.FRAME) if frame is None else frame.pcm.cpu().numpy().clip(-1, 1)
        self.ms.append(1e3 * (time.perf_counter() - began))
        self._tell("a", [(pcm * 32767).astype("<i2").tobytes(), self.past.rows[-1].tobytes()], n=n,
                   piece="" if frame is None else frame.text, ms=self.ms[-1], at=len(self.past.rows),
                   lost=self.lost, ignored=self.ignored, used=self.past.chat.calls[0])

    def hear(self, sound: torch.Tensor, wait: float) -> Reply:
        for piece in audio.frames(torch.nn.functional.pad(sound, (0, int(wait * audio.RATE)))):
            self.answer(piece)
            self._flush(own=True)
        return self.past.reply

    # what goes out

    def _record(self) -> tuple[dict, list[bytes]]:
        """Everything so far, for a page that comes late or after the past has changed."""
        told, rows, chat = self.past.told, list(self.past.rows), self.past.chat
        voice = told.persona.voice if told.persona.voice in chat.agent.voices else ""
        panel = {"voice": voice, "role": told.persona.role, "seed": told.seed,
                 "text_temperature": told.sampling.text_temperature,
                 "audio_temperature": told.sampling.audio_temperature}
        pieces = [chat.agent.text.piece(int(row[0])) for row in rows]
        return {"told": panel, "pieces": pieces, "used": chat.calls[0]}, [b"".join(r.tobytes() for r in rows)]

    def _tell(self, kind: str, buffers=(), **content) -> None:
        content = {"t": kind, "owner": self.owner, "run": self.run, **content}
        if self.plain:
            content["b64"], buffers = [b64encode(b).decode() for b in buffers], ()
        if self.seen:
            self.outbox.append((content, list(buffers)))

    def _flush(self, own: bool = False) -> None:
        """Send what waits. Where a front end loses what the worker (`own`) sends, only handlers send."""
        with self.order:
            while self.outbox and self.send and not (own and self.inline):
                self.send(*self.outbox.popleft())

    @property
    def meter(self) -> dict:
        ms = statistics.median(self.ms) if self.ms else None
        return {"frames": self.newest + 1, "lost": self.lost, "ignored": self.ignored, "ms": ms}


def sentence(error: Exception) -> str:
    return f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
