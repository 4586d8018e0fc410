"""Slices of encoded documents, as arrays: what is learned from, what is tested on, what a row holds.

A piece is a slice ``begin:end`` of ``[start] tokens [end]`` whose first token
is context only::

    tokens   S  The  sea  is  calm  E          S = start, E = end
    piece    S  The  sea                       targets: The sea
    piece              sea  is  calm  E        targets: is calm E

Pieces overlap by one token, so every token but the start is a target exactly
once, and the end is learned exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adapterkit.data.corpus import Corpus
from adapterkit.data.encode import Tokens

Index = NDArray[np.int64]
Span = tuple[int, int, int]  # document, begin, end


@dataclass(frozen=True)
class Pieces:
    """Slices of the documents of one corpus, in order."""

    corpus: Corpus
    document: Index
    begin: Index
    end: Index

    @classmethod
    def of(cls, corpus: Corpus, spans: Iterable[Span]) -> Pieces:
        columns = np.array(list(spans), dtype=np.int64).reshape(-1, 3).T
        return cls(corpus, columns[0], columns[1], columns[2])

    @classmethod
    def whole(cls, corpus: Corpus, documents: Index) -> Pieces:
        """Documents in one piece each."""
        return cls(corpus, documents, np.zeros_like(documents), corpus.lengths[documents])

    def __len__(self) -> int:
        return len(self.document)

    def __iter__(self) -> Iterator[Span]:
        yield from zip(self.document.tolist(), self.begin.tolist(), self.end.tolist(), strict=True)

    def take(self, which: NDArray[np.bool_] | Index) -> Pieces:
        return Pieces(self.corpus, self.document[which], self.begin[which], self.end[which])

    @property
    def sizes(self) -> Index:
        """Tokens of each piece, the context token included."""
        return self.end - self.begin

    @cached_property
    def targets(self) -> Index:
        """Learned tokens of each piece."""
        counts = self.sizes - 1
        for k in np.flatnonzero(self.corpus.has_context[self.document]).tolist():
            spans = self.corpus.context(int(self.document[k]))
            first, last = int(self.begin[k]) + 1, int(self.end[k])
            unlearned = np.minimum(spans[:, 1], last) - np.maximum(spans[:, 0], first)
            counts[k] -= int(np.maximum(unlearned, 0).sum())
        return counts

    def tokens(self, k: int) -> Tokens:
        return self.corpus.tokens(int(self.document[k]), int(self.begin[k]), int(self.end[k]))

    def learned(self, k: int) -> NDArray[np.bool_]:
        """Which tokens of piece k are targets."""
        mask = np.ones(int(self.end[k] - self.begin[k]), np.bool_)
        mask[0] = False
        if self.corpus.has_context[self.document[k]]:
            for a, b in (self.corpus.context(int(self.document[k])) - int(self.begin[k])).tolist():
                mask[max(a, 0) : max(b, 0)] = False
        return mask


def shorten(pieces: Pieces, longest: int, *, truncate: bool = False) -> Pieces:
    """Pieces cut so that none is longer than a row, without loss unless ``truncate`` asks for it."""
    if truncate:
        return Pieces(
            pieces.corpus, pieces.document, pieces.begin, np.minimum(pieces.end, pieces.begin + longest)
        )
    parts = np.maximum(-(-(pieces.sizes - 1) // (longest - 1)), 1)
    owner = np.repeat(np.arange(len(pieces)), parts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = pieces.begin[owner] + nth * (longest - 1)
    end = np.minimum(begin + longest, pieces.end[owner])
    return Pieces(pieces.corpus, pieces.document[owner], begin, end)
