"""The page bank beside a model that is not ours: which adapters a call runs through, and the pages they lie in.

A call's choice travels in a context variable from the model's ``forward`` to the
hooks on its modules, and is gone when ``forward`` ends, however it ends. So the
model holds no active adapter: threads, and tasks of an event loop, can't change
what another one gets. Nothing here knows transformers.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from adapterkit.errors import Unsupported, UsageProblem
from adapterkit.generation.engine import Engine
from adapterkit.generation.formats import Format
from adapterkit.generation.pages import PageBank
from adapterkit.generation.resident import Budget, Resident
from adapterkit.generation.route import Route
from adapterkit.generation.writers import Adapter, Writer, Writers
from adapterkit.model.base import Base
from adapterkit.model.device import DTYPES, Device
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

Adapters = Adapter | Sequence[Adapter]


class Pages:
    """The part of an engine that holds adapters, without a base of its own."""

    def __init__(self, bank: PageBank) -> None:
        self.bank = bank

    def close(self) -> None:
        """Nothing runs here that would have to end."""


class PageWriters(Writers):
    """What an adapter argument means where the base is somebody else's: pages only, no engine."""

    def __init__(self, registry: Registry, base: Base, form: Format, *, force_base: bool) -> None:
        super().__init__(registry, base, form, force_base=force_base)
        place = form.device.place
        self.bank = PageBank(base.dims, place, form.device.dtype)
        self._beside = Resident(self.bank, Budget.of(None, place))

    def _base(self) -> tuple[Engine, Resident]:
        # The part of an engine that is asked for adapters; after a close there is none to be loaded again.
        self._served = cast(Engine, Pages(self.bank)), self._beside
        return self._served

    def _full_engine(self, version: Version) -> NoReturn:
        raise Unsupported(
            f"{version.ref} is a full fine-tune, a model of its own, not an adapter beside this one.",
            hint=f"GPT2LMHeadModel.from_pretrained({str(version.path)!r})",
        )


