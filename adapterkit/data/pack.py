"""Pieces packed into rows that are nearly full, documents apart from each other.

One row of 12 slots, three pieces (S start, E end, . padding)::

    tokens     S  a  b  E  S  c  E  S  d  e  E  .
    labels     -  a  b  E  -  c  E  -  d  e  E  -
    positions  0  1  2  3  0  1  2  0  1  2  3  0

Positions that restart are what parts the documents: transformers builds a
block mask from them, but only without an attention mask and without a cache
(``use_cache=False``). Best-fit decreasing keeps rows over 99 % full.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from adapterkit.data.encode import IGNORE, Piece, Tokens, shorten


@dataclass(frozen=True)
class Row:
    """One row of a batch: all three of the same length."""

    input_ids: Tokens
    labels: Tokens
    position_ids: Tokens

    @property
    def targets(self) -> int:
        return int((self.labels != IGNORE).sum())


def pack(pieces: list[Piece], length: int, mode: str = "isolated") -> list[Row]:
    """Rows of at most ``length`` tokens.

    Args:
        pieces: in the order of the text.
        length: of a row, at most the positions of the base.
        mode: isolated, or concat (documents see those before them in the row).
    """
    short = [part for piece in pieces for part in shorten(piece, length) if part.targets]
    bins = _best_fit([len(p.tokens) for p in short], length)
    return [_row([short[i] for i in members], mode) for members in bins]


def _best_fit(sizes: list[int], length: int) -> list[list[int]]:
    """Indexes by row: longest first, each into the fullest row that still has room."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free slots, bin), sorted
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        at = bisect_left(room, (sizes[i], -1))
        if at == len(room):
            bins.append([])
            free, index = length, len(bins) - 1
        else:
            free, index = room.pop(at)
        bins[index].append(i)
        if free > sizes[i]:
            insort(room, (free - sizes[i], index))
    return [sorted(members) for members in bins]


def _row(pieces: list[Piece], mode: str) -> Row:
    ids = np.concatenate([p.tokens for p in pieces])
    labels = ids.copy()
    labels[np.cumsum([0, *(len(p.tokens) for p in pieces[:-1])])] = IGNORE
    if mode == "isolated":
        positions = np.concatenate([np.arange(len(p.tokens), dtype=np.int32) for p in pieces])
    else:
        positions = np.arange(len(ids), dtype=np.int32)
    return Row(ids, labels, positions)


def stack(rows: list[Row], filler: int) -> dict[str, Tokens]:
    """A batch of rows as arrays (b, t); short rows are padded with a piece of their own that is no target."""
    longest = max(len(r.input_ids) for r in rows)
    batch = {
        "input_ids": np.full((len(rows), longest), filler, dtype=np.int64),
        "labels": np.full((len(rows), longest), IGNORE, dtype=np.int64),
        "position_ids": np.zeros((len(rows), longest), dtype=np.int64),
    }
    for i, row in enumerate(rows):
        n = len(row.input_ids)
        batch["input_ids"][i, :n] = row.input_ids
        batch["labels"][i, :n] = row.labels
        batch["position_ids"][i, :n] = row.position_ids
        batch["position_ids"][i, n:] = np.arange(longest - n)
    return batch  # type: ignore[return-value]
