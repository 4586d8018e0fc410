"""Which tokens may be drawn, and the draw itself, on the few that are left of a row.

Weights stay in the order of the vocabulary. A draw against shares sorted by
size would change when two of them swap places by rounding; here rounding only
moves a boundary a little, so how far the uniform number was from the nearest
one tells how safe the outcome is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
CERTAIN = 1.0  # the margin where no other token could be drawn


@dataclass(frozen=True)
class Drawn:
    """A token, and how near another one was.

    Attributes:
        margin: the least change, in shares of the distribution, that gives
            another token: from the uniform number to the nearest boundary, or
            from a cut (top-k, top-p ...) to the token at its edge where that
            would move the boundary as far. At temperature 0 the difference of
            the two highest scores. CERTAIN where nothing else was left.
    """

    token: int
    margin: float


@dataclass(frozen=True)
class Edge:
    """How far a cut was from falling elsewhere, and the share of the token there."""

    distance: float
    share: float


@dataclass(frozen=True)
class Kept:
    """Tokens that may be drawn.

    Attributes:
        ids: (n,) ascending.
        weights: (n,) proportional to their shares.
        whole: what the weights of all tokens were before anything was cut by its share.
    """

    ids: NDArray[np.int64]
    weights: Weights
    whole: float
    edges: tuple[Edge, ...] = ()

    def only(self, stays: NDArray[np.bool_], edge: Edge) -> Kept:
        return Kept(self.ids[stays], self.weights[stays], self.whole, (*self.edges, edge))


def top_k(kept: Kept, k: int) -> Kept:
    """The k likeliest, and those as likely as the last of them (as in transformers)."""
    weights = kept.weights
    if k >= len(weights):
        return kept
    after, last = np.partition(weights, (-k - 1, -k))[[-k - 1, -k]]
    stays = weights >= last
    left = Kept(kept.ids[stays], weights[stays], float(weights[stays].sum(dtype=np.float64)))
    return replace(left, edges=(Edge(float(last - after) / left.whole, float(last) / left.whole),))


def top_p(kept: Kept, mass: float) -> Kept:
    """The likeliest tokens that together reach ``mass``; of equal ones at the edge the later ids.

    Source: Holtzman et al. 2020; ties as in transformers' TopPLogitsWarper.
    """
    weights = kept.weights
    falling = np.sort(weights)[::-1]  # values alone: many times faster than sorting ids with them
    upto = np.cumsum(falling, dtype=np.float64) / kept.whole
    before = np.concatenate(([0.0], upto[:-1]))
    count = max(int(np.searchsorted(before, mass)), 1)  # those with less than the mass before them
    last = falling[count - 1]
    stays = weights > last
    equal = np.flatnonzero(weights == last)
    stays[equal[len(equal) - (count - int(stays.sum())) :]] = True
    near = min(mass - before[count - 1], abs(upto[count - 1] - mass))
    return kept.only(stays, Edge(float(near), float(last) / kept.whole))


def min_p(kept: Kept, share: float) -> Kept:
    """Tokens at least ``share`` as likely as the likeliest. Source: Nguyen et al. 2024."""
    weights = kept.weights
    limit = np.float32(share) * weights.max()
    near = np.abs(weights - limit).min()
    return kept.only(
        (weights >= limit) | (weights == weights.max()),
        Edge(float(near) / kept.whole, float(limit) / kept.whole),
    )


def typical_p(kept: Kept, mass: float) -> Kept:
    """Tokens whose surprise is nearest the expected one, until they reach ``mass``.

    Source: Meister et al. 2022; as transformers' TypicalLogitsWarper.
    """
    shares = kept.weights.astype(np.float64) / kept.weights.sum(dtype=np.float64)
    surprise = -np.log(np.maximum(shares, np.finfo(np.float64).tiny))
    strange = np.abs(surprise - (shares * surprise).sum())
    order = np.argsort(strange)
    upto = np.cumsum(shares[order])
    at = min(int((upto < mass).sum()), len(order) - 1)
    before = upto[at - 1] if at else 0.0
    near = min(abs(upto[at] - mass), abs(mass - before))
    stays = strange <= strange[order[at]]
    return kept.only(stays, Edge(float(near), float(shares[order[at]])))


def pick(kept: Kept, uniform: float) -> Drawn:
    """The token at a uniform number in [0, 1)."""
    upto = np.cumsum(kept.weights, dtype=np.float64)
    total = upto[-1]
    value = uniform * total  # below the total, also when rounded
    at = int(np.searchsorted(upto, value, side="right"))
    below = value - upto[at - 1] if at and upto[at - 1] > 0 else total
    above = upto[at] - value if upto[at] < total else total
    margin = float(min(below, above) / total)
    share = float(kept.weights[at] / kept.whole)
    for edge in kept.edges:
        margin = min(margin, _with(edge, margin, share))
    return Drawn(int(kept.ids[at]), margin)


def _with(edge: Edge, margin: float, share: float) -> float:
    """A margin, where the token at the edge of a cut may be in or out.

    Its coming or going moves boundaries by about its share: that matters only
    to a uniform number as near as that, or when it is the very token drawn.
    """
    unsafe = min(margin, edge.distance)
    is_edge = share <= edge.share * 1.001
    return unsafe if is_edge else max(unsafe, margin - 2 * edge.share)