class Chosen:
    """The adapters of one call, for all its rows or one for each; its pages stay while it runs."""

    def __init__(self, writers: list[Writer], bank: PageBank, *, for_all: bool) -> None:
        self.writers, self.for_all = writers, for_all
        self.may_repeat = False  # beams and return sequences: each row several times, one after the other
        self._bank = bank
        self._routes: dict[int, Route] = {}

    @property
    def dtype(self) -> torch.dtype:
        return self._bank.dtype

    def check(self, rows: int) -> None:
        """Refuse a list that is not one adapter for each row."""
        if not self.for_all and rows != len(self.writers):
            raise UsageProblem(
                f"{rows} rows, but {len(self.writers)} adapters.",
                hint="give one adapter, or one for each row",
            )

    def route(self, rows: int) -> Route:
        """The route of a batch, made once for all steps of a call."""
        if rows not in self._routes:
            times = rows // len(self.writers) if self.may_repeat else 1
            self.check(rows if times == 0 or rows % times else rows // times)
            each = [w.parts for w in self.writers for _ in range(1 if self.for_all else times)]
            self._routes[rows] = self._bank.route(each)
        return self._routes[rows]


class Attached:
    """The adapters beside one model. Thread-safe; pickled or copied it begins anew, with nothing loaded.

    Args:
        place, dtype: of the model; pages follow it when it moves, at the next call.
        force_base: use adapters of another base of the same sizes too.

    Raises:
        Unsupported: a dtype that no adapter is computed in.
    """

    def __init__(
        self, registry: Registry, base: Base, place: torch.device, dtype: torch.dtype, *, force_base: bool
    ) -> None:
        self.registry, self.base, self.force_base = registry, base, force_base
        self._lock = threading.Lock()
        self._begin(place, dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (str(self.registry.path), self.base, *self._at, self.force_base)

    def load(self, *what: Adapter) -> list[Version]:
        """Load adapters before they are needed."""
        with torch.inference_mode(False), self._writers.lock:
            return [version for each in what for version, _ in self._writers.of(each).versions]

    def unload(self, ref: str | Version) -> None:
        """Give an adapter's memory back, once no call needs it; the next that names it loads it again."""
        self._writers.unload(ref if isinstance(ref, Version) else self.registry[ref])

    def versions(self) -> list[Version]:
        """Those that are loaded."""
        return self._writers.versions()

    @contextmanager
    def chosen(self, adapter: Adapters, place: torch.device, dtype: torch.dtype) -> Iterator[Chosen]:
        """What an argument means, loaded, and kept in its pages until the end of the block.

        Args:
            place, dtype: of the model now.

        Raises:
            NotFound, BaseMismatch, Damaged, Unsupported, UsageProblem.
        """
        for_all = isinstance(adapter, str) or not isinstance(adapter, Sequence)
        each = cast(list[Adapter], [adapter] if for_all else list(cast(Sequence[Adapter], adapter)))
        if not each:
            raise UsageProblem("no adapter for any row.", hint="adapter=None is the base")
        writers = self._follow(place, dtype)
        # Made in inference mode, pages could never be written to outside of it again. The lock is
        # held so that nothing leaves between the look-up and the pin.
        with torch.inference_mode(False), writers.lock:
            found = [writers.of(a) for a in each]
            needed = [loaded for w in found for loaded, _ in w.parts]
            writers.bank.pin(needed)
        try:
            yield Chosen(found, writers.bank, for_all=for_all)
        finally:
            with torch.inference_mode(False):
                writers.bank.release(needed)

    def _follow(self, place: torch.device, dtype: torch.dtype) -> PageWriters:
        """The writers where the model is now; calls that still run keep the pages they have."""
        with self._lock:
            if (place, dtype) != self._at:
                end = self._end
                self._begin(place, dtype)
                end()
            return self._writers

    def _begin(self, place: torch.device, dtype: torch.dtype) -> None:
        names = {value: name for name, value in DTYPES.items()}
        if dtype not in names:
            raise Unsupported(
                f"the model is in {str(dtype).removeprefix('torch.')}; adapters run in {', '.join(DTYPES)}.",
                hint="model.float()",
            )
        form = Format(Device(place, names[dtype], ""), 0, "")
        self._writers = PageWriters(self.registry, self.base, form, force_base=self.force_base)
        self._at = (place, dtype)
        self._end = weakref.finalize(self, self._writers.close)  # which may hold files for a while


def _rebuilt(registry: str, base: Base, place: torch.device, dtype: torch.dtype, force: bool) -> Attached:
    return Attached(Registry(registry), base, place, dtype, force_base=force)


_RUNNING: ContextVar[tuple[Attached, Chosen] | None] = ContextVar("adapterkit_running", default=None)


@contextmanager
def running(owner: Attached, chosen: Chosen | None) -> Iterator[None]:
    """While this thread is in a model's forward pass: the adapters it goes through, or none."""
    token = _RUNNING.set(None if chosen is None else (owner, chosen))
    try:
        yield
    finally:
        _RUNNING.reset(token)


class Hook:
    """After one module: adds each row's own update. Without an adapter the output is left as it is."""

    def __init__(self, owner: Attached, layer: int, target: str) -> None:
        self._owner, self._layer, self._target = owner, layer, target

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
        now = _RUNNING.get()
        if now is None or now[0] is not self._owner:
            return None
        x, dtype = given[0], now[1].dtype  # (b, t, in)
        route = now[1].route(len(x))
        if self._target not in route.targets:
            return None
        if y.requires_grad:
            y = y.clone()  # add() may change it, which the output of bitsandbytes' modules forbids
        if x.dtype == y.dtype == dtype:
            return route.add(y, x, self._layer, self._target)
        with torch.autocast(x.device.type, enabled=False):  # it is what made the formats differ
            return route.add(y.to(dtype), x.to(dtype), self._layer, self._target).to(y.dtype)
