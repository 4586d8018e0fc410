"""The exact weighted sum of updates, and the best one of a smaller rank; both on thin factors alone.

A sum of products is the product of the factors side by side::

    w1 b1 a1 + w2 b2 a2  =  [w1 b1, w2 b2] [a1; a2]

so ranks, scales and signs may be mixed, and nothing is lost. Adding a's to a's
and b's to b's, as PEFT's ``linear`` does, has products of different adapters in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterkit.merging.deltas import Floats, Thin


def stacked(parts: Sequence[tuple[Thin, float]]) -> Thin:
    """The sum of weight * b @ a; its rank is the sum of ranks."""
    return Thin(np.vstack([p.a for p, _ in parts]), np.hstack([weight * p.b for p, weight in parts]))


def truncated(whole: Thin, r: int) -> Thin:
    """The nearest product of rank r in Frobenius norm (Eckart and Young 1936).

    The singular values are those of a small core between two orthogonal
    matrices, so no (o, i) matrix is made.
    """
    left, upper = np.linalg.qr(whole.b)  # (o, k), (k, R)
    right, lower = np.linalg.qr(whole.a.T)  # (i, l), (l, R)
    u, s, vt = np.linalg.svd(upper @ lower.T, full_matrices=False)
    half = np.sqrt(s[:r])  # both factors of one size, so that neither overflows a smaller format
    return Thin((half[:, None] * vt[:r]) @ right.T, left @ (u[:, :r] * half))


def projected(whole: Floats, r: int) -> Thin:
    """The same of a dense (o, i) matrix: its projection on its first r singular directions.

    They come from the smaller of its Gram matrices, which is several times as
    fast as its SVD. What a projection leaves out is measured on the result, so
    that a direction which is a little off can't hide.
    """
    if whole.shape[0] > whole.shape[1]:
        turned = projected(whole.T, r)
        return Thin(turned.b.T, turned.a.T)
    _, vectors = np.linalg.eigh(whole @ whole.T)  # ascending
    u = vectors[:, ::-1][:, :r]  # (o, r)
    rows = u.T @ whole  # (r, i), each as long as its singular value
    half = np.sqrt(np.linalg.norm(rows, axis=1))
    return Thin(rows / np.where(half > 0, half, 1)[:, None], u * half)


def padded(thin: Thin, r: int) -> Thin:
    """The same product in rank r, filled up with zeros."""
    more = r - thin.r
    return Thin(np.pad(thin.a, ((0, more), (0, 0))), np.pad(thin.b, ((0, 0), (0, more))))


def rounded(thin: Thin) -> Thin:
    """As its factors will be stored, in float32."""
    with np.errstate(over="ignore"):  # who stores them looks for what is not finite
        return Thin(*(m.astype(np.float32).astype(np.float64) for m in (thin.a, thin.b)))


def norm(thin: Thin) -> float:
    """Frobenius norm of b @ a, to the last digits: nothing is squared before it is subtracted."""
    upper, lower = np.linalg.qr(thin.b).R, np.linalg.qr(thin.a.T).R
    return float(np.linalg.norm(upper @ lower.T))


def difference(x: Thin, y: Thin) -> Thin:
    """x - y; where both have the same a's it has no more rows than they."""
    if x.a.shape == y.a.shape and np.array_equal(x.a, y.a):
        return Thin(x.a, x.b - y.b)
    return stacked([(x, 1.0), (y, -1.0)])
