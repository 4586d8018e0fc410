"""Several at one registry at once: killed writers, stalled ones, clones that exchange packed files."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from adapterkit.errors import NameTaken, Unsupported
from adapterkit.registry import slots
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from tests.registry import writers
from tests.registry.operations import put
from tests.versions import publish

ALWAYS = ("gone", "doubled", "damaged", "left", "escaped")  # what must never be
NAMES_KEPT = ("elsewhere", "twins", "hidden while live", "aliases lost")  # nor, where names stay


def _never(found: dict[str, Any], which: tuple[str, ...] = ALWAYS + NAMES_KEPT) -> dict[str, list[str]]:
    return {k: found[k] for k in which if found[k]}


def test_killed_writers_beside_gc_lose_and_double_nothing() -> None:
    found = writers.run(3, 60, 6)
    assert _never(found) == {}
    assert (found["kills"], found["versions"] >= 60, found["published"] >= 50) == (6, True, True)


def test_writers_whose_names_are_renamed_lose_and_double_nothing() -> None:
    found = writers.run(3, 60, 4, 2)
    assert _never(found, ALWAYS) == {}
    assert found["renamed"] >= 1


@pytest.mark.slow
def test_many_renames_under_six_writers_lose_and_double_nothing() -> None:
    found = writers.run(6, 600, 20, 6)
    assert _never(found, ALWAYS) == {}


@pytest.mark.slow
def test_a_thousand_versions_of_eight_writers_killed_fifty_times() -> None:
    found = writers.run(8, 1000, 50)
    assert _never(found) == {}
    assert (found["kills"], found["versions"] >= 1000, found["collected"] >= 50) == (50, True, True)


def test_two_writers_keep_all_their_aliases() -> None:
    assert writers.run("aliases", 2, 200) == {"ends": [0, 0], "kept": 400}


# --- a writer that stalls between choosing its number and the commit -----------


class Stalled:
    """A thread that publishes seed 77 as ``noir`` and waits right before its commit.

    Attributes:
        version: what it was given, once it has gone on.
    """

    def __init__(self, root: Path, **more: Any) -> None:
        self.root, self.more = root, more
        self.version: Version | None = None
        self.error: BaseException | None = None
        self.is_waiting, self.may_go = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            self.version = put(Registry(self.root), "noir", 77, **self.more)
        except BaseException as e:
            self.error = e

    def go_on(self) -> Version:
        self.may_go.set()
        self.thread.join(20)
        assert self.error is None, self.error
        assert self.version is not None
        return self.version


@pytest.fixture
def stalled(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stalled]:
    """The writer, waiting; ``noir`` has two versions already."""
    put(registry, "noir", 1)
    put(registry, "noir", 2)
    writer = Stalled(registry.path)
    take = slots.Home.take

    def late(home: slots.Home, folder: Path, number: int) -> None:
        if threading.current_thread() is writer.thread and not writer.may_go.is_set():
            writer.is_waiting.set()
            assert writer.may_go.wait(20)
        take(home, folder, number)

    monkeypatch.setattr(slots.Home, "take", late)
    writer.thread.start()
    assert writer.is_waiting.wait(20)
    yield writer
    writer.may_go.set()
    writer.thread.join(20)


@contextmanager
def _nothing_changes_its_meaning(registry: Registry) -> Iterator[None]:
    """Every ref keeps its digest over the block, except that its name may be another one."""
    before = _digests(registry)
    yield
    after = _digests(registry)
    changed = {ref: (d, after[ref]) for ref, d in before.items() if ref in after and after[ref] != d}
    assert changed == {}
    assert set(before.values()) <= set(after.values())


def _digests(registry: Registry) -> dict[str, str]:
    return {v.ref: v.digest for v in Registry(registry.path).versions(deleted=True)}


def test_a_stalled_writer_does_not_get_a_number_that_another_took(
    registry: Registry, stalled: Stalled
) -> None:
    other = put(registry, "noir", 3)
    with _nothing_changes_its_meaning(registry):
        late = stalled.go_on()
    assert (other.ref, late.ref) == ("noir@3", "noir@4")


def test_a_stalled_writer_does_not_get_a_number_whose_version_was_collected(
    registry: Registry, stalled: Stalled
) -> None:
    put(registry, "noir", 3)
    registry.delete("noir@3")
    registry.gc(now=True)
    with _nothing_changes_its_meaning(registry):
        late = stalled.go_on()
    assert late.ref == "noir@4"
    assert Registry(registry.path)["noir@4"].digest == late.digest


def test_a_stalled_writer_with_the_same_content_is_given_the_version_that_is_there(
    registry: Registry, stalled: Stalled
) -> None:
    twin = put(registry, "noir", 77)
    assert stalled.go_on() == twin
    assert [v.number for v in Registry(registry.path).versions("noir")] == [1, 2, 3]


def test_gc_leaves_a_stalled_writer_its_work(registry: Registry, stalled: Stalled) -> None:
    registry.gc(now=True)
    assert stalled.go_on().ref == "noir@3"


def test_a_stalled_writer_whose_name_is_renamed_tells_where_its_version_is(
    registry: Registry, stalled: Stalled
) -> None:
    registry.rename("noir", "rouge")
    late = stalled.go_on()
    assert Registry(registry.path)[late.ref].digest == late.digest
    assert late.ref == "rouge@3"


def test_a_stalled_writer_whose_name_is_renamed_and_used_anew_doubles_no_number(
    registry: Registry, stalled: Stalled
) -> None:
    registry.rename("noir", "rouge")
    anew = put(registry, "noir", 5)
    beside = put(registry, "rouge", 6)
    with _nothing_changes_its_meaning(registry):
        late = stalled.go_on()
    assert Registry(registry.path)[late.ref].digest == late.digest
    assert anew.number >= 3
    assert late.digest not in (anew.digest, beside.digest)


def test_a_stalled_writer_whose_name_is_renamed_there_and_back_doubles_no_number(
    registry: Registry, stalled: Stalled
) -> None:
    registry.rename("noir", "rouge")
    put(registry, "rouge", 6)
    registry.rename("rouge", "noir")
    with _nothing_changes_its_meaning(registry):
        late = stalled.go_on()
    assert late.ref == "noir@4"


def test_a_stalled_writer_whose_name_is_removed_publishes_anew(registry: Registry, stalled: Stalled) -> None:
    shutil.rmtree(registry.path / "noir")
    late = stalled.go_on()
    assert Registry(registry.path)[late.ref].digest == late.digest


# --- clones --------------------------------------------------------------------


class Clones:
    """Two registries that publish under one name and give each other packed files at random."""

    def __init__(self, folder: Path) -> None:
        self.both = [Registry(folder / "left"), Registry(folder / "right")]
        self.draw, self.away, self.seed = random.Random(1), folder / "away", 0
        self.known: dict[tuple[int, str], str] = {}
        self.exchanged = self.refused = 0

    def step(self) -> None:
        here = self.draw.randrange(2)
        there = [v.ref for v in self.both[here].versions("noir")]
        what = self.draw.choice(
            ("publish", "give", "give", "give", "delete", "gc") if there else ("publish",)
        )
        if what == "publish":
            self.seed += 1
            publish(self.both[here], "noir", seed=self.seed)
        elif what == "give":
            self._give(here, self.draw.choice(there))
        elif what == "delete" and len(there) > 2:
            with suppress(Unsupported):
                self.both[here].delete(self.draw.choice(there))
        elif what == "gc":
            self.both[here].gc(now=self.draw.random() < 0.3)

    def _give(self, here: int, ref: str) -> None:
        packed = self.both[here].pack(ref, to=self.away / str(here))
        given = self.both[here][ref]
        name = self.draw.choice((None, None, "theirs"))
        try:
            taken = self.both[1 - here].add(packed, name=name)
            self.exchanged += 1
            assert taken.facts.content == given.facts.content
            assert name or taken.digest == given.digest
        except NameTaken:
            self.refused += 1

    def changed(self) -> list[str]:
        """Refs that mean something else than they ever did, or nothing any more."""
        wrong = []
        for i, registry in enumerate(self.both):
            now = _digests(registry)
            wrong += [r for (side, r), d in self.known.items() if side == i and now.get(r) != d]
            self.known |= {(i, ref): digest for ref, digest in now.items()}
        return wrong


def test_no_number_means_two_things_in_clones_that_exchange_packed_files(tmp_path: Path) -> None:
    clones = Clones(tmp_path)
    wrong = []
    for _ in range(200):
        clones.step()
        wrong += clones.changed()
    assert wrong == []
    assert [str(p) for r in clones.both for p in r.problems()] == []
    assert min(clones.exchanged, clones.refused) >= 20
