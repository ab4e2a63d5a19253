"""PersonaPlex, small enough to read: a full-duplex speech model that listens while it speaks.

    import personaplex_lite as pp
    agent = pp.load()                                            # `lite`, which ships with the project
    reply = agent.chat(pp.Persona(voice="NATF2", role="you are anna …")).run("question.wav")
    reply.play(), reply.text
"""
from . import audio, places, viz
from .agent import Agent, load
from .model import config
from .model.config import LMConfig, MimiConfig, SamplingConfig, TransformerConfig
from .talk.persona import Persona, Voice
from .talk.reply import Frame, Reply, Trace
from .talk.session import Moment, Session
from .weights import checkpoint
from .weights.checkpoint import CheckpointError
from .weights.convert import convert
from .weights.hub import HubError
from .weights.plan import plan

__all__ = ["Agent", "CheckpointError", "Frame", "HubError", "LMConfig", "MimiConfig", "Moment", "Persona",
           "Reply", "SamplingConfig", "Session", "Trace", "TransformerConfig", "Voice", "audio", "checkpoint",
           "config", "convert", "load", "plan", "viz"]
__version__ = places.VERSION


def __getattr__(name: str):
    """`Talk` needs the notebooks extra, the benchmark and the checks a moment: on demand."""
    if name == "Talk":
        from .live.widget import Talk
        return Talk
    if name == "duplex_bench":
        from .evaluation.duplex import bench as duplex_bench
        return duplex_bench
    if name == "check":
        from .course import check
        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
