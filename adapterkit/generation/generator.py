"""The public Generator: a base held once, the adapter an argument of each call."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from adapterkit.errors import Forked, UsageProblem
from adapterkit.generation import formats, later
from adapterkit.generation.requests import Overflow, Parts, Request, Ticket, Written
from adapterkit.generation.results import Comparison, Completion, Stream, Usage
from adapterkit.generation.sampling import Sampling
from adapterkit.generation.writers import Adapter as Adapter
from adapterkit.generation.writers import Writer, Writers
from adapterkit.model.base import Base, locate
from adapterkit.model.device import Device
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

if TYPE_CHECKING:
    from adapterkit.generation.session import Session


class Generator:
    """Writes with a shared base and any adapters of a registry. Thread-safe.

    Args:
        base: Hub id, folder or ``embedded``; loaded on first use.
        registry: a Registry, its folder, or None for the usual search.
        device: auto, cpu, cuda, cuda:N.
        precision: auto (fp16 on CUDA, fp32 on a CPU), fp32, bf16, fp16.
        quantize: auto, none, 8bit; auto takes 8-bit weights on a CPU for a base of GPT-2's
            size where that was measured to be faster and to read a text as well.
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
        quantize: str = "auto",
        force_base: bool = False,
    ) -> None:
        store = registry if isinstance(registry, Registry) else Registry(registry)
        found = locate(str(base))
        form = formats.choose(found, device, precision, quantize)
        self._writers = Writers(store, found, form, force_base=force_base)
        self._process = os.getpid()

    @property
    def registry(self) -> Registry:
        return self._writers.registry

    @property
    def base(self) -> Base:
        return self._writers.base

    @property
    def device(self) -> Device:
        return self._writers.form.device

    @property
    def said(self) -> str:
        """Device and format, and why, as a line for a person."""
        return self._writers.form.said

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
                max_new_tokens, stop (a text or several), seed, raw (no start token),
                overflow ("left" cuts the beginning of a prompt that is too long).

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
        shared = Sampling().with_(**_asked(sampling).changes)
        return Comparison(
            prompt, tuple(self._write([prompt] * len(adapters), list(adapters), sampling, shared=shared))
        )

    def stream(self, prompt: str, adapter: Adapter = None, **sampling: Any) -> Stream:
        """Pieces of text as they are written."""
        ticket, finish = self._begin(prompt, adapter, sampling)
        return Stream(ticket, finish, ticket.cancel)

    def submit(self, prompt: str, adapter: Adapter = None, **sampling: Any) -> Future[Completion]:
        """A future of the completion; cancelling it ends the writing."""
        return later.future(*self._begin(prompt, adapter, sampling))

    async def agenerate(self, prompt: str, adapter: Adapter = None, **sampling: Any) -> Completion:
        """The completion, without holding up the event loop."""
        return await asyncio.wrap_future(self.submit(prompt, adapter, **sampling))

    async def astream(self, prompt: str, adapter: Adapter = None, **sampling: Any) -> AsyncIterator[str]:
        """Pieces of text, without holding up the event loop."""
        ticket, _ = self._begin(prompt, adapter, sampling)
        async for piece in later.pieces(ticket):
            yield piece

    def session(self, adapter: Adapter = None, **sampling: Any) -> Session:
        """A text that grows turn by turn, see ``Session``."""
        from adapterkit.generation.session import Session  # which builds on this module

        return Session(self, adapter, **sampling)

    def adapters(self) -> list[Version]:
        """The versions that are loaded."""
        return self._writers.versions()

    def load(self, *what: str | Path | Version) -> list[Version]:
        """Load adapters before they are needed; a path is a packed file or PEFT folder, and needs no registry."""
        return [v for each in what for v, _ in self.writer(each).versions]

    def unload(self, ref: str | Version) -> None:
        """Give an adapter's memory back; the next call that names it loads it again."""
        self._writers.unload(ref if isinstance(ref, Version) else self.registry[ref])

    def close(self) -> None:
        """Let go of the base and all adapters; what is being written ends."""
        self._writers.close()

    def writer(self, adapter: Adapter) -> Writer:
        """What an adapter argument means, with its versions loaded."""
        if os.getpid() != self._process:
            raise Forked("this Generator was made in another process.", hint="make one after the fork")
        return self._writers.of(adapter)

    # --- writing ---

    def _begin(
        self, prompt: str, adapter: Adapter, sampling: Mapping[str, Any]
    ) -> tuple[Ticket, Callable[[], Completion]]:
        """One request on its way, and what makes a completion of its end."""
        how = _asked(sampling)
        with self._writers.lock:  # so that nothing is unloaded between the look-up and the request
            writer = self.writer(adapter)
            settings = writer.defaults.with_(**how.changes)
            [ticket] = writer.engine.submit([how.request(prompt, writer.parts, settings)])
        return ticket, lambda: _completion(prompt, writer, settings, how.seed, ticket.result())

    def _write(
        self,
        prompts: list[str],
        adapters: list[Adapter],
        sampling: Mapping[str, Any],
        *,
        shared: Sampling | None = None,
        numbered: bool = False,
    ) -> list[Completion]:
        how = _asked(sampling)
        with self._writers.lock:  # so that nothing is unloaded between the look-up and the requests
            writers = [self.writer(a) for a in adapters]
            settings = [shared or w.defaults.with_(**how.changes) for w in writers]
            requests = [
                how.request(p, w.parts, s, sample=i if numbered else 0)
                for i, (p, w, s) in enumerate(zip(prompts, writers, settings, strict=True))
            ]
            tickets = _submitted(writers, requests)
        zipped = zip(prompts, writers, settings, _results(tickets), strict=True)
        return [_completion(p, w, s, how.seed, r) for p, w, s, r in zipped]


