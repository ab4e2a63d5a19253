"""The small tokenizer: a piece for each of the world's words, letters for others; no case, no punctuation."""
from __future__ import annotations

import tempfile
from pathlib import Path

from . import world

IGNORED = ".,?!;:\"()[]"


def train(path: Path | str, size: int = 960, lines: int = 20_000) -> Path:
    """Write a SentencePiece model with the special ids of the official one (0 EPAD, 3 PAD)."""
    import sentencepiece
    rules = [f"{ord(c):X}\t{ord(c.lower()):X}" for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    rules += [f"{ord(c):X}\t20" for c in IGNORED]
    corpus = world.text_corpus(lines) + world.vocabulary() * 50
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table, open(path, "wb") as out:
        table.write("\n".join(rules) + "\n")
        table.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus), model_writer=out, vocab_size=size, model_type="bpe",
            unk_id=0, bos_id=1, eos_id=2, pad_id=3, user_defined_symbols=["<system>"], minloglevel=2,
            normalization_rule_tsv=table.name, required_chars="abcdefghijklmnopqrstuvwxyz'")
    return Path(path)
