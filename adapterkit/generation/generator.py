"""The public Generator: a base held once, the adapter an argument of each call."""

from __future__ import annotations

import os
import secrets
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

from adapterkit.errors import Forked, Unsupported, UsageProblem
from adapterkit.generation import load as loading
from adapterkit.generation.engine import Batch, Engine, Parts, Request, Written
from adapterkit.generation.fit import check_base
from adapterkit.generation.pages import Loaded
from adapterkit.generation.results import Comparison, Completion, Stream, Usage
from adapterkit.generation.sampling import Sampling, from_spec
from adapterkit.model.base import Base, locate
from adapterkit.model.device import Device, choose
from adapterkit.refs import Part, from_mapping, parse_adapter
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import read_version
from adapterkit.registry.version import Version

SIZES_OF_GPT2 = ("gpt2", "distilgpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")  # Hub ids without an owner
Adapter = str | Mapping[str, float] | Version | None


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


class Generator:
    """Writes with a shared base and any adapters of a registry. Thread-safe.

    Args:
        base: Hub id, folder or ``embedded``; loaded on first use.
        registry: a Registry, its folder, or None for the usual search.
        device: auto, cpu, cuda, cuda:N.
        precision: auto (fp16 on CUDA, fp32 on a CPU), fp32, bf16, fp16.
        force_base: use adapters of another base of the same sizes too; what they
            write then says ``forced_base``.

    Raises:
        NotFound, BaseMismatch, Damaged: from the call that names the adapter.
    """

    def __init__(
        self,
        base: str | Path = "gpt2",
        *,
        registry: Registry | Path | str | None = None,
        device: str = "auto",
        precision: str = "auto",
        force_base: bool = False,
    ) -> None:
        self.registry = registry if isinstance(registry, Registry) else Registry(registry)
        self.base: Base = locate(str(base))
        self.device: Device = choose(device, precision)
        self._engine: Engine | None = None
        self._full: dict[str, Engine] = {}  # full fine-tunes, each a base of its own, by digest
        self._loaded: dict[str, Loaded] = {}  # by digest
        self._versions: dict[str, Version] = {}
        self.force_base = force_base
        self._forced: set[str] = set()  # digests of those used on another base than theirs
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def __call__(self, prompt: str, adapter: Adapter = None, **sampling: Any) -> Completion: ...
    @overload
    def __call__(
        self, prompt: Sequence[str], adapter: Adapter | Sequence[Adapter] = None, **sampling: Any
    ) -> list[Completion]: ...
    def __call__(
        self, prompt: str | Sequence[str], adapter: Adapter | Sequence[Adapter] = None, **sampling: Any
    ) -> Completion | list[Completion]:
        """Write on from one prompt, or from several in one batch.

        Args:
            prompt: the beginning of a document; "" starts a new one.
            adapter: what writes: None or "base", a ref, a blend; for several
                prompts also a list, one for each.
            sampling: temperature, top_k, top_p, repetition_penalty,
                max_new_tokens, stop (a text or several), seed, raw (no start token).

        Raises:
            UsageProblem: one prompt with a list of adapters, or lists of unequal length.
        """
        if isinstance(prompt, str):
            if _is_list(adapter):
                raise UsageProblem(
                    "one prompt with a list of adapters is a comparison.",
                    hint="gen.compare(prompt, [adapter, ...])",
                )
            return self._write([prompt], [cast(Adapter, adapter)], sampling)[0]
        many = cast(list[Adapter], list(adapter) if _is_list(adapter) else [adapter] * len(prompt))  # type: ignore[arg-type]
        if len(many) != len(prompt):
            raise UsageProblem(
                f"{len(prompt)} prompts, but {len(many)} adapters.", hint="give one adapter, or one each"
            )
        return self._write(list(prompt), many, sampling)

    def samples(
        self, prompt: str, adapter: Adapter = None, *, n: int = 1, **sampling: Any
    ) -> list[Completion]:
        """``n`` different texts from one prompt and one seed, in one batch."""
        return self._write([prompt] * n, [adapter] * n, sampling, numbered=True)

    def compare(self, prompt: str, adapters: Sequence[Adapter], **sampling: Any) -> Comparison:
        """One prompt by many adapters (None is the base): one seed, one setting, one batch."""
        shared = Sampling().with_(**_split(sampling)[0])
        return Comparison(
            prompt, tuple(self._write([prompt] * len(adapters), list(adapters), sampling, shared=shared))
        )

    def stream(self, prompt: str, adapter: Adapter = None, **sampling: Any) -> Stream:
        """Pieces of text as they are written."""
        changes, seed, raw = _split(sampling)
        with self._lock:  # so that nothing is unloaded between the look-up and the batch
            writer = self._writer(adapter)
            settings = writer.defaults.with_(**changes)
            batch = Batch(writer.engine, [Request(prompt, writer.parts, settings, seed, raw=raw)])
        pieces: Iterator[str] = (piece for _, piece in batch)
        return Stream(
            pieces, lambda: _completion(prompt, writer, settings, seed, batch.written[0]), batch.cancel
        )

    def adapters(self) -> list[Version]:
        """The versions that are loaded."""
        return list(self._versions.values())

    def load(self, *refs: str | Version) -> list[Version]:
        """Load adapters before they are needed."""
        return [v for ref in refs for v, _ in self._writer(ref).versions]

    def unload(self, ref: str) -> None:
        """Give an adapter's memory back; the next call that names it loads it again."""
        version = self.registry[ref]
        with self._lock:
            self._full.pop(version.digest, None)
            self._versions.pop(version.digest, None)
            if loaded := self._loaded.pop(version.digest, None):
                with self._base_engine().lock:
                    self._base_engine().bank.unload(loaded)

    def close(self) -> None:
        """Let go of the base and all adapters."""
        with self._lock:
            self._engine = None
            self._full.clear()
            self._loaded.clear()
            self._versions.clear()

    # --- resolving ---

    def writer(self, adapter: Adapter) -> Writer:
        """What an adapter argument means, with its versions loaded."""
        return self._writer(adapter)

    def _writer(self, adapter: Adapter) -> Writer:
        if os.getpid() != self._process:
            raise Forked("this Generator was made in another process.", hint="make one after the fork")
        with self._lock:
            resolved = self._resolve(adapter)
            engine, parts = self._place(resolved)
        text = ",".join(v.ref if w is None else f"{v.ref}={w:g}" for v, w in resolved) or "base"
        versions = tuple((v, 1.0 if w is None else w) for v, w in resolved)
        forced = any(v.digest in self._forced or v.manifest["base"].get("forced") for v, _ in versions)
        return Writer(versions, text, _defaults(resolved), engine, parts, forced)

    def _resolve(self, adapter: Adapter) -> list[tuple[Version, float | None]]:
        if adapter is None:
            return []
        if isinstance(adapter, Version):
            return [(adapter, None)]
        if isinstance(adapter, Path):
            raise Unsupported(
                f"{adapter} is a file; it is brought into the registry first.",
                hint=f"adapterkit import {shlex.quote(str(adapter))}",
            )
        parts: tuple[Part, ...] = (
            parse_adapter(adapter) if isinstance(adapter, str) else from_mapping(adapter)
        )
        return [(self.registry[str(p.ref)], p.weight) for p in parts]

    def _place(self, resolved: list[tuple[Version, float | None]]) -> tuple[Engine, Parts]:
        full = [v for v, _ in resolved if v.kind == "full"]
        if full and (len(resolved) > 1 or resolved[0][1] not in (None, 1.0)):
            raise Unsupported(
                f"{full[0].ref} is a full fine-tune; it writes alone, not in a blend.",
                hint=f'adapterkit generate {full[0].ref} "..."',
            )
        if full:
            return self._full_engine(full[0]), ()
        parts = tuple((self._lora(v), 1.0 if w is None else w) for v, w in resolved)
        return self._base_engine(), parts

    def _base_engine(self) -> Engine:
        if self._engine is None:
            self._engine = loading.engine(self.base, self.device)
        return self._engine

    def _lora(self, version: Version) -> Loaded:
        if version.digest not in self._loaded:
            is_forced = check_base(version, self.base, force=self.force_base)
            engine = self._base_engine()
            files = read_version(version, self.base.dims)
            with engine.lock:
                self._loaded[version.digest] = engine.bank.load(files)
            self._versions[version.digest] = version
            if is_forced:
                self._forced.add(version.digest)
        return self._loaded[version.digest]

    def _full_engine(self, version: Version) -> Engine:
        if version.digest not in self._full:
            self._full[version.digest] = loading.full_engine(version, self.device)
            self._versions[version.digest] = version
        return self._full[version.digest]

    # --- writing ---

    def _write(
        self,
        prompts: list[str],
        adapters: list[Adapter],
        sampling: Mapping[str, Any],
        *,
        shared: Sampling | None = None,
        numbered: bool = False,
    ) -> list[Completion]:
        changes, seed, raw = _split(sampling)
        with self._lock:  # so that nothing is unloaded between the look-up and the batches
            writers = [self._writer(a) for a in adapters]
            settings = [shared or w.defaults.with_(**changes) for w in writers]
            requests = [
                Request(p, w.parts, s, seed, sample=i if numbered else 0, raw=raw)
                for i, (p, w, s) in enumerate(zip(prompts, writers, settings, strict=True))
            ]
            batches = _batches(writers, requests)
        written: list[Written | None] = [None] * len(requests)
        for chosen, batch in batches:
            for _ in batch:
                pass
            for i, result in zip(chosen, batch.written, strict=True):
                written[i] = result
        zipped = zip(prompts, writers, settings, written, strict=True)
        return [_completion(p, w, s, seed, r) for p, w, s, r in zipped if r is not None]


