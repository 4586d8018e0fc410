"""One text to be written: what was asked, how far it is, what became of it."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from adapterkit.errors import Forked, UsageProblem
from adapterkit.files import log
from adapterkit.generation.drawing import Turn
from adapterkit.generation.logprobs import Scored
from adapterkit.generation.pages import Loaded
from adapterkit.generation.sampling import Sampling
from adapterkit.generation.text import TextStream

Finish = Literal["stop", "length", "timeout", "cancelled", "error"]
Overflow = Literal["error", "left"]
Parts = tuple[tuple[Loaded, float], ...]


@dataclass
class Request:
    """One text to be written. ``parts`` are the adapters with their weights, empty for the base."""

    prompt: str
    parts: Parts
    sampling: Sampling
    seed: int
    sample: int = 0  # which of n samples of one seed
    raw: bool = False  # leave out the start token
    overflow: Overflow = "error"  # what becomes of a prompt that is longer than the base sees
    logprobs: int | None = None  # alternatives whose log-probability is told beside each token's
    echo: bool = False  # log-probabilities of the prompt's tokens too
    deadline: float | None = None  # moment of time.perf_counter() at which it ends with what there is
    keeps: Hashable = None  # under what its text is kept for requests that go on with it; None: it isn't
    reads: Hashable = None  # under what the beginning of its prompt may have been kept; None: its own parts


@dataclass
class Written:
    """What became of a request."""

    text: str = ""
    finish_reason: Finish = "length"
    stopped_by: str = ""
    prompt_tokens: int = 0  # that were read
    cut_tokens: int = 0  # of its beginning, that were not
    kept_tokens: int = 0  # of the prompt, that had been read for an earlier text
    new_tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    margin: float = 1.0  # how far the closest draw was from another outcome, as a share
    is_of_others: bool = False  # those tokens may have been read by other adapters
    scores: list[Scored] | None = None  # of each token, those of the prompt first with echo; None: not asked


def check_waiter(writer: threading.Thread | None) -> None:
    """Whether this thread may wait for what another one writes.

    Raises:
        UsageProblem: it is the one that writes, which would wait for itself.
    """
    if threading.current_thread() is writer:
        raise UsageProblem(
            "who is told of a text can't wait for another one: the same thread writes it.",
            hint="gen.submit(...) does not wait",
        )


class Ticket:
    """A request on its way. The engine's thread writes to it; any thread may read, wait or cancel.

    Args:
        sampling: the request's, in ids of the engine's tokenizer.
        ids: the encoded prompt; grows by the tokens that are written.
        stream: turns tokens into text.
        limit: new tokens at most.
        cut: tokens of the prompt's beginning that are left out.
        end: the token that ends a text.
    """

    def __init__(
        self,
        request: Request,
        sampling: Sampling,
        ids: list[int],
        stream: TextStream,
        *,
        limit: int,
        end: int,
        cut: int = 0,
    ) -> None:
        self.request, self.sampling, self.ids, self.limit = request, sampling, ids, limit
        scores: list[Scored] | None = None if request.logprobs is None else []
        self.written = Written(prompt_tokens=len(ids), cut_tokens=cut, scores=scores)
        self.written.is_of_others = request.reads not in (None, request.parts)
        self.source = random.Random(f"{request.seed}/{request.sample}")
        self.failure: BaseException | None = None
        self._stream, self._end = stream, end
        self._begun = time.perf_counter()
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._done = threading.Event()
        self._is_cancelled = False
        self._tell: Callable[[str | None], None] | None = None
        self._after: list[Callable[[Ticket], None]] = []
        # between the end and those who want to be told of it, who may ask for more when they are told
        self._lock = threading.RLock()
        self._wake: Callable[[], None] | None = None
        self.writer: threading.Thread | None = None  # the engine's, which can't wait for itself
        self._process = os.getpid()

    # --- for whoever asked ---

    def cancel(self) -> None:
        """Write no more; what was written so far is the result."""
        self._is_cancelled = True
        if self._wake is not None:
            self._wake()

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it is done, after at most so long."""
        return self._done.wait(seconds)

    def result(self) -> Written:
        """What was written, when it is done.

        Raises:
            BaseException: what ended it, if that was an error of the engine, or of one who listened.
            Forked: it is written in the process that this one was forked from.
            UsageProblem: asked by the thread that writes it, which would wait for itself.
        """
        if not self.is_done:
            check_waiter(self.writer)
        while not self._done.wait(1.0):  # an interrupt is seen between two waits on every system
            self._check_process()
        if self.failure is not None:
            raise self.failure
        return self.written

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as they come; for one reader."""
        while (piece := self._next_piece()) is not None:
            yield piece
        self.result()

    def mute(self) -> None:
        """Nobody reads the pieces: they are not kept."""
        self.listen(lambda _: None)

    def listen(self, tell: Callable[[str | None], None]) -> None:
        """Be called with each piece from the engine's thread, those of before first, and with None at the end.

        What it raises ends this request with that error, and no other one.
        """
        with self._lock:
            self._tell = tell
            while not self._pieces.empty():
                self._show(self._pieces.get())

    def when_done(self, tell: Callable[[Ticket], None]) -> None:
        """Call back from the engine's thread, which waits meanwhile; at once when it is done already."""
        with self._lock:
            if not self._done.is_set():
                self._after.append(tell)
                return
        tell(self)

    # --- for the engine ---

    @property
    def turn(self) -> Turn:
        """What it brings to the draw of its next token."""
        return Turn(self.sampling, self.ids, self.source, self.written.prompt_tokens)

    @property
    def ending(self) -> Finish | None:
        """Why it is to end, if it is."""
        if self._is_cancelled:
            return "cancelled"
        deadline = self.request.deadline
        return "timeout" if deadline is not None and time.perf_counter() >= deadline else None

    def on_cancel(self, wake: Callable[[], None]) -> None:
        """Call this when it is cancelled, from whatever thread does that."""
        self._wake = wake

    def take(self, token: int, margin: float, score: Scored | None = None) -> None:
        """One token more, as it was drawn."""
        written = self.written
        written.new_tokens += 1
        written.margin = min(written.margin, margin)
        written.first_token_seconds = written.first_token_seconds or self._elapsed()
        if written.scores is not None and score is not None:
            written.scores.append(score)
        if token == self._end:
            return self.finish("stop", "end-of-text")
        self.ids.append(token)
        self._show(self._stream.push(token))
        if self.failure is not None:
            return self.fail(self.failure)
        if self._stream.stopped_by:
            return self.finish("stop", self._stream.stopped_by)
        if written.new_tokens >= self.limit:
            return self.finish("length")
        return None

    def finish(self, reason: Finish, by: str = "") -> None:
        """No more comes; of one that is done already nothing changes."""
        if self.is_done:
            return
        rest = self._stream.finish()
        written = self.written
        written.text = self._stream.text
        written.finish_reason, written.stopped_by = reason, by
        self._show(rest)
        if self.failure is not None:
            written.finish_reason = "error"
        self._close()

    def fail(self, failure: BaseException) -> None:
        """The engine could not go on with it."""
        if self.is_done:
            return
        self.failure = failure
        self.written.finish_reason = "error"
        self._close()

    def _show(self, piece: str | None) -> None:
        if piece == "":
            return None
        with self._lock:
            if self._tell is None:
                return self._pieces.put(piece)
            try:
                self._tell(piece)
            except BaseException as e:  # also SystemExit, which would end the engine's thread
                if self.is_done:
                    log.warning("a listener failed at the end of a text: %r", e)
                else:
                    self.failure = self.failure or e
        return None

    def _close(self) -> None:
        self.written.seconds = max(self._elapsed(), 1e-9)
        with self._lock:
            self._done.set()
            told, self._after = self._after, []
        self._show(None)
        for tell in told:
            try:
                tell(self)
            except BaseException as e:  # as concurrent.futures does: others are told all the same
                log.warning("one who wanted to be told of the end of a text failed: %r", e)

    def _next_piece(self) -> str | None:
        while not (self.is_done and self._pieces.empty()):  # the end was read before
            try:
                return self._pieces.get(timeout=1.0)
            except queue.Empty:
                self._check_process()
        return None

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise Forked("this text is written in another process.", hint="ask for it after the fork")

    def _elapsed(self) -> float:
        return time.perf_counter() - self._begun


def results(tickets: Sequence[Ticket]) -> list[Written]:
    """What was written; an interrupt, or an error of one, ends all."""
    for ticket in tickets:
        ticket.mute()
    try:
        return [ticket.result() for ticket in tickets]
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise
