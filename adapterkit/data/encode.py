"""Documents as tokens, with which of them are learned.

A document is ``[start] tokens [end]``, both GPT-2's ``<|endoftext|>``. The
start is context only; the end is learned. Stretches that are read but not
learned (the prompt of a pair) are encoded apart from what follows them, as
they are when someone writes on from a prompt, and keep their token spans::

    text     Why? \\n  Because            context: "Why?\\n"
    tokens   S  Why  ?  \\n  Because  E
    learned  -   -   -   -     x     x

Labels come from positions, never from token ids, so an end of text can't be
taken for padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapterkit.data.text import Document, Spans

IGNORE = -100  # transformers' mark of a position that is no target
Tokens = NDArray[np.int32]


class Encoder(Protocol):
    """What this layer needs of a tokenizer."""

    @property
    def end(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
    def starts(self, ids: Tokens) -> NDArray[np.int64]: ...
    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True)
class Encoded:
    """Tokens of one document, and the spans of them that are read but not learned (the start aside)."""

    tokens: Tokens
    context: Spans


def encode(documents: Sequence[Document], encoder: Encoder) -> list[Encoded]:
    """``[start] tokens [end]`` of each document."""
    segments = [d.segments() if d.context else [(d.text, True)] for d in documents]
    ids = iter(encoder.encode_batch([text for parts in segments for text, _ in parts]))
    return [_joined([(next(ids), learned) for _, learned in parts], encoder.end) for parts in segments]


def _joined(parts: list[tuple[list[int], bool]], end: int) -> Encoded:
    flat, spans = [end], []
    for ids, learned in parts:
        if not learned:
            spans.append((len(flat), len(flat) + len(ids)))
        flat += ids
    flat.append(end)
    return Encoded(np.array(flat, dtype=np.int32), tuple(spans))