def _batches(writers: list[Writer], requests: list[Request]) -> list[tuple[list[int], Batch]]:
    """A batch for each engine, with the indexes of its requests."""
    made = []
    for engine in {id(w.engine): w.engine for w in writers}.values():
        chosen = [i for i, w in enumerate(writers) if w.engine is engine]
        made.append((chosen, Batch(engine, [requests[i] for i in chosen])))
    return made


def _defaults(resolved: list[tuple[Version, float | None]]) -> Sampling:
    """The settings of the one adapter; a blend has the library's unless its parents agree."""
    found = {from_spec(v.recipe.sample) for v, _ in resolved}
    return found.pop() if len(found) == 1 else Sampling()


def _split(sampling: Mapping[str, Any]) -> tuple[dict[str, Any], int, bool]:
    """Settings, the seed (drawn when it is not given) and raw."""
    changes = dict(sampling)
    seed = changes.pop("seed", None)
    raw = bool(changes.pop("raw", False))
    return changes, secrets.randbelow(100_000) if seed is None else int(seed), raw


def _is_list(adapter: object) -> bool:
    return isinstance(adapter, Sequence) and not isinstance(adapter, str)


def _completion(prompt: str, writer: Writer, sampling: Sampling, seed: int, written: Written) -> Completion:
    return Completion(
        text=written.text,
        prompt=prompt,
        adapter=writer.text,
        digests=writer.digests,
        finish_reason=written.finish_reason,
        stopped_by=written.stopped_by,
        seed=seed,
        sampling=sampling,
        usage=Usage(written.prompt_tokens, written.new_tokens),
        seconds=written.seconds,
        forced_base=writer.forced_base,
    )
