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
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from adapterkit.errors import AdapterKitError, PromptTooLong
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import Loaded, PageBank
from adapterkit.generation.requests import Parts as Parts
from adapterkit.generation.requests import Request as Request
from adapterkit.generation.requests import Ticket, Written
from adapterkit.generation.running import Running
from adapterkit.generation.text import TextStream
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.strict import LoraFiles

ROWS = 32  # requests that advance together; more wait
PROMPTS = 4096  # tokens of prompts that are read between two steps, so that nobody waits long
IDLE = 2.0  # seconds without work after which the thread ends


class InTurn:
    """A lock that is handed on in the order it was asked for: a plain one lets a busy thread take it again and again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        mine = threading.Lock()
        mine.acquire()
        with self._guard:
            self._line.append(mine)
            is_first = len(self._line) == 1
        if not is_first:
            mine.acquire()  # released by whoever was before

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._line.popleft()
            if self._line:
                self._line[0].release()


def _guarded(work: Callable[[], None], tickets: Sequence[Ticket]) -> None:
    """Work for some requests; what goes wrong, such as no memory, ends them, and nobody waits for ever."""
    try:
        work()
    except Exception as e:
        for ticket in tickets:
            if not ticket.is_done:
                ticket.fail(e)


class Engine:
    """A prepared base, its tokenizer and the bank of pages.

    Args:
        rows: requests that advance together at most.
    """

    def __init__(self, model: GPT2, tokenizer: Tokenizer, bank: PageBank, *, rows: int = ROWS) -> None:
        self.model, self.tokenizer, self.bank = model, tokenizer, bank
        self.lock = InTurn()  # one step, or one change of the bank, at a time
        self._rows = rows
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Ticket] = deque()
        self._owner: threading.Thread | None = None
        self._is_closed = False
        self._process = os.getpid()

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """A prompt is the beginning of a document: encoded with the start token."""
        ids = self.tokenizer.encode(prompt)
        return ids if raw and ids else [self.tokenizer.end, *ids]

    def load(self, files: LoraFiles) -> Loaded:
        """Put an adapter into pages, between two steps."""
        with self.lock:
            return self.bank.load(files)

    def unload(self, loaded: Loaded) -> None:
        """Give an adapter's pages back, as soon as no request needs them."""
        with self.lock:
            self.bank.unload(loaded)

    def submit(self, requests: Sequence[Request]) -> list[Ticket]:
        """Enqueue requests; those of one call begin together where there is room.

        Raises:
            PromptTooLong: nothing is enqueued then.
            AdapterKitError: the engine is closed.
        """
        tickets = [self._ticket(r) for r in requests]
        with self._changed:
            if self._is_closed:
                raise AdapterKitError("this generator is closed.", hint="make another one")
            for ticket in tickets:
                self.bank.pin(loaded for loaded, _ in ticket.request.parts)
            self._waiting += tickets
            if self._owner is None:
                self._owner = threading.Thread(target=self._own, name="adapterkit-engine", daemon=True)
                atexit.register(self.close)  # a thread inside torch when the interpreter goes would abort it
                self._owner.start()
            self._changed.notify_all()
        return tickets

    def run(self, requests: Sequence[Request]) -> list[Written]:
        """All requests to their end; an interrupt ends them."""
        tickets = self.submit(requests)
        try:
            return [ticket.result() for ticket in tickets]
        except BaseException:
            for ticket in tickets:
                ticket.cancel()
            raise

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

    def _own(self) -> None:
        running = Running(self.model, self.bank)
        while True:
            new = self._next(running)
            if new is None:
                return
            with self.lock:
                if running.tickets:
                    _guarded(running.step, running.tickets)
                if new:
                    _guarded(partial(running.admit, new), new)
            self._release(running.settle())

    def _next(self, running: Running) -> list[Ticket] | None:
        """Those that join now; None when the thread is to end."""
        with self._changed:
            while not (running.tickets or self._waiting or self._is_closed):
                if not self._changed.wait(IDLE) and not self._waiting:
                    self._owner = None
                    atexit.unregister(self.close)
                    return None
            if self._is_closed:
                self._end(running)
                return None
            return self._admitted(len(running.tickets))

    def _admitted(self, active: int) -> list[Ticket]:
        new: list[Ticket] = []
        tokens = 0
        while self._waiting and active + len(new) < self._rows:
            ticket = self._waiting[0]
            if ticket.is_cancelled:
                self._waiting.popleft().finish("cancelled")
                self._release([ticket])
                continue
            tokens += len(ticket.ids)
            if new and tokens > PROMPTS:
                break
            new.append(self._waiting.popleft())
        return new

    def _end(self, running: Running) -> None:
        left = [*running.tickets, *self._waiting]
        self._waiting.clear()
        self._owner = None
        atexit.unregister(self.close)
        for ticket in left:
            ticket.finish("cancelled")
        self._release(left)

    def _release(self, tickets: Sequence[Ticket]) -> None:
        if tickets:
            with self.lock:
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
