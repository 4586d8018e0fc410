"""Waiting for texts in other ways than by standing still: futures, coroutines, pieces without a thread each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from adapterkit.generation.requests import Ticket
from adapterkit.generation.results import Completion

Finish = Callable[[], Completion]


def future(ticket: Ticket, finish: Finish) -> Future[Completion]:
    """A future of what is written; cancelling it ends the writing."""
    made: Future[Completion] = Future()
    ticket.mute()

    def settle(_: Ticket) -> None:
        with suppress(InvalidStateError):  # cancelled at this very moment
            if made.set_running_or_notify_cancel():
                try:
                    made.set_result(finish())
                except BaseException as e:
                    made.set_exception(e)

    def cancel(done: Future[Completion]) -> None:
        if done.cancelled():
            ticket.cancel()

    made.add_done_callback(cancel)
    ticket.when_done(settle)
    return made


async def pieces(ticket: Ticket) -> AsyncIterator[str]:
    """Pieces of text as they come, without a thread that waits; leaving the loop ends the writing."""
    loop = asyncio.get_running_loop()
    come: asyncio.Queue[str | None] = asyncio.Queue()
    ticket.listen(lambda piece: _tell(loop, come, piece))
    try:
        while (piece := await come.get()) is not None:
            yield piece
        ticket.result()
    finally:
        ticket.cancel()


def _tell(loop: asyncio.AbstractEventLoop, come: asyncio.Queue[str | None], piece: str | None) -> None:
    with suppress(RuntimeError):  # the loop was closed: nobody reads any more
        loop.call_soon_threadsafe(come.put_nowait, piece)
