"""The route of a batch: which pages its rows go through, and with which weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

RANKS = 8  # in a page
Where = tuple[int, str]  # layer, target
# (page ids (b, w), layer, target) -> their A (b, w * RANKS, in) and B (b, w * RANKS, out)
Gather = Callable[[Tensor, int, str], tuple[Tensor, Tensor]]


@dataclass
class Route:
    """Pages and coefficients of each row of a batch, gathered once for all its steps.

    Where every row has the same, there is one entry for all, and one product.
    """

    ids: Tensor  # (b, w) or (1, w): page of each place; 0 where a row has fewer
    coefficients: Tensor  # (b, w * RANKS) or (1, w * RANKS)
    gather: Gather | None
    targets: frozenset[str]
    _gathered: dict[Where, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def add(self, y: Tensor, x: Tensor, layer: int, target: str) -> Tensor:
        """y plus each row's own update of x; a batch of base rows does nothing.

        Args:
            y: (b, t, out) or (b * t, out); may be changed.
            x: (b, t, in) or (b * t, in).
        """
        if target not in self.targets or self.gather is None:
            return y
        if (layer, target) not in self._gathered:
            self._gathered[layer, target] = self._updates(layer, target)
        a, b = self._gathered[layer, target]
        if len(self.ids) == 1:
            flat = y.view(-1, y.shape[-1])
            return flat.addmm_(x.reshape(-1, x.shape[-1]) @ a[0], b[0]).view_as(y)
        rows = y.view(len(self.ids), -1, y.shape[-1])
        hidden = torch.bmm(x.reshape(len(self.ids), -1, x.shape[-1]), a)
        return rows.baddbmm_(hidden, b).view_as(y)

    # --- rows that come and go, see ``routes`` ---

    def gather_all(self, layers: int) -> None:
        """Copy what all rows need."""
        for layer in range(layers):
            for target in self.targets:
                self._gathered[layer, target] = self._updates(layer, target)

    def fits(self, whole: Route) -> bool:
        """Whether these rows can be put into places of another route."""
        return self.ids.shape[1] <= whole.ids.shape[1] and self.targets <= whole.targets

    def fills(self, whole: Route) -> bool:
        """Whether the places of another route are not much too many, too wide, or for more targets."""
        is_wide = whole.ids.shape[1] >= 2 * self.ids.shape[1] > 0
        return not is_wide and whole.targets == self.targets and len(whole.ids) < 4 * len(self.ids)

    def put(self, first: int, rows: Route) -> None:
        """Write rows that fit into the places from ``first`` on."""
        n, ranks = len(rows.ids), rows.coefficients.shape[1]
        for (layer, target), (a, b) in self._gathered.items():
            a[first : first + n] = 0
            b[first : first + n] = 0
            if target in rows.targets:
                new_a, new_b = rows._updates(layer, target)
                a[first : first + n, :, :ranks] = new_a
                b[first : first + n, :ranks] = new_b

    def move(self, source: int, target: int) -> None:
        """Copy a row onto another."""
        for a, b in self._gathered.values():
            a[target] = a[source]
            b[target] = b[source]

    def first(self, n: int) -> Route:
        """The first rows, not copied."""
        gathered = {where: (a[:n], b[:n]) for where, (a, b) in self._gathered.items()}
        return Route(self.ids[:n], self.coefficients[:n], self.gather, self.targets, gathered)

    def _updates(self, layer: int, target: str) -> tuple[Tensor, Tensor]:
        """A^T (b, in, w * RANKS) and coefficients times B (b, w * RANKS, out)."""
        assert self.gather is not None
        a, b = self.gather(self.ids, layer, target)
        return a.transpose(1, 2), b.mul_(self.coefficients[..., None])
