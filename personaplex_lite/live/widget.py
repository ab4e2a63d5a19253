"""`Talk`: a live conversation in a notebook cell. The browser has the microphone, the kernel has the model.

What departs from the textbook: the widget has no traits for what happens, only messages (see live.py), and
what can be pressed in the browser can be called from a cell.
"""
from __future__ import annotations

import contextvars
import weakref
from pathlib import Path

from .. import audio
from ..talk.persona import Persona
from ..talk.reply import Reply
from ..talk.session import Session
from .engine import Engine
from .past import Past, Told

try:
    import anywidget
    import traitlets
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("pp.Talk needs widgets: pip install -e '.[notebooks]'",
                              name=missing.name) from None

STATIC = Path(__file__).parent / "static"
ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


class Talk(anywidget.AnyWidget):
    """A microphone button for a conversation: the model hears you, and you hear it, 80 ms at a time.

    chat : a Session of one conversation, with a codec; while somebody talks it belongs to the widget. Another
        Talk of the same chat, as when a cell is run again, goes on with it; the older one then only says so.
    Raises ValueError for a session without a codec or tokenizer, or with several conversations.
    """
    _esm = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("talk.js", "view.js"))
    _css = (STATIC / "talk.css").read_text(encoding="utf-8")      # a Path would keep every widget alive
    worklet = traitlets.Unicode((STATIC / "worklet.js").read_text(encoding="utf-8")).tag(sync=True)

    def __init__(self, chat: Session):
        if not isinstance(chat, Session) or chat.rows != 1 or chat.agent.mimi is None or not chat.agent.text:
            raise ValueError("Talk needs one conversation of an agent with a codec and a tokenizer: "
                             "pp.Talk(agent.chat(pp.Persona(…)))")
        super().__init__()
        self._context = contextvars.copy_context()
        same = (engine for engine in ENGINES if chat in (engine.past.first, engine.past.chat))
        self.engine = next(same, None) or Engine(Past(chat))
        self.engine.send = self._post
        ENGINES.add(self.engine)
        self.on_msg(self._take)

    @property
    def chat(self) -> Session:
        """The conversation as it is now; another one than was given after a fork."""
        return self.engine.past.chat

    @property
    def reply(self) -> Reply:
        """Both sides since the conversation began. Raises ValueError if nothing has been said."""
        return self.engine.past.reply

    @property
    def meter(self) -> dict:
        """Of the last talk: frames, lost, ignored messages, median ms of work for a frame."""
        return self.engine.meter

    def hear(self, source, rate: int | None = None, wait: float = 4.0) -> Reply:
        """Let the conversation hear a recording and `wait` seconds of silence, as fast as the model can."""
        sound = audio.read(source, rate, "the user's sound")
        return self.engine.ask("listening to a recording", self.engine.hear, sound, wait).result()

    def rewind(self, seconds: float, persona: Persona | None = None, seed: int | None = None) -> None:
        """Forget what came after `seconds`; with a persona, go on from there as somebody else (a fork)."""
        now = self.engine.past.told
        told = persona and Told(persona, now.seed if seed is None else seed, now.sampling)
        self.engine.ask("going back", self.engine.past.rewind, max(0, round(seconds / 0.08)), told).result()

    def save(self, folder) -> Path:
        """Write talk.wav (user left, agent right), transcript.txt and tokens.npy (int64 [17, t]) there."""
        return self.engine.ask("saving", self.engine.past.save, folder).result()

    def stop(self) -> None:
        """End the talk: the browser closes its microphone. The conversation stays as it is."""
        self.engine.stop()

    def close(self) -> None:
        """Stop, and take the widget off the page."""
        if hasattr(self, "engine") and self.engine.send == self._post:
            self.stop()
            self.engine.send = None
            ENGINES.discard(self.engine)
        self.on_msg(self._take, remove=True)
        super().close()

    def _take(self, _, content, buffers) -> None:
        """ipykernel hands a widget's message to the thread that our last one answered. So ours must all
        answer the browser, never a cell: then cells may block, and the sound goes on.
        """
        self._context = contextvars.copy_context()
        if self.engine.send == self._post:
            self.engine.receive(content, buffers)
        else:
            self.send({"t": "stopped", "why": "This conversation has moved to a newer cell."})

    def _post(self, content, buffers) -> None:
        self._context.copy().run(self.send, content, buffers)

    def __repr__(self) -> str:
        return "Talk: open this notebook in JupyterLab, Notebook or Colab to see the microphone button"
