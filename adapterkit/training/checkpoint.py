"""Checkpoints of a run: whole or not there, the newest two kept.

::

    checkpoint-<step>/     committed by one rename, never written in place
        manifest.json      size and sha256 of every other file, and of itself; written last
        ...                what the trainer put there
    .saving-<step>/        being filled; whatever a killed run left of it is removed

A checkpoint that was torn or changed is passed over, and the one before it is
taken. Only files here; what they mean is the trainer's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from adapterkit import files
from adapterkit.errors import OutOfSpace

MANIFEST = "manifest.json"
KEPT = 2
NAME = re.compile(r"checkpoint-(\d{1,9})")


def begin(root: Path, step: int) -> Path:
    """An empty folder to fill."""
    aside = root / f".saving-{step}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def give_up(root: Path, step: int) -> None:
    """Remove what was filled and can't be committed."""
    shutil.rmtree(root / f".saving-{step}", ignore_errors=True)


def commit(aside: Path) -> Path:
    """Seal a filled folder, put it in its place by one rename, and drop those that are too old."""
    root, step = aside.parent, int(aside.name.rpartition("-")[2])
    told = {p.name: {"size": p.stat().st_size, "sha256": files.sha256_file(p)} for p in aside.iterdir()}
    body = {"step": step, "files": told}
    sealed = body | {"sha256": files.sha256_bytes(files.canonical_json(body))}
    files.sync_tree(aside, file_mode=0o644)
    files.write_whole(aside / MANIFEST, files.canonical_json(sealed))
    final = root / f"checkpoint-{step}"
    shutil.rmtree(final, ignore_errors=True)  # one that was torn, which a resumed run has come to again
    os.rename(aside, final)
    files.sync_folder(root)
    for old in steps(root)[KEPT:]:
        shutil.rmtree(root / f"checkpoint-{old}", ignore_errors=True)
    return final


def steps(root: Path) -> list[int]:
    """Steps of the checkpoints that are there, whole or not, newest first."""
    names = [NAME.fullmatch(p.name) for p in root.iterdir()] if root.is_dir() else []
    return sorted((int(n[1]) for n in names if n), reverse=True)


def step_of(folder: Path) -> int:
    """The step that a checkpoint was written at."""
    return int(folder.name.rpartition("-")[2])


def newest(root: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint; tells of those that are passed over."""
    for step in steps(root):
        folder = root / f"checkpoint-{step}"
        if is_whole(folder):
            return folder
        say(f"The checkpoint of step {step:,} is damaged, the one before is taken.")
    return None


def drop_after(root: Path, step: int) -> None:
    """Remove what a run that goes on from a step will write again."""
    for later in steps(root):
        if later > step:
            shutil.rmtree(root / f"checkpoint-{later}", ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Every file is there, has its size and its sha256, and no other is."""
    try:
        told = json.loads((folder / MANIFEST).read_bytes())
        seal = told.pop("sha256")
        if (
            seal != files.sha256_bytes(files.canonical_json(told))
            or folder.name != f"checkpoint-{told['step']}"
        ):
            return False
        if {p.name for p in folder.iterdir()} != {*told["files"], MANIFEST}:
            return False
        return all(
            (folder / name).stat().st_size == f["size"] and files.sha256_file(folder / name) == f["sha256"]
            for name, f in told["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def no_room(root: Path, name: str, needed: int) -> OutOfSpace:
    """The error of a disk that is full."""
    free = shutil.disk_usage(root).free
    return OutOfSpace(
        f"no space left on the disk of {files.shown(root)} while saving a checkpoint of {name!r} "
        f"({files.human_size(needed)} needed, {files.human_size(free)} free). "
        "All adapters and the checkpoint before it are whole.",
        hint="free some space, then: adapterkit train --resume",
    )
