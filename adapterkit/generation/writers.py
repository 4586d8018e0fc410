"""What an adapter argument means: which versions with which weights, loaded, and the engine they run on."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakSet

from adapterkit.errors import Unsupported
from adapterkit.generation import load as loading
from adapterkit.generation.aside import aside
from adapterkit.generation.engine import Engine
from adapterkit.generation.fit import check_base
from adapterkit.generation.formats import Format
from adapterkit.generation.holding import Holding, OneEach
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
        self._guard = threading.Lock()  # for the next three
        self._full: dict[str, tuple[Version, Engine]] = {}  # by digest
        self._leaving: WeakSet[Engine] = WeakSet()  # unloaded, and some may write a text to its end
        self._closings = 0
        self._settings: dict[str, Sampling] = {}  # by digest
        self._forced: set[str] = set()  # digests of those used on another base than theirs
        self._shipped: dict[tuple[object, ...], Version] = {}  # without a registry, by ``_stamp``
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
        return Writer(versions, text, self._defaults(resolved), engine, parts, forced)

    def versions(self) -> list[Version]:
        """Those that are loaded, used last at the end; full fine-tunes before."""
        served = self._served
        with self._guard:
            full = [version for version, _ in self._full.values()]
        return full + (served[1].versions() if served else [])

    def pin(self, versions: Iterable[Version]) -> None:
        """Keep adapters that are loaded until they are unloaded; a full fine-tune is kept anyway."""
        if (served := self._served) is not None:
            for version in versions:
                served[1].keep(version)

    def unload(self, version: Version) -> None:
        """Give a version's memory back, once no request needs it.

        The engine of a full fine-tune is let go of: its thread ends when there was
        nothing to write for a while, and then nobody holds it.
        """
        if (served := self._served) is not None:
            served[1].unload(version)
        with self._one_each(version.digest), self._guard:
            _, engine = self._full.pop(version.digest, (None, None))
            if engine is not None:
                self._leaving.add(engine)

    def close(self) -> None:
        """Let go of everything; what is written ends."""
        with self._one_each("base"), self._one_each("shipped"), self._guard:
            engines = [*(engine for _, engine in self._full.values()), *self._leaving]
            engines += [self._served[0]] if self._served else []
            self._served, visitors, self._visitors = None, self._visitors, None
            self._full.clear()
            self._leaving.clear()
            self._shipped.clear()
            self._closings += 1
        for engine in engines:  # outside the locks: who is told of an end may ask for something
            engine.close()
        if visitors is not None:
            visitors.cleanup()

    # --- resolving ---

    def _defaults(self, resolved: Resolved) -> Sampling:
        """The settings of the one adapter; a blend has the library's unless its parents agree."""
        for version, _ in resolved:
            if version.digest not in self._settings:  # a recipe is read and checked once
                self._settings[version.digest] = from_spec(version.recipe.sample)
        found = {self._settings[version.digest] for version, _ in resolved}
        return found.pop() if len(found) == 1 else Sampling()

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
        key = _stamp(real)
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
            with self._guard:
                known, closings = self._full.get(version.digest), self._closings
            if known is not None:
                return known[1]
            engine = aside(lambda: loading.full_engine(version, self.form.device, bits=self.form.bits))
            with self._guard:
                is_late = closings != self._closings
                if not is_late:
                    self._full[version.digest] = version, engine
        if is_late:  # all was closed meanwhile; whoever asks this one is told so
            engine.close()
        return engine


def _stamp(path: Path) -> tuple[object, ...]:
    """What changes when a packed file, or a file of a PEFT folder, does."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    told = [(p.name, p.stat()) for p in files if p.exists()]
    return (path, *((name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in told))
