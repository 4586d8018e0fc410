"""The folder for what can be made again: fingerprints, machine facts."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import platformdirs


@cache
def cache_folder() -> Path:
    """``ADAPTERKIT_CACHE``, else the platform's place, else (not writable) a temporary folder."""
    return _wanted() or Path(tempfile.mkdtemp(prefix="adapterkit-"))


def text_folder() -> Path | None:
    """Where prepared text is kept, see ``adapterkit.data.corpus``; None where it would be left behind."""
    folder = _wanted()
    return folder / "text" if folder else None


def _wanted() -> Path | None:
    wanted = Path(os.environ.get("ADAPTERKIT_CACHE") or platformdirs.user_cache_dir("adapterkit"))
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return wanted if os.access(wanted, os.W_OK) else None
