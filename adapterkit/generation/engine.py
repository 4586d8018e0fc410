"""One thread that steps the model; callers enqueue requests and wait for their tickets.

Requests join and leave between two steps, each with its own adapters, settings
and random numbers: there is no active adapter, and nothing a caller does can
change what another one gets. The thread begins with the first request and ends
when there was none for a while, so an engine that nobody holds goes away.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Sequence
from math import isfinite

from adapterkit.errors import AdapterKitError, PromptTooLong
from adapterkit.generation import logprobs
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import Loaded, PageBank
from adapterkit.generation.prefixes import Prefixes
from adapterkit.generation.reading import PIECE
from adapterkit.generation.requests import Parts as Parts
from adapterkit.generation.requests import Request as Request
from adapterkit.generation.requests import Ticket, Written, check_waiter, results
from adapterkit.generation.running import Running, ending
from adapterkit.generation.text import TextStream
from adapterkit.generation.waiting import Waiting
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.strict import LoraFiles

ROWS = 32  # requests that advance together; more wait
IDLE = 2.0  # seconds without work after which the thread ends


class Engine:
    """A prepared base, its tokenizer and the bank of pages.

    Args:
        rows: requests that advance together at most.
        piece: tokens of a long prompt that are read between two steps of others.
        prefixes: the beginnings of texts that are kept; by default as many as 256 MB hold.
    """

    def __init__(
        self,
        model: GPT2,
        tokenizer: Tokenizer,
        bank: PageBank,
        *,
        rows: int = ROWS,
        piece: int = PIECE,
        prefixes: Prefixes | None = None,
    ) -> None:
        self.model, self.tokenizer, self.bank = model, tokenizer, bank
        self.prefixes = Prefixes() if prefixes is None else prefixes
        self._piece = piece
        self.lock = threading.RLock()  # held for a step: whoever takes it holds the engine still
        self._changed = threading.Condition()  # guards what follows
        self._waiting = Waiting(rows)
        self._joining: list[Ticket] = []  # that were taken from those that wait
        self._owner: threading.Thread | None = None
        self._is_closed = False
        self._process = os.getpid()

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """A prompt is the beginning of a document: encoded with the start token."""
        ids = self.tokenizer.encode(prompt)
        return ids if raw and ids else [self.tokenizer.end, *ids]

    def load(self, files: LoraFiles) -> Loaded:
        """Put an adapter into pages; no step waits for it, as none reads pages that no request has."""
        return self.bank.load(files)

    def unload(self, loaded: Loaded) -> None:
        """Give an adapter's pages back, as soon as no request needs them."""
        self.bank.unload(loaded)

    def submit(self, requests: Sequence[Request], *, max_waiting: int | None = None) -> list[Ticket]:
        """Enqueue requests; those of one call begin together where there is room.

        Args:
            max_waiting: refuse them when so many wait already; a call is let in whole or not at all.

        Raises:
            PromptTooLong, Overloaded: nothing is enqueued then.
            AdapterKitError: the engine is closed.
        """
        self._waiting.check(max_waiting)  # before the work of encoding
        tickets = [self._ticket(r) for r in requests]
        with self._changed:
            if self._is_closed:
                raise AdapterKitError("this generator is closed.", hint="make another one")
            self._waiting.check(max_waiting)
            if self._owner is None:
                self._begin()
            self.bank.pin(loaded for ticket in tickets for loaded, _ in ticket.request.parts)
            for ticket in tickets:
                ticket.writer = self._owner
            self._waiting.add(tickets)
            self._changed.notify_all()
        return tickets

    def wait_for_room(self, max_waiting: int, deadline: float | None = None) -> None:
        """Until fewer wait for a row than that.

        Raises:
            Overloaded: the deadline came first.
            UsageProblem: asked by the engine's own thread.
        """
        check_waiter(self._owner)
        with self._changed:
            while self._waiting.is_full(max_waiting):
                if deadline is not None and time.perf_counter() >= deadline:
                    self._waiting.check(max_waiting)
                self._changed.wait(0.1)  # an interrupt, or the deadline, is seen between two waits

    def run(self, requests: Sequence[Request]) -> list[Written]:
        """All requests to their end; an interrupt ends them."""
        return results(self.submit(requests))

    def close(self) -> None:
        """End what is written, and the thread; in a process that was forked from ours there is none."""
        if os.getpid() != self._process:
            return  # its locks may be held for ever by a thread that did not come along
        with self._changed:
            self._is_closed = True
            owner = self._owner
            self._changed.notify_all()
        if owner is not None and owner is not threading.current_thread():
            owner.join()

    # --- the thread ---

    def _begin(self) -> None:
        owner = threading.Thread(target=self._own, name="adapterkit-engine", daemon=True)
        owner.start()
        self._owner = owner
        atexit.register(self.close)  # a thread inside torch when the interpreter goes would abort it

    def _own(self) -> None:
        running = Running(self.model, self.bank, self.prefixes, self._piece)
        try:
            while self._turn(running):
                pass
        except BaseException as e:  # our bug, but nobody is to wait for ever because of it
            with self._changed:
                left = self._left(running)
                self._retire()  # first, so that who is told of an end may ask for something
            for ticket in left:
                ticket.fail(e)
            self._release(left)
            raise

    def _turn(self, running: Running) -> bool:
        """One step, and those that join after it; False when the thread is to end."""
        with self._changed:
            if not self._wait(running):
                self._retire()
                return False
            is_closed = self._is_closed
            gone = self._left(running) if is_closed else self._waiting.left()
            self._joining = new = self._waiting.admitted(running.tickets)
            self._changed.notify_all()  # there may be room now
        for ticket in gone:  # outside the lock: who is told of an end may ask for something
            ticket.finish(ticket.ending or "cancelled")
        self._release(gone)
        if is_closed:
            with self._changed:
                self._retire()
            return False
        with self.lock:
            running.step()
            ready = self._scored(new)
            running.admit(ready)
        self._joining = []
        self._release([*(t for t in new if t not in ready), *running.settle()])
        return True

    def _wait(self, running: Running) -> bool:
        """Until there is something to do; False when there was nothing for a while."""
        while not (running.tickets or self._waiting or self._is_closed):
            self._waiting.admitted([])  # lets go of those that were the last
            if not self._changed.wait(IDLE) and not (self._waiting or self._is_closed):
                return False
        return True

    def _scored(self, new: list[Ticket]) -> list[Ticket]:
        """Tell those that asked how likely their prompts are; those that are not done by that."""
        for ticket in new:
            if ticket.request.echo:
                with ending([ticket]):
                    self._score(ticket)
        return [ticket for ticket in new if not ticket.is_done]

    def _score(self, ticket: Ticket) -> None:
        route = self.bank.route([ticket.request.parts])
        scores = logprobs.of_prompt(self.model, ticket.ids, route, ticket.request.logprobs or 0)
        if not all(isfinite(each.logprob or 0.0) for each in scores):
            return ticket.finish("error")
        ticket.written.scores = scores
        return None

    def _left(self, running: Running) -> list[Ticket]:
        """All there are, each once, as the thread ends."""
        left = [*running.tickets, *self._joining, *self._waiting.all()]
        self._joining = []
        return list({id(ticket): ticket for ticket in left}.values())

    def _retire(self) -> None:
        self._owner = None
        atexit.unregister(self.close)

    def _release(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            self.bank.release(loaded for loaded, _ in ticket.request.parts)

    # --- a request ---

    def _ticket(self, request: Request) -> Ticket:
        ids, context = self.encode(request.prompt, request.raw), self.model.context
        whole = len(ids)
        if whole >= context and request.overflow == "left":
            ids = self._end_of(ids, request)
        if len(ids) >= context:
            raise PromptTooLong(
                f"the prompt is {whole:,} tokens; this base sees {context:,}, and something must be left to write.",
                hint="shorten it, or --overflow left to give only its end",
                details={"tokens": whole, "context": context},
            )
        limit = min(request.sampling.max_new_tokens, context - len(ids))
        stream = TextStream(self.tokenizer, request.sampling.stop)
        sampling = request.sampling.in_ids(self.tokenizer)
        return Ticket(
            request, sampling, ids, stream, limit=limit, end=self.tokenizer.end, cut=whole - len(ids)
        )

    def _end_of(self, ids: list[int], request: Request) -> list[int]:
        """The end of a long prompt, with its start token, that leaves room for what is asked, at least half."""
        context = self.model.context
        room = max(context - request.sampling.max_new_tokens, context // 2)
        start = [] if request.raw else ids[:1]
        return [*start, *ids[-(room - len(start)) :]]
