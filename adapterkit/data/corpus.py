"""All documents of a source with their tokens, in memory-mapped Arrow.

One file, a row a document, written once in batches and then only mapped, so a
gigabyte of text takes a gigabyte of disk and next to no memory. Text that was
prepared before is found by the hash of everything it depends on::

    <cache>/text/<key>/documents.arrow    source, index, text, tokens, spans, words, mark
    <cache>/text/<key>/facts.json         what was said while it was read

A folder is filled under another name and renamed when whole.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from adapterkit.data.encode import Encoded, Encoder, Tokens, encode
from adapterkit.data.text import Document
from adapterkit.data.words import count_words, mark
from adapterkit.errors import OutOfSpace
from adapterkit.files import write_whole

BATCH = 1 << 20  # characters encoded at once
KEEP = 10 << 30  # bytes of prepared text; beyond it the least recently used goes
STALE = 24 * 3600  # seconds after which an unfinished folder is nobody's

Ints = NDArray[np.int64]


class Corpus(Sequence[Document]):
    """Documents by index, with their tokens; read-only."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._batches = [b for b in table.to_batches() if b.num_rows]
        self._first = np.cumsum([0, *(b.num_rows for b in self._batches)])
        self._tokens = [_flat(b.column("tokens")) for b in self._batches]
        self._context = [_flat(b.column("context_tokens")) for b in self._batches]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        batch, at = self._place(index % len(self))
        row = {c: self._batches[batch].column(c)[at].as_py() for c in ("source", "index", "text", "context")}
        spans = tuple(zip(row["context"][::2], row["context"][1::2], strict=True))
        return Document(row["source"], row["index"], row["text"], spans)

    def texts(self) -> Iterator[str]:
        """Every text in order, a batch in memory at a time."""
        for batch in self._batches:
            yield from batch.column("text").to_pylist()

    def places(self) -> Iterator[tuple[str, int]]:
        """Source and index of every document."""
        for batch in self._batches:
            yield from zip(batch.column("source").to_pylist(), batch.column("index").to_pylist(), strict=True)

    def tokens(self, index: int, begin: int = 0, end: int | None = None) -> Tokens:
        """Tokens ``begin`` to ``end`` of ``[start] tokens [end]``."""
        batch, at = self._place(index)
        values, offsets = self._tokens[batch]
        a, b = int(offsets[at]), int(offsets[at + 1])
        return values[a + begin : b if end is None else min(a + end, b)].astype(np.int32)

    def context(self, index: int) -> Ints:
        """Token spans that are read but not learned, (n, 2)."""
        batch, at = self._place(index)
        values, offsets = self._context[batch]
        return values[int(offsets[at]) : int(offsets[at + 1])].astype(np.int64).reshape(-1, 2)

    @cached_property
    def lengths(self) -> Ints:
        """Tokens of each document, start and end included."""
        parts = [np.diff(offsets) for _, offsets in self._tokens]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    @cached_property
    def has_context(self) -> NDArray[np.bool_]:
        parts = [np.diff(offsets) > 0 for _, offsets in self._context]
        return np.concatenate(parts) if parts else np.zeros(0, np.bool_)

    @property
    def marks(self) -> NDArray[np.uint64]:
        """A hash of each text, spaces aside: equal for copies."""
        return self._column("mark", np.uint64)

    @property
    def words(self) -> Ints:
        return self._column("words", np.int64)

    @property
    def characters(self) -> Ints:
        return self._column("characters", np.int64)

    @property
    def size(self) -> int:
        """Bytes of all texts in UTF-8."""
        total = 0
        for batch in self._batches:
            column = batch.column("text")
            offsets = np.frombuffer(column.buffers()[1], np.int64, len(column) + 1, 8 * column.offset)
            total += int(offsets[-1] - offsets[0])
        return total

    def _column(self, name: str, kind: type) -> NDArray[Any]:
        parts = [_mapped_numbers(b.column(name)) for b in self._batches]
        return np.concatenate(parts) if parts else np.zeros(0, kind)

    def _place(self, index: int) -> tuple[int, int]:
        batch = int(np.searchsorted(self._first, index, side="right")) - 1
        return batch, index - int(self._first[batch])


def _flat(column: pa.LargeListArray) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and offsets of a list column, mapped and not copied."""
    return _mapped_numbers(column.values), _mapped_numbers(column.offsets)


def _mapped_numbers(column: pa.Array) -> NDArray[Any]:
    """Numbers where they lie; Arrow's own to_numpy imports pandas."""
    width = np.dtype(str(column.type))
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return np.zeros(0, width)
    return np.frombuffer(buffer, width, len(column), column.offset * width.itemsize)


# --- writing ------------------------------------------------------------------


def _token(encoder: Encoder) -> tuple[pa.DataType, type]:
    return (pa.uint16(), np.uint16) if encoder.size <= 1 << 16 else (pa.int32(), np.int32)


def _schema(encoder: Encoder) -> pa.Schema:
    spans = pa.large_list(pa.int32())
    return pa.schema({
        "source": pa.large_string(), "index": pa.int64(), "text": pa.large_string(), "context": spans,
        "tokens": pa.large_list(_token(encoder)[0]), "context_tokens": spans, "words": pa.int64(),
        "characters": pa.int64(), "mark": pa.uint64(),
    })  # fmt: skip


