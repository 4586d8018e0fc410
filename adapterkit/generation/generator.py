"""The public Generator: a base held once, the adapter an argument of each call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from adapterkit.errors import Forked, Overloaded, UsageProblem
from adapterkit.generation import calls, formats, later
from adapterkit.generation.asking import asked
from adapterkit.generation.requests import Ticket, results
from adapterkit.generation.resident import read_size
from adapterkit.generation.results import Comparison, Completion, Stream
from adapterkit.generation.sampling import Sampling
from adapterkit.generation.writers import Adapter as Adapter
from adapterkit.generation.writers import Writer, Writers
from adapterkit.model.base import Base, locate
from adapterkit.model.device import Device
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

if TYPE_CHECKING:
    from adapterkit.generation.beams import Beams
    from adapterkit.generation.session import Session


MAX_WAITING = 10_000


class Generator:
    """Writes with a shared base and any adapters of a registry. Thread-safe.

    Args:
        base: Hub id, folder or ``embedded``; loaded on first use.
        registry: a Registry, its folder, or None for the usual search.
        device: auto, cpu, cuda, cuda:N.
        precision: auto (fp16 on CUDA, fp32 on a CPU), fp32, bf16, fp16.
        quantize: auto, none, 8bit, 4bit (on a GPU); auto takes 8-bit weights on a CPU for a base of GPT-2's
            size where that was measured to be faster and to read a text as well.
        force_base: use adapters of another base of the same sizes too; what they
            write then says ``forced_base``.
        memory: bytes that loaded adapters may take on the device, or ``"2GB"``; None is a
            quarter of the memory that is free once the base is loaded, half of it on a GPU. Those
            used longest ago leave, on a GPU into host memory (a quarter of what is free there), and
            come back when they are named. What requests need stays, also beyond the budget.
        max_waiting: requests that may wait for their turn; one more is refused
            (``Overloaded``), a call that waits for its texts waits for room first.

    Raises:
        NotFound, BaseMismatch, Damaged: from the call that names the adapter.
        OutOfMemory: likewise; it alone takes more than ``memory``.
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
        memory: int | str | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        if max_waiting < 0:
            raise UsageProblem(
                f"max_waiting is {max_waiting}; it must be 0 or more.", hint="max_waiting=1000"
            )
        store = registry if isinstance(registry, Registry) else Registry(registry)
        found = locate(str(base))
        form = formats.choose(found, device, precision, quantize)
        budget = None if memory is None else read_size(memory)
        self._writers = Writers(store, found, form, force_base=force_base, memory=budget)
        self._process = os.getpid()
        self._max_waiting = max_waiting

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
                overflow ("left" cuts the beginning of a prompt that is too long),
                timeout (seconds from now; what was written until then is the result),
                logprobs (0 to 20: how likely each token was, with so many
                alternatives), echo (the same of the prompt's tokens), num_beams (see below).

        With ``num_beams`` of 2 or more a text is not drawn: it is the likeliest per token
        of those that so many searches find, by transformers' own model of the base, which
        is loaded then, in the float format of ``precision``. Beside it go max_new_tokens,
        stop, the penalties, logit_bias, raw and overflow.

        A list may be longer than ``max_waiting``: it is let in whole, as soon as
        there is room for one. Its longest wait is the ``timeout``.

        Raises:
            UsageProblem: one prompt with a list of adapters, or lists of unequal length.
            Overloaded: there was no room before the timeout.
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
        """``n`` different texts from one prompt and one seed, in one batch.

        Raises:
            UsageProblem: n is not 1 or more.
        """
        if n < 1:
            raise UsageProblem(f"n is {n}; it must be 1 or more.", hint="n=3")
        return self._write([prompt] * n, [adapter] * n, sampling, numbered=True)

    def compare(self, prompt: str, adapters: Sequence[Adapter], **sampling: Any) -> Comparison:
        """One prompt by many adapters (None is the base): one seed, one setting, one batch.

        Raises:
            UsageProblem: no adapters.
        """
        if not adapters:
            raise UsageProblem("there is nothing to compare.", hint='gen.compare(prompt, [None, "noir"])')
        shared = Sampling().with_(**asked(sampling).changes)
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
        await asyncio.to_thread(self.writer, adapter)  # loading takes a while
        return await asyncio.wrap_future(self.submit(prompt, adapter, **sampling))

    async def astream(self, prompt: str, adapter: Adapter = None, **sampling: Any) -> AsyncIterator[str]:
        """Pieces of text, without holding up the event loop."""
        await asyncio.to_thread(self.writer, adapter)
        ticket, _ = self._begin(prompt, adapter, sampling)
        async for piece in later.pieces(ticket):
            yield piece

    def session(self, adapter: Adapter = None, **sampling: Any) -> Session:
        """A text that grows turn by turn, see ``Session``."""
        from adapterkit.generation.session import Session  # which builds on this module

        return Session(self, adapter, **sampling)

    def adapters(self) -> list[Version]:
        """The versions that are loaded, those used last at the end."""
        self._check_process()
        return self._writers.versions()

    def load(self, *what: str | Path | Version, pin: bool = False) -> list[Version]:
        """Load adapters before they are needed.

        Args:
            what: a path is a packed file or a PEFT folder, and needs no registry.
            pin: keep them loaded until they are unloaded, however much memory others need.
        """
        with self._writers.lock:
            loaded = [v for each in what for v, _ in self.writer(each).versions]
            if pin:
                self._writers.pin(loaded)
        return loaded

    def unload(self, ref: str | Version) -> None:
        """Give an adapter's memory back; the next call that names it loads it again."""
        self._check_process()
        self._writers.unload(ref if isinstance(ref, Version) else self.registry[ref])

    def close(self) -> None:
        """Let go of the base and all adapters; what is being written ends."""
        if os.getpid() == self._process:  # else a thread that is not here may hold the locks for ever
            self._writers.close()
            self.__dict__.pop("_beams", None)

    def writer(self, adapter: Adapter) -> Writer:
        """What an adapter argument means, with its versions loaded."""
        self._check_process()
        return self._writers.of(adapter)

    def _check_process(self) -> None:
        """Before any lock is taken: one that another thread held at the fork is never released here."""
        if os.getpid() != self._process:
            raise Forked("this Generator was made in another process.", hint="make one after the fork")

    # --- writing ---

    def _begin(
        self, prompt: str, adapter: Adapter, sampling: Mapping[str, Any]
    ) -> tuple[Ticket, Callable[[], Completion]]:
        """One request on its way, and what makes a completion of its end."""
        self._check_process()
        how = asked(sampling)
        with self._writers.lock:  # so that nothing is unloaded between the look-up and the request
            writer = self.writer(adapter)
            settings = writer.defaults.with_(**how.changes)
            request = how.request(prompt, writer.parts, settings)
            [ticket] = writer.engine.submit([request], max_waiting=self._max_waiting)
        return ticket, lambda: calls.completion(prompt, writer, settings, how.seed, ticket.result())

    @cached_property
    def _beams(self) -> Beams:
        from adapterkit.generation.beams import Beams  # transformers loads here

        return Beams(self._writers)

    def _write(
        self,
        prompts: list[str],
        adapters: list[Adapter],
        sampling: Mapping[str, Any],
        *,
        shared: Sampling | None = None,
        numbered: bool = False,
    ) -> list[Completion]:
        self._check_process()
        if sampling.get("num_beams", 1) != 1:
            found = self._beams.write(prompts, adapters, sampling, samples=numbered and len(prompts) > 1)
            return [calls.completion(*each) for each in found]
        how = asked(sampling)
        while True:
            with self._writers.lock:  # so that nothing is unloaded between the look-up and the requests
                writers = [self.writer(a) for a in adapters]
                settings = [shared or w.defaults.with_(**how.changes) for w in writers]
                requests = [
                    how.request(p, w.parts, s, sample=i if numbered else 0)
                    for i, (p, w, s) in enumerate(zip(prompts, writers, settings, strict=True))
                ]
                try:
                    tickets = calls.submitted(writers, requests, self._max_waiting)
                    break
                except Overloaded:
                    full = {id(w.engine): w.engine for w in writers}
            for engine in full.values():  # outside the lock, so that others may load and close meanwhile
                engine.wait_for_room(self._max_waiting, how.deadline)
        zipped = zip(prompts, writers, settings, results(tickets), strict=True)
        return [calls.completion(p, w, s, how.seed, r) for p, w, s, r in zipped]


def _is_list(adapter: object) -> bool:
    return isinstance(adapter, Sequence) and not isinstance(adapter, str)