def _submitted(writers: list[Writer], requests: list[Request]) -> list[Ticket]:
    """A ticket each; those of one engine are enqueued together, and none when one is refused."""
    tickets: dict[int, Ticket] = {}
    try:
        for engine in {id(w.engine): w.engine for w in writers}.values():
            chosen = [i for i, w in enumerate(writers) if w.engine is engine]
            tickets |= zip(chosen, engine.submit([requests[i] for i in chosen]), strict=True)
    except BaseException:
        for ticket in tickets.values():
            ticket.cancel()
        raise
    return [tickets[i] for i in range(len(requests))]


def _results(tickets: list[Ticket]) -> list[Written]:
    """What was written; an interrupt, or an error of one, ends all."""
    try:
        return [ticket.result() for ticket in tickets]
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise


@dataclass(frozen=True)
class _Asked:
    """The keywords of a call: settings that differ from the adapter's, and what is no setting."""

    changes: dict[str, Any]
    seed: int
    raw: bool
    overflow: Overflow

    def request(self, prompt: str, parts: Parts, settings: Sampling, sample: int = 0) -> Request:
        return Request(prompt, parts, settings, self.seed, sample, self.raw, self.overflow)


def _asked(sampling: Mapping[str, Any]) -> _Asked:
    """The keywords sorted; the seed is drawn when it is not given.

    Raises:
        UsageProblem: an overflow that is none.
    """
    changes = dict(sampling)
    seed, overflow = changes.pop("seed", None), changes.pop("overflow", "error")
    if overflow not in ("error", "left"):
        raise UsageProblem(f"overflow is {overflow!r}; it is 'error' or 'left'.", hint='overflow="left"')
    raw = bool(changes.pop("raw", False))
    return _Asked(changes, secrets.randbelow(100_000) if seed is None else int(seed), raw, overflow)


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
        usage=Usage(
            written.prompt_tokens, written.new_tokens, written.cut_tokens, written.first_token_seconds
        ),
        seconds=written.seconds,
        forced_base=writer.forced_base,
    )
