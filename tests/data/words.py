"""Random documents for the data tests: seeded, with the characters that break tokenizers."""

from __future__ import annotations

from random import Random

from adapterkit.data.documents import Document
from tests.conftest import SENTENCES

ODD = (
    "<|endoftext|>",
    "naïve",
    "„Müller“",
    "日本語",
    "🙂👩‍🚀",
    "a\u0301",
    "\t",
    "  ",
    "\u200b",
    "𝔊",
    "''",
    "\x07",
)


def sentence(draw: Random) -> str:
    words = draw.choice(SENTENCES).split()
    draw.shuffle(words)
    return " ".join(words)


def text(draw: Random, sentences: int, *, odd: float = 0.0, between: str = " ") -> str:
    """Sentences, some of them followed by something odd."""
    parts = [
        sentence(draw) + (draw.choice(ODD) if draw.random() < odd else "") for _ in range(max(sentences, 1))
    ]
    return between.join(parts)


def documents(draw: Random, count: int, longest: int, *, odd: float = 0.0) -> list[Document]:
    return [Document("a.txt", i, text(draw, draw.randint(1, longest), odd=odd)) for i in range(count)]
