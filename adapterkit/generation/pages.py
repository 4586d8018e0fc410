"""Rank pages: every adapter in pages of eight ranks, a request's route a list of pages.

For each layer and target module::

    A[pages, 8, in]   B[pages, 8, out]   scale alpha/r folded into B, page 0 all zero

    y = x W + b + sum over the route of  coefficient * (x A[page]^T) B[page]

One mechanism for base rows (no page), any rank (a rank of 20 takes three pages),
any alpha, and blends with any weights. Switching writes an index.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapterkit.errors import Unsupported
from adapterkit.generation.route import RANKS, Route, Where
from adapterkit.registry.strict import Dims, LoraFiles, tensor_name

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Loaded:
    """Where an adapter lies in the bank."""

    pages: tuple[int, ...]
    targets: frozenset[str]


class PageBank:
    """The pages of all loaded adapters on one device."""

    def __init__(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> None:
        self.dims, self.device, self.dtype = dims, device, dtype
        self._a: dict[Where, Tensor] = {}
        self._b: dict[Where, Tensor] = {}
        self._capacity = 1  # page 0 is zero and belongs to nobody
        self._free: list[int] = []
        self._pins: Counter[Loaded] = Counter()  # requests that need an adapter
        self._pinning = threading.Lock()  # requests come from any thread
        self._leaving: set[Loaded] = set()  # unloaded, and still needed

    def load(self, files: LoraFiles) -> Loaded:
        """Copy an adapter into pages; all of it or nothing.

        Raises:
            Unsupported: its numbers are too large for the format that is computed in.
        """
        count = -(-files.r // RANKS)
        while len(self._free) < count:
            self._grow()
        loaded = Loaded(tuple(self._free.pop() for _ in range(count)), frozenset(files.targets))
        try:
            for target in files.targets:
                for layer in range(self.dims.layers):
                    self._fill(loaded.pages, files, layer, target)
        except BaseException:
            self.unload(loaded)
            raise
        return loaded

    def _fill(self, pages: tuple[int, ...], files: LoraFiles, layer: int, target: str) -> None:
        self._make(layer, target)
        a = _tensor(files, tensor_name(layer, target, "A")).to(self.dtype)  # (r, in)
        b = (_tensor(files, tensor_name(layer, target, "B")).T * files.scale).to(self.dtype)  # (r, out)
        # Finite in the file, but times alpha / r, or in float16, it may be no longer.
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise Unsupported(
                f"the numbers of layer {layer}'s {target} are too large for {str(self.dtype).removeprefix('torch.')}.",
                hint="--precision fp32, or train it again with a smaller lora.alpha",
                code="overflow",
                details={"layer": layer, "target": target},
            )
        for i, page in enumerate(pages):
            rows = a[i * RANKS : (i + 1) * RANKS]
            self._a[layer, target][page, : len(rows)] = rows
            self._b[layer, target][page, : len(rows)] = b[i * RANKS : (i + 1) * RANKS]

    def pin(self, adapters: Iterable[Loaded]) -> None:
        """Keep adapters that a request needs until it releases them."""
        with self._pinning:
            self._pins.update(adapters)

    def release(self, adapters: Iterable[Loaded]) -> None:
        with self._pinning:
            self._pins.subtract(adapters := list(adapters))
            gone = {loaded for loaded in adapters if not self._pins[loaded]}
            for loaded in gone:
                del self._pins[loaded]
        for loaded in gone & self._leaving:
            self._leaving.discard(loaded)
            self._free_pages(loaded)

    def unload(self, loaded: Loaded) -> None:
        """Free an adapter's pages, once no request needs them."""
        if loaded in self._pins:
            self._leaving.add(loaded)
        else:
            self._free_pages(loaded)

    def _free_pages(self, loaded: Loaded) -> None:
        """Zero the pages and free them; 0 x NaN is NaN, so a freed page must hold zeros."""
        for target in loaded.targets:
            for layer in range(self.dims.layers):
                if (layer, target) not in self._a:  # never filled: its loading failed before
                    continue
                for page in loaded.pages:
                    self._a[layer, target][page].zero_()
                    self._b[layer, target][page].zero_()
        self._free += loaded.pages

    def route(self, rows: Sequence[Sequence[tuple[Loaded, float]]]) -> Route:
        """The route of a batch: for each row its adapters and weights, none for the base."""
        rows = rows[:1] if all(list(row) == list(rows[0]) for row in rows) else rows
        places = [[(page, weight) for loaded, weight in row for page in loaded.pages] for row in rows]
        width = max(map(len, places), default=0)
        ids = torch.zeros(len(rows), width, dtype=torch.long, device=self.device)
        coefficients = torch.zeros(len(rows), width, dtype=self.dtype, device=self.device)
        for i, row in enumerate(places):
            for j, (page, weight) in enumerate(row):
                ids[i, j], coefficients[i, j] = page, weight
        targets = frozenset(t for row in rows for loaded, _ in row for t in loaded.targets)
        return Route(ids, coefficients.repeat_interleave(RANKS, 1), self.gather, targets)

    def gather(self, ids: Tensor, layer: int, target: str) -> tuple[Tensor, Tensor]:
        return self._a[layer, target][ids].flatten(1, 2), self._b[layer, target][ids].flatten(1, 2)

    def _make(self, layer: int, target: str) -> None:
        if (layer, target) not in self._a:
            n_in, n_out = self.dims.in_out(target)
            self._a[layer, target] = self._zeros(self._capacity, n_in)
            self._b[layer, target] = self._zeros(self._capacity, n_out)

    def _grow(self) -> None:
        """Twice the pages; loaded ones keep their numbers."""
        more = max(8, self._capacity)
        for store in (self._a, self._b):
            for where, old in store.items():
                store[where] = torch.cat([old, self._zeros(more, old.shape[2])])
        self._free += range(self._capacity + more - 1, self._capacity - 1, -1)
        self._capacity += more

    def _zeros(self, pages: int, size: int) -> Tensor:
        return torch.zeros(pages, RANKS, size, dtype=self.dtype, device=self.device)


def _tensor(files: LoraFiles, name: str) -> Tensor:
    dtype, shape, data = files.tensors[name]
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).view(shape).float()
