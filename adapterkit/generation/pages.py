"""Rank pages: every adapter in pages of eight ranks, a request's route a list of pages.

For each layer and target module::

    A[pages, 8, in]   B[pages, 8, out]   scale alpha/r folded into B, page 0 all zero

    y = x W + b + sum over the route of  coefficient * (x A[page]^T) B[page]

One mechanism for base rows (no page), any rank (a rank of 20 takes three pages),
any alpha, and blends with any weights. Switching writes an index.

Any thread may load and unload while others write: a step reads the pages of its
requests, those are pinned, and no other page is anybody's business.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapterkit.errors import AdapterKitError
from adapterkit.generation.prepared import Place, Prepared, bytes_of, prepare
from adapterkit.generation.route import RANKS, Route, Where
from adapterkit.generation.stores import Store
from adapterkit.registry.strict import Dims, LoraFiles

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Loaded:
    """Where an adapter lies in the bank; equal to no other, also when its pages are used again."""

    pages: tuple[int, ...]
    targets: frozenset[str]
    bytes: int


class PageBank:
    """The pages of all loaded adapters on one device."""

    def __init__(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> None:
        self.dims, self.device, self.dtype = dims, device, dtype
        self._a: dict[Where, Tensor] = {}  # each layer's view of the stores
        self._b: dict[Where, Tensor] = {}
        self._stores: dict[Place, Store] = {}
        self._guard = threading.RLock()  # for what follows, and for what is written into a store
        self._pages = 1  # page 0 is zero and belongs to nobody
        self._free: list[int] = []  # a heap: low numbers first, so that the stores stay short
        self._held: set[Loaded] = set()
        self._bytes = 0
        self._pins: Counter[Loaded] = Counter()  # requests that need an adapter
        self._leaving: set[Loaded] = set()  # unloaded, and still needed

    @property
    def bytes(self) -> int:
        """What the adapters take, those that leave when their last request is done too.

        A store that can't give pages back (on a GPU) may have taken more.
        """
        return self._bytes

    def bytes_of(self, files: LoraFiles) -> int:
        """What an adapter would take."""
        return bytes_of(files.r, frozenset(files.targets), self.dims, self.dtype)

    def load(self, files: LoraFiles) -> Loaded:
        """Copy an adapter into pages; all of it or nothing.

        Raises:
            Unsupported: its numbers are too large for the format that is computed in.
        """
        return self.put(prepare(files, self.dims, self.dtype))

    def put(self, prepared: Prepared) -> Loaded:
        """Copy what was prepared into pages; all of it or nothing."""
        with self._guard:
            pages = tuple(self._taken() for _ in range(prepared.pages))
            loaded = Loaded(pages, prepared.targets, prepared.bytes)
            self._held.add(loaded)
            self._bytes += loaded.bytes
            try:
                for place, raw in prepared.raw.items():
                    store = self._store(place)
                    for page, part in zip(pages, raw, strict=True):
                        store.put(page, part)
            except BaseException:  # no memory
                self._free_pages(loaded)
                raise
        return loaded

    def get(self, loaded: Loaded) -> Prepared:
        """A copy of a loaded adapter in host memory."""
        places = [(target, side) for target in loaded.targets for side in "AB"]
        raw = {place: np.stack([self._stores[place].get(p) for p in loaded.pages]) for place in places}
        return Prepared(len(loaded.pages), raw)

    def pin(self, adapters: Iterable[Loaded]) -> None:
        """Keep adapters that a request needs until it releases them.

        Raises:
            AdapterKitError: one of them was unloaded; its pages may be another's by now.
        """
        adapters = list(adapters)
        with self._guard:
            if not self._held.issuperset(adapters):
                raise AdapterKitError("an adapter was unloaded before its request came.", hint="ask again")
            self._pins.update(adapters)

    def is_pinned(self, loaded: Loaded) -> bool:
        return loaded in self._pins

    def release(self, adapters: Iterable[Loaded]) -> None:
        with self._guard:
            self._pins.subtract(adapters := list(adapters))
            gone = {loaded for loaded in adapters if not self._pins[loaded]}
            for loaded in gone:
                del self._pins[loaded]
            for loaded in gone & self._leaving:
                self._leaving.discard(loaded)
                self._free_pages(loaded)

    def unload(self, loaded: Loaded) -> None:
        """Free an adapter's pages, once no request needs them."""
        with self._guard:
            if loaded in self._pins:
                self._leaving.add(loaded)
            elif loaded in self._held:
                self._free_pages(loaded)

    def drop(self, loaded: Loaded) -> bool:
        """Free an adapter's pages if no request needs them; whether it did."""
        with self._guard:
            if loaded not in self._pins:
                self.unload(loaded)
            return loaded not in self._held

    def route(self, rows: Sequence[Sequence[tuple[Loaded, float]]], *, apart: bool = False) -> Route:
        """The route of a batch: for each row its adapters and weights, none for the base.

        Args:
            apart: an entry for each row also where all are the same.
        """
        if not apart and all(list(row) == list(rows[0]) for row in rows):
            rows = rows[:1]
        places = [[(page, weight) for loaded, weight in row for page in loaded.pages] for row in rows]
        width = max(map(len, places), default=0)
        pages = [[page for page, _ in row] + [0] * (width - len(row)) for row in places]
        weights = [[weight for _, weight in row] + [0.0] * (width - len(row)) for row in places]
        ids = torch.tensor(pages, dtype=torch.long, device=self.device).view(len(rows), width)
        coefficients = torch.tensor(weights, dtype=self.dtype, device=self.device).view(len(rows), width)
        targets = frozenset(t for row in rows for loaded, _ in row for t in loaded.targets)
        return Route(ids, coefficients.repeat_interleave(RANKS, 1), self.gather, targets)

    def gather(self, ids: Tensor, layer: int, target: str) -> tuple[Tensor, Tensor]:
        """A (b, w * RANKS, in) and B (b, w * RANKS, out), copied, of page ids (b, w)."""
        a, b, flat = self._a[layer, target], self._b[layer, target], ids.flatten()
        rows, ranks = len(ids), ids.shape[1] * RANKS
        # twice as fast on a CPU as a[ids]
        return a.index_select(0, flat).view(rows, ranks, -1), b.index_select(0, flat).view(rows, ranks, -1)

    def _taken(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._pages += 1
        return self._pages - 1

    def _store(self, place: Place) -> Store:
        """The store of a target's A or B. All have room for all pages, as a batch is gathered from each by one list."""
        if place not in self._stores:
            size = self.dims.in_out(place[0])["AB".index(place[1])]
            self._stores[place] = Store(self.dims.layers, size, self.dtype, self.device)
            self._see(place)
        for other, store in self._stores.items():
            if store.ensure(self._pages):
                self._see(other)
        return self._stores[place]

    def _see(self, place: Place) -> None:
        target, side = place
        views = {(i, target): self._stores[place].tensor[:, i] for i in range(self.dims.layers)}
        (self._a if side == "A" else self._b).update(views)

    def _free_pages(self, loaded: Loaded) -> None:
        for place, store in self._stores.items():
            if place[0] in loaded.targets:
                for page in loaded.pages:
                    if page < len(store.tensor):  # not where there was no memory for it
                        store.clear(page)
        for page in loaded.pages:
            heapq.heappush(self._free, page)
        self._held.discard(loaded)
        self._bytes -= loaded.bytes
