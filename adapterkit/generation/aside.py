"""Work in a thread that ends with it, so that its team of processor threads ends too.

Each thread that runs torch's products has a team of its own (OpenMP). Where all
teams together are larger than the processor, the runtime no longer lets their
threads wait awake between two products but puts them to sleep, and a step of one
row takes 1.3 times as long (measured, two cores). The engine's thread needs the
only team, so whatever else is multiplied, such as weights being packed, comes here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> T:
    """What ``work`` returns, run in a thread of its own; what it raises is raised."""
    made: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(work())
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=run, name="adapterkit-aside", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:  # an interrupt; a thread inside torch when the interpreter goes would abort it
        thread.join()
        raise
    if failed:
        raise failed[0]
    return made[0]
