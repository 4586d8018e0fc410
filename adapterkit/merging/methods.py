"""Ways to combine whole updates that are not sums: ties, dare-ties, magnitude.

They choose single numbers of the update b @ a of each adapter. Done on a and b
by themselves, as PEFT does, they choose something else. The formulas are
mergekit's: ``ties`` is a mean, in which weights are shares; the others are sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from adapterkit.merging.deltas import Floats

EXACT = "exact"
SAME = {"linear": EXACT, "cat": EXACT}  # what others call it
DENSITY = 0.5
MAX_SEED = 1 << 53
NOTHING = 1e-8  # a sum of weights below it is none, as in mergekit


@dataclass(frozen=True)
class Chosen:
    """One adapter's update of a module, weighed, and what draws for it."""

    delta: Floats  # (o, i)
    weight: float
    draw: np.random.Generator


def ties(parts: Sequence[Chosen], density: float) -> Floats:
    """Trim, elect signs, disjoint mean (Yadav et al. 2023).

    A weight below zero turns its adapter round; its share is its size.
    """
    kept = np.stack([p.weight * trimmed(p.delta, density) for p in parts])
    agrees = elected(kept)
    shares = np.abs([p.weight for p in parts])[:, None, None] * agrees
    total = shares.sum(0)
    mean: Floats = (kept * agrees).sum(0) / np.where(total < NOTHING, 1, total)
    return mean


def dare_ties(parts: Sequence[Chosen], density: float) -> Floats:
    """Drop at random, rescale what stays (Yu et al. 2024), elect signs, add up."""
    kept = np.stack([p.weight * dropped(p.delta, density, p.draw) for p in parts])
    total: Floats = (kept * elected(kept)).sum(0)
    return total


def magnitude(parts: Sequence[Chosen], density: float) -> Floats:
    """Trim and add up."""
    total: Floats = np.sum([p.weight * trimmed(p.delta, density) for p in parts], axis=0)
    return total


METHODS: dict[str, Callable[[Sequence[Chosen], float], Floats]] = {
    "ties": ties,
    "dare-ties": dare_ties,
    "magnitude": magnitude,
}


def trimmed(delta: Floats, density: float) -> Floats:
    """The largest numbers by size, a share of ``density``; the others are zero."""
    keep = max(int(density * delta.size), 1)
    size = np.abs(delta)
    least = np.partition(size, size.size - keep, axis=None)[size.size - keep]
    return np.where(size >= least, delta, 0.0)


def dropped(delta: Floats, density: float, draw: np.random.Generator) -> Floats:
    """Each number kept with the chance ``density``, and made larger so that the expectation stays."""
    return np.where(draw.random(delta.shape) < density, delta / density, 0.0)


def elected(kept: Floats) -> NDArray[np.bool_]:
    """Which numbers (n, o, i) have the sign that their weighted sum has; a sum of zero counts as above it."""
    sign = np.where(kept.sum(0) >= 0, 1.0, -1.0)
    return np.asarray(np.sign(kept) == sign)


def generator(seed: int, digest: str, module: str) -> np.random.Generator:
    """What draws for one adapter in one module, whatever is blended beside it and in which order."""
    return np.random.default_rng([seed, int(digest[:16], 16), crc32(module.encode())])
