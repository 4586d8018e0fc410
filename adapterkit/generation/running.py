"""The requests that advance together, one token a step.

They are compact: request i has row i of the cache and of the routes. One that
is done gives its place to the last, so no step ever copies the cache to pick
rows out of it. A long prompt is read in pieces between the steps of the others,
in a cache of its own, and comes to a row when all of it is read. Only the
engine's thread comes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from adapterkit.generation.cache import Cache
from adapterkit.generation.drawing import drawn
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.logprobs import scored
from adapterkit.generation.pages import PageBank
from adapterkit.generation.prefixes import Prefix, Prefixes
from adapterkit.generation.reading import PIECE, Reading
from adapterkit.generation.requests import Ticket
from adapterkit.generation.routes import Routes


@contextmanager
def ending(tickets: Sequence[Ticket]) -> Iterator[None]:
    """What goes wrong, such as no memory, ends these requests and no others."""
    try:
        yield
    except Exception as e:
        for ticket in tickets:
            if not ticket.is_done:
                ticket.fail(e)


class Running:
    """Requests with their cache and their routes.

    Args:
        model, bank, prefixes, piece: of one engine.
    """

    def __init__(self, model: GPT2, bank: PageBank, prefixes: Prefixes, piece: int = PIECE) -> None:
        self._piece = piece
        self._model, self._bank, self._prefixes = model, bank, prefixes
        self._writing: list[Ticket] = []  # those with a row
        self._reading: list[Reading] = []
        self._failed: list[Ticket] = []  # before they came to either
        self._routes = Routes(bank)
        self._cache: Cache | None = None

    @property
    def tickets(self) -> list[Ticket]:
        return [*self._writing, *(r.ticket for r in self._reading)]

    def admit(self, new: Sequence[Ticket]) -> None:
        """Read the prompts of new requests, in one pass, and draw the first token of each; long ones only begin."""
        short = [ticket for ticket in new if not self._begin(ticket)]
        if short:
            with ending(short):
                cache, first = self._join(short)
                longest = max(len(t.ids) for t in short)
                device = self._bank.device
                ids = torch.tensor([t.ids + [0] * (longest - len(t.ids)) for t in short], device=device)
                lengths = torch.tensor([len(t.ids) for t in short], device=device)
                route = self._bank.route([t.request.parts for t in short])
                self._draw(short, self._model.prefill(ids, lengths, cache, route, first=first))

    def step(self) -> None:
        """One token more for every request that writes, and a piece more of a prompt."""
        if tickets := list(self._writing):
            with ending(tickets):
                device = self._bank.device
                last = torch.tensor([t.ids[-1] for t in tickets], device=device)
                positions = torch.tensor([len(t.ids) - 1 for t in tickets], device=device)
                logits = self._model.step(last, positions, self._room(), self._routes.route())
                self._draw(tickets, logits)
        self._read()

    def settle(self) -> list[Ticket]:
        """Take those that are done out; they are returned."""
        done = [t for t in [*self.tickets, *self._failed] if t.is_done]
        self._failed = []
        self._reading = [r for r in self._reading if not r.ticket.is_done]
        for place in reversed(range(len(self._writing))):  # from the end: the last one may be done too
            if self._writing[place].is_done:
                self._take_out(place)
        if not self._writing:
            self._cache, self._routes = None, Routes(self._bank)  # nothing is kept for nobody
        return done

    # --- prompts ---

    def _begin(self, ticket: Ticket) -> bool:
        """Whether a prompt is read in pieces: it is long, or its beginning was kept."""
        reads = ticket.request.reads
        n, prefix = self._prefixes.find(ticket.request.parts if reads is None else reads, ticket.ids)
        if prefix is None and len(ticket.ids) <= self._piece:
            return False
        try:
            self._reading.append(Reading(self._model, self._bank, ticket, prefix, n))
        except Exception as e:  # no memory for its cache
            ticket.fail(e)
            self._failed.append(ticket)
        ticket.written.kept_tokens = n
        return True

    def _read(self) -> None:
        """Pieces of the prompts that came first, as many tokens as those who write can wait for."""
        left = self._piece if self._writing else self._model.context
        for reading in list(self._reading):
            ticket = reading.ticket
            if reason := ticket.ending:  # also of one whose turn has not come
                ticket.finish(reason)
            with ending([ticket]):
                while left > 0 and reading.logits is None and not ticket.is_done:
                    left -= reading.piece(left)
                if reading.logits is not None:
                    self._reading.remove(reading)
                    self._write(reading)

    def _write(self, reading: Reading) -> None:
        """A prompt that was read comes to a row."""
        ticket, logits = reading.ticket, reading.logits
        assert logits is not None
        cache, row = self._join([ticket])
        cache.copy(reading.cache, row, len(ticket.ids))
        self._draw([ticket], logits)

    # --- rows ---

    def _join(self, new: Sequence[Ticket]) -> tuple[Cache, int]:
        """Rows for new requests behind the last; the first of them."""
        first = len(self._writing)
        self._writing += new
        self._routes.join([t.request.parts for t in new])
        return self._room(), first

    def _take_out(self, place: int) -> None:
        ticket, last, cache = self._writing[place], len(self._writing) - 1, self._cache
        if cache is not None and place < cache.rows:
            if ticket.written.finish_reason == "error":
                cache.clear(place)  # 0 x NaN is NaN, for whoever comes to this row
            elif ticket.request.keeps is not None:
                self._keep(ticket, cache, place)
        if place != last:
            if cache is not None:
                cache.move(last, place, len(self._writing[last].ids))
            self._writing[place] = self._writing[last]
        self._writing.pop()
        self._routes.leave(place)

    def _keep(self, ticket: Ticket, cache: Cache, place: int) -> None:
        ids = tuple(ticket.ids[:-1])  # the last one was drawn, but not read
        with suppress(RuntimeError, MemoryError):  # no room for a copy that only saves time
            kept = Prefix(ids, cache.taken(place, len(ids)), ticket.written.prompt_tokens)
            self._prefixes.keep(ticket.request.keeps, kept)

    def _room(self) -> Cache:
        # doubled, or each one that joins would copy all of it
        rows = 1 << (len(self._writing) - 1).bit_length()
        length = max(len(t.ids) for t in self._writing) + 1
        if self._cache is None:
            self._cache = self._model.new_cache(rows, length)
        else:
            self._cache.ensure(rows, length)
        return self._cache

    def _draw(self, tickets: Sequence[Ticket], logits: Tensor) -> None:
        """A token for each that goes on; those that were cancelled, or whose numbers broke, end here."""
        healthy = torch.isfinite(logits.sum(-1)).tolist()  # one pass: any inf or nan shows in the sum
        for ticket, is_healthy in zip(tickets, healthy, strict=True):
            if not is_healthy:  # first, also of one that was cancelled: its row must be cleared
                ticket.finish("error")
            elif reason := ticket.ending:
                ticket.finish(reason)
        places = [i for i, ticket in enumerate(tickets) if not ticket.is_done]
        if not places:
            return
        left = logits if len(places) == len(tickets) else logits[places]
        chosen = drawn(left, [tickets[i].turn for i in places])
        scores = scored(left, [tickets[i].request.logprobs for i in places], [c.token for c in chosen])
        for i, token, score in zip(places, chosen, scores, strict=True):
            tickets[i].take(token.token, token.margin, score)
