"""The counts of prepared text: documents, tokens, rows, lengths, copies.

All of them come from the arrays of the corpus; nothing here goes through the
documents one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapterkit.data.corpus import Ints
from adapterkit.data.pack import Rows
from adapterkit.data.pieces import Pieces
from adapterkit.data.prepare import Prepared

BINS = 10  # of the histogram at most; wider ones else
NAMED = 20  # names kept of anything that may be long


@dataclass(frozen=True)
class DocumentCounts:
    read: int  # as cut, blank ones aside
    kept: int  # learned from or tested on
    learned: int
    held_out: int  # whole ones; 0 when passages are
    dropped: dict[str, int]  # why -> how many; read == kept + the sum
    blank: int
    rows_without_text: int


@dataclass(frozen=True)
class TokenCounts:
    learned: int  # targets of training, each exactly once a pass
    held_out: int  # targets of the test
    context: int  # read in front of what is learned and no target themselves, such as prompts
    dropped: dict[str, int]  # why -> how many
    total: int  # of the documents after cleaning, their ends included; the sum of the four above


@dataclass(frozen=True)
class RowCounts:
    rows: int
    length: int  # slots of a row
    slots: int  # computed in one pass
    tokens: int  # slots that carry a token; a start, or the token before a slice, is one too
    padded: int  # slots - tokens
    fill: float  # tokens / slots
    packing: str


@dataclass(frozen=True)
class HeldOut:
    unit: str  # documents, passages, or what was named
    count: int
    tokens: int
    share: float  # of learned and held-out tokens


@dataclass(frozen=True)
class Lengths:
    """Tokens a document, its start and end included, as a row must hold them."""

    shortest: int
    median: int
    mean: float
    longest: int
    bins: tuple[tuple[int, int, int], ...]  # from, to, documents


@dataclass(frozen=True)
class Copies:
    exact: int  # documents that are there more than once, spaces aside
    surplus: int  # of these, those beyond the first
    near_looked_for: bool  # not in very large texts
    groups: int  # of copies and near-copies, at most 1,000 are counted
    examples: tuple[tuple[str, ...], ...]
    leaks: int  # training documents that hold most of one that is tested on
    leaks_removed: bool
    leak_examples: tuple[tuple[str, str, float], ...]  # training document, held-out document, share of it


@dataclass(frozen=True)
class Names:
    count: int
    first: tuple[str, ...]


def documents(p: Prepared) -> DocumentCounts:
    facts, count = p.facts, len(p.documents)
    same = p.split.held_out.corpus is p.documents
    learned, tested = _members(p.split.train), _members(p.split.held_out)
    kept = int((learned | tested).sum()) if same else int(learned.sum())
    by_rule = {str(d["rule"]): int(d["dropped"]) for d in facts.done if d["dropped"]}
    other = facts.documents_read - count - sum(by_rule.values())
    dropped = by_rule | {
        "near-duplicates": p.duplicates,
        "also in what is tested on": count - p.duplicates - kept,
        "other": other,
    }
    return DocumentCounts(
        read=facts.documents_read,
        kept=kept,
        learned=int(learned.sum()),
        held_out=int((tested & ~learned).sum()) if same else 0,
        dropped={why: n for why, n in dropped.items() if n},
        blank=facts.blank,
        rows_without_text=facts.without_text,
    )


def _members(pieces: Pieces) -> NDArray[np.bool_]:
    """Which documents of their corpus the pieces are of."""
    found = np.zeros(len(pieces.corpus), np.bool_)
    found[pieces.document] = True
    return found


def tokens(p: Prepared) -> TokenCounts:
    train, held = p.split.train, p.split.held_out
    total = int((p.documents.lengths - 1).sum())
    if held.corpus is not p.documents:
        total += _new(held)
    learned, tested = p.train.targets, p.held_out.targets
    read = _new(p.train.pieces) + _new(p.held_out.pieces)
    cut = p.train.cut + p.held_out.cut
    chosen = _new(train) + _new(held)
    dropped = {
        "truncated": cut,
        "without anything to learn": chosen - cut - read,
        "near-copies of what is tested on": p.split.dropped,
        "of documents left out": total - chosen - p.split.dropped,
    }
    return TokenCounts(
        learned, tested, read - learned - tested, {why: n for why, n in dropped.items() if n}, total
    )


def _new(pieces: Pieces) -> int:
    """Tokens of pieces without the first of each, which is context and counted before, or a start."""
    return int((pieces.sizes - 1).sum())


def rows(packed: Rows) -> RowCounts:
    slots, filled = packed.slots(), packed.tokens
    fill = round(filled / slots, 4) if slots else 0.0
    return RowCounts(len(packed), packed.length, slots, filled, slots - filled, fill, packed.mode)


def held_out(p: Prepared, counted: TokenCounts) -> HeldOut | None:
    if not counted.held_out:
        return None
    share = counted.held_out / (counted.learned + counted.held_out)
    documents_of, _, name = p.split.unit.partition(" of ")
    unit = f"{documents_of} of {pathless(name)}" if name else documents_of
    return HeldOut(unit, p.split.units, counted.held_out, round(share, 4))


def copies(p: Prepared) -> Copies:
    several = _repeated(p.documents.marks)
    return Copies(
        exact=int(several.sum()),
        surplus=int((several - 1).sum()),
        near_looked_for=p.near,
        groups=len(p.groups),
        examples=tuple(g[:NAMED] for g in p.groups[:3]),
        leaks=len(p.leaks.found),
        leaks_removed=p.leaks.removed,
        leak_examples=p.leaks.found[:NAMED],
    )


def _repeated(marks: NDArray[np.uint64]) -> Ints:
    """How often each mark is there that is there more than once."""
    ordered = np.sort(marks)
    begins = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    counts = np.diff(begins, append=len(ordered))
    return counts[counts > 1]


def names(told: Sequence[str]) -> Names:
    return Names(len(told), tuple(told[:NAMED]))


def lengths(counted: Ints) -> Lengths:
    return Lengths(
        shortest=int(counted.min()),
        median=int(np.median(counted)),
        mean=round(float(counted.mean()), 1),
        longest=int(counted.max()),
        bins=tuple(histogram(counted)),
    )


def histogram(lengths: Ints) -> list[tuple[int, int, int]]:
    """From, to and how many; the ends are powers of two, farther apart when the lengths are."""
    low, high = (int(np.ceil(np.log2(max(int(n), 1)))) for n in (lengths.min(), lengths.max()))
    step = -(-(high - low + 1) // BINS)
    first = high - (high - low) // step * step
    ends = 2 ** np.arange(first, high + 1, step)
    counts = np.bincount(np.searchsorted(ends, lengths), minlength=len(ends))
    begins = [int(ends[0]) // 2**step + 1, *(int(e) + 1 for e in ends[:-1])]
    return [(b, int(e), int(n)) for b, e, n in zip(begins, ends, counts, strict=True)]


def pathless(told: str) -> str:
    """Names of sources without where they lie on this machine, as the report goes into every version."""
    return ", ".join(_last(name) for name in told.split(", "))


def _last(name: str) -> str:
    path = Path(name)
    return path.name if path.is_absolute() or name[:1] == "~" or ".." in path.parts else name
