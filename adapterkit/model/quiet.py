"""Third-party messages on the happy path that no option turns off, silenced by exact text.

Each entry names the library and version it was seen in and why it is noise
here. A test fails when an entry no longer occurs, so the list can't rot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Its own bars off (we show ours); they come back afterwards."""
    from transformers.utils import logging as hf

    was_on = hf.is_progress_bar_enabled()
    hf.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            hf.enable_progress_bar()


def level_of(name: str) -> int:
    return logging.getLogger(name).level
