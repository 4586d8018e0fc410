"""A lock that is handed on in the order it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class InTurn:
    """A lock that is fair: a plain one lets a busy thread take it again and again.

    Whoever has it may take it once more: one who is told of a text within a
    step may load an adapter.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._line: deque[threading.Lock] = deque()  # the first is of whoever has it
        self._holder: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        if self._holder != threading.get_ident():
            self._wait()
            self._holder = threading.get_ident()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder = None
            self._leave(self._line[0])

    def _wait(self) -> None:
        mine = threading.Lock()
        mine.acquire()
        with self._guard:
            self._line.append(mine)
            is_first = len(self._line) == 1
        if is_first:
            return
        try:
            mine.acquire()  # released by whoever was before
        except BaseException:  # an interrupt: a place that nobody takes would hold up all behind it for ever
            self._leave(mine)
            raise

    def _leave(self, mine: threading.Lock) -> None:
        with self._guard:
            had_it = self._line[0] is mine
            self._line.remove(mine)
            if had_it and self._line:
                self._line[0].release()
