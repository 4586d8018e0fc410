"""What callers of many threads hold while they ask: nothing is loaded twice, and nothing leaves too soon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary


class Holding:
    """``with holding:`` keeps loaded what this thread looks up inside it, until it leaves.

    By then the requests that were enqueued keep what they need. Other threads
    go on meanwhile: this is no lock.
    """

    def __init__(self) -> None:
        self._mine = threading.local()

    def __enter__(self) -> None:
        self._mine.depth = getattr(self._mine, "depth", 0) + 1
        if self._mine.depth == 1:
            self._mine.kept = []

    def __exit__(self, *_: object) -> None:
        self._mine.depth -= 1
        if self._mine.depth == 0:
            kept, self._mine.kept = self._mine.kept, []
            for release in kept:
                release()

    def until_left(self, release: Callable[[], None]) -> None:
        """Call when this thread leaves."""
        self._mine.kept.append(release)


class OneEach:
    """``with one_each(key):`` is entered by one thread at a time for a key."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[object, _Named] = WeakValueDictionary()

    @contextmanager
    def __call__(self, key: object) -> Iterator[None]:
        with self._guard:
            own = self._locks.setdefault(key, _Named())
        with own.lock:
            yield


class _Named:
    """A lock that can be forgotten."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
