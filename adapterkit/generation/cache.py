"""Keys and values of the rows that are being written, in slots that rows move between.

Layout, so that what a head reads lies together::

    kv[layers, 2, rows, h, length, d]     keys and values, h heads of size d

A batch is always rows 0..b-1: the engine moves the last row into a place that
became free, and nothing is gathered step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Put = Callable[[int, Tensor], object]
BUCKET = 64  # positions are made in steps of this many, so that shapes repeat


class Cache:
    """Room for ``rows`` rows of ``length`` positions.

    Args:
        shape: (layers, heads, size of a head) of the model.
        rows, length: what is asked for; length is rounded up to BUCKET, at most ``limit``.
        limit: positions the model has.
        like: a tensor whose dtype and device the numbers have.
    """

    def __init__(self, shape: tuple[int, int, int], rows: int, length: int, limit: int, like: Tensor) -> None:
        layers, heads, size = shape
        self._limit = limit
        self.kv = torch.zeros(
            layers, 2, rows, heads, self._bucket(length), size, dtype=like.dtype, device=like.device
        )

    @property
    def rows(self) -> int:
        return self.kv.shape[2]

    @property
    def length(self) -> int:
        return self.kv.shape[4]

    @property
    def bytes(self) -> int:
        return self.kv.nbytes

    def ensure(self, rows: int, length: int) -> None:
        """Grow to so many rows and positions at least; what is there stays."""
        more = max(rows, self.rows), max(self._bucket(length), self.length)
        if more == (self.rows, self.length):
            return
        old = self.kv
        layers, _, had, heads, long, size = old.shape
        self.kv = old.new_zeros(layers, 2, more[0], heads, more[1], size)
        self.kv[:, :, :had, :, :long] = old

    def move(self, source: int, target: int, used: int) -> None:
        """Copy the first ``used`` positions of a row onto another row."""
        self.kv[:, :, target, :, :used] = self.kv[:, :, source, :, :used]

    def copy(self, other: Cache, row: int, used: int) -> None:
        """The first ``used`` positions of another cache's only row into a row of this one."""
        self.kv[:, :, row, :, :used] = other.kv[:, :, 0, :, :used]

    def taken(self, row: int, used: int) -> Tensor:
        """A copy of the first ``used`` positions of a row: (layers, 2, h, used, d)."""
        return self.kv[:, :, row, :, :used].clone()

    def clear(self, row: int) -> None:
        """Zero a row; after numbers that are not finite it must be, as 0 x NaN is NaN behind any mask."""
        self.kv[:, :, row].zero_()

    def writer(self, first: int, begins: Sequence[int], lengths: Sequence[int]) -> Put:
        """What writes the next positions of rows first, first + 1, ...: layer, kv (b, t, 2, h, d).

        Args:
            begins: positions that each row has already.
            lengths: how many of the t each row gets.
        """
        if len(set(begins)) == len(set(lengths)) == 1:
            rows, positions = slice(first, first + len(begins)), slice(begins[0], begins[0] + lengths[0])
            places = self.kv[:, :, rows, :, positions].unbind(0)  # views, and one copy a layer
            return lambda layer, kv: places[layer].copy_(kv[:, : lengths[0]].permute(2, 0, 3, 1, 4))
        device = self.kv.device
        real = [(r, c) for r, n in enumerate(lengths) for c in range(n)]
        row, column = torch.tensor(real, device=device).T
        to = column + torch.tensor(begins, device=device)[row]
        place, is_step = row + first, len(real) == len(lengths)

        def put(layer: int, kv: Tensor) -> None:
            self.kv[layer][:, place, :, to] = kv[:, 0] if is_step else kv[row, column]

        return put

    def reader(self, first: int, rows: int, n: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (b, h, n, d) of some rows, not copied, by layer."""
        keys, values = self.kv[:, :, first : first + rows, :, :n].unbind(1)
        return list(zip(keys.unbind(0), values.unbind(0), strict=True))

    def _bucket(self, length: int) -> int:
        return min(self._limit, math.ceil(length / BUCKET) * BUCKET)
