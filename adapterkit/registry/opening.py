"""Opening a file of a folder that others may have filled: once, and only if it is what it seems.

Neither a link nor a pipe or device, and no larger than the caller can use. What
is read from the one handle is what is hashed and what is parsed, so nothing can
change in between.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adapterkit.errors import Damaged
from adapterkit.files import CHUNK
from adapterkit.registry.version import Version

# Where one is missing (Windows), the look at the path before has to do.
FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # or a pipe without a writer would wait for one
)


@contextmanager
def opened(folder: Path, name: str, label: str, *, limit: int | None = None) -> Iterator[BinaryIO]:
    """A file directly in a folder, open for reading.

    Args:
        label: whose file it is, for messages.
        limit: bytes it may have; None where the caller compares its size with what it reads.

    Raises:
        Damaged: ``missing-file``, ``link``, ``not-a-file`` or ``too-large``.
    """
    path = folder / name
    try:
        _check_kind(os.lstat(path).st_mode, name, label)
        handle = os.open(path, FLAGS)
    except OSError as e:
        raise _unopened(e, name, label) from None
    with os.fdopen(handle, "rb") as file:
        told = os.fstat(file.fileno())
        _check_kind(told.st_mode, name, label)
        if limit is not None and told.st_size > limit:
            raise Damaged(
                f"{label}: {name} has {told.st_size:,} bytes; at most {limit:,} can belong to it.",
                hint=f"fetch or copy {name} again",
                code="too-large",
                details={"file": name, "bytes": told.st_size, "limit": limit},
            )
        yield file


class Hashed:
    """A file read from begin to end, hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self._digest.update(chunk)
        return chunk

    def into(self, buffer: bytearray) -> int:
        """Fill a buffer; how many bytes there were."""
        size: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._digest.update(memoryview(buffer)[:size])
        return size

    def finish(self) -> str:
        """sha256 of the whole file, the rest of it read now."""
        while self.read(CHUNK):
            pass
        return self._digest.hexdigest()


def check_folder(version: Version) -> None:
    """Refuse a version whose folder is a link out of the registry.

    Raises:
        Damaged: ``link``.
    """
    for folder in (version.path.parent, version.path):
        if folder.is_symlink():
            raise _link(folder.name, version.ref)


def told_of(version: Version, name: str) -> tuple[int, str]:
    """Size and sha256 of a file as it was published.

    Raises:
        Damaged: ``not-published``: the manifest does not list it, so nothing says what it should be.
    """
    told = version.manifest["files"].get(name)
    size, sha256 = (told.get("size"), told.get("sha256")) if isinstance(told, dict) else (None, None)
    if type(size) is not int or not isinstance(sha256, str):
        raise Damaged(
            f"{version.ref} is damaged: its manifest does not say what {name} should be.",
            hint=version.remedy,
            code="not-published",
            details={"ref": version.ref, "file": name},
        )
    return size, sha256


def check_sum(version: Version, name: str, sha256: str) -> None:
    """Refuse bytes that are not those that were published.

    Raises:
        Damaged: they are not.
    """
    wanted = told_of(version, name)[1]
    if sha256 != wanted:
        raise Damaged(
            f"{version.ref} is damaged: {name} is not the file that was published "
            f"(sha256 {sha256[:8]}, should be {wanted[:8]}).",
            hint=version.remedy,
            details={"ref": version.ref, "file": name, "sha256": sha256, "expected": wanted},
        )


def _check_kind(mode: int, name: str, label: str) -> None:
    if stat.S_ISLNK(mode):
        raise _link(name, label)
    if not stat.S_ISREG(mode):
        raise Damaged(
            f"{label}: {name} is a folder, a pipe or a device, not a file.",
            hint=f"fetch or copy {name} again",
            code="not-a-file",
            details={"file": name},
        )


def _link(name: str, label: str) -> Damaged:
    return Damaged(
        f"{label}: {name} is a link; links are not followed, they may lead anywhere.",
        hint=f"put the thing itself in its place: cp -rL {name} {name}.copy, then mv {name}.copy {name}",
        code="link",
        details={"file": name},
    )


def _unopened(e: OSError, name: str, label: str) -> Damaged:
    if e.errno == errno.ELOOP:
        return _link(name, label)
    why = f"has a {name} that can't be opened ({e.strerror or e})"
    return Damaged(
        f"{label} has no {name}." if isinstance(e, FileNotFoundError) else f"{label} {why}.",
        hint=f"fetch or copy {name} again",
        code="missing-file",
        details={"file": name, "errno": e.errno},
    )
