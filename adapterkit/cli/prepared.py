"""Prepared copies of texts in the cache folder (``adapterkit.data.corpus``): how many bytes, and away with them."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterkit.cache import text_folder

KEY = re.compile(r"[0-9a-f]{16,64}")
ABANDONED = 24 * 3600.0  # seconds without a write after which a copy that was not finished is nobody's


@dataclass(frozen=True)
class Copy:
    path: Path
    bytes: int


def copies() -> list[Copy]:
    """Finished copies and abandoned ones; what is being made now stays, and whatever else lies there."""
    folder = text_folder()
    if folder is None or not folder.is_dir():
        return []
    return [_measured(p) for p in sorted(folder.iterdir()) if _is_own(p)]


def remove(found: Sequence[Copy]) -> list[Copy]:
    """Away with them; what went. Who reads one at this moment has it open, and reads on."""
    for copy in found:
        shutil.rmtree(copy.path, ignore_errors=True)
    return [copy for copy in found if not copy.path.exists()]


def _measured(path: Path) -> Copy:
    return Copy(path, sum(f.lstat().st_size for f in path.iterdir() if f.is_file()))


def _is_own(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir() or not KEY.fullmatch(path.name.removeprefix(".")):
        return False
    if not path.name.startswith("."):
        return True
    touched = max((f.lstat().st_mtime for f in [path, *path.iterdir()]), default=0.0)
    return time.time() - touched > ABANDONED
