"""Files that are whole or not there: write aside, fsync, rename.

A writer fills a temporary name on the same file system and renames it into
place, so that a reader never meets half a file. Nothing here knows what the
files mean.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from adapterkit.errors import Damaged, OutOfSpace, Unsupported

CHUNK = 1 << 20
log = logging.getLogger("adapterkit")


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_whole(path: Path, data: bytes, mode: int = 0o644, *, by: Path | None = None) -> None:
    """Replace a file by rename, so that it is the old one or the new one.

    Args:
        by: a staging folder on the same file system to write in first; the file's own when None.
    """
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}" if by is None else by / _signed()
    try:
        with writing(path), aside.open("wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
            set_mode(aside, mode)
            aside.replace(path)
    finally:
        with suppress(OSError):  # renamed away, or a folder that lets nothing go: gc finds it there
            aside.unlink()
    sync_folder(path.parent)


def sync_file(fd: int) -> None:
    """fsync, where the file system can; a failure of the disk itself is an error.

    After an fsync that failed the pages may be gone, so it is never tried again.
    """
    try:
        os.fsync(fd)
    except OSError as e:
        _pass_over(e, "write files through to the disk")


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable, where the file system can."""
    if os.name == "nt":  # which opens no folders
        return
    fd = None
    try:
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
    except OSError as e:
        _pass_over(e, "write folders through to the disk")
    finally:
        if fd is not None:
            os.close(fd)


def set_mode(path: Path, mode: int) -> None:
    """chmod, where the file system has modes: they only guard against slips, sha256 guards the content."""
    try:
        os.chmod(path, mode)
    except OSError as e:
        _pass_over(e, "keep the modes of files")


def sync_tree(folder: Path, file_mode: int) -> None:
    """fsync every file below a folder and give it its final mode, then the folders."""
    folders = [folder]
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            folders.append(path)
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            sync_file(fd)
        finally:
            os.close(fd)
        set_mode(path, file_mode)
    for each in reversed(folders):
        set_mode(each, 0o755)
        sync_folder(each)


# What file systems answer that have no such thing, as synchronised and network drives do.
WITHOUT = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EACCES})


def _pass_over(e: OSError, what: str) -> None:
    if e.errno not in WITHOUT:
        raise e
    _say_once(what, errno.errorcode.get(e.errno or 0, str(e.errno)))


@cache
def _say_once(what: str, why: str) -> None:
    log.warning("this file system can't %s (%s): a power cut may lose what was written last.", what, why)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON line. O_APPEND makes a short write one piece between processes."""
    line = canonical_json(record) + b"\n"
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        line = line if _ends_whole(fd) else b"\n" + line
        if os.write(fd, line) < len(line):  # a disk that fills up takes a part; the next line begins anew
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync_file(fd)
    finally:
        os.close(fd)


def _ends_whole(fd: int) -> bool:
    """Whether the last line has its end; one torn by a crash must not swallow the next."""
    if os.fstat(fd).st_size == 0:
        return True
    os.lseek(fd, -1, os.SEEK_END)
    return os.read(fd, 1) == b"\n"


def read_lines(path: Path, holding: bytes = b"") -> list[dict[str, Any]]:
    """Whole JSON lines of a file; a line torn by a crash is passed over.

    Args:
        holding: only lines with these bytes; the others are not parsed.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    records = []
    for line in raw.splitlines() if holding in raw else []:
        if holding not in line:
            continue
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict):
                records.append(record)
    return records


STAGING = ".staging"


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """A fresh folder under ``root/.staging``; whatever is left of it at the end is removed.

    Its name says who fills it, ``<hex>.<process>.<machine>``, so that what a crash left can be told.
    """
    folder = root / STAGING / _signed()
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


GONE = ".gone-"


def remove_tree(path: Path, staging: Path) -> bool:
    """Remove a file or folder that others may want too, in one rename and then at leisure.

    What is left of it when the process is killed lies in the staging folder for gc.

    Returns:
        False: somebody else renamed or removed it before.
    """
    claimed = path
    if not path.name.startswith(GONE):
        claimed = staging / f"{GONE}{secrets.token_hex(8)}"
        try:
            os.rename(path, claimed)
        except FileNotFoundError:
            return False
    if claimed.is_dir() and not claimed.is_symlink():
        shutil.rmtree(claimed, ignore_errors=True)
    else:
        with suppress(OSError):
            claimed.unlink()
    return True


def _signed() -> str:
    return f"{secrets.token_hex(8)}.{os.getpid()}.{machine()}"


def machine() -> str:
    """This machine's name as far as it fits a file's name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "unknown"


@contextmanager
def no_space(where: Path) -> Iterator[None]:
    """Turn a disk that is full or fails into one clear error.

    Raises:
        OutOfSpace: the disk or the quota is full.
        Damaged: the disk failed (code ``disk``).
        Unsupported: it can only be read (code ``not-writable``).
    """
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(existing(where)).free
            raise OutOfSpace(
                f"no space left on the disk of {shown(where)} ({human_size(free)} free). "
                "Everything published before is whole.",
                hint="free some space (adapterkit gc), then run the same command again",
            ) from e
        if e.errno == errno.EROFS:  # also what a disk that failed becomes
            raise _not_writable(where, e) from e
        if e.errno == errno.EIO:
            raise Damaged(
                f"the disk of {shown(where)} failed ({e.strerror}). Everything published before is as it was.",
                hint="look after the disk, then run the same command again",
                code="disk",
            ) from e
        raise


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """``no_space``, and one clear error where nothing may be written.

    Raises:
        Unsupported: no right to write there (code ``not-writable``).
    """
    try:
        with no_space(where):
            yield
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EPERM):
            raise
        raise _not_writable(where, e) from e


def _not_writable(where: Path, e: OSError) -> Unsupported:
    return Unsupported(
        f"{shown(e.filename or where)} may not be written ({e.strerror}).",
        hint="use an account that may, or another registry: --registry DIR",
        code="not-writable",
    )


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def human_size(size: float) -> str:
    """``1.2 MB`` in powers of 1,000, as disks and downloads are labelled."""
    for unit in ("B", "kB", "MB", "GB"):
        number = f"{size:.0f}" if unit == "B" or size >= 99.95 else f"{size:.1f}"
        if float(number) < 1000:  # the rounded number, or 999,950 would be 1000 kB
            return f"{number} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def shown(path: Path | str) -> str:
    """A path as a person writes it, the home folder as ``~``."""
    text, home = str(path), str(Path.home())
    return "~" + text[len(home) :] if text == home or text.startswith(home + os.sep) else text
