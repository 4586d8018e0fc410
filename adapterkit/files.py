"""Files that are whole or not there: write aside, fsync, rename.

A writer fills a temporary name on the same file system and renames it into
place, so that a reader never meets half a file. Nothing here knows what the
files mean.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adapterkit.errors import OutOfSpace

CHUNK = 1 << 20


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


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file by rename, so that it is the old one or the new one."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with no_space(path), aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(aside, mode)
            aside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable, where the file system can."""
    with suppress(OSError):  # some network and synchronised drives answer EINVAL or ENOTSUP
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_tree(folder: Path, file_mode: int) -> None:
    """fsync every file below a folder and give it its final mode, then the folders."""
    folders = [folder]
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            folders.append(path)
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.chmod(path, file_mode)
    for each in reversed(folders):
        os.chmod(each, 0o755)
        sync_folder(each)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON line. O_APPEND makes a short write one piece between processes."""
    line = canonical_json(record) + b"\n"
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line if _ends_whole(fd) else b"\n" + line)
    finally:
        os.close(fd)


def _ends_whole(fd: int) -> bool:
    """Whether the last line has its end; one torn by a crash must not swallow the next."""
    if os.fstat(fd).st_size == 0:
        return True
    os.lseek(fd, -1, os.SEEK_END)
    return os.read(fd, 1) == b"\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole JSON lines of a file; a line torn by a crash is passed over."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return records


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """A fresh folder under ``root/.staging``; whatever is left of it at the end is removed."""
    folder = root / ".staging" / secrets.token_hex(8)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def no_space(where: Path) -> Iterator[None]:
    """Turn a full disk into one clear error."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(where.parent if where.parent.exists() else Path.cwd()).free
        raise OutOfSpace(
            f"no space left on the disk of {where} ({human_size(free)} free). Everything published before is whole.",
            hint="free some space, then run the same command again",
        ) from e


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
