"""The numbered folders of a name, and the one way a folder comes to stand among them.

A version's folder is never empty and never goes away, so the rename of a
finished folder onto its number is the commit: it fails when the number is
taken. The name's own folder is held open from the look at the numbers to the
rename, so that a name that is renamed meanwhile takes the writer along, and no
number is given out twice. No correctness from locks.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adapterkit.errors import Damaged

HIGHEST = 999_999  # seven digits and more are digests
NUMBER = re.compile(r"[1-9][0-9]{0,5}")
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
GONE = (errno.ENOENT, errno.ESTALE)


@dataclass(frozen=True)
class Slot:
    """A numbered folder; its inode tells one that was removed and made again."""

    number: int
    home: Path  # of the name
    inode: int

    @property
    def path(self) -> Path:
        return self.home / str(self.number)


@dataclass(frozen=True)
class Home:
    """A name's folder, held open where the system can."""

    path: Path
    fd: int | None

    def slots(self) -> list[Slot]:
        """By number. A link is none: it may lead anywhere."""
        return _listed(self.path, self.path if self.fd is None else self.fd)[0]

    def take(self, folder: Path, number: int) -> None:
        """The commit.

        Raises:
            FileExistsError: the number is taken.
            FileNotFoundError: the home, or the folder, is not there any more.
            OSError: the disk, or its rights.
        """
        try:
            if self.fd is None:
                os.rename(folder, self.path / str(number))
            else:
                os.rename(folder, str(number), dst_dir_fd=self.fd)
        except OSError as e:
            if e.errno in TAKEN:
                raise FileExistsError(e.errno, os.strerror(e.errno), str(number)) from e
            if e.errno in GONE:
                raise FileNotFoundError(errno.ENOENT, "gone", str(self.path)) from e
            raise


@contextmanager
def home(path: Path) -> Iterator[Home]:
    """A name's folder, made if it is not there, and taken away again if nothing came into it."""
    fd = _opened(path)
    try:
        yield Home(path, fd)
    except BaseException:
        with suppress(OSError):
            path.rmdir()  # a folder that holds anything stays
        raise
    finally:
        if fd is not None:
            os.close(fd)


def _opened(path: Path) -> int | None:
    """A name's folder, made and held; again when gc took the empty folder away between the two."""
    while True:
        path.mkdir(exist_ok=True)
        refuse_link(path)
        if os.rename not in os.supports_dir_fd or os.scandir not in os.supports_fd:
            return None
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))


def refuse_link(path: Path) -> None:
    """A name that is a link would lead a writer out of the registry.

    Raises:
        Damaged: it is one (code ``link``).
    """
    if path.is_symlink():
        raise Damaged(
            f"{path} is a link, and links in a registry are not followed.",
            hint=f"move the folder itself there: rm {path} && mv {os.path.realpath(path)} {path}",
            code="link",
        )


def slots(path: Path) -> list[Slot]:
    """The numbered folders of a name; none when it is not there."""
    return look(path)[0]


def look(path: Path) -> tuple[list[Slot], frozenset[str]]:
    """The numbered folders of a name, and what else lies beside them, in one reading of its folder."""
    try:
        return _listed(path, path)
    except (FileNotFoundError, NotADirectoryError):
        return [], frozenset()


def _listed(path: Path, where: Path | int) -> tuple[list[Slot], frozenset[str]]:
    found, others = [], []
    with os.scandir(where) as entries:
        for entry in entries:
            if NUMBER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                found.append(Slot(int(entry.name), path, entry.inode()))
            else:
                others.append(entry.name)
    return sorted(found, key=lambda slot: slot.number), frozenset(others)
