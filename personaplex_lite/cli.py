"""The command line: `personaplex-lite run | talk | course | doctor | plan | convert | train | eval | bench`.

Thin: each command is a few public calls. What goes wrong with a file, a voice or a number is one sentence on
stderr and exit code 2, no stack trace. Imports stand inside the commands: nothing is loaded that a command
does not need.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

from .places import QUESTIONS


def run(args) -> None:
    """Answer a recorded question: sound to a file, words to the screen."""
    from . import Persona, audio, load
    # all is checked before the first second of work
    if args.out.resolve() == args.question.resolve():
        raise ValueError(f"{args.out} is the recording itself: give -o another name")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    audio.check_target(args.out)
    chat = load(args.checkpoint).chat(Persona(args.voice, args.role), args.seed, args.greedy)
    reply = chat.run(args.question)
    reply.save(args.out)
    print(reply.text)


def talk(args) -> None:
    """Ask one of the questions that ship with the project; leave the answer and its picture in a folder."""
    from . import Persona, load
    from .model.units import FRAME_SECONDS
    # all is checked before the first second of work
    asked = pick(args.question)
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"{args.out} is a file: give -o the name of a folder")
    args.out.mkdir(parents=True, exist_ok=True)
    persona = Persona(asked["voice"], asked["role"])
    chat = load(args.checkpoint).chat(persona, args.seed, args.greedy)
    began = time.perf_counter()
    reply = chat.run(QUESTIONS / asked["file"])
    seconds = time.perf_counter() - began
    speed = len(reply.frames) * FRAME_SECONDS / seconds
    sound = reply.save(args.out / "reply.wav")
    both = reply.save(args.out / "talk.wav", both=True)
    picture = args.out / "reply.png"
    reply.plot(picture)
    print(f"""
  role      {asked["role"]}
  you       {asked["text"]}
  {asked["voice"]:9} {reply.text or "(said nothing)"}

  answer    {sound}
  both      {both} (you on the left, the agent on the right)
  picture   {picture}
  speed     {speed:.1f} × real time on {os.cpu_count()} cores""")
    print("  next      make lab (opens the notebooks at the first one)")


def pick(name: str | None) -> dict:
    """An entry of questions.json by its name, the first if none is given."""
    entries = json.loads((QUESTIONS / "questions.json").read_text(encoding="utf-8"))
    named = {entry["file"].removesuffix(".wav"): entry for entry in entries}
    if name is None:
        return entries[0]
    if name not in named:
        raise ValueError(f"no question {name!r}: there are {', '.join(named)}")
    return named[name]


def course(args) -> None:
    """Lay the notebooks and their data into a folder."""
    from .course.lay import lay
    print(f"jupyter lab {lay(args.folder, args.solutions)}")


def train(args) -> None:
    from .training.commands import main
    main(args.rest)


def convert(args) -> None:
    from .weights.convert import convert
    print(f"{convert(args.source, args.folder, args.weights)} is whole: give its path to load")


def plan(args) -> None:
    from .weights.plan import plan
    plan(args.source, args.weights)


def doctor(args) -> None:
    from .doctor import examine
    examine(args.device, args.report)


def evaluate(args) -> None:
    from .evaluation.report import main
    main(args.rest)


def bench(args) -> None:
    if args.rest[:1] != ["duplex"]:
        raise ValueError("bench what? `personaplex-lite bench duplex --help`")
    from .evaluation.duplex.run import main
    main(args.rest[1:])


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="personaplex-lite", description="A small full-duplex speech model.")
    commands = top.add_subparsers(metavar="command", required=True)
    one = command(commands, "run", run, "answer a recorded question")
    one.add_argument("question", type=Path, help="wav, flac, ogg or mp3 of somebody speaking")
    one.add_argument("-o", "--out", type=Path, default=Path("reply.wav"), help="sound file (reply.wav)")
    one.add_argument("--role", type=text, default="", help="what the agent is told about itself")
    one.add_argument("--voice", help="a voice of the checkpoint, or a wav of somebody speaking")
    two = command(commands, "talk", talk, "ask one of the questions in data/questions")
    two.add_argument("question", nargs="?", help="open, price, name, … (the first)")
    two.add_argument("-o", "--out", type=Path, default=Path("out"), help="folder for the answer (out)")
    for sub in (one, two):
        sub.add_argument("--seed", type=seed, default=0, help="another seed, another conversation (0)")
        sub.add_argument("--greedy", action="store_true", help="always the likeliest token, no dice")
        sub.add_argument("--checkpoint", help="a checkpoint's folder (data/lite)")
    fit = command(commands, "plan", plan, "will a checkpoint fit into this machine's memory?")
    small = command(commands, "convert", convert, "make a checkpoint smaller: a folder that loads in seconds")
    for sub in (fit, small):
        sub.add_argument("source", help="a folder, or a hub id such as nvidia/personaplex-7b-v1")
    fit.add_argument("--weights", help="f32, bf16, fp16, int8 or int4 (whatever fits)")
    small.add_argument("folder", type=Path, help="where to write it")
    small.add_argument("--weights", choices=["int8", "int4"], default="int4", help="(int4)")
    study = command(commands, "course", course, "lay the notebooks and their data into a folder")
    study.add_argument("folder", type=Path, help="where to; nothing in it is overwritten")
    study.add_argument("--solutions", action="store_true", help="the solved notebooks, too")
    well = command(commands, "doctor", doctor, "what works on this machine, and what to choose")
    well.add_argument("--device", help="cpu, cuda, cuda:1 (the first GPU, else the CPU)")
    well.add_argument("--report", type=Path, help="also write it as markdown, for a bug report")
    command(commands, "train", train, "make data/lite from nothing: data, codec, encode, lm", add_help=False)
    command(commands, "eval", evaluate, "measure a checkpoint on held-out questions", add_help=False)
    command(commands, "bench", bench, "bench duplex: a checkpoint on Full-Duplex-Bench", add_help=False)
    return top


def command(commands, name: str, call, about: str, **options) -> argparse.ArgumentParser:
    sub = commands.add_parser(name, help=about, description=about, **options)
    sub.set_defaults(call=call)
    return sub


def text(given: str) -> str:
    """An argument that must be text: the shell hands over any bytes."""
    try:
        given.encode("utf-8")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("this is not UTF-8 text: type it in a UTF-8 terminal") from None
    return given


def seed(given: str) -> int:
    """An argument that must be a seed: a whole number that fits into an int64."""
    try:
        number = int(given)
    except ValueError:          # no number, or one of thousands of digits
        number = 2 ** 63
    if not -2 ** 63 <= number < 2 ** 63:
        raise argparse.ArgumentTypeError("a whole number from -2^63 to 2^63 - 1, such as 0")
    return number


def note(message, *_, **__) -> None:
    """A warning as one line, without the source line that raised it."""
    print(f"note: {message}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    top = parser()
    args, args.rest = top.parse_known_args(argv)
    if args.rest and args.call not in (train, evaluate, bench):   # which read their own
        top.error(f"unknown: {' '.join(args.rest)}")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note
            args.call(args)
        return 0
    except ModuleNotFoundError as error:
        how = ": it comes with the extras, pip install -e '.[notebooks,train,eval]'" if error.name else ""
        return fail(f"{error}{how}")
    except (OSError, ValueError, MemoryError) as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail("stopped", 130)


def fail(why, code: int = 2) -> int:
    print(f"personaplex-lite: {why}", file=sys.stderr)
    return code
