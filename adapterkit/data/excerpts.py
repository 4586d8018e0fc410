"""Documents as they will be learned, short enough to look at: which parts, and where they end.

Which ones is decided by the hash of their text, so that the same text shows
the same documents every time, and not always its first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from adapterkit.data.encode import Encoder
from adapterkit.data.pieces import Pieces

HEAD, TAIL = 320, 160  # characters shown of a long document
LONGEST_WORD = 30
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: parts the pieces of one document


@dataclass(frozen=True)
class Segment:
    """A stretch of a sample, or a gap where so many characters are not shown."""

    text: str
    learned: bool
    left_out: int = 0


@dataclass(frozen=True)
class Sample:
    """One document, or the part of it that is learned from or tested on."""

    source: str  # its name, never a path of this machine
    held_out: bool
    begins: bool  # where the document does
    ends: bool  # where the document does: the end is learned
    tokens: int  # learned, the end included
    characters: int
    segments: tuple[Segment, ...]


def samples(train: Pieces, held_out: Pieces, encoder: Encoder, count: int) -> tuple[Sample, ...]:
    """So many samples, the last of them held out when there are two or more and something is."""
    tested = min(len(held_out), 1) if count > 1 else 0
    shown = [_sample(train, k, encoder, held_out=False) for k in _chosen(train, count - tested)]
    return (*shown, *(_sample(held_out, k, encoder, held_out=True) for k in _chosen(held_out, tested)))


def _chosen(pieces: Pieces, count: int) -> list[int]:
    if not len(pieces):
        return []
    keys = pieces.corpus.marks[pieces.document] ^ (pieces.begin.astype(np.uint64) * SPREAD)
    _, first = np.unique(keys, return_index=True)  # copies count once
    chosen: list[int] = first[:count].tolist()
    return chosen


def _sample(pieces: Pieces, k: int, encoder: Encoder, *, held_out: bool) -> Sample:
    i, begin, end = (int(column[k]) for column in (pieces.document, pieces.begin, pieces.end))
    document = pieces.corpus[i]
    begins, ends = begin == 0, end == int(pieces.corpus.lengths[i])
    segments = document.segments() if begins and ends else list(_decoded(pieces, k, encoder, ends))
    return Sample(
        source=document.source if document.index == 0 else f"{document.source} #{document.index + 1}",
        held_out=held_out,
        begins=begins,
        ends=ends,
        tokens=int(pieces.learned(k).sum()),
        characters=sum(len(text) for text, _ in segments),
        segments=tuple(shortened(segments)),
    )


def _decoded(pieces: Pieces, k: int, encoder: Encoder, ends: bool) -> Iterator[tuple[str, bool]]:
    """A part of a document from its tokens; the first is context, the end is no text."""
    last = -1 if ends else None
    tokens, learned = pieces.tokens(k)[1:last], pieces.learned(k)[1:last]
    changes = np.flatnonzero(np.diff(learned)) + 1
    for a, b in pairwise([0, *changes.tolist(), len(tokens)]):
        yield encoder.decode(tokens[a:b].tolist()), bool(learned[a])


def shortened(segments: list[tuple[str, bool]], head: int = HEAD, tail: int = TAIL) -> list[Segment]:
    """The first and the last characters, with a gap between that says how many it hides."""
    total = sum(len(text) for text, _ in segments)
    if total <= head + tail + tail // 2:  # a gap must be worth its mark
        return [Segment(text, learned) for text, learned in segments if text]
    first = "".join(text for text, _ in _between(segments, 0, head))
    last = "".join(text for text, _ in _between(segments, total - tail, total))
    head, tail = _word_end(first), _word_end(last[::-1])
    return [
        *(Segment(t, learned) for t, learned in _between(segments, 0, head)),
        Segment("", learned=True, left_out=total - head - tail),
        *(Segment(t, learned) for t, learned in _between(segments, total - tail, total)),
    ]


def _word_end(text: str) -> int:
    """The last place at which a word ends; the end of the text when there is none near it."""
    at = max(text.rfind(blank) for blank in " \n")
    return at if at > len(text) - LONGEST_WORD else len(text)


def _between(segments: list[tuple[str, bool]], begin: int, end: int) -> Iterator[tuple[str, bool]]:
    at = 0
    for text, learned in segments:
        part = text[max(begin - at, 0) : max(end - at, 0)]
        at += len(text)
        if part:
            yield part, learned
