"""Words and the text row: SentencePiece, PAD, EPAD, and words with times.

What departs from the textbook: text runs on the clock. A word's pieces stand in the frames where it is
spoken, PAD fills the frames in between, EPAD ("end of padding") announces the next word. So the time of a
word is its column.
"""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FRAME = 0.08            # seconds
SPACE = "\u2581"        # how SentencePiece writes the space before a word


class Word(NamedTuple):
    """A spoken word and the second at which its text began."""
    text: str
    start: float


class Text:
    """The tokenizer of one checkpoint. Raises ValueError if `path` is not a SentencePiece model."""

    def __init__(self, path, pad: int = 3, epad: int = 0):
        from sentencepiece import SentencePieceProcessor
        self.pad, self.epad, self.path = pad, epad, Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}")
        try:
            self.pieces = SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError):
            raise ValueError(f"{path} is not a SentencePiece model") from None

    def __len__(self) -> int:
        return self.pieces.get_piece_size()

    def encode(self, text: str) -> list[int]:
        return self.pieces.encode(text)

    def role(self, text: str) -> list[int]:
        """The role prompt's tokens, `<system> … <system>` (PersonaPlex model card); none for no text."""
        text = " ".join(text.split())
        return self.encode(f"<system> {text} <system>") if text else []

    def piece(self, token: int) -> str:
        """How one text-row token reads, for people: "·" for PAD, "|" for EPAD."""
        if token == self.pad:
            return "·"
        if token == self.epad:
            return "|"
        return self.pieces.id_to_piece(token).replace(SPACE, " ") if 0 <= token < len(self) else ""

    def words(self, tokens: Iterable[int], start: float = 0.0) -> list[Word]:
        """The words in a text row, one token a frame, the first at second `start`."""
        words: list[Word] = []
        for i, token in enumerate(tokens):
            if token in (self.pad, self.epad) or not 0 <= token < len(self):
                continue
            piece = self.pieces.id_to_piece(token)
            if piece.startswith(SPACE) or not words:
                words.append(Word(piece.lstrip(SPACE), round(start + i * FRAME, 2)))
            else:
                words[-1] = words[-1]._replace(text=words[-1].text + piece)
        return [w for w in words if w.text]

    def say(self, tokens: Iterable[int]) -> str:
        """The text row as a sentence."""
        return " ".join(w.text for w in self.words(tokens))
