"""Hiding versions and showing them again: markers in their folders.

::

    (none) --delete--> deleted --gc--> collected
       ^------restore----'

Each arrow is one system call, so two of them at once end in one of the states:
who comes late finds the marker gone. What gc removes it removes only behind
``collected``, from which nothing leads back.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit import files
from adapterkit.errors import Damaged, NotFound, Unsupported
from adapterkit.refs import Ref, looks_like_digest, parse_ref
from adapterkit.registry import aliases, journal, missing, slots
from adapterkit.registry.version import COLLECTED, DELETED, Version, read

if TYPE_CHECKING:
    from adapterkit.registry.reading import Reader

UNDO_DAYS = 7


def named(registry: Reader, ref: str) -> Ref:
    """Name and number of the version to be hidden, also of one that is too damaged to be read.

    Raises:
        NotFound: no such version; or see ``Reader``.
    """
    wanted = parse_ref(ref)
    try:
        v = registry[ref]
    except (Damaged, Unsupported):
        numbers = {s.number for s in slots.slots(registry.path / wanted.name)}
        if wanted.version is None or int(wanted.version if wanted.version.isdigit() else 0) not in numbers:
            raise
        return wanted
    return _ref(v)


def delete(root: Path, ref: Ref, force: bool) -> None:
    """Hide a version, and with ``force`` take its aliases away.

    Args:
        ref: with its number.

    Raises:
        Unsupported: an alias means it (code ``alias-in-the-way``).
    """
    folder, number = root / ref.name / str(ref.version), int(ref.version or 0)
    meaning = [a for a, target in aliases.read_all(root, ref.name)[0].items() if target.version == number]
    if meaning and not force:
        raise Unsupported(
            f"{ref} is {' and '.join(f'{ref.name}@{a}' for a in meaning)}, which would mean nothing then.",
            hint=f"adapterkit delete {ref} --force, or first: adapterkit alias --remove {ref.name}@{meaning[0]}",
            code="alias-in-the-way",
            details={"ref": str(ref), "aliases": meaning},
        )
    os.close(os.open(folder / DELETED, os.O_WRONLY | os.O_CREAT, 0o644))
    files.sync_folder(folder)
    journal.record_done(root, ref.name, "deleted", number)
    for alias in meaning:
        aliases.remove(root, ref.name, alias)
        journal.record_done(root, ref.name, "alias-removed", number, alias=alias)


def restore(root: Path, ref: Ref) -> None:
    """Show a deleted version again.

    Args:
        ref: with its number.

    Raises:
        NotFound: gc has taken it.
    """
    folder = root / ref.name / str(ref.version)
    try:
        (folder / DELETED).unlink()
    except FileNotFoundError:
        if (folder / COLLECTED).exists():
            raise _gone(read(folder)) from None
        return  # somebody else was faster
    files.sync_folder(folder)
    journal.record_done(root, ref.name, "restored", int(ref.version or 0))


def deleted(registry: Reader, wanted: Ref) -> Ref:
    """Name and number of the version to be restored.

    Raises:
        NotFound: it is not there, was not deleted, or was collected.
    """
    shelf = registry.shelf(wanted.name)
    hidden = [v for v in shelf.every if v.deleted]
    left = [v for v in hidden if not v.is_collected]
    if wanted.version is None and left:
        return _ref(max(left, key=deleted_at))
    which = wanted.version or ""
    found = [v for v in shelf.every if str(v.number) == which]
    if not found and looks_like_digest(which):
        found = [v for v in shelf.every if v.digest.startswith(which)]
    if found and found[0].is_collected:
        raise _gone(found[0])
    if found and found[0].deleted:
        return _ref(found[0])
    if found:
        raise NotFound(f"{found[0].ref} was not deleted.", hint=f"adapterkit show {found[0].ref}")
    if slots.NUMBER.fullmatch(which) and (registry.path / wanted.name / which / DELETED).exists():
        return wanted  # too damaged to be read, which restoring does not change
    if not shelf.every:
        raise missing.name(registry, wanted)
    told = ", ".join(str(v.number) for v in left)
    raise NotFound(
        f"{wanted} is no deleted version" + (f"; deleted are {told}." if told else "; none is deleted."),
        hint=f"adapterkit restore {left[-1].ref}" if left else f"adapterkit list {wanted.name} --deleted",
        details={"name": wanted.name},
    )


def _ref(v: Version) -> Ref:
    return Ref(v.name, str(v.number))


def deleted_at(v: Version) -> float:
    """When a version was hidden, seconds since 1970; the far future when it is not any more.

    A marker from a clock that was ahead is of now, or it would be kept for years.
    """
    try:
        info = (v.path / DELETED).stat()
    except OSError:
        return float("inf")
    return min(info.st_mtime, time.time())


def _gone(v: Version) -> NotFound:
    return NotFound(
        f"{v.ref} can't be restored: gc has taken its files, only its manifest is left.",
        hint=f"adapterkit list {v.name} --deleted     (make it again: adapterkit train SOURCE --name {v.name})",
        details={"ref": v.ref},
    )
