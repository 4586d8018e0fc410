"""Pieces packed into rows that are nearly full, documents apart from each other.

One row of 12 slots, three pieces (S start, E end, . padding)::

    tokens     S  a  b  E  S  c  E  S  d  e  E  .
    labels     -  a  b  E  -  c  E  -  d  e  E  -
    positions  0  1  2  3  0  1  2  0  1  2  3  0

Positions that restart are what parts the documents: transformers builds a
block mask from them, but only without an attention mask and without a cache
(``use_cache=False``). Rows are over 99 % full where pieces are many and short:
the longest one left, then those that fit best, two at a time when two fill the
row. Rows are made when they are asked for; what is kept is which pieces each
one holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

from adapterkit.data.encode import IGNORE, Tokens
from adapterkit.data.pieces import Index, Pieces, shorten

SLACK = 1  # slots that two pieces may leave of a row that they fill


@dataclass(frozen=True)
class Row:
    """One row of a batch: all three of the same length."""

    input_ids: Tokens
    labels: Tokens
    position_ids: Tokens

    @property
    def targets(self) -> int:
        return int((self.labels != IGNORE).sum())


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """Packed rows; row k holds the pieces ``order[starts[k]:starts[k + 1]]``."""

    pieces: Pieces
    order: Index
    starts: Index
    length: int  # slots of a row
    mode: str  # isolated, concat, none
    pad_to: int | None
    filler: int  # a token id for padding, which is never a target
    masked: int = 0  # pieces left out because nothing in them is learned
    cut: int = 0  # tokens dropped by truncation

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        members = self.members(index % len(self))
        parts = [self.pieces.tokens(k) for k in members]
        learned = np.concatenate([self.pieces.learned(k) for k in members])
        ids = np.concatenate(parts)
        labels = np.where(learned, ids, np.int32(IGNORE)).astype(np.int32)
        row = Row(ids, labels, self._positions([len(p) for p in parts]))
        return _padded(row, self.pad_to, self.filler) if self.pad_to else row

    def members(self, row: int) -> list[int]:
        """Indexes of the pieces in a row, in their order."""
        found: list[int] = self.order[self.starts[row] : self.starts[row + 1]].tolist()
        return found

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def _positions(self, sizes: list[int]) -> Tokens:
        if self.mode == "concat":
            return np.arange(sum(sizes), dtype=np.int32)
        return np.concatenate([np.arange(n, dtype=np.int32) for n in sizes])

    @cached_property
    def targets(self) -> int:
        return int(self.pieces.targets.sum())

    @cached_property
    def tokens(self) -> int:
        """Slots that carry a token of the text, its start or its end."""
        return int(self.pieces.sizes.sum())

    def slots(self, at_once: int = 8) -> int:
        """Slots computed in one pass; unpadded rows are as long as the longest of a batch."""
        if self.mode != "none":
            return len(self) * self.length
        if self.pad_to:
            return len(self) * self.pad_to
        sizes = self.pieces.sizes[self.order]
        return int(sum(len(part) * part.max() for part in _batches(sizes, at_once)))


def _batches(sizes: Index, at_once: int) -> Iterator[Index]:
    return (sizes[i : i + at_once] for i in range(0, len(sizes), at_once))


def pack(pieces: Pieces, length: int, filler: int, *, mode: str = "isolated", pad_to: int | None = None,
         truncate: bool = False) -> Rows:  # fmt: skip
    """Rows of at most ``length`` tokens.

    Args:
        pieces: in the order of the text.
        length: of a row, at most the positions of the base.
        filler: a token id for padding.
        mode: isolated; concat (documents see those before them in the row); none (a row each).
        pad_to: length that every row of mode none is padded to.
        truncate: drop what does not fit a row instead of going on in the next.
    """
    pad_to = pad_to if mode == "none" else None
    length = min(length, pad_to or length)
    short = shorten(pieces, length, truncate=truncate)
    cut = int(pieces.sizes.sum() - short.sizes.sum()) if truncate else 0
    has_targets = short.targets > 0
    masked = int((~has_targets).sum())
    short = short.take(has_targets) if masked else short
    row_of = np.arange(len(short)) if mode == "none" else _fill(short.sizes, length)
    order = np.argsort(row_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row_of))]).astype(np.int64)
    return Rows(short, order, starts, length, mode, pad_to, filler, masked, cut)


def _fill(sizes: Index, length: int) -> Index:
    """Row of each piece; a row begins with the longest piece left and is filled with what fits it best."""
    left = _Left(sizes, length)
    rows: list[int] = []
    row = 0
    while longest := left.largest(length):
        room = length - longest
        left.take(longest)
        while room and (size := left.largest(room)):
            pair = left.pair(room) if size < room else None
            for each in pair or (size,):
                left.take(each)
                room -= each
            if pair:
                break
        rows += [row] * (len(left.taken) - len(rows))
        row += 1
    row_of = np.empty(len(sizes), np.int64)
    row_of[left.order[left.taken]] = rows
    return row_of


class _Left:
    """Pieces not yet in a row, by size.

    Which sizes there are is kept in the bits of one integer, and mirrored in
    another, so that "two sizes that add up to so many" is one shift and one "and".
    """

    def __init__(self, sizes: Index, length: int) -> None:
        counts = np.bincount(sizes, minlength=length + 1)
        self.order = np.argsort(sizes, kind="stable")
        self.taken: list[int] = []  # places in that order
        self._length = length
        self._begins = (np.cumsum(counts) - counts).tolist()
        self._counts = counts.tolist()
        there = np.flatnonzero(counts).tolist()
        self._there = sum(1 << size for size in there)
        self._mirrored = sum(1 << (length - size) for size in there)

    def largest(self, room: int) -> int:
        """The largest size that fits; 0 when none does."""
        fitting = self._there & ((2 << room) - 1)
        return fitting.bit_length() - 1 if fitting else 0

    def pair(self, room: int) -> tuple[int, int] | None:
        """Two sizes that fill the room, or all of it but SLACK slots; the more unequal first."""
        for total in range(room, max(room - SLACK, 1) - 1, -1):
            # bit a of this is set when both a and total - a are there
            both = self._there & (self._mirrored >> (self._length - total)) & ((1 << total) - 1)
            a = both.bit_length() - 1
            if both and (2 * a != total or self._counts[a] > 1):
                return a, total - a
        return None

    def take(self, size: int) -> None:
        self._counts[size] -= 1
        self.taken.append(self._begins[size] + self._counts[size])
        if not self._counts[size]:
            self._there ^= 1 << size
            self._mirrored ^= 1 << (self._length - size)


def _padded(row: Row, length: int, filler: int) -> Row:
    n = length - len(row.input_ids)
    return Row(
        np.pad(row.input_ids, (0, n), constant_values=filler),
        np.pad(row.labels, (0, n), constant_values=IGNORE),
        np.concatenate([row.position_ids, np.arange(n, dtype=np.int32)]),
    )


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
