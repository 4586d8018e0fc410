"""Memory for pages: one target's A or B of every layer, ``(pages, layers, RANKS, n)``.

On Linux a store reserves addresses for many pages, the system gives memory to
those that are written, and a page that is freed gives it back. So a store grows
without copying what requests read, and takes what its pages take. Elsewhere,
and on a GPU, it grows by half, copies, and keeps what it has.
"""

from __future__ import annotations

import math
import mmap
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from adapterkit.generation.prepared import Raw, raw_type
from adapterkit.generation.route import RANKS

RESERVED = 16_384  # pages a store has addresses for at first; beyond them it copies
LEAST = 8  # pages it has at first where it must take their memory


class Store:
    """Pages of zeros until they are written.

    Args:
        layers, size: of a page, ``(layers, RANKS, size)``.
    """

    def __init__(self, layers: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._page, self._dtype, self._device = (layers, RANKS, size), dtype, device
        self._map: mmap.mmap | None = None
        self._written: set[int] = set()  # pages that are not zero; the others have no memory yet
        self.tensor = self._made(LEAST)

    def ensure(self, pages: int) -> bool:
        """Have room for so many; whether ``tensor`` is another one now."""
        had = len(self.tensor)
        if pages <= had:
            return False
        old, more = self.tensor, self._made(max(pages, had + had // 2))
        if self._map is None:
            more[:had] = old
        else:
            for page in self._written:  # a copy of the others, all zeros, would take their memory
                more[page] = old[page]
        self.tensor = more
        return True

    def put(self, page: int, raw: Raw) -> None:
        """Write a page ``(layers, RANKS, n)``."""
        self._written.add(page)
        if self._device.type == "cpu":
            # one plain copy; torch would wake its threads, whose cores a step needs
            self._bits()[page] = raw
        else:
            self.tensor[page].copy_(torch.from_numpy(raw).view(self._dtype))

    def get(self, page: int) -> Raw:
        """A copy of a page in host memory."""
        copied: Raw = self.tensor[page].view(raw_type(self._dtype)).cpu().numpy().copy()
        return copied

    def clear(self, page: int) -> None:
        """Make a page zero; 0 x NaN is NaN, so whoever comes next must find nothing."""
        self._written.discard(page)
        if self._device.type != "cpu":
            self.tensor[page].zero_()
            return
        size = self.tensor[0].nbytes
        begin, end = page * size, (page + 1) * size
        first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if self._map is None or first >= last:
            self._bits()[page] = 0
            return
        self._map[begin:first], self._map[last:end] = bytes(first - begin), bytes(end - last)
        try:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)  # zeros from here on
        except OSError:  # memory that is locked (mlockall) can't be given back
            self._bits()[page] = 0

    def _bits(self) -> Raw:
        seen: Raw = self.tensor.view(raw_type(self._dtype)).numpy()
        return seen

    # in inference mode nothing could be learned through its numbers, nor written outside of that mode
    @torch.inference_mode(False)
    def _made(self, pages: int) -> Tensor:
        self._map = _reserved(pages, math.prod(self._page) * self._dtype.itemsize, self._device)
        if self._map is None:
            return torch.zeros(pages, *self._page, dtype=self._dtype, device=self._device)
        bits = torch.frombuffer(self._map, dtype=raw_type(self._dtype))
        return bits.view(self._dtype).view(-1, *self._page)


def _reserved(pages: int, size: int, device: torch.device) -> mmap.mmap | None:
    """Addresses for so many pages, or many more; None where they can't be had without memory."""
    if device.type != "cpu" or not can_reserve():
        return None
    wanted = max(pages, RESERVED)
    while wanted >= pages:
        with suppress(OSError, OverflowError):  # more than the whole machine has
            made = mmap.mmap(-1, wanted * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(OSError):  # a kernel without huge pages; with them a page might take 2 MB
                made.madvise(mmap.MADV_NOHUGEPAGE)
            return made
        wanted //= 2
    return None


@cache
def can_reserve() -> bool:
    """Whether addresses are free here; where they are counted as memory, none are taken in advance."""
    if sys.platform != "linux":
        return False
    import resource

    # both count private addresses, also those that nothing was written to
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        return False
    with suppress(OSError):
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "2"
    return False
