"""The keywords of a call, sorted: settings of the adapter that it changes, and what is no setting."""

from __future__ import annotations

import operator
import secrets
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from adapterkit.errors import UsageProblem
from adapterkit.generation import logprobs
from adapterkit.generation.requests import Overflow, Parts, Request
from adapterkit.generation.sampling import Sampling

# of a session: what its text goes on from, and what it is kept as; None is the writer's own
Memory = tuple[Hashable, Hashable]


@dataclass(frozen=True)
class Asked:
    """The keywords of a call: settings that differ from the adapter's, and what is no setting."""

    changes: dict[str, Any]
    seed: int
    raw: bool
    overflow: Overflow
    logprobs: int | None
    echo: bool
    deadline: float | None
    memory: Memory | None

    def request(self, prompt: str, parts: Parts, settings: Sampling, sample: int = 0) -> Request:
        return Request(
            prompt, parts, settings, self.seed, sample, self.raw, self.overflow,
            self.logprobs, self.echo, self.deadline,
            keeps=None if self.memory is None else self.memory[1] or parts,
            reads=None if self.memory is None else self.memory[0],
        )  # fmt: skip


def asked(sampling: Mapping[str, Any]) -> Asked:
    """The keywords sorted; the seed is drawn when it is not given.

    Raises:
        UsageProblem: a seed, an overflow, a timeout or a number of logprobs that is none.
    """
    changes = dict(sampling)
    if changes.pop("num_beams", 1) != 1:
        raise UsageProblem(
            "num_beams is for whole texts, not for streams, futures, sessions and comparisons.",
            hint="gen(prompt, adapter, num_beams=4)",
        )
    seed, overflow = seed_of(changes.pop("seed", None)), changes.pop("overflow", "error")
    if overflow not in ("error", "left"):
        raise UsageProblem(f"overflow is {overflow!r}; it is 'error' or 'left'.", hint='overflow="left"')
    # anything else of that name is no setting, and told so
    memory = changes.pop("memory") if isinstance(changes.get("memory"), tuple) else None
    raw, echo = bool(changes.pop("raw", False)), bool(changes.pop("echo", False))
    return Asked(
        changes,
        seed,
        raw,
        overflow,
        logprobs.check(changes.pop("logprobs", None), echo),
        echo,
        _deadline(changes.pop("timeout", None)),
        memory,
    )


def seed_of(given: object) -> int:
    """The seed itself, a drawn one for None.

    Raises:
        UsageProblem: no whole number.
    """
    if given is None:
        return secrets.randbelow(100_000)
    try:
        if not isinstance(given, bool):
            return operator.index(given)  # type: ignore[arg-type]  # numpy's whole numbers too
    except TypeError:
        pass
    raise UsageProblem(f"seed is {given!r}; it must be a whole number.", hint="seed=17")


def _deadline(timeout: object) -> float | None:
    """The moment at which so many seconds are over."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise UsageProblem(
            f"timeout is {timeout!r}; it must be a number of seconds above 0.", hint="timeout=30"
        )
    return time.perf_counter() + timeout