def batches(documents: Iterable[Document], encoder: Encoder) -> Iterator[pa.RecordBatch]:
    """Encoded batches of a million characters or more each; while one is encoded the next is read."""
    with ThreadPoolExecutor(1) as pool:
        before: tuple[list[Document], Future[list[Encoded]]] | None = None
        for part in _parts(documents):
            encoding = pool.submit(encode, part, encoder)
            if before:
                yield _batch(*before, encoder)
            before = part, encoding
        if before:
            yield _batch(*before, encoder)


def _parts(documents: Iterable[Document]) -> Iterator[list[Document]]:
    part: list[Document] = []
    size = 0
    for document in documents:
        part.append(document)
        size += len(document.text)
        if size >= BATCH:
            yield part
            part, size = [], 0
    if part:
        yield part


def _batch(documents: list[Document], encoding: Future[list[Encoded]], encoder: Encoder) -> pa.RecordBatch:
    texts = [d.text for d in documents]
    about = [
        _numbers([count_words(t) for t in texts], pa.int64(), np.int64),
        _numbers([len(t) for t in texts], pa.int64(), np.int64),
        _numbers([mark(t) for t in texts], pa.uint64(), np.uint64),
    ]
    encoded = encoding.result()
    return pa.RecordBatch.from_arrays(
        [
            _strings([d.source for d in documents]),
            _numbers([d.index for d in documents], pa.int64(), np.int64),
            _strings(texts),
            _lists([[x for span in d.context for x in span] for d in documents], pa.int32(), np.int32),
            _lists([e.tokens for e in encoded], *_token(encoder)),
            _lists([[x for span in e.context for x in span] for e in encoded], pa.int32(), np.int32),
            *about,
        ],
        schema=_schema(encoder),
    )


# Arrays are made from their buffers: pa.array imports pandas, to see whether it was given some of its.


def _numbers(numbers: Sequence[int] | NDArray[Any], kind: pa.DataType, width: type) -> pa.Array:
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(np.asarray(numbers, dtype=width))])


def _strings(texts: list[str]) -> pa.LargeStringArray:
    raw = [t.encode("utf-8", "replace") for t in texts]  # half a character, which no file holds, becomes "?"
    offsets = pa.py_buffer(np.cumsum([0, *map(len, raw)], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_string(), len(raw), [None, offsets, pa.py_buffer(b"".join(raw))])


def _lists(rows: Sequence[Sequence[int] | Tokens], kind: pa.DataType, width: type) -> pa.LargeListArray:
    offsets = pa.py_buffer(np.cumsum([0, *map(len, rows)], dtype=np.int64))
    values = _numbers(np.concatenate([np.asarray(r, dtype=width) for r in rows]), kind, width)
    return pa.Array.from_buffers(pa.large_list(kind), len(rows), [None, offsets], children=[values])


def in_memory(parts: Iterable[pa.RecordBatch], encoder: Encoder) -> Corpus:
    return Corpus(pa.Table.from_batches(list(parts), schema=_schema(encoder)))


class Store:
    """Prepared text on disk, by key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: str) -> tuple[Corpus, dict[str, Any]] | None:
        """What was prepared under that key, if it is there and whole."""
        folder = self._folder / key
        try:
            facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
            corpus = Corpus(_mapped(folder / "documents.arrow"))
        except (OSError, ValueError, pa.ArrowException):
            return None
        with suppress(OSError):
            os.utime(folder)
        return (corpus, facts) if isinstance(facts, dict) else None

    def build(self, key: str, parts: Iterable[pa.RecordBatch], encoder: Encoder, facts: Any) -> Corpus:
        """Write batches as they come; ``facts()`` is asked once all have.

        Raises:
            OSError: the disk is full or can't be written.
        """
        staging = self._folder / f".{uuid.uuid4().hex}"
        staging.mkdir(parents=True)
        try:
            with (
                pa.OSFile(str(staging / "documents.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, _schema(encoder)) as out,
            ):
                for part in parts:
                    out.write_batch(part)
            told = json.dumps(facts(), ensure_ascii=False)
            (staging / "facts.json").write_text(told, encoding="utf-8")
            corpus = Corpus(_mapped(self._place(staging, key) / "documents.arrow"))
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # a mapped file stays readable
        with suppress(OSError):  # someone else is at it too
            self._prune(key)
        return corpus

    def _place(self, staging: Path, key: str) -> Path:
        """Where it lies now: under its key, unless that can't be; another may have been faster with the same content."""
        final = self._folder / key
        for _ in range(2):
            with suppress(OSError):
                staging.rename(final)
                return final
            if self.load(key):
                return final
            shutil.rmtree(final, ignore_errors=True)
        return staging

    def array(self, key: str, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array kept beside prepared text, made when it is not there."""
        path = self._folder / key / f"{name}.npy"
        with suppress(OSError, ValueError, EOFError):
            found: NDArray[Any] = np.load(path, mmap_mode="r")
            return found
        array = make()
        with suppress(OSError, OutOfSpace):  # it is made again next time
            if path.parent.is_dir():
                buffer = io.BytesIO()
                np.save(buffer, array)
                write_whole(path, buffer.getvalue())
        return array

    def _prune(self, key: str) -> None:
        entries = [p for p in self._folder.iterdir() if p.is_dir() and p.name != key]
        sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in entries}
        now = time.time()
        kept = 0
        for path in sorted(entries, key=lambda p: -p.stat().st_mtime):
            unfinished = path.name.startswith(".")
            kept += sizes[path]
            if now - path.stat().st_mtime > STALE if unfinished else kept > KEEP:
                shutil.rmtree(path, ignore_errors=True)


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
