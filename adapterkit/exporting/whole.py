"""A large file that is whole or not there, written by a library that wants a path."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapterkit.files import set_mode, sync_file, sync_folder, writing


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A file beside the target that takes its place when the block ends well."""
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        with writing(target):
            yield aside
            with aside.open("rb+") as file:
                sync_file(file.fileno())
            set_mode(aside, 0o644)
            aside.replace(target)
    finally:
        with suppress(OSError):  # renamed away
            aside.unlink()
    sync_folder(target.parent)
