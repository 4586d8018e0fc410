"""What a ref that finds nothing is told: what there is, and the command that comes nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterkit import files
from adapterkit.errors import NotFound, nearest
from adapterkit.refs import Ref, looks_like_digest
from adapterkit.registry import place, renames, slots
from adapterkit.registry.slots import Slot
from adapterkit.registry.version import COLLECTED, DELETED, Version

if TYPE_CHECKING:
    from adapterkit.registry.reading import Reader


def name(registry: Reader, wanted: Ref) -> NotFound:
    """No version of a name that could be meant."""
    if now := renames.now_called(registry.path, wanted.name):
        ref = Ref(now, wanted.version)
        return NotFound(
            f"{wanted.name!r} is called {now!r} now.",
            hint=f"adapterkit show {ref}",
            details={"name": wanted.name, "nearest": now},
        )
    if hidden := slots.slots(registry.path / wanted.name):
        return _all_hidden(wanted.name, hidden)
    if looks_like_digest(wanted.name) and (meant := _by_digest(registry, wanted.name)):
        return NotFound(
            f"{wanted.name!r} is a digest; a version is named by its adapter too.",
            hint=f"adapterkit show {meant.name}@{wanted.name}",
            details={"name": wanted.name, "nearest": f"{meant.name}@{wanted.name}"},
        )
    names = [n for n in registry.names() if _has_versions(registry, n)]
    close = nearest(wanted.name, names)
    others = _elsewhere(registry)
    home = files.shown(place.home())
    more = f"{home} has {len(others)} more" if others else ""
    hint = "adapterkit list --all" if names else "train one: adapterkit train FOLDER-OR-FILE"
    hint += f"     ({more})" if more else ""
    if wanted.name in others:
        hint = f"adapterkit show {wanted} --registry {home}"
    elif close:
        hint = f"did you mean {close!r}?     (all: adapterkit list{f'; {more}' if more else ''})"
    return NotFound(
        f"no adapter named {wanted.name!r} in {files.shown(registry.path)}.",
        hint=hint,
        details={"name": wanted.name, "known": names, "nearest": close},
    )


def version(registry: Reader, wanted: Ref) -> NotFound:
    """The name is there, the version is not."""
    shelf = registry.shelf(wanted.name)
    if not shelf.alive and not shelf.damaged:
        return name(registry, wanted)
    numbers = sorted([*(v.number for v in shelf.alive), *shelf.damaged])
    there = ", ".join(map(str, numbers[-12:]))
    more = f"... {there}" if len(numbers) > 12 else there
    aliases = f" and {', '.join(shelf.aliases)}" if shelf.aliases else ""
    return NotFound(
        f"{wanted.name} has no version {wanted.version!r}; it has {more}{aliases}.",
        hint=f"adapterkit list {wanted.name} --all",
        details={"name": wanted.name, "versions": numbers, "aliases": list(shelf.aliases)},
    )


def _all_hidden(of: str, hidden: Sequence[Slot]) -> NotFound:
    """Every version is deleted; the newest that gc has left can be restored."""
    left = [s for s in hidden if not (s.path / COLLECTED).exists()]
    hint = f"adapterkit restore {of}@{left[-1].number}" if left else f"adapterkit list {of} --deleted"
    gone = "" if left else ", and gc has taken their files"
    return NotFound(f"every version of {of!r} was deleted{gone}.", hint=hint, details={"name": of})


def _by_digest(registry: Reader, prefix: str) -> Version | None:
    return next((v for v in registry.versions() if v.digest.startswith(prefix)), None)


def deleted(v: Version) -> NotFound:
    if v.is_collected:
        return NotFound(
            f"{v.ref} was deleted, and gc has taken its files; only its manifest is left.",
            hint=f"adapterkit list {v.name} --deleted",
            details={"ref": v.ref},
        )
    return NotFound(f"{v.ref} was deleted.", hint=f"adapterkit restore {v.ref}", details={"ref": v.ref})


def target(wanted: Ref, number: int, why: NotFound) -> NotFound:
    """An alias is there, what it was set for is not."""
    return NotFound(
        f"{wanted} means {wanted.name}@{number}, which is not there: {why.message}",
        hint=why.hint if "restore" in why.hint else f"adapterkit alias --remove {wanted}",
        details={"ref": str(wanted)},
    )


def gone(of: str) -> NotFound:
    return NotFound(f"{of!r} was renamed or removed meanwhile.", hint="adapterkit list", details={"name": of})


def alias(registry: Reader, of: str, alias: str) -> NotFound:
    known = list(registry.aliases(of))
    told = f"it has {', '.join(known)}" if known else "it has none"
    close = nearest(alias, known)
    return NotFound(
        f"{of} has no alias {alias!r}; {told}.",
        hint=f"adapterkit alias --remove {of}@{close}" if close else f"adapterkit alias {of}",
        details={"name": of, "aliases": known},
    )


def several(wanted: Ref, found: Sequence[Version]) -> NotFound:
    told = ", ".join(f"{v.ref} {v.digest[:12]}" for v in found)
    return NotFound(f"{wanted} could be {told}.", hint=f"adapterkit show {found[-1].ref}")


def _has_versions(registry: Reader, of: str) -> bool:
    """Whether a name has one that is not hidden; no manifest is read."""
    return any(
        not any((s.path / mark).exists() for mark in (DELETED, COLLECTED))
        for s in reversed(slots.slots(registry.path / of))
    )


def _elsewhere(registry: Reader) -> list[str]:
    """Names of the home folder's registry, when that is another one."""
    home = place.home()
    if registry.path == home or not home.is_dir():
        return []
    from adapterkit.registry.reading import Reader

    other = Reader(home)
    return [n for n in other.names() if _has_versions(other, n)]
