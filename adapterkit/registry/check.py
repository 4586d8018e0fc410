"""``verify`` and ``doctor``: what in a registry is not as it was written, and what can be mended."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit import files
from adapterkit.errors import AdapterKitError, Damaged
from adapterkit.registry import aliases, collect, place
from adapterkit.registry.shelf import Shelf
from adapterkit.registry.version import COLLECTED, DELETED, PRIVATE, Version

if TYPE_CHECKING:
    from adapterkit.registry.store import Registry


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written.

    Attributes:
        ref: the version or alias it concerns; empty for the registry itself.
        mend: what ``doctor --fix`` does about it; None where only a person can.
    """

    ref: str
    what: str
    hint: str
    code: str
    path: Path | None = None
    mend: Callable[[], None] | None = field(default=None, repr=False, compare=False)


def verify(registry: Registry, ref: str | None = None) -> list[Problem]:
    """Every byte of one version, or of all that have their files, against the manifests."""
    if ref is not None:
        return list(_of_version(registry[ref]))
    found: list[Problem] = []
    for shelf in registry.shelves():
        found += [_problem(e, str(e.details.get("ref", shelf.name))) for e in shelf.damaged.values()]
        found += [p for v in shelf.every if not v.is_collected for p in _of_version(v)]
        found += _of_aliases(shelf)
    return found


def faults(registry: Registry) -> list[Problem]:
    """What can be mended without a person: torn writes, lost aliases, modes."""
    found = [
        Problem("", f"{left.what}, {files.human_size(left.bytes)}", "adapterkit gc", "staging", left.path,
                lambda: _collect(registry))
        for left in collect.leftovers(registry.path)
    ]  # fmt: skip
    for shelf in registry.shelves():
        found += _of_aliases(shelf)
        found += [p for v in shelf.every for p in _of_modes(v)]
    return found


def _collect(registry: Registry) -> None:
    registry.gc()


def _of_version(v: Version) -> Iterator[Problem]:
    try:
        v.verify()
    except Damaged as e:
        yield _problem(e, v.ref, v.path)


def _of_aliases(shelf: Shelf) -> list[Problem]:
    """Aliases that can't be read, or mean nothing any more."""
    lost = [Problem(f"{shelf.name}@{e.details['alias']}", e.message, e.hint, e.code, Path(e.details["path"]),
                    _remover(shelf, e.details["alias"]))
            for e in shelf.problems if "alias" in e.details]  # fmt: skip
    by_number = {v.number: v for v in shelf.every}
    for alias, target in shelf.aliases.items():
        v = by_number.get(target.version)
        if v is None and target.version in shelf.damaged:
            continue  # told already, and the version may come back
        why = "is not there" if v is None else "was deleted" if v.deleted else ""
        if v is not None and v.digest != target.digest:
            why = "is another version than it was set for"
        if why:
            ref = f"{shelf.name}@{alias}"
            lost.append(Problem(ref, f"{ref} means {shelf.name}@{target.version}, which {why}.",
                                f"adapterkit alias --remove {ref}", "lost-alias",
                                shelf.root / shelf.name / aliases.FOLDER / alias, _remover(shelf, alias)))  # fmt: skip
    return lost


def _remover(shelf: Shelf, alias: str) -> Callable[[], None]:
    return lambda: aliases.remove(shelf.root, shelf.name, alias)


def _of_modes(v: Version) -> Iterator[Problem]:
    """Files that another account can't read, or that are easily overwritten; a folder that can't be removed."""
    wrong = [(path, mode) for path, mode in _wanted_modes(v) if stat.S_IMODE(path.lstat().st_mode) != mode]
    if wrong and os.name != "nt":
        yield Problem(
            v.ref,
            f"{v.ref} has {len(wrong)} file{'s' * (len(wrong) != 1)} with another mode than was published.",
            "adapterkit doctor --fix",
            "mode",
            v.path,
            lambda: _set_modes(wrong),
        )


def _set_modes(wrong: Sequence[tuple[Path, int]]) -> None:
    for path, mode in wrong:
        files.set_mode(path, mode)


def _wanted_modes(v: Version) -> Iterator[tuple[Path, int]]:
    yield v.path, 0o755
    for path in sorted(v.path.rglob("*")):
        inside = path.relative_to(v.path).parts
        if not path.is_symlink() and inside[0] not in (DELETED, COLLECTED, PRIVATE):
            yield path, 0o755 if path.is_dir() else 0o444


def _problem(e: AdapterKitError, ref: str, path: Path | None = None) -> Problem:
    return Problem(ref, e.message, e.hint, e.code, path)


def marker(root: Path) -> Problem | None:
    """What is wrong with ``registry.json``; a registry without one is found by no search upward."""
    try:
        place.check(root)
    except Damaged as e:
        return Problem("", e.message, e.hint, e.code, root / place.MARKER, lambda: place.write(root))
    except AdapterKitError as e:
        return _problem(e, "", root / place.MARKER)
    return None
