"""Publishing: a filled staging folder becomes a version by one rename."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.errors import AdapterKitError, Damaged, NameTaken, Unsupported
from adapterkit.registry import renames, shape, slots, version
from adapterkit.registry.slots import Home, Slot
from adapterkit.registry.version import MANIFEST, PRIVATE

Same = Callable[[list[Slot]], int | None]


@dataclass(frozen=True)
class Work:
    """What is to be committed.

    Attributes:
        folder: filled, in the staging folder of the same root.
        manifest: all of it but version and digest; or the whole of it.
        number: that it must have; None takes the next.
        is_sealed: the manifest is kept byte for byte.
        same: the number of a version with the same content among the slots, if there is one.
    """

    root: Path
    name: str
    folder: Path
    manifest: dict[str, Any]
    number: int | None
    is_sealed: bool
    same: Same


def commit(work: Work) -> tuple[int, str]:
    """The number under which it stands now, and its digest when it is new.

    Raises:
        NameTaken: the number it must have is another version's.
        AdapterKitError: its staging folder was taken away (code ``staging``).
    """
    while True:
        with slots.home(work.root / work.name) as home:
            listed = home.slots()  # one look for both: a twin that comes later takes this very number
            if same := work.same(listed):
                return same, ""
            number = _number(work, listed)
            digest = _write_manifest(work, number)
            files.sync_tree(work.folder, file_mode=0o444)
            try:
                home.take(work.folder, number)
            except FileExistsError:
                continue  # another writer took the number between the look and the rename
            except FileNotFoundError:
                _refuse_gone(work)
                continue  # the name was renamed or removed meanwhile
            _settle(home)
            return number, digest


def _number(work: Work, listed: list[Slot]) -> int:
    floor = renames.floor(work.root, work.name)
    if work.number is None:
        number = max(floor, max((s.number for s in listed), default=0)) + 1
        if number > slots.HIGHEST:
            raise Unsupported(f"{work.name!r} has used up its numbers.", hint=f"--name {work.name}-2")
        return number
    if work.number <= floor or work.number in {s.number for s in listed}:
        is_here = work.number in {s.number for s in listed}
        raise NameTaken(
            f"{work.name}@{work.number} is another version here."
            if is_here
            else f"{work.name}@{work.number} was another version here, before {work.name!r} was renamed.",
            hint=f"give it another name: --name {work.name}-2",
            details={"name": work.name, "version": work.number},
        )
    return work.number


def _write_manifest(work: Work, number: int) -> str:
    """The last file that is written; its digest."""
    sealed = work.manifest if work.is_sealed else version.seal(work.manifest | {"version": number})
    path = work.folder / MANIFEST
    with suppress(FileNotFoundError):
        path.unlink()
    try:
        shape.check(sealed)
    except ValueError as e:
        raise Unsupported(f"{work.name!r} can't be published: {e}.", hint="see docs/format.md") from None
    data = files.canonical_json(sealed)
    if len(data) > version.MAX_MANIFEST:
        raise Unsupported(
            f"the manifest would be {len(data):,} bytes, over {version.MAX_MANIFEST:,}.",
            hint="fewer or shorter sources and sample.prompts in the recipe",
        )
    path.write_bytes(data)
    return str(sealed["digest"])


def _settle(home: Home) -> None:
    """Make the rename durable; it has taken place, so a disk that fails now is only said."""
    try:
        files.sync_folder(home.path)
        files.sync_folder(home.path.parent)
    except OSError as e:
        files.log.warning("published, but the disk failed when asked to keep it for good (%s).", e.strerror)


def _refuse_gone(work: Work) -> None:
    if not work.folder.is_dir():
        raise AdapterKitError(
            f"what was to become a version of {work.name!r} was taken away from {files.shown(work.root)}/.staging.",
            hint="run the same command again; adapterkit gc leaves alone what was written to within an hour",
            code="staging",
        )


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file that ships; ``private/`` is not digested.

    Raises:
        Damaged: a file whose name a version can't have, or a link.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] in (PRIVATE, MANIFEST):
            continue
        if path.is_symlink() or (path.is_file() and not version.is_inside(name)):
            raise Damaged(f"{name!r} can't be a file of a version.", hint="leave it out")
        if path.is_file():
            found[name] = {"size": path.stat().st_size, "sha256": files.sha256_file(path)}
    return found
