"""What an evaluation tells while it goes on. The library never prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """A sentence for the person: what was read, on which device, what was decided."""

    text: str


@dataclass(frozen=True)
class Read:
    """So much of a text was read and tokenised; told twice a second while that goes on."""

    documents: int
    characters: int


@dataclass(frozen=True)
class Scoring:
    """So many rows of a text have been scored; told after each batch, first with none."""

    adapter: str  # as it was resolved; "base" for the base itself
    done: int
    rows: int


Event = Said | Read | Scoring
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not listen."""
