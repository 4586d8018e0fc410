"""All versions of one name as they are now, read once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from adapterkit.errors import AdapterKitError, Damaged, Unsupported
from adapterkit.registry import aliases, evaluations, index, journal, slots, version
from adapterkit.registry.aliases import Target
from adapterkit.registry.index import Index
from adapterkit.registry.slots import Slot
from adapterkit.registry.version import DELETED, Version


@dataclass(frozen=True)
class Shelf:
    """A name, its versions by number (the deleted ones too), and by number what can't be read."""

    root: Path
    name: str
    every: tuple[Version, ...]
    damaged: dict[int, AdapterKitError]
    has_aliases: bool

    @cached_property
    def alive(self) -> list[Version]:
        return [v for v in self.every if not v.deleted]

    @cached_property
    def best(self) -> Version | None:
        """Lowest held-out loss among those measured as the latest was."""
        return evaluations.best_of(self.root, self.alive) if self.alive else None

    @cached_property
    def aliases(self) -> dict[str, Target]:
        return self._aliases[0]

    @cached_property
    def problems(self) -> list[AdapterKitError]:
        """What is wrong with versions and aliases that can't be read."""
        return [*self.damaged.values(), *self._aliases[1].values()]

    @cached_property
    def _aliases(self) -> tuple[dict[str, Target], dict[str, AdapterKitError]]:
        return aliases.read_all(self.root, self.name) if self.has_aliases else ({}, {})


def read(root: Path, name: str, kept: Index) -> Shelf:
    """The shelf of a name; without versions when it is not there."""
    found: list[Version] = []
    damaged: dict[int, AdapterKitError] = {}
    numbered, beside = slots.look(root / name)
    notes = journal.notes(root, name) if numbered and journal.FILE in beside else {}
    for slot in numbered:
        try:
            v = _read(name, slot, kept)
        except (Damaged, Unsupported) as e:  # unsupported: written by a newer AdapterKit
            if not (slot.path / DELETED).exists():
                damaged[slot.number] = e
            continue
        found.append(noted(v, notes.get(slot.number, "")))
    return Shelf(root, name, tuple(found), damaged, aliases.FOLDER in beside)


def noted(v: Version, note: str) -> Version:
    """The version with its note."""
    if not note:
        return v
    same = replace(v, note=note)
    same.__dict__.update({k: x for k, x in v.__dict__.items() if k == "manifest"})  # read already
    return same


def _read(name: str, slot: Slot, kept: Index) -> Version:
    known = kept.get(name, slot)
    if known is not None:
        return known
    stamp = index.stamp(slot.path)  # before reading: what changes meanwhile makes the entry void
    v = version.read(slot.path)
    if stamp is not None:
        kept.put(stamp, v)
    return v
