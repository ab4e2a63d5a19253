"""`Talk`: a live conversation in a notebook cell. The browser has the microphone, the kernel has the model.

Everything that happens is a message (messages.py), never a trait; the traits only bring to the page what it
needs to begin. Whatever can be pressed in the browser can be called from a cell.
"""
from __future__ import annotations

import contextvars
import weakref
from pathlib import Path

from .. import audio
from ..model.units import FRAME_SECONDS
from ..talk.persona import Persona
from ..talk.reply import Reply
from ..talk.session import Session
from . import messages
from .engine import Engine
from .past import Past, Settings

try:
    import anywidget
    import traitlets
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("pp.Talk needs widgets: pip install -e '.[notebooks]'",
                              name=missing.name) from None

STATIC = Path(__file__).parent / "static"
ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def static(*names: str) -> str:
    """The text of files in static/, one after the other. (A Path instead would keep every widget alive.)"""
    return "".join((STATIC / name).read_text(encoding="utf-8") for name in names)


class Talk(anywidget.AnyWidget):
    """A microphone button for a conversation: the model hears you, and you hear it, 80 ms at a time.

    chat : a Session of one conversation, with a codec; while somebody talks it belongs to the widget. Another
        Talk of the same chat, as when a cell is run again, goes on with the conversation, and the older one
        says on its page that it has moved.
    Raises ValueError for a session without a codec or tokenizer, or with several conversations.
    """
    _esm = static("talk.js", "view.js")
    _css = static("talk.css")
    worklet = traitlets.Unicode(static("worklet.js")).tag(sync=True)
    protocol = traitlets.Dict(messages.FOR_PAGE).tag(sync=True)

    def __init__(self, chat: Session):
        if not isinstance(chat, Session) or chat.rows != 1 or chat.agent.mimi is None or not chat.agent.text:
            raise ValueError("Talk needs one conversation of an agent with a codec and a tokenizer: "
                             "pp.Talk(agent.chat(pp.Persona(…)))")
        super().__init__()
        self._context = contextvars.copy_context()
        self.engine = engine_of(chat)
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
        past = self.engine.past
        settings = None
        if persona is not None:
            if seed is None:
                seed = past.settings.seed
            settings = Settings(persona, seed, past.settings.sampling)
        at = max(0, round(seconds / FRAME_SECONDS))
        self.engine.ask("going back", past.rewind, at, settings).result()

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
        """A message of the page has come; remember its context, in which ours will be sent.

        ipykernel runs a widget's next message on the thread from whose context the widget last sent one.
        Sent from a cell's context, the page's sound would wait until the cell is done. Sent from the context
        of a message of the page, it does not wait, whatever the cells do.
        """
        self._context = contextvars.copy_context()
        if self.engine.send == self._post:
            self.engine.receive(content, buffers)
        else:
            self.send({"kind": "stopped", "why": "This conversation has moved to a newer cell."})

    def _post(self, content, buffers) -> None:
        """Send a message to all pages, in the context of the last one that came."""
        self._context.copy().run(self.send, content, buffers)

    def __repr__(self) -> str:
        return "Talk: open this notebook in JupyterLab, Notebook or Colab to see the microphone button"


def engine_of(chat: Session) -> Engine:
    """The engine that has this conversation, before or after a fork; a new one if none has."""
    for engine in ENGINES:
        if chat in (engine.past.first, engine.past.chat):
            return engine
    return Engine(Past(chat))
