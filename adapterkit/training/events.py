"""What a run tells while it goes on. The library never prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapterkit.evaluation.events import Read as Read
from adapterkit.evaluation.events import Said as Said
from adapterkit.registry.version import Sample, Version


@dataclass(frozen=True)
class Begun:
    """The steps are about to begin."""

    steps: int
    steps_in_pass: int
    base_loss: float | None  # nats a token on the held-out text
    step: int = 0  # from which a run goes on


@dataclass(frozen=True)
class Stepped:
    step: int
    loss: float | None  # of the steps since the last point
    tokens_per_second: float


@dataclass(frozen=True)
class Tested:
    """The held-out text was scored."""

    step: int
    passes: float
    loss: float | None  # in training
    held_out: float
    is_best: bool
    stops: bool  # no better for so long that training ends here
    best_step: int  # of the best test so far, also before a break
    seconds: float  # of all processes of the run


@dataclass(frozen=True)
class Sampled:
    """Texts by the weights as they are (step), or by those that were kept (None)."""

    samples: tuple[Sample, ...]
    step: int | None = None


@dataclass(frozen=True)
class Finished:
    version: Version
    existed: bool  # the same content or run was there already
    seconds: float


Event = Said | Read | Begun | Stepped | Tested | Sampled | Finished
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not listen."""
