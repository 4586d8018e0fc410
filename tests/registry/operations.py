"""Operations of a registry that crash tests interrupt, and the registry they work on."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adapterkit.errors import NotFound
from adapterkit.files import machine
from adapterkit.registry import place, runs
from adapterkit.registry.store import Registry
from adapterkit.registry.version import DELETED, Version
from tests.registry.test_runs import begin
from tests.versions import FINGERPRINTS, _metrics, manifest_of, publish

NOBODY = 99_999_999  # a process that is none


@dataclass(frozen=True)
class Operation:
    """Something that is interrupted.

    Attributes:
        act: what is done; what it returns does not matter.
        again: the same kind of thing, which has to work afterwards.
        shows: whether it is seen to be done.
        loses: aliases and living versions that may be gone afterwards.
        renamed: the name that ``noir`` may have afterwards.
    """

    act: Callable[[Registry], object]
    again: Callable[[Registry], object]
    shows: Callable[[Picture], bool] = lambda p: True  # what is seen when it says that it is done
    loses: tuple[str, ...] = ()
    renamed: str = "noir"
    is_first: bool = False  # in a folder that is not there yet


def put(registry: Registry, name: str, seed: int, note: str = "", fresh: bool = False) -> Version:
    """Publish the smallest thing that is a version; another seed is another content."""
    with registry.staging() as folder:
        (folder / "adapter_model.safetensors").write_bytes(b"weights %d" % seed)
        (folder / "private").mkdir()
        (folder / "private" / "samples.json").write_text("[]")
        return registry.publish(folder, copy.deepcopy(_manifest(name)), note=note, fresh=fresh)


@cache
def _manifest(name: str) -> dict[str, Any]:
    return manifest_of(name, "lora", "tiny", FINGERPRINTS, _metrics(3.0, 3.5, "44" * 32))


def _unless_missing(act: Callable[[Registry], object]) -> Callable[[Registry], object]:
    """An operation that may have been done already."""

    def call(registry: Registry) -> None:
        with suppress(NotFound):
            act(registry)

    return call


def _unalias(registry: Registry) -> None:
    registry.unalias("noir", "prod")


def _unalias_on(registry: Registry) -> None:
    _unless_missing(_unalias)(registry)
    registry.unalias("noir", "draft")


def _rename_on(registry: Registry) -> None:
    registry.rename("rouge" if "rouge" in registry.names() else "noir", "blanc")
    put(registry, "blanc", 90)
    put(registry, "noir", 91)


def _delete_on(ref: str, other: str) -> Callable[[Registry], object]:
    def call(registry: Registry) -> None:
        _unless_missing(lambda r: r.delete(ref, force=True))(registry)
        assert ref not in registry
        registry.restore(ref)
        registry.delete(other)

    return call


def _restore_on(registry: Registry) -> None:
    _unless_missing(lambda r: r.restore("noir@4"))(registry)
    registry.delete("noir@4")
    registry.restore("noir")


def _import(registry: Registry) -> Version:
    return registry.add(registry.path.parent / "away" / "tales-1.adapter.safetensors")


def _gc_on(registry: Registry) -> None:
    registry.gc(now=True, runs=True)
    assert not list(registry.path.glob(".runs/*"))
    assert [v.ref for v in registry.versions(deleted=True) if v.is_collected] == ["noir@4", "noir@5"]


OPERATIONS = {
    "publish": Operation(
        lambda r: put(r, "noir", 9, "a note"),
        lambda r: (put(r, "noir", 9), put(r, "noir", 10)),
        lambda p: "noir@6" in p.living,
    ),
    "publish-first": Operation(
        lambda r: put(r, "noir", 9),
        lambda r: put(r, "noir", 10),
        lambda p: "noir@1" in p.living,
        is_first=True,
    ),
    "publish-whole": Operation(
        lambda r: publish(r, "tales", seed=9),
        lambda r: publish(r, "tales", seed=10),
        lambda p: "tales@1" in p.living,
    ),
    "import": Operation(_import, _import, lambda p: "tales@1" in p.living),
    "alias": Operation(
        lambda r: r.alias("shanty", "new"),
        lambda r: r.alias("shanty", "new"),
        lambda p: p.aliases.get("shanty@new") == 1,
    ),
    "alias-moved": Operation(
        lambda r: r.alias("noir@3", "prod"),
        lambda r: r.alias("noir@1", "prod"),
        lambda p: p.aliases.get("noir@prod") == 3,
    ),
    "unalias": Operation(
        _unalias,
        _unalias_on,
        lambda p: "noir@prod" not in p.aliases,
        loses=("noir@prod",),
    ),
    "note": Operation(
        lambda r: r.note("noir@3", "good"),
        lambda r: r.note("noir@3", "better"),
        lambda p: p.notes.get("noir@3") == "good",
    ),
    "rename": Operation(
        lambda r: r.rename("noir", "rouge"), _rename_on, lambda p: "rouge@3" in p.living, renamed="rouge"
    ),
    "delete": Operation(
        lambda r: r.delete("noir@3"),
        _delete_on("noir@3", "shanty@1"),
        lambda p: "noir@3" not in p.living,
        loses=("noir@3",),
    ),
    "delete-force": Operation(
        lambda r: r.delete("noir@2", force=True),
        _delete_on("noir@2", "shanty@1"),
        lambda p: "noir@2" not in p.living and "noir@prod" not in p.aliases,
        loses=("noir@2", "noir@prod"),
    ),
    "restore": Operation(lambda r: r.restore("noir@4"), _restore_on, lambda p: "noir@4" in p.living),
    "gc": Operation(lambda r: r.gc(runs=True), _gc_on),
}


def everything(registry: Registry, away: Path) -> list[str]:
    """Each kind of writing once, without a fault; the refs that are there at the end."""
    publish(registry, "noir", seed=1, note="first")
    publish(registry, "noir", seed=2)
    registry.alias("noir@1", "prod")
    registry.note("noir@2", "worse")
    registry.delete("noir@2")
    registry.restore("noir@2")
    registry.delete("noir@2")
    registry.gc(now=True)
    packed = registry.pack("noir@1", to=away)
    registry.rename("noir", "rouge")
    other = Registry(away / "other")
    assert other.add(packed).digest == registry["rouge@prod"].digest
    assert registry.verify() == other.verify() == []
    return [v.ref for r in (registry, other) for v in r.versions(deleted=True)]


# --- the registry that is worked on -------------------------------------------


def prepare(folder: Path) -> None:
    """A registry with living, deleted and long deleted versions, aliases, torn writes and a run."""
    root = folder / "adapters"
    place.create(root)
    registry = Registry(root)
    for seed in range(1, 6):
        put(registry, "noir", seed, note="first" if seed == 1 else "")
    put(registry, "shanty", 1)
    registry.alias("noir@2", "prod")
    registry.alias("noir@1", "draft")
    registry.delete("noir@4")
    registry.delete("noir@5")
    long_ago = time.time() - 8 * 86400
    os.utime(root / "noir" / "5" / DELETED, (long_ago, long_ago))
    for name in (f"ab12.{NOBODY}.{machine()}", ".gone-ab12"):
        left = root / ".staging" / name
        left.mkdir(parents=True)
        (left / "half").write_bytes(b"half")
        for path in (left / "half", left):
            os.utime(path, (long_ago, long_ago))
    run = begin(root, "noir")
    told = json.loads((run.path / runs.FILE).read_bytes())
    (run.path / runs.FILE).write_text(json.dumps(told | {"pid": NOBODY}))
    (run.path / "checkpoint").write_bytes(b"state")
    other = Registry(folder / "other")
    publish(other, "tales", seed=3)
    other.pack("tales@1", to=folder / "away")


@dataclass(frozen=True)
class Picture:
    """What a registry shows."""

    digests: dict[str, str]
    living: frozenset[str]
    aliases: dict[str, int]
    notes: dict[str, str]
    lines: tuple[str, ...]


NOTHING = Picture({}, frozenset(), {}, {}, ())


def picture(root: Path) -> Picture:
    registry = Registry(root)
    every = registry.versions(deleted=True)
    return Picture(
        {v.ref: v.digest for v in every},
        frozenset(v.ref for v in every if not v.deleted),
        {f"{n}@{alias}": number for n in registry.names() for alias, number in registry.aliases(n).items()},
        {v.ref: v.note for v in every if v.note},
        tuple(f"{e.what} {e.version}" for e in registry.log()),
    )
