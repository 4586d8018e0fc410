"""The requests that advance together, one token a step.

They are compact: request i has row i of the cache and of the route. One that
is done gives its place to the last, so no step ever copies the cache to pick
rows out of it. Only the engine's thread comes here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapterkit.generation.cache import Cache
from adapterkit.generation.drawing import drawn
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import PageBank
from adapterkit.generation.requests import Ticket
from adapterkit.generation.route import Route


class Running:
    """Requests with their cache and their route.

    Args:
        model, bank: of one engine.
    """

    def __init__(self, model: GPT2, bank: PageBank) -> None:
        self._model, self._bank = model, bank
        self.tickets: list[Ticket] = []
        self._cache: Cache | None = None
        self._route: Route | None = None  # None: to be gathered anew

    def admit(self, new: Sequence[Ticket]) -> None:
        """Read the prompts of new requests in one pass and draw the first token of each."""
        first = len(self.tickets)
        self.tickets += new
        self._route = None
        cache = self._room()
        device = self._bank.device
        longest = max(len(t.ids) for t in new)
        ids = torch.tensor([t.ids + [0] * (longest - len(t.ids)) for t in new], device=device)
        lengths = torch.tensor([len(t.ids) for t in new], device=device)
        route = self._bank.route([t.request.parts for t in new])
        self._draw(new, self._model.prefill(ids, lengths, cache, route, first=first))

    def step(self) -> None:
        """One token more for every request."""
        device, tickets = self._bank.device, self.tickets
        if self._route is None:
            self._route = self._bank.route([t.request.parts for t in tickets])
        last = torch.tensor([t.ids[-1] for t in tickets], device=device)
        positions = torch.tensor([len(t.ids) - 1 for t in tickets], device=device)
        self._draw(tickets, self._model.step(last, positions, self._room(), self._route))

    def settle(self) -> list[Ticket]:
        """Take those that are done out; they are returned."""
        done = [t for t in self.tickets if t.is_done]
        for ticket in reversed(done):  # from the end, so that those that never got a row are not moved
            self._take_out(self.tickets.index(ticket))
        if done:
            self._route = None
        if not self.tickets:
            self._cache = None  # nothing is kept for nobody
        return done

    def _take_out(self, place: int) -> None:
        last, cache = len(self.tickets) - 1, self._cache
        if cache is not None and place < cache.rows and self.tickets[place].written.finish_reason == "error":
            cache.clear(place)  # 0 x NaN is NaN, for whoever comes to this row
        if place != last:
            if cache is not None:
                cache.move(last, place, len(self.tickets[last].ids))
            self.tickets[place] = self.tickets[last]
        self.tickets.pop()

    def _room(self) -> Cache:
        rows = (
            1 << (len(self.tickets) - 1).bit_length()
        )  # doubled, or each one that joins would copy all of it
        length = max(len(t.ids) for t in self.tickets) + 1
        if self._cache is None:
            self._cache = self._model.new_cache(rows, length)
        else:
            self._cache.ensure(rows, length)
        return self._cache

    def _draw(self, tickets: Sequence[Ticket], logits: Tensor) -> None:
        """A token for each that goes on; those that were cancelled, or whose numbers broke, end here."""
        healthy = torch.isfinite(logits.sum(-1)).tolist()  # one pass: any inf or nan shows in the sum
        for ticket, is_healthy in zip(tickets, healthy, strict=True):
            if ticket.is_cancelled:
                ticket.finish("cancelled")
            elif not is_healthy:
                ticket.finish("error")
        places = [i for i, ticket in enumerate(tickets) if not ticket.is_done]
        if not places:
            return
        left = logits if len(places) == len(tickets) else logits[places]
        chosen = drawn(left, [tickets[i].turn for i in places])
        for i, token in zip(places, chosen, strict=True):
            tickets[i].take(token.token, token.margin)
