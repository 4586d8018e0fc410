"""Requests that wait for a row: how many there may be, who goes first, who waits no more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence

from adapterkit.errors import Overloaded
from adapterkit.generation.requests import Ticket

PROMPTS = 4096  # tokens of prompts that are read between two steps, so that nobody waits long
NEVER = float("inf")


class Waiting:
    """The queue of an engine, which guards it with its lock.

    Args:
        rows: requests that advance together at most.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._tickets: deque[Ticket] = deque()
        self._earliest = NEVER  # deadline
        self._is_left = False  # one of them may have been cancelled
        self._begun: list[Ticket] = []  # those with a row, when it was last looked

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            ticket.on_cancel(self._one_left)
            self._earliest = min(self._earliest, ticket.request.deadline or NEVER)
            self._tickets.append(ticket)

    def is_full(self, most: int | None) -> bool:
        """Whether ``most`` wait already, beyond those that a row is free for; None is no bound."""
        return most is not None and len(self) >= most and self._beyond_rows >= most

    def check(self, most: int | None) -> None:
        """Whether one more may wait.

        Raises:
            Overloaded: no.
        """
        if self.is_full(most):
            waiting = self._beyond_rows
            raise Overloaded(
                f"{waiting:,} requests wait already; more than {most:,} may not.",
                hint="try again in a moment, or Generator(max_waiting=...)",
                details={"waiting": waiting, "max_waiting": most},
            )

    def left(self) -> list[Ticket]:
        """Take those out that are to end without a row: cancelled, or their time is over."""
        if not self._is_left and time.perf_counter() < self._earliest:
            return []  # nobody is looked for in vain at every step
        self._is_left = False
        left = [t for t in self._tickets if t.ending]
        gone = set(map(id, left))  # asked once: time goes on
        self._tickets = deque(t for t in self._tickets if id(t) not in gone)
        self._earliest = min((t.request.deadline or NEVER for t in self._tickets), default=NEVER)
        return left

    def admitted(self, begun: Sequence[Ticket]) -> list[Ticket]:
        """Take those out that get a row now, beside those that have one."""
        new: list[Ticket] = []
        tokens = 0
        while self._tickets and len(begun) + len(new) < self._rows:
            ticket = self._tickets[0]
            tokens += len(ticket.ids) * (2 if ticket.request.echo else 1)  # which is read twice
            if new and tokens > PROMPTS:
                break
            new.append(self._tickets.popleft())
        self._begun = [*begun, *new]
        return new

    def all(self) -> list[Ticket]:
        """Take all out."""
        tickets = list(self._tickets)
        self._tickets.clear()
        return tickets

    @property
    def _beyond_rows(self) -> int:
        """How many wait that no row is free for; less than 0 when there are rows for more."""
        return len(self) + sum(not t.is_done for t in self._begun) - self._rows

    def _one_left(self) -> None:
        """From any thread, so nothing is locked."""
        self._is_left = True
