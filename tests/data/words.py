"""Random documents for the data tests, and two tokenizers made of words that are quick and can be counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from adapterkit.data.corpus import Corpus, batches, in_memory
from adapterkit.data.encode import IGNORE, Encoder, Tokens
from adapterkit.data.pack import Row
from adapterkit.data.pieces import Pieces
from adapterkit.data.text import Document
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
TOKEN = re.compile(r" ?\S+|\s")


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


def babble(draw: Random, words: int) -> str:
    """Sentences of words of their own, so that two texts have next to nothing in common; paragraphs of about 60 words."""
    told = [f"{draw.randrange(20_000):x}" for _ in range(words)]
    for at in range(8, words, 9):
        told[at] += "."
    return "\n\n".join(" ".join(told[at : at + 63]) for at in range(0, words, 63))


def redrafted(draw: Random, old: str, share: float = 0.02) -> str:
    """The same text with a few words changed."""
    return re.sub(r"\S+", lambda m: "anew" if draw.random() < share else m[0], old)


def pair(prompt: str, completion: str, index: int = 0) -> Document:
    return Document("a.txt", index, prompt + completion, ((0, len(prompt)),))


def corpus(docs: Sequence[Document], encoder: Encoder) -> Corpus:
    return in_memory(batches(docs, encoder), encoder)


def whole(docs: Sequence[Document], encoder: Encoder) -> Pieces:
    """Every document as one piece."""
    return Pieces.whole(corpus(docs, encoder), np.arange(len(docs)))


def targets(rows: Sequence[Row]) -> Iterator[int]:
    """The labels of all rows that are learned."""
    for row in rows:
        yield from row.labels[row.labels != IGNORE].tolist()


class Words:
    """A word with the blank before it is a token, as in GPT-2; the same word is the same token."""

    end = 0
    fingerprint = "words"

    def __init__(self) -> None:
        self._words = [""]
        self._ids: dict[str, int] = {}

    @property
    def size(self) -> int:
        return len(self._words)

    def _id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self._words)
            self._words.append(word)
        return self._ids[word]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[self._id(word) for word in TOKEN.findall(text)] for text in texts]

    def starts(self, ids: Tokens) -> NDArray[np.int64]:
        lengths = np.array([len(self._words[i]) for i in ids], dtype=np.int64)
        found: NDArray[np.int64] = np.cumsum(lengths) - lengths
        return found

    def decode(self, ids: list[int]) -> str:
        return "".join(self._words[i] for i in ids)


class Numbered(Words):
    """Every token of every text has a number of its own, from 1 in their order, so that each can be followed."""

    fingerprint = "numbered"

    @property
    def size(self) -> int:
        return 1 << 30

    def _id(self, word: str) -> int:
        self._words.append(word)
        return len(self._words) - 1


# --- for hypothesis ---

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PROSE = st.builds(lambda seed, n: text(Random(seed), n, odd=0.2), st.integers(0, 999), st.integers(1, 8))
STRETCH = st.one_of(ANY_TEXT, PROSE, st.sampled_from(ODD))


@st.composite
def any_documents(draw: st.DrawFn, most: int = 10) -> list[Document]:
    """Documents of any characters, some with stretches that are read but not learned."""
    found = []
    for i in range(draw(st.integers(1, most))):
        stretches = draw(
            st.lists(st.tuples(STRETCH, st.sampled_from([True, True, False])), min_size=1, max_size=4)
        )
        found.append(Document(f"{i % 3}.txt", i, "").rebuilt(stretches))
    return found
