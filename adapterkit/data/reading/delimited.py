"""Rows of CSV and TSV files: which sign parts the cells, cells of several lines, quotes that never close."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from adapterkit.data.reading.misquoted import mended
from adapterkit.errors import DataError

Bad = Callable[[int, str], None]
SIGNS = ",;\t|"
LONGEST_ROW = 32 << 20  # characters; a quote that is open for longer was never meant to close
MOST_AGAIN = 10 * LONGEST_ROW  # characters that are read again because of such quotes
LOOKED_AT = 200  # lines of a TSV that show whether its quotes mean anything


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines with their ``\\n``, from pieces cut anywhere. Only ``\\n`` ends a line."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n") if rest else piece.split("\n")
        yield from (f"{line}\n" for line in whole)
    if rest:
        yield rest


def rows(
    pieces: Iterable[str], name: str, *, tabs: bool, bad: Bad, repaired: Bad
) -> Iterator[dict[str, str]]:
    """Rows below the header, as objects; blank lines are none.

    Args:
        pieces: the file.
        name: of the file.
        tabs: cells are parted by tabs; else that is found out from the header.
        bad: told the line and the reason of each row that does not fit the header.
        repaired: the same of each row that was made to fit, as only its quotes were wrong.
    """
    given = lines(pieces)
    sign, given = ("\t", given) if tabs else _sign(given)
    quoted, given = _quoted(given) if tabs else (True, given)
    found = _records(given, sign, quoted, name, bad)
    header = [cell.strip() for cell in next(found, (0, [], ""))[1]]
    for line, cells, raw in found:
        extra = cells[len(header) :]
        if len(cells) < len(header) or any(extra):  # cells that are blank come of a comma too many
            why = f"{len(cells)} cells for {len(header)} column{'s' * (len(header) != 1)}"
            if (whole := mended(raw, sign, len(header)) if quoted else None) is None:
                bad(line, why)
            else:
                repaired(line, why)
                yield dict(zip(header, whole, strict=True))
        else:
            yield dict(zip(header, cells, strict=False))


def _sign(given: Iterator[str]) -> tuple[str, Iterator[str]]:
    """What parts the cells: the sign that is most often in the header, outside of quotes."""
    blank: list[str] = []  # kept, so that lines are counted right
    first = ""
    for first in given:
        if first.strip():
            break
        blank.append(first)
    if first.lower().startswith("sep=") and len(first.strip("\n")) == 5:  # how Excel is told
        return first[4], chain(blank, ["\n"], given)
    bare = "".join(first.split('"')[::2])
    return max(SIGNS, key=bare.count), chain(blank, [first], given)


def _quoted(given: Iterator[str]) -> tuple[bool, Iterator[str]]:
    """Many a TSV has no quoting: a ``"`` in it is just a sign. Then its lines fit the header only as they are."""
    head = list(islice(given, LOOKED_AT))
    plain = {line.count("\t") for line in head if line.strip()}
    opens = any(cell.startswith('"') for line in head for cell in line.split("\t"))
    if not opens:
        return not any('"' in line for line in head), chain(head, given)
    read = [row for row in csv.reader(head, delimiter="\t") if row]
    whole = read[:-1] if len(head) == LOOKED_AT else read  # the last may be cut
    if len(plain) == 1 and plain != {0}:
        return len(read) == sum(bool(line.strip()) for line in head), chain(head, given)
    return len({len(row) for row in whole}) == 1 or len(plain) > 1, chain(head, given)


def _records(
    given: Iterator[str], sign: str, quoted: bool, name: str, bad: Bad
) -> Iterator[tuple[int, list[str], str]]:
    """Cells of each row with the line it begins in, and the row as it stands there."""
    csv.field_size_limit(1 << 30)  # a cell may be a novel
    source = _Lines(given, sign)
    while True:
        reader = csv.reader(source, delimiter=sign, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        try:
            for cells in _each(reader, source):
                if any(cells):
                    yield source.begin, cells, source.raw
            return
        except _NeverCloses:
            bad(source.begin, "a quote in it never closes")
            source.back_up()
        if source.again > MOST_AGAIN:
            raise DataError(
                f"{name} has too many quotes that never close, such as in line {source.begin - 1:,}.",
                hint='write each " within a cell twice, or save it again as CSV or JSON Lines',
                code="bad-rows",
            )


class _NeverCloses(Exception):
    """The row that was begun has no end."""


class _Lines:
    """Lines for a csv reader, which takes several for one row; they can be given back."""

    def __init__(self, given: Iterator[str], sign: str) -> None:
        self._given, self._sign = given, sign
        self.again = 0  # characters given back so far
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self._size = 0
        self.ended = False
        self.begin = 1  # line in which the present row begins

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._given, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self._taken.append(line)
        self._size += len(line)
        if self._size > LONGEST_ROW and len(self._taken) > 1:
            raise _NeverCloses
        return line

    @property
    def raw(self) -> str:
        """The present row as it stands in the file."""
        return "".join(self._taken)

    def runs_together(self) -> bool:
        """Whether the present row is several, as a quote closed only where the next one opened."""
        if len(self._taken) < 2:
            return False
        try:
            list(csv.reader(self._taken, delimiter=self._sign, strict=True))
        except csv.Error:
            return True
        return False

    def done(self) -> None:
        """The present row ends here."""
        self.begin += len(self._taken)
        self._taken.clear()
        self._size = 0

    def back_up(self) -> None:
        """Give up the first line of the present row, and offer the others anew."""
        self._again.extendleft(reversed(self._taken[1:]))
        self.again += self._size
        del self._taken[1:]
        self.ended = False
        self.done()


def _each(reader: Iterator[list[str]], source: _Lines) -> Iterator[list[str]]:
    for cells in reader:
        if source.ended or source.runs_together():  # a reader asks for more lines only within a quote
            raise _NeverCloses
        yield cells
        source.done()
