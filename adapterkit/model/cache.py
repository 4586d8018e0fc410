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
    wanted = Path(os.environ.get("ADAPTERKIT_CACHE") or platformdirs.user_cache_dir("adapterkit"))
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK):
            return wanted
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="adapterkit-"))
