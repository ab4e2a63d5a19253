"""PersonaPlex, small enough to read: a full-duplex speech model that listens while it speaks.

    import personaplex_lite as pp
    agent = pp.load()                                            # `lite`, which ships with the project
    reply = agent.chat(pp.Persona(voice="NATF2", role="you are anna …")).run("question.wav")
    reply.play(), reply.text
"""
from . import audio, checkpoint, config
from .agent import Agent, load
from .checkpoint import CheckpointError
from .config import LMConfig, MimiConfig, SamplingConfig, TransformerConfig
from .convert import convert
from .hub import HubError
from .persona import Persona, Voice
from .plan import plan
from .reply import Frame, Reply, Trace
from .session import Moment, Session

__all__ = ["Agent", "CheckpointError", "Frame", "HubError", "LMConfig", "MimiConfig", "Moment", "Persona",
           "Reply", "SamplingConfig", "Session", "Trace", "TransformerConfig", "Voice", "audio", "checkpoint",
           "config", "convert", "load", "plan"]
__version__ = "0.1.0"


def __getattr__(name: str):
    """`Talk` needs the notebooks extra, benchmark and checks stand beside the package: on demand."""
    if name == "Talk":
        from .widget import Talk
        return Talk
    if name == "duplex_bench":
        from benchmarks import duplex_bench
        return duplex_bench
    if name == "check":
        from course import check
        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
