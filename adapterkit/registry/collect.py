"""``gc``: leftovers of crashes, and the files of versions that were deleted long enough ago.

What is to go is first claimed by one rename, which fails when somebody else
renamed it before: a torn write becomes ``.staging/.gone-...``, so its writer can
no longer commit it; a deleted version's marker becomes ``collected``, so it can
no longer be restored. Then it is removed, and a gc that is killed is finished
by the next. No correctness from locks.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from adapterkit import files
from adapterkit.registry import journal, runs
from adapterkit.registry.keeping import UNDO_DAYS, deleted_at
from adapterkit.registry.runs import Run
from adapterkit.registry.shelf import Shelf
from adapterkit.registry.version import COLLECTED, DELETED, MANIFEST, Version

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Leftover:
    """Something that gc removed, or would."""

    kind: Literal["staging", "version", "run"]
    what: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class GcReport:
    """What went and what was kept, each with its reason."""

    removed: tuple[Leftover, ...]
    kept: tuple[str, ...]
    is_dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(leftover.bytes for leftover in self.removed)


@dataclass(frozen=True)
class _Candidate:
    leftover: Leftover
    why_kept: str  # empty: it may go
    remove: Callable[[], bool]  # False: somebody else was faster

    def is_left(self) -> bool:
        """Whether a disk or its rights kept some of it."""
        here = self.leftover
        return bool(_beside_manifest(here.path)) if here.kind == "version" else here.path.exists()


def collect(root: Path, shelves: Sequence[Shelf], *, dry_run: bool, now: bool, runs_too: bool) -> GcReport:
    """Find what may go and, unless it is only asked, let it go."""
    removed, kept = [], []
    for found in [*_staging(root, now), *_versions(root, shelves, now), *_runs(root, runs_too)]:
        if found.why_kept:
            kept.append(f"{found.leftover.what}: {found.why_kept}")
        elif dry_run:
            removed.append(found.leftover)
        elif found.remove():
            left = found.is_left()
            removed += [] if left else [found.leftover]
            kept += (
                [f"{found.leftover.what}: could not be removed whole (adapterkit gc tries again)"]
                if left
                else []
            )
    if not dry_run:
        for shelf in shelves:
            with suppress(OSError):  # a name that never came to have a version
                shelf.root.joinpath(shelf.name).rmdir()
    return GcReport(tuple(removed), tuple(kept), dry_run)


def leftovers(root: Path) -> list[Leftover]:
    """Torn writes that nobody goes on with."""
    return [c.leftover for c in _staging(root, False) if not c.why_kept]


# --- torn writes ---


def _staging(root: Path, now: bool) -> Iterator[_Candidate]:
    staging = root / files.STAGING
    for path in sorted(staging.iterdir()) if staging.is_dir() else []:
        size, touched = _measure(path)
        leftover = Leftover("staging", f"an unfinished write, {_ago(touched)}", path, size)
        yield _Candidate(
            leftover, _why_in_use(path.name, touched, now), partial(files.remove_tree, path, staging)
        )


def _why_in_use(name: str, touched: float, now: bool) -> str:
    """Empty for what no writer goes on with; where that can't be known, a day must have passed."""
    age = time.time() - touched
    _, _, writer = name.partition(".")
    pid, _, where = writer.partition(".")
    if name.startswith(files.GONE) or age > DAY:
        return ""
    if where != files.machine() or not pid.isdigit():
        return "perhaps still written, by another machine"
    if runs.is_process(int(pid)):
        return f"process {pid} is writing it"
    return "" if now or age > HOUR else "stopped within the hour (--now removes it)"


# --- deleted versions ---


def _versions(root: Path, shelves: Sequence[Shelf], now: bool) -> Iterator[_Candidate]:
    begun_from = {run.start for run in runs.unfinished(root) if run.start}
    for shelf in shelves:
        for v in shelf.every:
            if v.deleted and (size := _removable(v)):
                why = "" if v.is_collected else _why_kept(shelf, v, begun_from, now)
                left = Leftover("version", v.ref, v.path, size)
                yield _Candidate(left, why, partial(_remove_files, root, v))


def _why_kept(shelf: Shelf, v: Version, begun_from: set[str], now: bool) -> str:
    meaning = [a for a, target in shelf.aliases.items() if target.version == v.number]
    if meaning:
        return f"{v.name}@{meaning[0]} means it"
    if {v.ref, f"{v.name}@{v.digest[:8]}"} & begun_from:
        return "an unfinished run begins with it"
    left = deleted_at(v) + UNDO_DAYS * DAY - time.time()
    if left <= 0 or now:
        return ""
    days = max(1, round(left / DAY))
    return f"deleted {_ago(deleted_at(v))}, to be restored for {days} more day{'s' * (days != 1)} (--now removes it)"


def _remove_files(root: Path, v: Version) -> bool:
    """All but the manifest: the number stays taken and lineage readable."""
    if not v.is_collected:
        try:
            os.rename(v.path / DELETED, v.path / COLLECTED)
        except FileNotFoundError:
            return False  # restored meanwhile
        files.sync_folder(v.path)
        journal.record_done(root, v.name, "collected", v.number)
    for path in _beside_manifest(v.path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    return True


def _removable(v: Version) -> int:
    return sum(max(_measure(path)[0], 1) for path in _beside_manifest(v.path))


def _beside_manifest(folder: Path) -> list[Path]:
    try:
        return [p for p in sorted(folder.iterdir()) if p.name not in (MANIFEST, COLLECTED, DELETED)]
    except FileNotFoundError:
        return []


# --- unfinished runs ---


def _runs(root: Path, wanted: bool) -> Iterator[_Candidate]:
    known = runs.unfinished(root)
    for run in known if wanted else []:
        told = f"the run {run.id}, {100 * run.share:.0f} %"
        leftover = Leftover("run", told, run.path, _measure(run.path)[0])
        yield _Candidate(leftover, _why_running(run), partial(_drop, run))
    folder = root / runs.FOLDER
    strange = (
        {p for p in folder.iterdir() if p.is_dir()} - {r.path for r in known} if folder.is_dir() else set()
    )
    for path in sorted(strange):
        size, touched = _measure(path)
        why = "" if time.time() - touched > DAY else "no run that can go on, but written to within a day"
        leftover = Leftover("run", f"the remains of a run, {path.name}", path, size)
        yield _Candidate(leftover, why, partial(files.remove_tree, path, root / files.STAGING))


def _why_running(run: Run) -> str:
    if run.is_alive:
        return "in training now"
    since = (datetime.now(UTC) - datetime.fromisoformat(run.saved)).total_seconds()
    if runs.is_process(run.pid) and since < DAY:  # where locks do nothing, a process is the best sign
        return f"process {run.pid} may be training it"
    return ""


def _drop(run: Run) -> bool:
    run.drop()
    return True


# --- sizes and times ---


def _measure(path: Path) -> tuple[int, float]:
    """Bytes below a path, and when anything of it was last written, seconds since 1970.

    What goes away meanwhile is passed over: a writer may commit, or remove, what is measured.
    """
    size, touched = 0, 0.0
    below = [Path(folder) / name for folder, folders, names in os.walk(path) for name in (*folders, *names)]
    for each in [path, *below]:
        with suppress(OSError):
            info = each.lstat()
            size += 0 if stat.S_ISDIR(info.st_mode) else info.st_size
            touched = max(touched, info.st_mtime)
    return size, touched


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("day", DAY), ("hour", HOUR), ("minute", 60.0)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"
