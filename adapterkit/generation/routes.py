"""The routes of rows that come and go: each row's pages are gathered once, when it comes.

A batch whose rows differ multiplies with a copy of each row's pages. Were all of
it gathered anew whenever one row joins or leaves, that would cost as much as a
third of a step (16 rows, all modules). So the copies lie in places like the rows
of the cache: one that comes is written behind the last, one that goes is
overwritten by the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapterkit.generation.pages import PageBank
from adapterkit.generation.requests import Parts
from adapterkit.generation.route import Route


class Routes:
    """The adapters of rows 0..b-1.

    Args:
        bank: where their pages are.
    """

    def __init__(self, bank: PageBank) -> None:
        self._bank = bank
        self._rows: list[Parts] = []
        self._whole: Route | None = None  # gathered places of the rows, and of some that may come
        self._now: Route | None = None  # of exactly the rows

    def join(self, rows: Sequence[Parts]) -> None:
        """Rows behind the last."""
        first, whole = len(self._rows), self._whole
        self._rows += rows
        self._whole = self._now = None  # also if what follows fails
        if whole is not None and len(self._rows) <= len(whole.ids):
            new = self._bank.route(rows, apart=True)
            if new.fits(whole):
                whole.put(first, new)
                self._whole = whole

    def leave(self, place: int) -> None:
        """The last row comes to the place of one that is done."""
        last = len(self._rows) - 1
        if self._whole is not None and place != last:
            self._whole.move(last, place)
        self._rows[place] = self._rows[last]
        self._rows.pop()
        self._now = None

    def route(self) -> Route:
        """Of all rows."""
        if self._now is None:
            self._now = self._made()
        return self._now

    def _made(self) -> Route:
        rows = self._rows
        if all(row == rows[0] for row in rows):
            return self._bank.route(rows[:1])  # one product for all of them
        least = self._bank.route(rows, apart=True)
        if self._whole is None or not least.fills(self._whole):
            room = 1 << (len(rows) - 1).bit_length()
            self._whole = self._bank.route([*rows, *[()] * (room - len(rows))], apart=True)
            self._whole.gather_all(self._bank.dims.layers)
        return self._whole.first(len(rows))
