"""One packed row drawn: tokens, labels, positions, and who sees whom.

Who sees whom is worked out from the positions alone, as transformers does for
rows without an attention mask: a position that is not one more than the one
before begins a new sequence, and a slot sees the slots of its own sequence up
to itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any
from unicodedata import east_asian_width

import numpy as np
from numpy.typing import NDArray

from adapterkit.data.encode import IGNORE, Encoder, Tokens
from adapterkit.data.pack import Rows

WINDOW = 16  # slots shown, the boundary in their middle
ROOM = 14  # characters of a token
VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Slot:
    """One slot of a row."""

    slot: int  # from 1
    text: str  # S and E for the start and the end of a document, pad for padding
    id: int
    label: int | None  # None where nothing is learned
    position: int


@dataclass(frozen=True)
class Picture:
    """A window into one row, around the first place where two documents meet."""

    row: int  # from 1
    rows: int
    size: int  # slots of the row that are filled
    packing: str
    end: int  # id of <|endoftext|>
    slots: tuple[Slot, ...]
    sees: tuple[tuple[bool, ...], ...]  # sees[q][k]: slot q of the window sees slot k of it

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The drawing and its legend."""
        first, last = self.slots[0].slot, self.slots[-1].slot
        head = f"slots {first:,} to {last:,} of {self.size:,} in row {self.row:,} of {self.rows:,}"
        widths = [max(4, len(f"{last:,}")), ROOM, 6, 6, 4]
        names = ("slot", "token", "id", "label", "pos")
        rows = [_cells(names, widths) + "   who sees whom"]
        for slot, seen in zip(self.slots, self.sees, strict=True):
            label = "·" if slot.label is None else str(slot.label)
            told = (f"{slot.slot:,}", _fitted(slot.text), str(slot.id), label, str(slot.position))
            before = slot.slot - first + 1  # what comes later is seen by nobody and not drawn
            rows.append(_cells(told, widths) + "   " + " ".join("■" if s else "·" for s in seen[:before]))
        return [head, "", *rows, "", *self.legend()]

    def legend(self) -> list[str]:
        after = {
            "isolated": "a new document restarts at 0; that is why it does not see the one before",
            "concat": "counts on through the row (packing concat), so a document sees those before it",
            "none": "every document has a row of its own (packing none); padding is seen by no text",
        }[self.packing]
        return [
            f"S E     start and end of a document: both are <|endoftext|> ({self.end}). S is never learned, E always",
            "label   what is learned, · for none; the model shifts them: the slot before is what predicts it",
            f"pos     {after}",
            "■ sees   · does not see; every slot sees only slots at or before its own",
        ]


def picture(rows: Rows, encoder: Encoder, window: int = WINDOW) -> Picture | None:
    """The first row in which two documents meet; None when there is no row.

    Args:
        rows: packed rows.
        encoder: the tokenizer they were made with.
        window: slots to show.
    """
    if not len(rows):
        return None
    k = _telling(rows)
    row, members = rows[k], rows.members(k)
    names = _names(rows, members, row.input_ids, encoder)
    ends = np.cumsum([int(rows.pieces.sizes[m]) for m in members])
    boundary = int(ends[0]) if int(ends[0]) < len(names) else 0
    first = max(0, min(boundary - window // 2, len(names) - window))
    shown = range(first, min(first + window, len(names)))
    sees = visibility(row.position_ids)[first : shown.stop, first : shown.stop]
    slots = [
        Slot(
            i + 1,
            names[i],
            int(row.input_ids[i]),
            None if row.labels[i] == IGNORE else int(row.labels[i]),
            int(row.position_ids[i]),
        )
        for i in shown
    ]
    told = tuple(tuple(bool(s) for s in line) for line in sees)
    return Picture(k + 1, len(rows), len(names), rows.mode, encoder.end, tuple(slots), told)


def visibility(positions: Tokens) -> NDArray[np.bool_]:
    """(t, t): whether slot q sees slot k."""
    sequence = np.cumsum(np.diff(positions, prepend=positions[:1] - 1) != 1)
    same = sequence[:, None] == sequence[None, :]
    return np.asarray(np.tril(same), dtype=np.bool_)


def _telling(rows: Rows) -> int:
    """A row in which a document ends and another begins; else one in which slices meet, or padding begins."""
    first = rows.starts[:-1]
    several = np.diff(rows.starts) > 1
    second = np.where(several, first + 1, first)
    pieces, one, two = rows.pieces, rows.order[first], rows.order[second]
    whole = pieces.end[one] == pieces.corpus.lengths[pieces.document[one]]
    meets = several & whole & (pieces.begin[two] == 0)
    padded = pieces.sizes[one] < (rows.pad_to or 0)
    return int((4 * meets + 2 * several + padded).argmax())


def _names(rows: Rows, members: list[int], ids: Tokens, encoder: Encoder) -> list[str]:
    """What every slot holds, in a form that can be seen."""
    pieces = rows.pieces
    names = [_visible(encoder.decode([t])) for t in ids.tolist()]
    bounds = np.cumsum([0, *(int(pieces.sizes[m]) for m in members)]).tolist()
    for m, (a, b) in zip(members, pairwise(bounds), strict=True):
        if pieces.begin[m] == 0:
            names[a] = "S"
        if pieces.end[m] == pieces.corpus.lengths[pieces.document[m]]:
            names[b - 1] = "E"
    return names[: bounds[-1]] + ["pad"] * (len(names) - bounds[-1])


def _visible(text: str) -> str:
    shown = text.translate(VISIBLE)
    return "".join(c if c.isprintable() else "\ufffd" for c in shown)


def _fitted(text: str) -> str:
    """Cut and filled to the width of its column, in which Chinese and Japanese take two places a character."""
    short = text if _places(text) <= ROOM else text[: ROOM // 2 - 1] + "…"
    return short + " " * (ROOM - _places(short))


def _places(text: str) -> int:
    return sum(1 + (east_asian_width(c) in "WF") for c in text)


def _cells(cells: tuple[str, ...], widths: list[int]) -> str:
    """The token to the left, numbers to the right."""
    return "  ".join(
        c.ljust(w) if i == 1 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    )
