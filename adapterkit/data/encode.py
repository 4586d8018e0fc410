"""Documents as tokens, and pieces of them with their labels.

A document is ``[start] tokens [end]``, both GPT-2's ``<|endoftext|>``. A piece
is a slice of it whose first token is context only::

    tokens   S  The  sea  is  calm  E          S = start, E = end
    piece    S  The  sea                       targets: The sea
    piece              sea  is  calm  E        targets: is calm E

Pieces overlap by one token, so every token but the start is a target exactly
once, and the end is learned exactly once. Labels come from positions, never
from token ids, so an end of text can't be taken for padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapterkit.data.documents import Document

IGNORE = -100  # transformers' mark of a position that is no target
Tokens = NDArray[np.int32]


class Encoder(Protocol):
    """What this layer needs of a tokenizer."""

    @property
    def end(self) -> int: ...
    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
    def offsets(self, text: str) -> tuple[list[int], list[int]]: ...


@dataclass(frozen=True)
class Piece:
    """Tokens ``begin`` to ``end`` of one encoded document; the first one is context only."""

    tokens: Tokens
    document: int

    @property
    def targets(self) -> int:
        return len(self.tokens) - 1


def encode(documents: list[Document], encoder: Encoder) -> list[Tokens]:
    """``[start] tokens [end]`` of each document."""
    end = encoder.end
    encoded = encoder.encode_batch([d.text for d in documents])
    return [np.array([end, *ids, end], dtype=np.int32) for ids in encoded]


def slices(tokens: Tokens, document: int, bounds: list[int]) -> list[Piece]:
    """Pieces of a document between target positions.

    Args:
        tokens: one encoded document.
        bounds: ascending, from 1 to ``len(tokens)``; piece k has the targets bounds[k] to bounds[k+1].
    """
    return [Piece(tokens[a - 1 : b], document) for a, b in pairwise(bounds)]


def shorten(piece: Piece, longest: int) -> list[Piece]:
    """A piece cut so that none is longer than a row."""
    bounds = [*range(1, len(piece.tokens), longest - 1), len(piece.tokens)]
    return slices(piece.tokens, piece.document, bounds)
