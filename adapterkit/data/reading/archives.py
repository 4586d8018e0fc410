"""Opening what was listed: files, gz, members of a zip, stdin; each guarded, each a stream of bytes.

What goes wrong with a file while it is open comes out as ``Unreadable`` with a
reason. Nothing is unpacked to a disk but by ``seekable``, into a file without a
name.
"""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import struct
import sys
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from adapterkit.data.reading.kinds import Kind, Unreadable

IN_MEMORY = 32 << 20  # bytes of a copy; beyond it the copy goes to disk
LARGEST = 1 << 30  # bytes of one part of a document
RATIO = 200  # text shrinks to a tenth, at most to a hundredth; what grows more is made to fill a disk
SMALL = 64 << 20  # bytes that may come of anything
BOMB = f"it unpacks to over {RATIO} times its size"


@dataclass(frozen=True)
class Item:
    """One file to read; no path is stdin."""

    name: str
    kind: Kind
    path: Path | None
    member: str = ""  # of a zip


class Opener:
    """Opens items. A zip stays open while its members are read one after the other."""

    def __init__(self) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._path: Path | None = None
        self._stdin: BinaryIO | None = None

    @contextmanager
    def open(self, item: Item, *, any_order: bool = False) -> Iterator[BinaryIO]:
        """The bytes of an item, unpacked.

        Args:
            item: what to open.
            any_order: they are not read from front to back.

        Raises:
            Unreadable: also for what goes wrong while they are read.
        """
        with problems(), self._raw(item) as raw:
            stream = cast(BinaryIO, _Unpacked(raw)) if item.kind.packed else raw
            if any_order and (item.kind.packed or item.member):
                with seekable(stream) as copy:
                    yield copy
            else:
                yield stream

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()
        self._zip = self._path = None

    @contextmanager
    def _raw(self, item: Item) -> Iterator[BinaryIO]:
        if item.path is None:
            yield self._piped()
        elif item.member:
            archive = self._archive(item.path)
            guard(archive.getinfo(item.member))
            with archive.open(item.member) as stream:
                yield cast(BinaryIO, stream)
        else:
            with item.path.open("rb") as stream:
                yield stream

    def _archive(self, path: Path) -> zipfile.ZipFile:
        if self._zip is None or self._path != path:
            self.close()
            self._zip, self._path = open_zip(path), path
        return self._zip

    def _piped(self) -> BinaryIO:
        """Stdin comes once, and is kept for whoever asks again."""
        if self._stdin is None:
            self._stdin = seekable(sys.stdin.buffer if sys.stdin else io.BytesIO())
            weakref.finalize(self, self._stdin.close)
        self._stdin.seek(0)
        return self._stdin


@contextmanager
def problems() -> Iterator[None]:
    """What can be wrong with a file, as a reason."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as e:
        raise Unreadable("damaged, it can't be unpacked") from e
    except zipfile.BadZipFile as e:
        raise Unreadable("a damaged zip") from e
    except EOFError as e:
        raise Unreadable("damaged, it breaks off") from e
    except NotImplementedError as e:
        raise Unreadable("packed in a way that is not known here") from e
    except PermissionError as e:
        raise Unreadable("no permission to read it") from e
    except FileNotFoundError as e:
        raise Unreadable("it is gone") from e
    except OSError as e:
        raise Unreadable((e.strerror or str(e)).lower()) from e


def open_zip(file: Path | BinaryIO) -> zipfile.ZipFile:
    """A zip by its directory.

    Raises:
        Unreadable: there is none, or it is garbled.
    """
    try:
        return zipfile.ZipFile(file)
    except (
        zipfile.BadZipFile,
        struct.error,
        ValueError,
        IndexError,
    ) as e:  # what zipfile makes of random bytes
        raise Unreadable("a damaged zip") from e


def members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Files of a zip in the order of their names; not what a system hid in it."""
    found = {i.filename: i for i in archive.infolist() if i.filename and not i.is_dir()}
    return [i for name, i in sorted(found.items()) if not _hidden(name)]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def guard(info: zipfile.ZipInfo, largest: int | None = None) -> None:
    """Refuse a member that is locked, or that is made to fill memory.

    Raises:
        Unreadable: with the reason.
    """
    if info.flag_bits & 0x1:
        raise Unreadable("it has a password")
    if info.file_size > SMALL and info.file_size > RATIO * info.compress_size:
        raise Unreadable(BOMB)
    if largest is not None and info.file_size > largest:
        raise Unreadable(f"over {largest >> 20:,} MB in one piece")


def seekable(stream: BinaryIO) -> BinaryIO:
    """A copy of a stream that can be read in any order."""
    copy = cast(BinaryIO, SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115  for the caller to close
    try:
        shutil.copyfileobj(stream, copy, 1 << 20)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


class _Unpacked(io.RawIOBase):
    """A gz that is refused as soon as it has grown too much."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = _Counted(packed)
        self._gz = gzip.GzipFile(fileobj=self._packed, mode="rb")
        self._out = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._gz.read(size)
        self._out += len(block)
        if self._out > SMALL and self._out > RATIO * self._packed.count:
            raise Unreadable(BOMB)
        return block


class _Counted(io.RawIOBase):
    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.count = stream, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.count += len(block)
        return block
