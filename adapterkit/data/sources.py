"""Reading text: files, folders, globs, archives, stdin, tables, Hub datasets, memory.

A source is listed first, and what can't be read is found then as far as names
and first bytes show it; the texts come after that, one by one, in a fixed order.
What is left out is named and counted, never passed over in silence.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from adapterkit.data.columns import Columns
from adapterkit.data.reading import refusals
from adapterkit.data.reading.archives import Item, Opener, problems
from adapterkit.data.reading.decode import one_line_end
from adapterkit.data.reading.kinds import Unreadable
from adapterkit.data.reading.listing import Listing, Refused, list_source, shown_name
from adapterkit.data.reading.texts import HALF, Facts, close_columns, rows, texts_of
from adapterkit.data.text import Text
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec
from adapterkit.recipe.source import HUB_ID, STDIN, no_such_text

BLOCK = 1 << 20


class Documents:
    """Text from memory, one string a document: ``Documents(["one", "two"])``."""

    def __init__(self, texts: Iterable[str], *, name: str = "memory") -> None:
        if isinstance(texts, str):  # its characters would be the documents
            raise DataError("Documents takes a list of texts, not one text.", hint="Documents([text])")
        self.texts = list(texts)
        self.name = name
        if others := sorted({type(t).__name__ for t in self.texts if not isinstance(t, str)}):
            raise DataError(
                f"Documents takes texts; it was given {', '.join(others)} too.",
                hint="Documents([str(t) for t in ...])",
            )

    def __repr__(self) -> str:
        return f"Documents({len(self.texts)} texts, name={self.name!r})"


class _Part(Protocol):
    """One source, understood."""

    @property
    def files(self) -> int: ...

    def texts(self, read: Read, facts: Facts) -> Iterator[Text]: ...

    def feed(self, digest: Any) -> None:
        """Everything that decides which texts come, for a fingerprint."""


@dataclass
class Read:
    """One pass over the texts; the facts fill up meanwhile and are whole afterwards."""

    name: str  # of the source, for a person
    files: int = 0  # that are read
    said: list[str] = field(default_factory=list)  # encodings mended, columns, malformed rows, the cache
    unreadable: list[str] = field(default_factory=list)  # "cover.jpg (not text)"
    without_text: int = 0  # rows whose text is missing
    bad_rows: list[str] = field(default_factory=list)  # "jokes.csv line 17"
    revision: str | None = None  # commit of a Hub dataset
    resolved: dict[str, str] = field(default_factory=dict)  # recipe keys, as the columns decided them
    _parts: list[_Part] = field(default_factory=list, repr=False)

    def texts(self) -> Iterator[Text]:
        """Every text, in order.

        Raises:
            DataError: a file can't be read, a table has too many malformed rows, or a source has no text.
        """
        facts = Facts()
        for part in self._parts:
            yield from part.texts(self, facts)
        self.said += facts.said()
        self.without_text, self.bad_rows, self.resolved = facts.without_text, facts.bad_rows, facts.resolved

    def fingerprint(self) -> str:
        """sha256 over the names and bytes of all files in their order, or what stands for them."""
        digest = hashlib.sha256()
        for part in self._parts:
            part.feed(digest)
        return digest.hexdigest()


def read(
    spec: DataSpec, folder: Path | None = None, memory: Documents | None = None, *, only: str | None = None
) -> Read:
    """List everything the recipe's ``data.source`` names, ready to be read.

    Args:
        spec: the ``data`` part of a recipe.
        folder: of the recipe file; relative sources are looked up there first.
        memory: texts that take the place of ``data.source``.
        only: a source that takes the place of both.

    Raises:
        DataError: nothing is there, or files that can't be read are among it.
        Unreachable: the Hub does not answer.
    """
    if memory is not None and only is None:
        return Read(memory.name, files=1, _parts=[_Memory(memory)])
    given = [only] if only is not None else [spec.source] if isinstance(spec.source, str) else spec.source
    if not any(given):
        raise DataError(
            "the recipe names no text.", hint="set data.source, or: adapterkit train FOLDER-OR-FILE"
        )
    found = Read(_name(given))
    opener = Opener()
    listings: list[Listing] = []
    for source in given:
        listing = list_source(source, folder, spec.format, opener)
        if listing is not None:
            listing.named &= len(given) == 1
            listings.append(listing)
            found._parts.append(_Files(listing, spec, opener))
        else:
            found._parts.append(_hub(source, spec, found))
    found.said += _without_repeats(listings)
    found.unreadable += refusals.checked(listings, spec)
    found.files = sum(part.files for part in found._parts)
    return found


def _name(given: list[str]) -> str:
    names = ["stdin" if g == STDIN else g for g in given]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"


def _without_repeats(listings: list[Listing]) -> list[str]:
    """Leave out files met before, and number names met before; what there is to say of it."""
    met: dict[tuple[str, str], str] = {}
    names: dict[str, int] = {}
    said: list[str] = []
    for listing in listings:
        kept: list[Item] = []
        for item in listing.items:
            place = (os.path.realpath(item.path) if item.path else "", item.member)
            if place in met:
                said.append(f"{item.name} is {met[place]} again, and read once")
                listing.repeats += 1
                continue
            names[item.name] = names.get(item.name, 0) + 1
            again = f" ({names[item.name]})" if names[item.name] > 1 else ""
            kept.append(replace(item, name=item.name + again))
            met[place] = item.name
        listing.items[:] = kept
    return said


def _hub(source: str, spec: DataSpec, found: Read) -> _Part:
    if not (source.startswith("hub:") or (HUB_ID.fullmatch(source) and not Path(source).suffix)):
        raise no_such_text(source)
    from adapterkit.data.hub import read_hub  # datasets loads only for the Hub

    name = source.removeprefix("hub:")
    found_rows, revision, said = read_hub(name, spec)
    found.said += said
    found.revision = revision or found.revision
    return _Hub(name, spec, found_rows, revision)


class _Memory:
    files = 1

    def __init__(self, memory: Documents) -> None:
        self._memory = memory

    def texts(self, read: Read, facts: Facts) -> Iterator[Text]:
        for i, text in enumerate(self._memory.texts):
            yield Text(f"{self._memory.name}[{i}]", HALF.sub("\ufffd", one_line_end(text)), is_row=True)

    def feed(self, digest: Any) -> None:
        for text in self._memory.texts:
            _feed(digest, text.encode("utf-8", "surrogatepass"))


@dataclass
class _Hub:
    name: str
    spec: DataSpec
    rows: Iterable[object]
    revision: str | None
    files: int = 1

    def texts(self, read: Read, facts: Facts) -> Iterator[Text]:
        columns = Columns(self.spec, self.name)
        empty = True
        for text in rows(self.rows, columns, facts):
            empty = False
            yield text
        close_columns(columns, self.name, facts)
        if empty:
            raise refusals.nothing(self.name, "it is empty")

    def feed(self, digest: Any) -> None:
        for told in ("hub", self.name, self.spec.subset or "", self.spec.split, self.revision or ""):
            _feed(digest, told.encode())


@dataclass
class _Files:
    listing: Listing
    spec: DataSpec
    opener: Opener

    @property
    def files(self) -> int:
        return len(self.listing.items)

    def texts(self, read: Read, facts: Facts) -> Iterator[Text]:
        empty, before = True, facts.without_text
        for item in self.listing.items:
            begun = False
            try:
                for text in texts_of(item, self.spec, self.opener, facts):
                    begun, empty = True, empty and not text.content
                    yield text
            except Unreadable as e:
                refused = Refused(item.name, e.message, stops=True)
                if begun or self.listing.named or not self.spec.skip_unreadable:
                    raise refusals.found_late(refused, self.listing) from e
                read.unreadable.append(str(refused))
                read.files -= 1
        self.opener.close()
        if empty and self.listing.items:
            missing = facts.without_text - before
            raise refusals.nothing(
                self.listing.source, f"none of its {missing:,} rows has text" if missing else "it is empty"
            )

    def feed(self, digest: Any) -> None:
        fed: set[str] = set()
        for item in self.listing.items:
            whole = item.name.removesuffix(f"/{shown_name(item.member)}") if item.member else item.name
            if whole in fed:
                continue
            fed.add(whole)
            _feed(digest, whole.encode())
            try:
                _feed(digest, self._hash(item))
            except Unreadable as e:
                refused = Refused(whole, e.message, stops=True)
                raise refusals.found_late(refused, self.listing) from e

    def _hash(self, item: Item) -> bytes:
        """sha256 of a file as it lies on the disk; of a zip once, whatever it holds."""
        digest = hashlib.sha256()
        plain = Item(item.name, replace(item.kind, packed=False), item.path)
        with problems(), self.opener.open(plain) as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
        return digest.digest()


def _feed(digest: Any, part: bytes) -> None:
    """Each part with its length, so that no two lists run together."""
    digest.update(len(part).to_bytes(8, "little") + part)
