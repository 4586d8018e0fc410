"""A folder that is whole or not there: filled beside its place, renamed when nothing is missing.

It is filled as ``.NAME.<hex>.<process>.<machine>``, so that what a process left
that was killed can be told, and is removed by the next one for the same place.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterkit.errors import Unsupported
from adapterkit.files import machine, shown, sync_folder, sync_tree, writing
from adapterkit.registry.runs import is_process


def checked(to: Path | str) -> Path:
    """The place itself, if a folder may be made there.

    Raises:
        Unsupported: it is a file, or a folder that is not empty (code ``target``).
    """
    target = Path(to).expanduser().resolve()
    if target.is_dir() and not any(target.iterdir()):
        return target
    if target.exists():
        raise _taken(target)
    return target


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place when the block ends well.

    Raises:
        Unsupported: something else is there by then.
        OutOfSpace: the disk is full.
    """
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}.{os.getpid()}.{machine()}"
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        aside.mkdir()
        try:
            yield aside
            sync_tree(aside, 0o644)
            _put(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # renamed away, or not good
        sync_folder(target.parent)


def _put(aside: Path, target: Path) -> None:
    if target.is_dir() and os.name == "nt":  # where no folder, even an empty one, is renamed over
        target.rmdir()
    try:
        aside.rename(target)
    except OSError as e:
        if target.exists():  # somebody filled it meanwhile
            raise _taken(target) from e
        raise


def _sweep(target: Path) -> None:
    """Remove what killed processes of this machine left of the same target."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.{machine()}"):
        pid = path.name.removesuffix(f".{machine()}").rpartition(".")[2]
        if pid.isdigit() and not is_process(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _taken(target: Path) -> Unsupported:
    what = "is there already and not empty" if target.is_dir() else "is a file"
    return Unsupported(
        f"{shown(target)} {what}; nothing is written over.",
        hint=f"choose a folder that is not there yet: --to {shown(target)}-2",
        code="target",
    )
