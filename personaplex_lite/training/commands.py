"""`personaplex-lite train data | codec | encode | lm`, `polish` and `curves`: how data/lite is made."""
from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

Stages = argparse._SubParsersAction             # what `add_subparsers` returns


def command(stages: Stages, name: str, call: Callable, about: str) -> argparse.ArgumentParser:
    """One stage of the training: `call(args)` does it."""
    stage = stages.add_parser(name, help=about, description=about)
    stage.set_defaults(call=call)
    return stage


def train_data(args: argparse.Namespace) -> None:
    from . import clips
    specs = clips.inventory(args.split, args.agent, args.user, args.seed)
    clips.build(args.out / args.split, specs, args.workers)


def train_codec(args: argparse.Namespace) -> None:
    from . import codec
    free = 0 if args.warm else 1500
    print(codec.train(args.data, args.out, args.steps, args.seed, free=free, warm=args.warm))


def train_encode(args: argparse.Namespace) -> None:
    from . import dialogue, listen
    splits = sorted(path.parent for path in args.data.glob("*/shard_0000.json"))
    if not splits:
        raise FileNotFoundError(f"no clips in {args.data}: make them with `personaplex-lite train data`")
    args.out.mkdir(parents=True, exist_ok=True)
    mimi = listen.codec_of(args.codec)
    for folder in splits:
        dialogue.encode_clips(folder, mimi, args.out / folder.name, seed=args.seed)
    dialogue.encode_backgrounds(mimi, args.out)
    for name in ("mimi.json", "mimi.safetensors"):      # the training of the language model listens with it
        shutil.copyfile(args.codec / name, args.out / name)


def train_lm(args: argparse.Namespace) -> None:
    from . import lm, tokenizer
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "tokenizer.model").exists():
        tokenizer.train(args.out / "tokenizer.model")
    print(lm.train(args.data, args.out, args.steps, args.read, args.seed, args.batch, warm=args.warm))


def train_polish(args: argparse.Namespace) -> None:
    from . import codec
    print(codec.polish(args.data, args.out, args.steps, args.seed))


def train_curves(args: argparse.Namespace) -> None:
    from . import curves
    print(curves.draw(args.runs, args.out))


def add_training(stages: Stages) -> None:
    """The stages, in their order; what each makes is where the next one looks."""
    data = command(stages, "data", train_data, "speak the little world's sentences")
    data.add_argument("--out", type=Path, default=Path("runs/clips"))
    data.add_argument("--split", choices=["train", "test"], default="train")
    numbers(data, agent=10_000, user=7_500, seed=0, workers=2)
    codec = command(stages, "codec", train_codec, "train the codec on the clips")
    folders(codec, data="runs/clips/train", out="runs/codec")
    numbers(codec, steps=40_000, seed=0)
    codec.add_argument("--warm", type=Path, help="folder of another codec to begin with")
    encode = command(stages, "encode", train_encode, "turn every clip into codes")
    folders(encode, data="runs/clips", codec="runs/codec", out="runs/encoded")
    numbers(encode, seed=0)
    lm = command(stages, "lm", train_lm, "train the language model on dialogues made of the codes")
    folders(lm, data="runs/encoded", out="runs/lm")
    numbers(lm, steps=8000, read=1250, seed=0, batch=5)
    lm.add_argument("--warm", type=Path, help="folder of another training to begin with")
    polish = command(stages, "polish", train_polish, "train the codec's decoder further; codes stay valid")
    folders(polish, data="runs/clips/train", out="runs/codec")
    numbers(polish, steps=5000, seed=0)
    curves = command(stages, "curves", train_curves, "draw the losses of some trainings")
    curves.add_argument("runs", type=Path, nargs="+", help="folders with log.jsonl")
    curves.add_argument("--out", type=Path, default=Path("docs/training.png"))


def folders(sub: argparse.ArgumentParser, **defaults: str) -> None:
    for name, default in defaults.items():
        sub.add_argument(f"--{name}", type=Path, default=Path(default), help=f"({default})")


def numbers(sub: argparse.ArgumentParser, **defaults: int) -> None:
    for name, default in defaults.items():
        sub.add_argument(f"--{name}", type=int, default=default, help=f"({default})")


def main(argv: list[str]) -> None:
    about = "make data/lite from nothing, stage by stage"
    top = argparse.ArgumentParser(prog="personaplex-lite train", description=about)
    add_training(top.add_subparsers(metavar="stage", required=True))
    args = top.parse_args(argv)
    args.call(args)
