"""Rows of JSON Lines, JSON, CSV, TSV and Parquet files, one after the other.

A malformed row is noted with its line and passed over; whether there are too
many of them is for the caller to say. What a row means is not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

from adapterkit.data.reading import delimited
from adapterkit.data.reading.decode import Decoded
from adapterkit.data.reading.kinds import Unreadable
from adapterkit.errors import DataError

BATCH = 1000  # rows of a Parquet file in memory at once
LARGEST_OBJECT = 512 << 20  # characters; only a list can be read bit by bit
BLANK = re.compile(r"[ \t\n\r]*")
CUT = 16  # characters; a word or an escape that is cut by the end of a piece is shorter


@dataclass
class Table:
    """The rows of one file, once; what was odd about them fills up meanwhile."""

    name: str
    kind: str
    bad: list[int] = field(default_factory=list)  # lines
    why: str = ""  # of the first bad one
    repaired: list[int] = field(default_factory=list)  # lines whose quotes were put right
    good: int = 0
    said: str = ""  # what its content is, when the ending says something else
    decoded: Decoded | None = None

    def rows(self, stream: BinaryIO) -> Iterator[object]:
        """Rows as they are written: objects, strings, or anything else JSON has.

        Raises:
            Unreadable: it is no such file.
            DataError: a place from which on nothing can be made out.
        """
        for row in self._rows(stream):
            self.good += 1
            yield row

    def _rows(self, stream: BinaryIO) -> Iterator[object]:
        if self.kind == "parquet":
            return _parquet(stream)
        self.decoded = Decoded(stream)
        pieces = self.decoded.pieces()
        if self.kind in ("csv", "tsv"):
            return delimited.rows(
                pieces, self.name, tabs=self.kind == "tsv", bad=self._bad, repaired=self._repaired
            )
        return self._json(pieces)

    def _repaired(self, line: int, why: str) -> None:
        self.repaired.append(line)

    def _bad(self, line: int, why: str) -> None:
        self.bad.append(line)
        self.why = self.why or why

    def _json(self, pieces: Iterator[str]) -> Iterator[object]:
        """JSON or JSON Lines, whatever the ending says."""
        head = next(pieces, "")
        while not head.strip() and (more := next(pieces, "")):
            head += more
        pieces = chain([head], pieces)
        if head.lstrip()[:1] == "[" and not _are_lines_of_lists(head):
            self._say("jsonl", "holds one list, not JSON Lines")
            return _elements(pieces, self.name)
        if self._is_one_object(head):
            return _object("".join(_up_to(pieces, LARGEST_OBJECT)), self.name)
        self._say("json", "holds JSON Lines")
        return _json_lines(pieces, self._bad)

    def _is_one_object(self, head: str) -> bool:
        first, _, rest = head.strip().partition("\n")
        if self.kind == "jsonl":
            return bool(rest) and _is_value(head)
        return not (_is_value(first) and rest.lstrip()[:1] in ("{", '"'))

    def _say(self, kind: str, words: str) -> None:
        if self.kind == kind:
            self.said = f"{self.name} {words}"


def _is_value(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _are_lines_of_lists(head: str) -> bool:
    first, _, rest = head.strip().partition("\n")
    return rest.lstrip()[:1] == "[" and _is_value(first)


def _json_lines(pieces: Iterable[str], bad: Callable[[int, str], None]) -> Iterator[object]:
    for number, line in enumerate(delimited.lines(pieces), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as e:
            bad(number, f"not JSON: {_reason(e)}")


def _object(text: str, name: str) -> Iterator[object]:
    """A row by itself, or around one list of rows such as ``{"data": [...]}``."""
    if not text.strip():
        return iter(())
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise _not_json(name, getattr(e, "lineno", 1), _reason(e)) from None
    if not isinstance(told, dict):
        return iter([told])
    lists = [v for v in told.values() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
    if len(told) == 1 and not lists:  # {"texts": ["one", "two"]}
        lists = [v for v in told.values() if isinstance(v, list) and all(isinstance(r, str) for r in v)]
    return iter(lists[0] if len(lists) == 1 else [told])


def _elements(pieces: Iterator[str], name: str) -> Iterator[object]:
    """Elements of one list, without ever holding all of it."""
    held = _Held(pieces, name)
    held.skip("[")
    while not held.skip("]"):
        yield held.value()
        if not held.skip(","):
            if not held.skip("]"):
                raise held.error("expecting ',' or ']'")
            break
    if held.sign():
        raise held.error("extra data after the list")


class _Held:
    """The part of a JSON text that is read at present."""

    def __init__(self, pieces: Iterator[str], name: str) -> None:
        self._pieces, self._name = pieces, name
        self._text, self._at = "", 0
        self._line = 1  # in which the text begins
        self._decoder = json.JSONDecoder()

    def sign(self) -> str:
        """The next character that is not blank; nothing at the end."""
        while True:
            self._at = BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self, sign: str) -> bool:
        found = self.sign() == sign
        self._at += found
        return found

    def value(self) -> object:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end == len(self._text) and self._more():  # a number may go on in the next piece
                    continue
            except (ValueError, RecursionError) as e:
                at = getattr(e, "pos", 0)
                # what is cut shows at the end of the text, or as a string without one
                cut = at > len(self._text) - CUT or _reason(e).startswith("unterminated")
                if isinstance(e, RecursionError) or not cut or not self._more():
                    raise self.error(_reason(e), at) from None
            else:
                self._at = end
                return value

    def error(self, reason: str, at: int | None = None) -> DataError:
        line = self._line + self._text.count("\n", 0, self._at if at is None else at)
        return _not_json(self._name, line, reason)

    def _more(self) -> bool:
        more = next(self._pieces, "")
        if more:
            self._line += self._text.count("\n", 0, self._at)
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _not_json(name: str, line: int, reason: str) -> DataError:
    return DataError(f"{name} line {line:,} is not JSON: {reason}.", hint="mend that line", code="bad-rows")


def _reason(error: Exception) -> str:
    return (
        "nested too deep" if isinstance(error, RecursionError) else getattr(error, "msg", str(error)).lower()
    )


def _up_to(pieces: Iterable[str], most: int) -> Iterator[str]:
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            raise Unreadable("one JSON object too large to be read, a list or JSON Lines can be")
        yield piece


def _parquet(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet  # comes with datasets

    try:
        with parquet.ParquetFile(stream) as file:
            for batch in file.iter_batches(BATCH):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, UnicodeError) as e:
        raise Unreadable(f"damaged, no whole parquet file: {str(e).splitlines()[0]}") from None
