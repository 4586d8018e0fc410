"""Beginnings of texts that need not be read again: their keys and values, those used last.

A beginning is found again by what read it, the adapters each with its weight, and
by its tokens, never by a name: what another adapter made of the same words is
something else. An adapter that was unloaded and loaded again is a new one here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import Tensor

LEAST = 32  # tokens from which it pays
ROOM = 256 << 20  # bytes


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of the first tokens of a text.

    Attributes:
        kv: (layers, 2, h, n, d) of ``n = len(ids)`` tokens.
    """

    ids: tuple[int, ...]
    kv: Tensor
    asked: int  # how many of them were the prompt

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens both begin with."""
        pairs = zip(self.ids, ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class Prefixes:
    """The beginnings that are kept, within so many bytes.

    Args:
        room: bytes; 0 keeps none.
        least: tokens below which nothing is kept or taken.
    """

    def __init__(self, room: int = ROOM, *, least: int = LEAST) -> None:
        self._room, self._least = room, least
        self._kept: OrderedDict[Prefix, Hashable] = OrderedDict()  # the one used last is the last
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, reader: Hashable, ids: Sequence[int]) -> tuple[int, Prefix | None]:
        """The kept text that shares most with a prompt, and how many tokens; at least one is left to read."""
        alike = [p for p, whose in self._kept.items() if whose == reader]
        best = max(alike, key=lambda p: p.shared(ids), default=None)
        n = 0 if best is None else min(best.shared(ids), len(ids) - 1)
        if best is None or n < self._least:
            return 0, None
        self._kept.move_to_end(best)
        return n, best

    def keep(self, reader: Hashable, prefix: Prefix) -> None:
        """Keep one more; it takes the place of those of the same prompt, the least used ones go."""
        if prefix.kv.nbytes > self._room or len(prefix.ids) < self._least:
            return
        for old in [p for p, whose in self._kept.items() if whose == reader]:
            if old.shared(prefix.ids) >= old.asked:
                self._drop(old)
        self._kept[prefix] = reader
        self.bytes += prefix.kv.nbytes
        while self.bytes > self._room:
            self._drop(next(iter(self._kept)))

    def _drop(self, prefix: Prefix) -> None:
        del self._kept[prefix]
        self.bytes -= prefix.kv.nbytes
