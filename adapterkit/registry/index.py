"""What lists need of many versions, kept outside the registry, so that ten thousand are listed at once.

A cache in the user's cache folder and nothing more: an entry holds only while
inode and times of the version's folder are those it was made from (a marker
added or taken away changes them), and what is loaded is always read anew. Small
registries never have one.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.cache import cache_folder
from adapterkit.errors import AdapterKitError
from adapterkit.registry.slots import Slot
from adapterkit.registry.version import Facts, Metrics, Version, Yardstick

WORTH = 100  # versions that had to be read before it pays to keep them
SCHEMA = 1
Stamp = list[int]


class Index:
    """Facts of versions by name and number, as far as they were kept."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, dict[str, list[Any]]] | None = None
        self._new = 0

    def get(self, name: str, slot: Slot) -> Version | None:
        """A version whose folder is as it was."""
        if self._names is None:
            self._names = self._load()
        with suppress(
            OSError, ValueError, TypeError, IndexError, KeyError, AttributeError
        ):  # gone, or not of our writing
            entry = self._names[name][str(slot.number)]
            stamp: Stamp = entry[0]
            if stamp[0] == slot.inode and stamp == _stamp(f"{slot.home}{os.sep}{slot.number}"):
                return _version(name, slot, entry)
        return None

    def put(self, stamp: Stamp, v: Version) -> None:
        f = v.facts
        entry = [
            stamp,
            v.digest,
            f.created.isoformat(),
            f.kind,
            f.base,
            f.content,
            f.size,
            astuple(f.metrics),
        ]
        entry += [astuple(f.by) if f.by else None, f.made_from, v.deleted, v.is_collected]
        assert self._names is not None
        self._names.setdefault(v.name, {})[str(v.number)] = entry
        self._new += 1

    def keep(self) -> None:
        """Write it down, if that saves something next time."""
        if self._new < WORTH:
            return
        self._new = 0
        with suppress(OSError, AdapterKitError):
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            told = {"schema": SCHEMA, "root": str(self._root), "names": self._names}
            files.write_whole(path, json.dumps(told, separators=(",", ":")).encode())

    def _path(self) -> Path:
        return cache_folder() / "registries" / f"{files.sha256_bytes(str(self._root).encode())[:32]}.json"

    def _load(self) -> dict[str, dict[str, list[Any]]]:
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            told = json.loads(self._path().read_bytes())
            if told["schema"] == SCHEMA and told["root"] == str(self._root):
                return {name: entries for name, entries in told["names"].items() if isinstance(entries, dict)}
        return {}


def _version(name: str, slot: Slot, entry: list[Any]) -> Version:
    _, digest, created, kind, base, content, size, metrics, by, made_from, deleted, collected = entry
    facts = Facts(
        datetime.fromisoformat(created), kind, base, content, size, Metrics(*metrics),
        Yardstick(*by) if by else None, made_from,
    )  # fmt: skip
    return Version(name, slot.number, digest, slot.home, facts, "", deleted, collected)


def stamp(folder: Path) -> Stamp | None:
    """What changes when something is added to a folder or taken away; None when it is not there."""
    with suppress(OSError):
        return _stamp(folder)
    return None


def _stamp(folder: Path | str) -> Stamp:
    info = os.stat(folder)
    return [info.st_ino, info.st_mtime_ns, info.st_ctime_ns]
