"""One base, loaded once, on which any number of adapters are scored in turn."""

from __future__ import annotations

from typing import Any

from adapterkit.data.pack import Rows
from adapterkit.evaluation.chosen import Chosen
from adapterkit.evaluation.events import Listener, Scoring
from adapterkit.evaluation.score import Scorer
from adapterkit.model.base import Base
from adapterkit.registry.strict import read_version
from adapterkit.scoring.loss import Loss


class Bench:
    """Scores what was chosen; the base's own score of a text is taken once.

    Args:
        base: of all that is chosen.
        device: auto, cpu, cuda, cuda:N.
        batch_size: rows computed at once; None takes what suits the device.
        tell: told after each batch.
    """

    def __init__(self, base: Base, device: str, batch_size: int | None, tell: Listener) -> None:
        self._base, self._device, self._batch, self._tell = base, device, batch_size, tell
        self._scorer = Scorer(base, device)
        self._alone: list[tuple[Rows, Loss]] = []

    def alone(self, rows: Rows) -> Loss:
        """The base's own loss."""
        found = next((loss for seen, loss in self._alone if seen is rows), None)
        if found is None:
            found = self._scored(self._scorer, "base", rows)
            self._alone.append((rows, found))
        return found

    def loss(self, chosen: Chosen, rows: Rows) -> Loss:
        """The loss of an adapter; of the base when nothing was chosen.

        Raises:
            Damaged, Unsupported: its files are not what was published.
        """
        if not chosen.parts:
            return self.alone(rows)
        if chosen.version is not None and chosen.version.kind == "full":
            whole = Scorer.of_full(chosen.version, self._base, self._device)
            return self._scored(whole, chosen.text, rows)
        parts = [(read_version(v, self._base.dims), weight) for v, weight in chosen.parts]
        return self._scored(self._scorer, chosen.text, rows, parts)

    def _scored(self, scorer: Scorer, name: str, rows: Rows, parts: Any = ()) -> Loss:
        self._tell(Scoring(name, 0, len(rows)))
        return scorer.loss(
            rows,
            parts,
            batch_size=self._batch,
            progress=lambda done, of: self._tell(Scoring(name, done, of)),
        )
