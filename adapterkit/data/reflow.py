"""Prose that was wrapped at a column, joined into a line a paragraph.

Whoever wraps at a column breaks a line exactly where the next word would not
have fitted any more. Nearly all breaks within the paragraphs of such a text obey
that one rule; those of verse, drama, lists, code and tables do not. So the column
is the one that most breaks obey, and only breaks that obey it are undone.

Nothing but spaces, tabs and line breaks ever changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from adapterkit.data.words import UNSPACED

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NARROWEST, WIDEST = 40, 120  # columns
SLACK = 2  # fold counts the blank at a line's end, and people mend a word here and there
# Of the breaks amid a sentence. Measured: textwrap 1.0, the Holmes canon 0.99, fold -s and Grimm over 0.9,
# fmt 0.8; Shakespeare's blank verse 0.46, and code, jokes and speeches below 0.3.
OBEYING = 0.75
OF_ALL = 0.6  # of all breaks within paragraphs
ENOUGH, FEW = 20, 8  # breaks that show it; of only a few, every one must
FULL = 0.85  # of the column: a line this long is broken by the column, if its neighbours are
LONGEST_WORD = 24  # a longer one is an address, or a language without spaces, and shows nothing
SAMPLE = 4_000  # lines from the beginning, the middle and the end of a long text
BLANK = " \t"
ENDS_SENTENCE = frozenset(".!?:;…\"'”’»)]*_")
DASHES = frozenset("-–—")
# What begins a line that does not go on from the one before: items, quoted mail, rows, rules, times and names of a chat
ITEM = re.compile(
    r"[-*+•·‣>|#=~]+(?=\s|[-*+>|#=~]|$)|\(?(?:\d{1,3}|[a-z]|[ivx]+|[IVX]{2,})[.)]\s|[\[(]?\d\d?:\d\d\b|<[^<>]{1,40}>"
).match
ITEMS = frozenset("-*+•·‣>|#=~([<0123456789")


def reflow(text: str) -> tuple[str, int | None]:
    """The text with the lines of wrapped paragraphs joined.

    Returns:
        (text, column). The column is where lines were broken, the length of the
        longest usual line; None if the text was left as it is.
    """
    lines = text.split("\n")
    if len(lines) <= FEW or (column := _column(_measured(_sample(lines)))) is None:
        return text, None
    measured = _measured(lines)
    joins = _joins(measured, column)
    return ("".join(_joined(lines, measured, joins)), column) if joins.any() else (text, None)


def _sample(lines: list[str]) -> list[str]:
    if len(lines) <= 3 * SAMPLE:
        return lines
    middle = len(lines) // 2
    return [*lines[:SAMPLE], "", *lines[middle : middle + SAMPLE], "", *lines[-SAMPLE:]]


# --- what is there ------------------------------------------------------------


@dataclass(frozen=True)
class _Lines:
    """Lines and the breaks after them; break ``i`` stands between lines ``i`` and ``i + 1``."""

    bodies: list[str]  # without blanks around
    indent: Ints
    width: Ints  # of the line before each break, its indent included
    longer: Ints  # what that line would have measured with the next word on it
    glued: Bools  # it ends with a hyphen that belongs to its word
    within: Bools  # the break is inside a paragraph
    amid: Bools  # and inside a sentence, so that only a column or a verse explains it


def _measured(lines: list[str]) -> _Lines:
    n = len(lines)
    bodies = [line.strip(BLANK) for line in lines]
    size = _ints(map(len, bodies), n)
    indent = _ints(map(len, lines), n) - _ints([len(line.lstrip(BLANK)) for line in lines], n)
    blank_at = _ints(map(str.find, bodies, repeat(" ")), n)
    word = np.where(blank_at < 0, size, blank_at)
    # columns of a table, dots of a table of contents
    aside = _bools(["   " in b or "\t" in b or "....." in b or ". . . . " in b for b in bodies])
    item = _bools(
        [(b[:1] in ITEMS or "." in b[1:5] or ")" in b[1:5]) and ITEM(b) is not None for b in bodies]
    )
    ended = _bools([b[-1:] in ENDS_SENTENCE for b in bodies])[:-1]
    small = _bools([b[:1].islower() for b in bodies])[1:]
    speech = _bools([b[:1] in DASHES for b in bodies])[1:] & ended
    glued = _bools([b[-1:] in DASHES and b[-2:-1] not in BLANK for b in bodies])[:-1]
    unspaced = _bools([not b[:2].isascii() and UNSPACED.search(b[:2]) is not None for b in bodies])
    prose = (size > 0) & ~aside & ~unspaced
    goes_on = prose & ~item & (word <= LONGEST_WORD)
    within = prose[:-1] & goes_on[1:] & (indent[1:] <= indent[:-1]) & ~speech
    width = (indent + size)[:-1]
    longer = width + np.where(glued, 0, 1) + word[1:]
    return _Lines(bodies, indent, width, longer, glued, within, within & (small | ~ended))


def _ints(values: Iterable[int], n: int) -> Ints:
    return np.fromiter(values, np.int64, n)


def _bools(values: list[bool]) -> Bools:
    return np.array(values, np.bool_)


# --- what was wrapped ---------------------------------------------------------


def _column(lines: _Lines) -> int | None:
    """The column that most breaks obey, if enough of them do."""
    breaks = np.flatnonzero(lines.amid)
    if len(breaks) < FEW:
        return None
    # a break is explained by every column from its line's width up to what did not fit
    first = np.clip(lines.width[breaks], NARROWEST, WIDEST + 1)
    beyond = np.clip(lines.longer[breaks] + SLACK, NARROWEST, WIDEST + 1)
    change = np.bincount(first, minlength=WIDEST + 2) - np.bincount(beyond, minlength=WIDEST + 2)
    explained = np.cumsum(change)[: WIDEST + 1]
    column = int(explained.argmax())
    most = int(explained[column])
    if most < (OBEYING * len(breaks) if most >= ENOUGH else max(len(breaks), FEW)):
        return None
    obeyed = int(_obeyed(lines, column).sum())
    return column if obeyed >= OF_ALL * int(lines.within.sum()) else None


def _obeyed(lines: _Lines, column: int) -> Bools:
    return lines.within & (lines.width <= column) & (lines.longer + SLACK > column)


def _joins(lines: _Lines, column: int) -> Bools:
    """Breaks to undo, in paragraphs where most obey: those that obey, and those after a line that is about full."""
    obeyed = _obeyed(lines, column)
    full = lines.within & (lines.width >= FULL * column) & (lines.width * FULL <= column)
    ended = lines.within & ~lines.amid
    if full[ended].sum() < OBEYING * ended.sum():  # lines end early at sentences: so end the paragraphs
        full &= lines.amid
    paragraph = np.cumsum(~lines.within)  # breaks within one have the same number
    inside = np.bincount(paragraph, weights=lines.amid | obeyed)
    share = np.bincount(paragraph, weights=obeyed) / np.maximum(inside, 1)
    return (obeyed | full) & (share >= 0.5)[paragraph]


def _joined(lines: list[str], measured: _Lines, joins: Bools) -> Iterator[str]:
    """The text in pieces, without the margin that its wrapped lines have in common."""
    margin = int(np.bincount(measured.indent[1:][joins]).argmax())
    ends = [*np.where(joins, np.where(measured.glued, "", " "), "\n").tolist(), ""]
    begins = [True, *(~joins).tolist()]
    for line, body, indent, first, end in zip(
        lines, measured.bodies, measured.indent.tolist(), begins, ends, strict=True
    ):
        if first:
            yield line[margin:indent]
        yield body
        yield end
