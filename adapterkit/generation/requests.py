"""One text to be written: what was asked, how far it is, what became of it."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from adapterkit.generation.drawing import Turn
from adapterkit.generation.pages import Loaded
from adapterkit.generation.sampling import Sampling
from adapterkit.generation.text import TextStream

Finish = Literal["stop", "length", "cancelled", "error"]
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


@dataclass
class Written:
    """What became of a request."""

    text: str = ""
    finish_reason: Finish = "length"
    stopped_by: str = ""
    prompt_tokens: int = 0  # that were read
    cut_tokens: int = 0  # of its beginning, that were not
    new_tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    margin: float = 1.0  # how far the closest draw was from another outcome, as a share


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
        self.written = Written(prompt_tokens=len(ids), cut_tokens=cut)
        self.source = random.Random(f"{request.seed}/{request.sample}")
        self.failure: BaseException | None = None
        self._stream, self._end = stream, end
        self._begun = time.perf_counter()
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._done = threading.Event()
        self._is_cancelled = False
        self._tell: Callable[[str | None], None] | None = None
        self._after: list[Callable[[Ticket], None]] = []
        self._lock = threading.Lock()  # between the end and those who want to be told of it

    # --- for whoever asked ---

    def cancel(self) -> None:
        """Write no more; what was written so far is the result."""
        self._is_cancelled = True

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
            BaseException: what ended it, if that was an error of the engine.
        """
        while not self._done.wait(1.0):  # an interrupt is seen between two waits on every system
            pass
        if self.failure is not None:
            raise self.failure
        return self.written

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as they come; for one reader."""
        while (piece := self._pieces.get()) is not None:
            yield piece
        self.result()

    def listen(self, tell: Callable[[str | None], None]) -> None:
        """Be called with each piece from the engine's thread, those of before first, and with None at the end."""
        with self._lock:
            self._tell = tell
            while not self._pieces.empty():
                tell(self._pieces.get())

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

    def take(self, token: int, margin: float) -> None:
        """One token more, as it was drawn."""
        written = self.written
        written.new_tokens += 1
        written.margin = min(written.margin, margin)
        written.first_token_seconds = written.first_token_seconds or self._elapsed()
        if token == self._end:
            return self.finish("stop", "end-of-text")
        self.ids.append(token)
        self._show(self._stream.push(token))
        if self._stream.stopped_by:
            return self.finish("stop", self._stream.stopped_by)
        if written.new_tokens >= self.limit:
            return self.finish("length")
        return None

    def finish(self, reason: Finish, by: str = "") -> None:
        rest = self._stream.finish()
        written = self.written
        written.text = self._stream.text
        written.finish_reason, written.stopped_by = reason, by
        self._show(rest)
        self._close()

    def fail(self, failure: BaseException) -> None:
        """The engine could not go on with it."""
        self.failure = failure
        self.written.finish_reason = "error"
        self._close()

    def _show(self, piece: str | None) -> None:
        if piece == "":
            return
        with self._lock:
            (self._tell or self._pieces.put)(piece)

    def _close(self) -> None:
        self.written.seconds = max(self._elapsed(), 1e-9)
        with self._lock:
            self._done.set()
            told, self._after = self._after, []
        self._show(None)
        for tell in told:
            tell(self)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._begun
