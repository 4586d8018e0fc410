"""CSV rows in which a quoted cell holds quotes that were not doubled.

    "Guessing Game","Ask one question, with "Yes", or "No"",FALSE        header: act,prompt,for_devs

A reader ends the cell at the first inner quote and finds too many cells. Such a
row has one reading that fits the header: sound cells at its beginning, sound
cells at its end, and between them the one whose quotes are its own.
"""

from __future__ import annotations

import csv


def mended(raw: str, sign: str, columns: int) -> list[str] | None:
    """The cells of a misquoted row as its header wants them; None when there is not exactly one way.

    Args:
        raw: the row as it stands in the file.
        sign: that parts the cells.
        columns: of the header.
    """
    rest, left, ways = raw.rstrip("\n"), list[str](), list[list[str]]()
    while len(left) < columns:
        whole = _around(rest, sign, columns - 1 - len(left))
        if whole is not None:
            ways.append([*left, *whole])
        if (sound := _first(rest, sign)) is None:
            break
        cell, rest = sound
        left.append(cell)
    return ways[0] if len(ways) == 1 else None


def _around(rest: str, sign: str, after: int) -> list[str] | None:
    """A quoted cell with whatever is in it, and so many sound cells after it."""
    parts = rest.rsplit(sign, after)
    middle, right = parts[0].strip(), [_sound(p) for p in parts[1:]]
    is_quoted = len(middle) > 1 and middle[0] == middle[-1] == '"'
    if not is_quoted or len(right) < after or None in right:
        return None
    return [middle[1:-1].replace('""', '"'), *(r for r in right if r is not None)]


def _first(row: str, sign: str) -> tuple[str, str] | None:
    """The first cell and what comes after its sign, when the cell is written as it should be."""
    at = 0
    while (at := row.find(sign, at)) >= 0:
        if (cell := _sound(row[:at])) is not None:
            return cell, row[at + 1 :]
        at += 1
    return None


def _sound(text: str) -> str | None:
    """The value of one cell; None when its quotes are not in order."""
    if '"' not in text:
        return text
    try:
        cells = next(csv.reader([text], strict=True, delimiter="\0"))
    except (csv.Error, StopIteration):
        return None
    return cells[0] if text.startswith('"') and len(cells) == 1 else None
