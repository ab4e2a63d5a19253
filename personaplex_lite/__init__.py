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
from .persona import Persona, Voice
from .reply import Frame, Reply, Trace
from .session import Moment, Session

__all__ = ["Agent", "CheckpointError", "Frame", "LMConfig", "MimiConfig", "Moment", "Persona", "Reply",
           "SamplingConfig", "Session", "Trace", "TransformerConfig", "Voice", "audio", "checkpoint",
           "config", "load"]
__version__ = "0.1.0"
