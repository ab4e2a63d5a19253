"""What a page and the kernel say to each other: the kinds of messages, their fields, the numbers of a strip.

A message is a dict that JSON can write; its `kind` is one of the names below. Buffers come with it.
Where a front end loses them they travel inside the message, as base64, in the field `b64`.

Only this file knows the layout. The engine checks by it what a page sends. The widget hands FOR_PAGE to the
page, so that its JavaScript reads names and not numbers.
"""
from __future__ import annotations

import re
from base64 import b64decode

import numpy as np
import torch

from ..model.units import FRAME_SAMPLES, SAMPLE_RATE
from ..viz import LOUD

PROBE = b"pp\x00\xff"                            # a front end that carries buffers carries this one unchanged
LARGEST = 32_767                                 # 1.0 as an int16
SOUND_BYTES = 2 * FRAME_SAMPLES                  # a frame of sound, int16 [1920]
SOUND_LETTERS = 4 * SOUND_BYTES // 3             # the same as base64
TEXT_LETTERS = 20_000                            # in a role, at most
ID = re.compile("[A-Za-z0-9_-]{1,64}")           # of a page, of a talk
HALF_LETTER = re.compile("[\ud800-\udfff]")      # JavaScript can cut a letter in two, UTF-8 cannot write that
SENTENCE = 500                                   # letters of an error that a page is told, at most


# ---- what the value of a field must be; a field that is missing counts as None

def is_id(value) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


def is_text(value) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LETTERS and not HALF_LETTER.search(value)


def is_count(value) -> bool:
    return type(value) is int and 0 <= value < 2 ** 53      # JavaScript's largest whole number


def is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


def is_flag(value) -> bool:
    return value is None or isinstance(value, bool)


def is_settings(value) -> bool:
    """Has the value all fields of the persona panel, and no others?"""
    if not isinstance(value, dict) or set(value) != set(SETTINGS):
        return False
    return all(fits(value[field]) for field, fits in SETTINGS.items())


def is_settings_or_none(value) -> bool:
    return value is None or is_settings(value)


SETTINGS = {                     # the persona panel
    "voice": is_text,            # a voice of the checkpoint; any other text: the voice as it is now
    "role": is_text,
    "seed": is_count,
    "text_temperature": is_number,
    "audio_temperature": is_number,
}

# ---- from a page to the kernel: kind -> field -> what it must be

FROM_EVERY_PAGE = {
    "client": is_id,             # which page
    "plain": is_flag,            # answer with base64: no buffers arrive here
}
FROM_PAGE = {
    "hello": {},                 # here is a page; buffer: PROBE
    "start": {"run": is_id, "inline": is_flag},                # begin a talk; inline: only handlers may send
    "sound": {"run": is_id, "number": is_count},               # buffer: 80 ms of the user, int16 [1920]
    "stop": {},                  # end the talk
    "new": {"settings": is_settings},                          # a new conversation
    "rewind": {"at": is_count, "settings": is_settings_or_none},      # to a frame; go on with the settings
    "save": {},                  # write the conversation to files
    "question": {"name": is_text},                             # send a recording that ships with the project
}

# ---- from the kernel to all pages: kind -> fields; "stopped" may name another run than the present one

FROM_KERNEL_ALWAYS = (
    "owner",                     # the client that talks, or None
    "run",                       # its talk, or None
)
RECORD = (                       # buffer: the strips of all frames, int16 [frames, 35]
    "settings",                  # the persona panel
    "pieces",                    # the piece of text of each frame
    "used",                      # frames in the model's memory
)
FROM_KERNEL = {
    # the answer to hello, buffers PROBE and that of the record. to: the client that asked; plain: send base64
    "ready": ("to", "plain", "voices", "questions", "context", "pad", "epad", "silence", *RECORD),
    # 80 ms of the agent, buffers int16 [1920] and the frame's strip. number: of the sound that is answered,
    # None for a recording; ms: the model's work; length: frames of the conversation with this one
    "answer": ("number", "piece", "ms", "length", "lost", "ignored", "used"),
    "beat": ("number",),         # the kernel is there. number: of the newest sound that has come
    "busy": ("what",),           # a job has begun, and nobody is heard until it is done
    "record": ("number", *RECORD),                    # the job is done, and may have changed everything
    "done": ("to", "what", "where"),                  # what a button asked for; buffer of a question: a wav
    "error": ("why",),
    "stopped": ("why",),
}

# ---- a strip: what there is to draw of one frame, int16 [35]; part -> (first, one past the last)

STRIP = {
    "text": (0, 1),              # 17 codes; -1: none
    "agent_codes": (1, 9),
    "user_codes": (9, 17),
    "agent_peaks": (17, 25),     # the loudest sample of each 10 ms, 0 to LARGEST
    "user_peaks": (25, 33),
    "agent_loudness": (33, 34),  # the root mean square of the frame, 0 to LARGEST
    "user_loudness": (34, 35),
}
STRIP_SIZE = 35

FOR_PAGE = {
    "rate": SAMPLE_RATE,
    "frame": FRAME_SAMPLES,
    "probe": list(PROBE),
    "strip": STRIP,
    "strip_size": STRIP_SIZE,
    "largest": LARGEST,
    "loud": round(LOUD * LARGEST),                             # from here on somebody speaks
}


def check(message) -> None:
    """Raises ValueError for anything but a whole message of FROM_PAGE. Other fields are not read."""
    kind = message.get("kind") if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind not in FROM_PAGE:
        raise ValueError("no message that a page sends")
    fields = FROM_EVERY_PAGE | FROM_PAGE[kind]
    for field, fits in fields.items():
        if not fits(message.get(field)):
            raise ValueError(f"{kind}: {field} is not what it must be")


def sound_of(message: dict, buffers) -> torch.Tensor:
    """The sound of a "sound" message: float32 [1920] in -1 to 1. Raises ValueError if it is not 80 ms."""
    text = message.get("b64")
    if isinstance(text, str) and len(text) == SOUND_LETTERS:
        data = b64decode(text, validate=True)
    elif text is None and len(buffers) > 0:
        data = memoryview(buffers[0])
    else:
        raise ValueError("a frame without sound")
    if memoryview(data).nbytes != SOUND_BYTES:
        raise ValueError("a frame is 80 ms of sound")
    samples = np.frombuffer(data, "<i2").astype(np.float32)
    return torch.from_numpy(samples / (LARGEST + 1))


def bytes_of(pcm: torch.Tensor) -> bytes:
    """float [n] in -1 to 1 as int16; what is louder is clipped."""
    samples = pcm.cpu().numpy().clip(-1, 1) * LARGEST
    return samples.astype("<i2").tobytes()


def pack(parts: dict) -> np.ndarray:
    """A number or an array for each part of STRIP -> the strip, int16 [35]."""
    strip = np.zeros(STRIP_SIZE, "<i2")
    for part, (start, stop) in STRIP.items():
        strip[start:stop] = parts[part]
    return strip


def sentence(error: Exception) -> str:
    """An error as a page is told it: short, and of letters that every wire carries."""
    text = str(error)
    if not isinstance(error, ValueError):
        text = f"{type(error).__name__}: {text}"
    return text[:SENTENCE].encode("utf-8", "replace").decode()
