"""What a source names, before anything of it is read: files, members of zips, stdin, and what can't be read.

Names are relative to the folder that all files of a source are in, so they are
unique, sort alike everywhere, and say nothing of this machine. What can be
found out from a name and the first bytes is found out here, at once.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISREG

from adapterkit.data.reading.archives import Item, Opener, members, open_zip, problems
from adapterkit.data.reading.encoding import check_text
from adapterkit.data.reading.kinds import OFFICE, PLAIN, Kind, Unreadable, kind_of
from adapterkit.data.reading.office import check_office
from adapterkit.errors import DataError
from adapterkit.recipe.source import STDIN

HEAD = 1 << 12  # bytes looked at; a multiple of what a character takes


@dataclass(frozen=True)
class Refused:
    """A file that can't be read."""

    name: str
    reason: str
    stops: bool  # it may be what somebody wanted learned
    ending: str = ""  # what it is counted under, if its ending is the reason

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@dataclass
class Listing:
    """The files of one source, in their order."""

    source: str  # as a person wrote it
    items: list[Item] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    repeats: int = 0  # files that an earlier source held too
    named: bool = False  # it is one file that a person named, or stdin, and no zip


def list_source(source: str, folder: Path | None, told: str, opener: Opener) -> Listing | None:
    """Everything a source names; None when nothing of that name is on this computer.

    Args:
        source: file, folder, glob, or ``-``.
        folder: of the recipe; relative sources are looked up there first.
        told: ``data.format``.
        opener: opens the files to look at their first bytes.
    """
    if source == STDIN:
        return Listing("stdin", [Item("stdin", Kind(PLAIN if told == "auto" else told), None)], named=True)
    paths, named = _paths(source, folder)
    if not paths:
        return None
    found = Listing(source, named=named and not kind_of(paths[0].name, told).is_zip)
    root = Path(os.path.commonpath([p.parent for p in paths]))
    for path in paths:
        _add(path, shown_name(path.relative_to(root).as_posix()), told, named, found, opener)
    opener.close()
    return found


def shown_name(name: str) -> str:
    """A name that can be printed: bytes of no encoding and control characters are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


# --- paths --------------------------------------------------------------------


def _paths(source: str, folder: Path | None) -> tuple[list[Path], bool]:
    """Paths in their order, and whether a person named each of them."""
    candidates = [Path(os.path.expanduser(source))]
    if folder is not None and not candidates[0].is_absolute():
        candidates.insert(0, folder / source)
    for path in candidates:
        if os.path.isdir(path):  # these never fail, not even for a name of a thousand letters
            return _in_folder(path, source), False
        if os.path.isfile(path):
            return [path], True
        if os.path.exists(path):
            raise DataError(
                f"{source} is neither a file nor a folder.", hint=f"pipe it in: adapterkit train - < {source}"
            )
        if hits := list(_glob(str(path))):
            return hits, False
    return [], False


def _in_folder(path: Path, source: str) -> list[Path]:
    found = sorted(_walk(path))
    if not found:
        raise DataError(f"there is nothing to read in {source}: it is empty.", hint="put text files into it")
    return found


def _walk(root: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden; links to folders are followed, but never in a circle."""
    seen = {os.path.realpath(p) for p in (root, *root.resolve().parents)}

    def failed(error: OSError) -> None:
        closed.append(Path(error.filename))

    closed: list[Path] = []
    for at, folders, files in os.walk(root, onerror=failed, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(at, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        yield from (Path(at, name) for name in files if not name.startswith("."))
    yield from closed  # a folder that may not be looked into, refused by name later


def _glob(pattern: str) -> Iterator[Path]:
    """Files that a pattern names. ``**`` goes through folders as _walk does, safe from links in circles."""
    if "**" not in pattern:
        yield from (Path(hit) for hit in sorted(glob.glob(pattern)) if os.path.isfile(hit))
        return
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed]) if fixed else Path()
    hits = (p for p in _walk(root) if _matches(p.relative_to(root).parts, parts[fixed:]))
    yield from sorted(p for p in hits if p.is_file())


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern or not parts:
        return not parts and all(p == "**" for p in pattern)
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


# --- files --------------------------------------------------------------------


def _add(path: Path, name: str, told: str, named: bool, found: Listing, opener: Opener) -> None:
    kind = kind_of(path.name, told)
    try:
        with problems():
            if not S_ISREG(os.stat(path).st_mode):
                is_folder = path.is_dir()
                found.refused.append(
                    Refused(
                        name, "no permission to look into it" if is_folder else "no regular file", is_folder
                    )
                )
                return
            inside = _in_zip(path, name, told) if kind.is_zip else []
    except Unreadable as e:
        found.refused.append(Refused(name, e.message, stops=kind.stops or bool(kind.reader and kind.known)))
        return
    if not kind.is_zip:
        inside = [Item(name, kind, path)]
    for item in inside:
        refused = _refused(item, named, opener)
        if refused:
            found.refused.append(refused)
        else:
            found.items.append(item)


def _in_zip(path: Path, name: str, told: str) -> list[Item]:
    with open_zip(path) as archive:
        return [
            Item(f"{name}/{shown_name(i.filename)}", kind_of(i.filename, told), path, i.filename)
            for i in members(archive)
        ]


def _refused(item: Item, named: bool, opener: Opener) -> Refused | None:
    """Why an item can't be read, as far as its name and first bytes show it."""
    kind = item.kind
    if kind.is_zip:
        return Refused(item.name, "a zip in a zip", stops=False)
    if not kind.reader:
        ending = Path(item.name.removesuffix(".gz")).suffix.lower() if kind.stops else ""
        return Refused(item.name, kind.reason, kind.stops, ending)
    try:
        with opener.open(item) as stream:
            head = stream.read(HEAD)
        if kind.reader in OFFICE and head:
            with opener.open(item, any_order=True) as stream:
                check_office(stream, kind.reader)
        elif kind.reader != "parquet":
            check_text(head)
        elif head and not head.startswith(b"PAR1"):
            raise Unreadable("damaged, no parquet file")
    except Unreadable as e:
        return Refused(item.name, e.message if kind.known else "not text", stops=kind.known)
    if not head:
        return Refused(item.name, "empty", stops=False)
    if not kind.known and not named:
        return Refused(item.name, kind.reason, stops=False)
    return None
