"""Operations interrupted at every call that changes the disk, and what must hold afterwards.

``python -m tests.registry.crash HARNESS ANSWERS [OPERATIONS [USER]]`` (several
with commas) imports the registry once, forks a child for each n, lets the n-th
call kill the child or fail, looks at what is left, and prints a JSON line for
each sweep: how many points there were, and what was wrong at them. HARNESS is
``python`` (calls of this interpreter, see ``faults``) or ``strace`` (system
calls, see ``traced``). With USER (a number) all of it happens as that user.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import adapterkit.sharing.incoming
import adapterkit.sharing.packed  # noqa: F401  opened by name, when another user may not read them any more
from adapterkit.errors import AdapterKitError
from adapterkit.registry.store import Registry
from tests.registry import faults, traced
from tests.registry.faults import DONE
from tests.registry.operations import NOTHING, OPERATIONS, Operation, Picture, picture, prepare

REPOSITORY = Path(__file__).parents[2]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # thousands of small files
HARNESSES = {"python": faults, "strace": traced}


def run(harness: str, answers: str, operations: str = "", user: str = "") -> list[dict[str, Any]]:
    """The sweeps of a process of its own."""
    command = [sys.executable, "-m", "tests.registry.crash", harness, answers, operations, user]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(harness: str, answers: str, operations: str = "", user: str = "") -> None:
    logging.getLogger("adapterkit").addHandler(logging.NullHandler())
    if user:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    if harness == "python":
        os.fsync = lambda fd: None
    with tempfile.TemporaryDirectory(dir=MEMORY if harness == "python" else None) as made:
        os.environ.update(ADAPTERKIT_CACHE=f"{made}/cache", HOME=made)
        prepare(Path(made))
        for name in operations.split(",") if operations else OPERATIONS:
            for answer in answers.split(","):
                found = sweep(harness, name, answer, Path(made))
                print(json.dumps({"operation": name, "answer": answer, **found}), flush=True)  # noqa: T201


def sweep(harness: str, name: str, answer: str, folder: Path) -> dict[str, Any]:
    """Every point of an operation: how many there were, and what was wrong."""
    operation = OPERATIONS[name]
    before = NOTHING if operation.is_first else picture(folder / "adapters")
    calls = HARNESSES[harness].calls(partial(_do, operation, _copy(operation, folder)))
    points = [c for c in calls if c.is_answered(answer)]
    wrong: list[str] = []
    for call in points:
        root = _copy(operation, folder)
        told = HARNESSES[harness].attempt(partial(_do, operation, root), call, answer)
        try:
            _check_end(operation, told, root)
            check(operation, before, root)
        except Exception:
            wrong.append(f"{call} ({told[-400:]}): {traceback.format_exc()[-1500:]}")
    return {"points": len(points), "wrong": wrong}


def _copy(operation: Operation, folder: Path) -> Path:
    """A new copy of what was prepared, in the place of the last one; its registry."""
    trial = folder / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(folder / "away", trial / "away")
    if not operation.is_first:
        shutil.copytree(folder / "adapters", trial / "adapters")
    return trial / "adapters"


def _do(operation: Operation, root: Path) -> str:
    """In a child: how the operation ended."""
    try:
        operation.act(Registry(root))
    except AdapterKitError as e:
        return f"refused: {type(e).__name__} {e.message}"
    except BaseException:
        return f"escaped: {traceback.format_exc()}"
    return DONE


def _check_end(operation: Operation, told: str, root: Path) -> None:
    """It was killed, refused with an error of ours, or did what it says."""
    assert not told.startswith("escaped"), told
    if told == DONE:
        assert operation.shows(picture(root)), "said it was done, but it was not"


# --- what must hold afterwards ------------------------------------------------


def check(operation: Operation, before: Picture, root: Path) -> None:
    """Nothing is torn, nothing lost, the same kind of thing works, and gc leaves nothing."""
    registry = Registry(root)
    problems = [str(e) for e in registry.problems()] + [
        p.what for p in registry.verify() if (p.code, p.ref in operation.loses) != ("lost-alias", True)
    ]
    assert not problems, problems
    _check_kept(operation, before, picture(root))
    operation.again(Registry(root))
    registry = Registry(root)
    registry.gc(now=True, runs=True)
    assert not registry.problems()
    strange = [p.name for p in root.iterdir() if p.name[0] == "." and p.name not in (".staging", ".runs")]
    strange += [str(p.relative_to(root)) for p in root.glob(".staging/*")]
    strange += [str(p.relative_to(root)) for p in root.glob("*/.*")]
    assert not strange, f"left over: {strange}"


def _check_kept(operation: Operation, before: Picture, after: Picture) -> None:
    """Every number means what it meant, and only what was asked for is gone."""

    def called(ref: str) -> str:
        is_moved = ref.startswith("noir@") and not any(r.startswith("noir@") for r in after.digests)
        return ref.replace("noir@", f"{operation.renamed}@") if is_moved else ref

    for ref, digest in before.digests.items():
        assert after.digests.get(called(ref)) == digest, f"{ref} is {after.digests.get(called(ref))}"
    gone = {called(r) for r in (*before.living, *before.aliases)} - after.living - set(after.aliases)
    assert gone <= set(operation.loses), f"gone: {gone}"
    kept = {called(r): text for r, text in before.notes.items()}
    assert kept.items() <= after.notes.items(), "notes were lost"
    assert len(after.digests) <= len(before.digests) + 1
    assert after.lines[: len(before.lines)] == before.lines, "the log lost lines"


if __name__ == "__main__":
    main(*sys.argv[1:])
