"""Which adapters are in memory: those used last, as many as a budget of bytes holds.

Three places, from fast to slow: pages on the device, host memory (beside a GPU
only; on a CPU it is the same), the registry. What was used longest ago leaves
first, but nothing that a request or a caller needs at this moment.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from adapterkit.errors import OutOfMemory, UsageProblem
from adapterkit.files import human_size
from adapterkit.generation.pages import Loaded, PageBank
from adapterkit.generation.prepared import Prepared
from adapterkit.model.quantize import free_memory
from adapterkit.registry.version import Version

# Share of what is free once the base is there: on a GPU caches and activations need the rest, on a CPU other programs.
SHARE = {"cuda": 0.5, "cpu": 0.25}
UNTOLD = 1_000_000_000  # bytes, where a system does not say what is free
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Budget:
    """Bytes of adapters on the device, and beside it in host memory."""

    device: int
    host: int

    @staticmethod
    def of(asked: int | None, place: torch.device) -> Budget:
        """What was asked for, or a share of what is free now."""
        on_cpu = place.type == "cpu"
        host = 0 if on_cpu else _share(torch.device("cpu"))
        return Budget(_share(place) if asked is None else asked, host)


def read_size(size: int | str) -> int:
    """Bytes of ``2GB``, ``500 MB`` (powers of 1,000) or ``2GiB`` (powers of 1,024).

    Raises:
        UsageProblem: it is no size.
    """
    told = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", str(size).strip().lower())
    if told is None or isinstance(size, bool) or (told[3] and not told[2]):
        raise UsageProblem(f"{size!r} is no size of memory.", hint="memory='2GB', or a number of bytes")
    return int(float(told[1]) * (1024 if told[3] else 1000) ** UNITS[told[2]])


class Resident:
    """The adapters of one bank. Thread-safe.

    Args:
        budget: what they may take. It is passed rather than anybody refused
            where all that is loaded is needed at the same time.
    """

    def __init__(self, bank: PageBank, budget: Budget) -> None:
        self.bank, self.budget = bank, budget
        self._guard = threading.Lock()
        # by digest, used last at the end: on the device, and in host memory
        self._loaded: OrderedDict[str, tuple[Version, Loaded]] = OrderedDict()
        self._beside: OrderedDict[str, Prepared] = OrderedDict()
        self._kept: dict[str, Loaded] = {}  # until they are unloaded

    def versions(self) -> list[Version]:
        """Those on the device, used last at the end."""
        with self._guard:
            return [version for version, _ in self._loaded.values()]

    def take(self, version: Version) -> Loaded | None:
        """Where an adapter lies, pinned for whoever asks; None if it is not on the device."""
        with self._guard:
            if version.digest not in self._loaded:
                return None
            self._loaded.move_to_end(version.digest)
            _, loaded = self._loaded[version.digest]
            self.bank.pin([loaded])  # first, or it might have to leave itself
            try:
                self._make_room(0)  # where requests that are done by now had passed the budget
            except BaseException:  # no host memory
                self.bank.release([loaded])
                raise
            return loaded

    def put(self, version: Version, read: Callable[[], Prepared]) -> Loaded:
        """Bring an adapter onto the device, pinned for whoever asks.

        Args:
            read: gets it from the registry, if it is not in host memory.

        Raises:
            OutOfMemory: it alone takes more than the budget.
        """
        with self._guard:
            known = self._beside.pop(version.digest, None)
        prepared = known or read()
        if prepared.bytes > self.budget.device:
            raise _too_large(version, prepared.bytes, self.budget.device)
        with self._guard:
            self._make_room(prepared.bytes)
            loaded = self.bank.put(prepared)
            self.bank.pin([loaded])
            self._loaded[version.digest] = version, loaded
            return loaded

    def keep(self, version: Version) -> None:
        """Let an adapter that is on the device stay there until it is unloaded."""
        with self._guard:
            if version.digest in self._loaded and version.digest not in self._kept:
                _, self._kept[version.digest] = self._loaded[version.digest]
                self.bank.pin([self._kept[version.digest]])

    def unload(self, version: Version) -> None:
        """Forget an adapter; its pages are free once no request needs them."""
        with self._guard:
            if (kept := self._kept.pop(version.digest, None)) is not None:
                self.bank.release([kept])
            self._beside.pop(version.digest, None)
            _, loaded = self._loaded.pop(version.digest, (None, None))
            if loaded is not None:
                self.bank.unload(loaded)

    def _make_room(self, size: int) -> None:
        if self.bank.bytes + size <= self.budget.device:
            return
        for digest, (_, loaded) in list(self._loaded.items()):
            if self.bank.bytes + size <= self.budget.device:
                break
            if self.bank.is_pinned(loaded):
                continue
            saved = self.bank.get(loaded) if loaded.bytes <= self.budget.host else None
            if self.bank.drop(loaded):
                del self._loaded[digest]
                if saved is not None:
                    self._save(digest, saved)

    def _save(self, digest: str, prepared: Prepared) -> None:
        self._beside[digest] = prepared
        while sum(p.bytes for p in self._beside.values()) > self.budget.host:
            self._beside.popitem(last=False)


def _share(place: torch.device) -> int:
    free = free_memory(place)
    return UNTOLD if free is None else int(free * SHARE[place.type])


def _too_large(version: Version, size: int, budget: int) -> OutOfMemory:
    return OutOfMemory(
        f"{version.ref} takes {human_size(size)} of memory; all adapters together may take {human_size(budget)}.",
        hint=f'Generator(..., memory="{human_size(size * 1.05)}"), or more for several',
        code="adapter-memory",
        details={"ref": version.ref, "bytes": size, "budget": budget},
    )
