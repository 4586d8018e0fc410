"""Unfinished training runs, in ``<registry>/.runs/<name>-<6 hex of made_from>/``.

``run.json`` says what is trained and how far it is, and is replaced whole; the
checkpoints beside it are the trainer's. All of it is private to this machine,
so it may name places. Never imports torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.errors import NotFound, Overloaded, nearest

FOLDER, FILE, LOCK = ".runs", "run.json", "lock"
SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """A run that was begun and has not ended with a version."""

    name: str  # of the adapter
    made_from: str  # of resolved recipe, text and base
    text: str  # fingerprint of what is learned from and tested on
    given: Mapping[str, Any]  # the recipe as it was asked for
    recipe: Mapping[str, Any]  # with every auto resolved; read back, never resolved again
    origins: Mapping[str, str]
    folder: str | None  # where relative sources are looked up; None for text from memory or stdin
    source: str  # as a person knows it
    note: str
    is_fresh: bool  # a new version also when the same is there
    after: int  # number of the newest version of the name when it was begun
    begun: str  # ISO time, UTC
    saved: str  # ISO time, UTC
    start: str = ""  # ref of the version whose weights it begins with
    is_forced: bool = False  # which were made on another base
    step: int = 0
    steps: int = 0  # at most
    pid: int = 0
    path: Path = field(default=Path(), compare=False)

    @property
    def id(self) -> str:
        """What ``--resume`` and ``--finish`` take, beside the name."""
        return f"{self.name}-{self.made_from[:6]}"

    @property
    def begun_here(self) -> str:
        """When it was begun by this machine's clock: ``14:02``, with the day when it was another one."""
        moment = datetime.fromisoformat(self.begun).astimezone()
        return f"{moment:%H:%M}" if moment.date() == datetime.now().date() else f"{moment:%d %b, %H:%M}"

    @property
    def share(self) -> float:
        """Of the steps, those that are done; patience may end it sooner."""
        return self.step / self.steps if self.steps else 0.0

    @property
    def is_alive(self) -> bool:
        """A process is training it now."""
        with _locked(self.path, create=False) as is_ours:
            return not is_ours

    def write(self, **changes: Any) -> Run:
        """Store it with some changes and the time."""
        changed = replace(self, **changes, saved=now(), pid=os.getpid())
        changed.path.mkdir(parents=True, exist_ok=True)
        told = {k: v for k, v in asdict(changed).items() if k != "path"}
        files.write_whole(changed.path / FILE, files.canonical_json({"schema": SCHEMA, **told}))
        return changed

    def drop(self) -> None:
        """Remove it with its checkpoints; claimed by a rename first, so that no half of a run is taken for one."""
        root = self.path.parent.parent
        (root / files.STAGING).mkdir(exist_ok=True)
        files.remove_tree(self.path, root / files.STAGING)
        with suppress(OSError):
            self.path.parent.rmdir()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training it until the end of the block.

        Raises:
            Overloaded: one does already.
        """
        with _locked(self.path) as is_ours:
            if not is_ours:
                other = _read(self.path) or self
                raise Overloaded(
                    f"{self.name!r} is being trained already, by process {other.pid}.",
                    hint="wait for it, or train beside it under another name: --name NAME",
                )
            yield


def place(root: Path, name: str, made_from: str) -> Path:
    return root / FOLDER / f"{name}-{made_from[:6]}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def unfinished(root: Path, name: str | None = None) -> list[Run]:
    """Runs that can go on, the one saved last first; what can't be read is passed over."""
    folder = root / FOLDER
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [run for path in paths if (run := _read(path)) and name in (None, run.name)]
    return sorted(found, key=lambda run: run.saved, reverse=True)


def is_process(pid: int) -> bool:
    """Whether this machine runs a process of that number; a stranger's counts too."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return pid > 0


def find(root: Path, which: str | None) -> Run:
    """The run that a person means by its name or its folder's; without a word the newest.

    Raises:
        NotFound: there is none.
    """
    every = unfinished(root)
    wanted = [run for run in every if which in (None, run.id, run.name)]
    if wanted:
        return wanted[0]
    if not every:
        raise NotFound(
            f"no unfinished run in {files.shown(root)}.", hint="begin one: adapterkit train FOLDER-OR-FILE"
        )
    close = nearest(which or "", [run.name for run in every]) or every[0].name
    raise NotFound(
        f"no unfinished run {which!r}; there is {', '.join(dict.fromkeys(run.name for run in every))}.",
        hint=f"adapterkit train --resume {close}",
        details={"runs": [run.id for run in every]},
    )


def _read(path: Path) -> Run | None:
    try:
        told = json.loads((path / FILE).read_bytes())
        if told.pop("schema") != SCHEMA:
            return None
        run = Run(**told, path=path)
        return run if run.id == path.name else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@contextmanager
def _locked(folder: Path, *, create: bool = True) -> Iterator[bool]:
    """Whether the lock of a run is ours; the system gives it back however a process ends."""
    try:
        import fcntl
    except ImportError:  # no POSIX: nothing is kept apart, and nothing is lost but time
        yield True
        return
    try:
        file = os.open(folder / LOCK, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
    except OSError:  # never held, or a registry that may not be written
        yield True
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except BlockingIOError:
        is_ours = False
    except OSError:  # a file system without locks
        is_ours = True
    try:
        yield is_ours
    finally:
        os.close(file)
