"""What an adapter argument means: which versions with which weights, loaded, and the engine they run on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapterkit.errors import Unsupported
from adapterkit.generation import load as loading
from adapterkit.generation.aside import aside
from adapterkit.generation.engine import Engine
from adapterkit.generation.fit import check_base
from adapterkit.generation.formats import Format
from adapterkit.generation.holding import FullBase, Holding, OneEach
from adapterkit.generation.pages import Loaded
from adapterkit.generation.prepared import Prepared, prepare
from adapterkit.generation.requests import Parts
from adapterkit.generation.resident import Budget, Resident
from adapterkit.generation.sampling import Sampling, from_spec
from adapterkit.model.base import Base
from adapterkit.refs import Part, from_mapping, parse_adapter
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import read_version
from adapterkit.registry.version import Version

Adapter = str | Path | Mapping[str, float] | Version | None
Resolved = list[tuple[Version, float | None]]  # None: no weight was written


@dataclass(frozen=True)
class Writer:
    """An adapter argument, resolved: which versions with which weights, and the engine they run on."""

    versions: tuple[tuple[Version, float], ...]
    text: str  # "noir@3=0.7,shanty@1=0.3" or "base"
    defaults: Sampling
    engine: Engine
    parts: Parts
    forced_base: bool = False  # one of the versions was made on another base

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(v.digest for v, _ in self.versions)


class Writers:
    """The base and whatever is loaded beside it. Thread-safe.

    Args:
        form: where and in which format the base lies.
        force_base: load adapters of another base of the same sizes too.
        memory: bytes for adapters on the device; None is a share of what is
            free once the base is there. Full fine-tunes, each a base of its
            own, are not counted.
    """

    def __init__(
        self,
        registry: Registry,
        base: Base,
        form: Format,
        *,
        force_base: bool = False,
        memory: int | None = None,
    ) -> None:
        self.registry, self.base, self.form, self.force_base = registry, base, form, force_base
        self.lock = Holding()  # held while requests are enqueued: nothing they name is unloaded before
        self._memory = memory
        self._one_each = OneEach()  # what several ask for at once is loaded once
        self._served: tuple[Engine, Resident] | None = None  # the base, and what is loaded beside it
        self._full: dict[str, FullBase] = {}  # by digest
        self._forced: set[str] = set()  # digests of those used on another base than theirs
        self._shipped: dict[tuple[Path, int, int], Version] = {}  # without a registry, by place and times
        self._visitors: tempfile.TemporaryDirectory[str] | None = None

    def of(self, adapter: Adapter) -> Writer:
        """The writer an argument means, everything it needs loaded.

        Raises:
            NotFound, BaseMismatch, Damaged, Unsupported, UsageProblem.
        """
        with self.lock:
            resolved = self._resolve(adapter)
            engine, parts = self._place(resolved)
        text = ",".join(v.ref if w is None else f"{v.ref}={w:g}" for v, w in resolved) or "base"
        versions = tuple((v, 1.0 if w is None else w) for v, w in resolved)
        forced = any(v.digest in self._forced or v.manifest["base"].get("forced") for v, _ in versions)
        return Writer(versions, text, _defaults(resolved), engine, parts, forced)

    def versions(self) -> list[Version]:
        """Those that are loaded, used last at the end; full fine-tunes before."""
        served = self._served
        return [f.version for f in list(self._full.values())] + (served[1].versions() if served else [])

    def unload(self, version: Version) -> None:
        """Give a version's memory back, once no request needs it."""
        if self._served is not None:
            self._served[1].unload(version)
        with self._one_each(version.digest):
            full = self._full.pop(version.digest, None)
        if full is not None:
            full.leave()

    def close(self) -> None:
        """Let go of everything; what is written ends."""
        with self._one_each("base"), self._one_each("shipped"):
            engines = [full.engine for full in self._full.values()] + (
                [self._served[0]] if self._served else []
            )
            self._served, visitors, self._visitors = None, self._visitors, None
            self._full.clear()
            self._shipped.clear()
        for engine in engines:  # outside the locks: who is told of an end may ask for something
            engine.close()
        if visitors is not None:
            visitors.cleanup()

    # --- resolving ---

    def _resolve(self, adapter: Adapter) -> Resolved:
        if adapter is None:
            return []
        if isinstance(adapter, Version):
            return [(adapter, None)]
        if isinstance(adapter, Path):
            return [(self._shipped_version(adapter), None)]
        parts: tuple[Part, ...] = (
            parse_adapter(adapter) if isinstance(adapter, str) else from_mapping(adapter)
        )
        return [(self.registry[str(p.ref)], p.weight) for p in parts]

    def _shipped_version(self, path: Path) -> Version:
        """A packed file or a PEFT folder as a version of a registry of its own, gone with this object."""
        real = path.expanduser().resolve()
        info = real.stat() if real.exists() else None
        key = (real, info.st_mtime_ns if info else 0, info.st_size if info else 0)
        with self._one_each("shipped"):
            if key not in self._shipped:
                if self._visitors is None:
                    self._visitors = tempfile.TemporaryDirectory(prefix="adapterkit-")
                beside = Registry(Path(self._visitors.name) / str(len(self._shipped)))
                self._shipped[key] = beside.add(path, base=str(self.base.folder) if real.is_dir() else None)
            return self._shipped[key]

    def _place(self, resolved: Resolved) -> tuple[Engine, Parts]:
        full = [v for v, _ in resolved if v.kind == "full"]
        if full and (len(resolved) > 1 or resolved[0][1] not in (None, 1.0)):
            raise Unsupported(
                f"{full[0].ref} is a full fine-tune; it writes alone, not in a blend.",
                hint=f'adapterkit generate {full[0].ref} "..."',
            )
        if full:
            return self._full_engine(full[0]), ()
        engine, resident = self._base()
        return engine, tuple((self._lora(v, resident), 1.0 if w is None else w) for v, w in resolved)

    def _base(self) -> tuple[Engine, Resident]:
        with self._one_each("base"):
            if self._served is None:
                engine = aside(lambda: loading.engine(self.base, self.form.device, bits=self.form.bits))
                budget = Budget.of(self._memory, self.form.device.place)
                self._served = engine, Resident(engine.bank, budget)
            return self._served

    def _lora(self, version: Version, resident: Resident) -> Loaded:
        loaded = resident.take(version)
        if loaded is None:
            is_forced = check_base(version, self.base, force=self.force_base)
            with self._one_each(version.digest):  # the registry is read and others go on writing
                loaded = resident.take(version) or resident.put(
                    version, lambda: self._read(version, resident)
                )
            if is_forced:
                self._forced.add(version.digest)
        self.lock.until_left(partial(resident.bank.release, [loaded]))
        return loaded

    def _read(self, version: Version, resident: Resident) -> Prepared:
        return prepare(read_version(version, self.base.dims), self.base.dims, resident.bank.dtype)

    def _full_engine(self, version: Version) -> Engine:
        with self._one_each(version.digest):
            if version.digest not in self._full:
                engine = aside(lambda: loading.full_engine(version, self.form.device, bits=self.form.bits))
                self._full[version.digest] = FullBase(version, engine)
            full = self._full[version.digest]
            full.take()
        self.lock.until_left(full.release)
        return full.engine


def _defaults(resolved: Resolved) -> Sampling:
    """The settings of the one adapter; a blend has the library's unless its parents agree."""
    found = {from_spec(v.recipe.sample) for v, _ in resolved}
    return found.pop() if len(found) == 1 else Sampling()
