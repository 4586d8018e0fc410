"""One source read, cut, cleaned and tokenised: once, then found again by its content.

Read.texts -> raw rules -> documents -> rules -> tokens -> Corpus + Facts
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterkit.data import copies, sources
from adapterkit.data.clean import Cleaner
from adapterkit.data.corpus import Corpus, Store, batches, in_memory
from adapterkit.data.documents import cut
from adapterkit.data.encode import Encoder
from adapterkit.data.sources import Documents, Read
from adapterkit.data.text import Document, Text
from adapterkit.errors import DataError
from adapterkit.files import canonical_json
from adapterkit.recipe.schema import DataSpec

FORMAT = 3  # of what is kept; raised when the same source would give other documents or tokens
SHAPES_TEXT = (
    "ftfy",
    "inscriptis",
    "regex",
    "charset-normalizer",
    "tokenizers",
)  # packages whose versions do too
# Keys that only decide what is done with the documents afterwards.
LATER = {"source", "validation", "packing", "pad_to", "truncate"}
NEAR_COPIES_UP_TO = 100 << 20  # characters; comparing more would take minutes and gigabytes
TELL_EVERY = 0.5  # seconds between two reports of progress

Progress = Callable[[int, int], None]  # documents and characters so far


@dataclass
class Facts:
    """What was found while reading; plain values, kept with the prepared text."""

    name: str = ""
    files: int = 0
    said: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)
    without_text: int = 0
    revision: str | None = None
    resolved: dict[str, str] = field(default_factory=dict)
    how: str = ""
    cut: str = ""
    mixed: bool = False  # several files, each cut in its own way
    blank: int = 0
    unpaired: int = 0
    reflowed: dict[str, int] = field(default_factory=dict)
    characters_read: int = 0
    documents_read: int = 0
    done: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str = ""  # of the documents


@dataclass(frozen=True)
class Gathered:
    """A corpus, what was found, and which documents are copies of each other."""

    corpus: Corpus
    facts: Facts
    groups: NDArray[np.int32]
    near: bool  # near-copies were looked for


def gather(
    spec: DataSpec, encoder: Encoder, folder: Path | None = None, memory: Documents | None = None, *,
    only: str | None = None, cache: Path | None = None, progress: Progress | None = None,
) -> Gathered:  # fmt: skip
    """Everything a source holds.

    Args:
        spec: the ``data`` part of a recipe.
        encoder: the base's tokenizer.
        folder: of the recipe file.
        memory: texts that take the place of ``data.source``.
        only: a source that takes the place of ``data.source``: the text to test on.
        cache: folder for prepared text; None keeps it in memory.
        progress: told how many documents and characters were read so far.
    """
    read = sources.read(spec, folder, memory, only=only)
    listed = Listed(tuple(read.unreadable), tuple(read.said), read.files)
    if cache is None:
        job = _Job(spec, read, progress)
        corpus = in_memory(batches(job.documents(), encoder), encoder)
        return Gathered(corpus, job.facts(), *_groups(corpus, encoder))
    store, key = Store(cache), _key(spec, encoder, read, memory)
    corpus, facts = _prepared(store, key, listed) or _build(store, key, spec, encoder, read, progress, listed)
    facts.name = read.name
    return Gathered(corpus, facts, *_kept_groups(store, key, corpus, encoder))


@dataclass(frozen=True)
class Listed:
    """What a listing found before anything was read: it may change while the texts stay the same."""

    unreadable: tuple[str, ...]
    said: tuple[str, ...]
    files: int


def _prepared(store: Store, key: str, listed: Listed) -> tuple[Corpus, Facts] | None:
    """What was kept, with what this listing found in the place of what that one did."""
    found = store.load(key)
    if found is None:
        return None
    corpus, kept = found
    try:
        facts, before = Facts(**kept["facts"]), Listed(**kept["listed"])
        late = [u for u in facts.unreadable if u not in before.unreadable]
        facts.unreadable = [*listed.unreadable, *late]
        facts.said = [*listed.said, *(line for line in facts.said if line not in before.said)]
        facts.files += listed.files - before.files
    except (TypeError, KeyError):  # kept by another version
        return None
    return corpus, facts


def _build(
    store: Store,
    key: str,
    spec: DataSpec,
    encoder: Encoder,
    read: Read,
    progress: Progress | None,
    listed: Listed,
) -> tuple[Corpus, Facts]:
    # a second pass over the same listing: what came through a pipe can't be asked for again
    again = replace(read, said=list(read.said), unreadable=list(read.unreadable))
    job = _Job(spec, read, progress)
    try:
        kept = {"listed": asdict(listed)}
        corpus = store.build(
            key, batches(job.documents(), encoder), encoder, lambda: kept | {"facts": asdict(job.facts())}
        )
        return corpus, job.facts()
    except OSError as e:  # the cache is full or not ours to write; the text itself is fine
        job = _Job(spec, again, progress)
        corpus = in_memory(batches(job.documents(), encoder), encoder)
        facts = job.facts()
        facts.said.append(f"the prepared text is not kept for next time: {e.strerror or e}")
        return corpus, facts


def _key(spec: DataSpec, encoder: Encoder, read: Read, memory: Documents | None) -> str:
    told = [
        FORMAT,
        {p: version(p) for p in SHAPES_TEXT},
        {k: v for k, v in spec.model_dump(mode="json").items() if k not in LATER},
        encoder.fingerprint,
        read.fingerprint(),
        memory.name
        if memory is not None
        else "",  # its texts are named after it, and the split goes by names
    ]
    return hashlib.sha256(canonical_json(told)).hexdigest()[:32]


class _Job:
    """One pass over a source; its facts are complete when the documents have been taken."""

    def __init__(self, spec: DataSpec, read: Read, progress: Progress | None) -> None:
        self._read, self._progress = read, progress
        self._cleaner = Cleaner(spec.clean)
        self._characters = 0
        self._documents = 0
        self._digest = hashlib.sha256()
        self._cut, self._stream = cut(
            self._texts(), spec.document, files=read.files, wrapped=spec.reflow, separator=spec.separator
        )

    def documents(self) -> Iterator[Document]:
        """Documents as they are learned."""
        due = time.monotonic() + TELL_EVERY
        for document in self._stream:
            self._documents += 1
            cleaned = self._cleaner(document)
            if cleaned is None:
                continue
            self._hash(cleaned)
            yield cleaned
            if self._progress and time.monotonic() > due:
                self._progress(self._documents, self._characters)
                due = time.monotonic() + TELL_EVERY
        if not self._documents:
            raise DataError("there is no text in it: every document is blank.", hint="give a file with text")

    def facts(self) -> Facts:
        read, told = self._read, self._cut
        return Facts(
            name=read.name, files=read.files, said=list(read.said), unreadable=list(read.unreadable),
            bad_rows=list(read.bad_rows), without_text=read.without_text, revision=read.revision,
            resolved=dict(read.resolved) | ({"separator": told.separator} if told.separator else {}),
            how=told.how, cut=told.said, mixed=len(told.ways) > 1, blank=told.blank, unpaired=told.unpaired, reflowed=told.reflowed,
            characters_read=self._characters, documents_read=self._documents,
            done=[asdict(d) for d in self._cleaner.done()], fingerprint=self._digest.hexdigest(),
        )  # fmt: skip

    def _texts(self) -> Iterator[Text]:
        for text in _by_lines(self._read.texts()):
            self._characters += len(text.content)
            yield text if text.is_row else replace(text, content=self._cleaner.raw(text.content))

    def _hash(self, document: Document) -> None:
        """Each text with its length, so that no two lists run together."""
        raw = document.text.encode("utf-8", "surrogatepass")
        spans = repr(document.context).encode() if document.context else b""
        self._digest.update(len(raw).to_bytes(8, "little") + raw + spans)


def _by_lines(texts: Iterable[Text]) -> Iterator[Text]:
    """Stretches of a large file that end where a line does, as rules and reflow need them."""
    carry = ""
    for text in texts:
        if not text.goes_on:
            yield replace(text, content=carry + text.content) if carry else text
            carry = ""
            continue
        content = carry + text.content
        end = content.rfind("\n") + 1
        carry = content[end:]
        if end:
            yield replace(text, content=content[:end])


def _kept_groups(store: Store, key: str, corpus: Corpus, encoder: Encoder) -> tuple[NDArray[np.int32], bool]:
    near = _looks_near(corpus)
    return store.array(key, "groups", lambda: _groups(corpus, encoder)[0]), near


def _groups(corpus: Corpus, encoder: Encoder) -> tuple[NDArray[np.int32], bool]:
    near = _looks_near(corpus)
    return (copies.groups(corpus, encoder) if near else copies.exact(corpus.marks)), near


def _looks_near(corpus: Corpus) -> bool:
    return int(corpus.characters.sum()) <= NEAR_COPIES_UP_TO


def fingerprint(parts: Iterable[bytes]) -> str:
    """sha256 over parts in their order, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
