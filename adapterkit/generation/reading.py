"""A prompt that is read in pieces, so that those who write meanwhile do not wait for all of it."""

from __future__ import annotations

import torch
from torch import Tensor

from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import PageBank
from adapterkit.generation.prefixes import Prefix
from adapterkit.generation.requests import Ticket

PIECE = 256  # tokens between two steps, about as long as four steps of one row


class Reading:
    """One request's prompt, in a cache of its own.

    Args:
        prefix, known: the kept beginning of the prompt and how many tokens of it; None and 0 where there is none.
    """

    def __init__(
        self, model: GPT2, bank: PageBank, ticket: Ticket, prefix: Prefix | None, known: int
    ) -> None:
        self.ticket = ticket
        self.logits: Tensor | None = None  # (1, v) behind the whole prompt
        self._model, self._bank = model, bank
        self._route = bank.route([ticket.request.parts])
        self._done = known
        self.cache = model.new_cache(1, len(ticket.ids) + 1)
        if prefix is not None:
            self.cache.kv[:, :, 0, :, :known] = prefix.kv[:, :, :, :known]

    def piece(self, most: int) -> int:
        """Read some tokens more; how many."""
        ids, device = self.ticket.ids[self._done : self._done + most], self._bank.device
        logits = self._model.prefill(
            torch.tensor([ids], device=device),
            torch.tensor([len(ids)], device=device),
            self.cache,
            self._route,
            start=torch.tensor([self._done], device=device) if self._done else None,
        )
        self._done += len(ids)
        if self._done == len(self.ticket.ids):
            self.logits = logits
        return len(ids)
