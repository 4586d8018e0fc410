"""One listed file as texts, by its kind, with what there is to say about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from adapterkit.data.columns import Columns
from adapterkit.data.reading import markup, office
from adapterkit.data.reading.archives import Item, Opener
from adapterkit.data.reading.decode import Decoded
from adapterkit.data.reading.kinds import OFFICE, TABLES
from adapterkit.data.reading.tables import Table
from adapterkit.data.text import Text
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

SHARE = 100  # one malformed row in so many is let pass
NAMED = 3  # files with the same remark; of more only the number is told
HALF = re.compile("[\ud800-\udfff]")  # of a character, as JSON can spell it; no encoding has it


@dataclass
class Facts:
    """What was found while files were read."""

    encodings: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # said -> (file, stray bytes)
    columns: dict[str, list[str]] = field(default_factory=dict)  # said -> tables
    others: list[str] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)
    without_text: int = 0
    resolved: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, decoded: Decoded | None) -> None:
        if decoded and decoded.said:
            self.encodings.setdefault(decoded.said, []).append((name, decoded.strays))

    def said(self) -> list[str]:
        """Lines for a person, alike ones as one."""
        lines = [line for said, files in self.encodings.items() for line in _encoding_lines(said, files)]
        for said, names in self.columns.items():
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}{said}")
        return lines + self.others


def texts_of(item: Item, spec: DataSpec, opener: Opener, facts: Facts) -> Iterator[Text]:
    """The texts of one file.

    Raises:
        Unreadable: it is none of its kind; also halfway through.
        DataError: its rows mean nothing, or too many of them are malformed.
    """
    kind = item.kind.reader
    with opener.open(item, any_order=kind in OFFICE or kind == "parquet") as stream:
        if kind in TABLES:
            yield from _table(stream, item, spec, facts)
        elif kind in OFFICE:
            yield Text(item.name, office.read_office(stream, kind))
        elif kind == "html":
            text, decoded = markup.read_html(stream)
            facts.note(item.name, decoded)
            yield Text(item.name, text)
        else:
            yield from _plain(stream, item.name, facts)


def rows(found: Iterable[object], columns: Columns, facts: Facts) -> Iterator[Text]:
    """The text of each row; rows without one are counted."""
    for index, row in enumerate(found):
        text = columns.text(row, index)
        if text is None:
            facts.without_text += 1
        else:
            yield text if text.content.isascii() else replace(text, content=HALF.sub("\ufffd", text.content))


def close_columns(columns: Columns, name: str, facts: Facts) -> None:
    """Keep what a table's columns turned out to mean."""
    facts.resolved |= columns.resolved
    if columns.said:
        facts.columns.setdefault(columns.said.removeprefix(name), []).append(name)


def _plain(stream: BinaryIO, name: str, facts: Facts) -> Iterator[Text]:
    decoded = Decoded(stream)
    held = ""
    for i, piece in enumerate(decoded.pieces()):
        if i:
            yield Text(name, held, goes_on=True)
        elif _is_json_lines(piece):
            facts.others.append(
                f"{name} looks like JSON Lines and is read as plain text (else: --data-format jsonl)"
            )
        held = piece
    facts.note(name, decoded)
    yield Text(name, held)


def _is_json_lines(text: str) -> bool:
    """Whether the first lines are objects of JSON, as a pipe or a wrong ending can hide."""
    first = [line for line in text[:100_000].split("\n")[:-1] if line.strip()][:3]
    try:
        return bool(first) and all(isinstance(json.loads(line), dict) for line in first)
    except ValueError:
        return False


def _table(stream: BinaryIO, item: Item, spec: DataSpec, facts: Facts) -> Iterator[Text]:
    table = Table(item.name, item.kind.reader)
    columns = Columns(spec, item.name)
    yield from rows(table.rows(stream), columns, facts)
    close_columns(columns, item.name, facts)
    facts.note(item.name, table.decoded)
    if table.said:
        facts.others.append(table.said)
    if table.repaired:
        count = len(table.repaired)
        shown = ", ".join(f"{line:,}" for line in table.repaired[:5]) + (", ..." if count > 5 else "")
        facts.others.append(
            f"{count:,} row{'s' * (count > 1)} of {table.name} had quotes within quotes, and {'were' if count > 1 else 'was'} "
            f"read as one cell: line{'s' * (count > 1)} {shown}"
        )
    if table.bad:
        _judge(table, spec, facts)


def _judge(table: Table, spec: DataSpec, facts: Facts) -> None:
    """Say which rows were malformed, or refuse a table that has too many."""
    count, total = len(table.bad), table.good + len(table.bad)
    facts.bad_rows += [f"{table.name} line {line}" for line in table.bad]
    lines = ", ".join(f"{line:,}" for line in table.bad[:5]) + (", ..." if count > 5 else "")
    told = f"{count:,} of {total:,} rows of {table.name} {'are' if count > 1 else 'is'} malformed"
    where = f"line{'s' * (count > 1)} {lines} ({table.why}{' in the first' * (count > 1)})"
    if count * SHARE > total and not spec.allow_bad_rows:
        raise DataError(
            f"{told}: {where}.",
            hint="mend those lines, or leave them out: --allow-bad-rows",
            code="bad-rows",
            details={"file": table.name, "lines": table.bad[:1000], "rows": total},
        )
    facts.others.append(f"{told} and left out: {where}")


def _encoding_lines(said: str, files: list[tuple[str, int]]) -> list[str]:
    if len(files) <= NAMED:
        return [f"{name} was read as {said.format(_bytes(strays))}" for name, strays in files]
    told = said.format(_bytes(sum(strays for _, strays in files))).replace("it is not", "they are not")
    return [f"{len(files):,} files were read as {told}: {files[0][0]} and others"]


def _bytes(count: int) -> str:
    return f"{count:,} byte{'s' * (count != 1)}"
