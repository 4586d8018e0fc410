"""One version as JSON, and the words that mean it; each shelf is looked at once."""

from __future__ import annotations

from typing import Any

from adapterkit.registry.shelf import Shelf
from adapterkit.registry.version import Version


class Marks:
    """Which aliases mean which version of a name, and which is best."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._by_number: dict[int, list[str]] = {}
        for alias, target in shelf.aliases.items():
            self._by_number.setdefault(target.version, []).append(alias)

    def words(self, v: Version) -> str:
        """The column ALIASES: ``best prod``, ``best is @1``."""
        return " ".join([*self._best_mark(v), *self.aliases(v)])

    def aliases(self, v: Version) -> list[str]:
        return self._by_number.get(v.number, [])

    def is_best(self, v: Version) -> bool:
        best = self._shelf.best
        return best is not None and best.number == v.number

    def _best_mark(self, v: Version) -> list[str]:
        alive = self._shelf.alive
        if len(alive) < 2 or self._shelf.best is None:
            return []
        if self.is_best(v):
            return ["best"]
        return [f"best is @{self._shelf.best.number}"] if alive[-1].number == v.number else []


def record(v: Version, marks: Marks) -> dict[str, Any]:
    """The fields of ``list`` and the head of ``show``.

    ::

        ref name version digest kind base note created size path
        metrics   loss base_loss perplexity base_perplexity tokens held_out stops copied_words gain
        aliases   the user's own
        is_best   by the text that the newest was tested on
    """
    return {
        "ref": v.ref,
        "name": v.name,
        "version": v.number,
        "digest": v.digest,
        "kind": v.kind,
        "base": v.base,
        "note": v.note,
        "created": v.created.isoformat(),
        "size": v.size,
        "path": str(v.path),
        "metrics": vars(v.metrics) | {"gain": v.metrics.improvement},
        "aliases": marks.aliases(v),
        "is_best": marks.is_best(v),
    }
