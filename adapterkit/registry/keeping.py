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
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit import files
from adapterkit.errors import NotFound, Unsupported
from adapterkit.refs import Ref, looks_like_digest
from adapterkit.registry import aliases, journal, missing
from adapterkit.registry.version import COLLECTED, DELETED, Version

if TYPE_CHECKING:
    from adapterkit.registry.store import Registry

UNDO_DAYS = 7


def delete(root: Path, v: Version, force: bool) -> Version:
    """Hide a version, and with ``force`` take its aliases away.

    Raises:
        Unsupported: an alias means it (code ``alias-in-the-way``).
    """
    meaning = [a for a, target in aliases.read_all(root, v.name)[0].items() if target.version == v.number]
    if meaning and not force:
        raise Unsupported(
            f"{v.ref} is {' and '.join(f'{v.name}@{a}' for a in meaning)}, which would mean nothing then.",
            hint=f"adapterkit delete {v.ref} --force, or first: adapterkit alias --remove {v.name}@{meaning[0]}",
            code="alias-in-the-way",
            details={"ref": v.ref, "aliases": meaning},
        )
    os.close(os.open(v.path / DELETED, os.O_WRONLY | os.O_CREAT, 0o644))
    files.sync_folder(v.path)
    journal.record_done(root, v.name, "deleted", v.number)
    for alias in meaning:
        aliases.remove(root, v.name, alias)
        journal.record_done(root, v.name, "alias-removed", v.number, alias=alias)
    return v


def restore(root: Path, v: Version) -> None:
    """Show a deleted version again.

    Raises:
        NotFound: gc has taken it.
    """
    try:
        (v.path / DELETED).unlink()
    except FileNotFoundError:
        if (v.path / COLLECTED).exists():
            raise _gone(v) from None
        return  # somebody else was faster
    files.sync_folder(v.path)
    journal.record_done(root, v.name, "restored", v.number)


def deleted(registry: Registry, wanted: Ref) -> Version:
    """The version to be restored.

    Raises:
        NotFound: it is not there, was not deleted, or was collected.
    """
    shelf = registry.shelf(wanted.name)
    hidden = [v for v in shelf.every if v.deleted]
    if wanted.version is None and (left := [v for v in hidden if not v.is_collected]):
        return max(left, key=deleted_at)
    which = wanted.version or ""
    found = [v for v in shelf.every if str(v.number) == which]
    if not found and looks_like_digest(which):
        found = [v for v in shelf.every if v.digest.startswith(which)]
    if found and found[0].is_collected:
        raise _gone(found[0])
    if found and found[0].deleted:
        return found[0]
    if found:
        raise NotFound(f"{found[0].ref} was not deleted.", hint=f"adapterkit show {found[0].ref}")
    if not shelf.every:
        raise missing.name(registry, wanted)
    told = ", ".join(str(v.number) for v in hidden if not v.is_collected)
    raise NotFound(
        f"{wanted} is no deleted version" + (f"; deleted are {told}." if told else "; none is deleted."),
        hint=f"adapterkit restore {hidden[-1].ref}" if told else f"adapterkit list {wanted.name} --all",
        details={"name": wanted.name},
    )


def deleted_at(v: Version) -> float:
    """When a version was hidden, seconds since 1970; the far future when it is not any more."""
    try:
        return (v.path / DELETED).stat().st_mtime
    except OSError:
        return float("inf")


def _gone(v: Version) -> NotFound:
    return NotFound(
        f"{v.ref} can't be restored: gc has taken its files, only its manifest is left.",
        hint=f"make it again: adapterkit train SOURCE --name {v.name}, or import it: adapterkit import FILE --name NAME",
        details={"ref": v.ref},
    )
