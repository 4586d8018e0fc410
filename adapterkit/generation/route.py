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
        """y (b, t, out) plus each row's own update of x (b, t, in). A batch of base rows does nothing."""
        if target not in self.targets or self.gather is None:
            return y
        if (layer, target) not in self._gathered:
            self._gathered[layer, target] = self.gather(self.ids, layer, target)
        a, b = self._gathered[layer, target]  # (b, w * RANKS, in), (b, w * RANKS, out)
        if len(self.ids) == 1:
            hidden = (x.flatten(0, 1) @ a[0].T) * self.coefficients
            return torch.addmm(y.flatten(0, 1), hidden, b[0]).view_as(y)
        hidden = torch.bmm(x, a.transpose(1, 2)) * self.coefficients[:, None]
        return torch.baddbmm(y, hidden, b)
