"""Ctrl-C and SIGTERM while the steps go on: the step is finished, saved, and the run can go on later.

The second signal stops at once. Handlers are set in the main thread alone, as
Python allows no other, and put back at the end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from adapterkit.errors import Interrupted
from adapterkit.registry.runs import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def on_signal() -> Iterator[Stop]:
    """A ``Stop`` that listens until the end of the block."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted(run: Run) -> Interrupted:
    return Interrupted(
        f"stopped {run.name!r} at step {run.step:,} of {run.steps:,}; nothing is lost.",
        hint="adapterkit train --resume" if run.folder else "give the same text to the same command again",
        details={"run": run.id, "step": run.step, "steps": run.steps},
    )
