"""Finding versions by ref, and what there is: the part of the registry that only reads.

A number, a name and an alias read no more than the folder they mean; ``best``,
digests and lists read the whole name, through the index where it is large.
"""

from __future__ import annotations

import os
from pathlib import Path

from adapterkit.errors import AdapterKitError, Damaged, NotFound
from adapterkit.refs import NAME, Ref, looks_like_digest, parse_ref
from adapterkit.registry import aliases, journal, missing, place, shelf, slots, version
from adapterkit.registry.index import Index
from adapterkit.registry.journal import Entry
from adapterkit.registry.shelf import Shelf
from adapterkit.registry.slots import Slot
from adapterkit.registry.version import Version


class Reader:
    """Versions of adapters in a folder, to be looked at.

    Args:
        path: the folder; None looks for it (``--registry``'s rule).
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = place.find(path)
        place.check(self.path)
        self._index = Index(self.path)

    def __repr__(self) -> str:
        return f"Registry({str(self.path)!r})"

    def __contains__(self, ref: str) -> bool:
        try:
            self[ref]
        except NotFound:
            return False
        return True

    def __getitem__(self, ref: str) -> Version:
        """The version a ref means.

        Raises:
            NotFound: no such name, version or alias; or it was deleted.
            Damaged: its manifest, or the alias, is torn or changed.
        """
        wanted = parse_ref(ref)
        slots.refuse_link(self.path / wanted.name)
        which = wanted.version
        if which in (None, "latest"):
            return self._latest(wanted)
        if which == "best":
            return self.best(wanted.name)
        assert which is not None
        if slots.NUMBER.fullmatch(which):
            return self._numbered(wanted, int(which))
        if aliases.exists(self.path, wanted.name, which):
            return self._aliased(wanted, which)
        return self._digested(wanted, which)

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        with os.scandir(self.path) as entries:
            return sorted(
                e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False)
            )

    def shelf(self, name: str) -> Shelf:
        """All versions of a name, its aliases and its best, read once."""
        found = shelf.read(self.path, name, self._index)
        self._index.keep()
        return found

    def shelves(self) -> list[Shelf]:
        """Those of every name."""
        found = [shelf.read(self.path, name, self._index) for name in self.names()]
        self._index.keep()
        return found

    def versions(self, name: str | None = None, *, deleted: bool = False) -> list[Version]:
        """All whole versions by name and number; the deleted ones only when asked for.

        A damaged one does not stand in the way of the others: ``problems`` names
        it, and asking for it raises.
        """
        each = self.shelves() if name is None else [self.shelf(name)]
        return [v for s in each for v in (s.every if deleted else s.alive)]

    def find(self, digest: str) -> Version | None:
        """The version with a whole digest under any name, a living one before a deleted one."""
        found = [v for v in self.versions(deleted=True) if v.digest == digest]
        return min(found, key=lambda v: v.deleted + v.is_collected, default=None)

    def problems(self, name: str | None = None) -> list[AdapterKitError]:
        """What is wrong with versions and aliases that can't be read."""
        each = self.shelves() if name is None else [self.shelf(name)]
        return [e for s in each for e in s.problems]

    def latest(self, name: str) -> Version:
        return self[name]

    def best(self, name: str) -> Version:
        """Lowest held-out loss among those scored on the text and base that ``latest`` was scored on.

        Raises:
            Damaged: the newest version can't be read, so there is nothing to measure by.
        """
        latest = self._latest(Ref(name))
        best = self.shelf(name).best
        return best if best is not None else latest

    def aliases(self, name: str) -> dict[str, int]:
        """The user's own aliases of a name and the numbers they mean, without damaged ones."""
        return {alias: target.version for alias, target in aliases.read_all(self.path, name)[0].items()}

    def log(self, name: str | None = None) -> list[Entry]:
        """What happened to a name, or to all, the oldest first."""
        found = [e for each in ([name] if name else self.names()) for e in journal.entries(self.path, each)]
        return sorted(found, key=lambda e: e.at)

    # --- how refs are resolved ---

    def _latest(self, wanted: Ref) -> Version:
        for slot in reversed(slots.slots(self.path / wanted.name)):
            v = self._read(wanted.name, slot)
            if not v.deleted:
                return v
        raise missing.name(self, wanted)

    def _numbered(self, wanted: Ref, number: int) -> Version:
        slot = next((s for s in slots.slots(self.path / wanted.name) if s.number == number), None)
        if slot is None:
            raise missing.version(self, wanted)
        v = self._read(wanted.name, slot)
        if v.deleted:
            raise missing.deleted(v)
        return v

    def _read(self, name: str, slot: Slot) -> Version:
        """A version anew from its folder.

        Raises:
            Damaged, Unsupported: it can't be read; a deleted one that can't is passed for deleted by gc alone.
        """
        v = version.read(slot.path)
        return shelf.noted(v, journal.notes(self.path, name).get(slot.number, ""))

    def _aliased(self, wanted: Ref, alias: str) -> Version:
        """The version an alias means, if it is the very one the alias was set for."""
        target = aliases.read(self.path, wanted.name, alias)
        try:
            v = self._numbered(Ref(wanted.name), target.version)
        except NotFound as e:
            raise missing.target(wanted, target.version, e) from None
        if v.digest != target.digest:
            raise Damaged(
                f"the alias {wanted} was set for another version than {v.ref} is now.",
                hint=f"rm {self.path / wanted.name / aliases.FOLDER / alias}",
            )
        return v

    def _digested(self, wanted: Ref, prefix: str) -> Version:
        if looks_like_digest(prefix):
            found = [v for v in self.shelf(wanted.name).every if v.digest.startswith(prefix)]
            if len(found) == 1:
                return self._numbered(wanted, found[0].number)
            if found:
                raise missing.several(wanted, found)
        raise missing.version(self, wanted)
