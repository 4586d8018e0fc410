"""``--require``: a condition on the numbers of an evaluation, such as ``gain>=0.20``. Never imports torch.

::

    CHECK  := METRIC OP NUMBER[%]      gain>=0.20   gain >= 20%   perplexity<40   copied_words<=30
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapterkit.errors import UsageProblem, nearest

METRICS = {
    "gain": "share by which perplexity is lower than the base's, 0.20 or 20%",
    "loss": "nats a token",
    "perplexity": "a token",
    "word_perplexity": "a word",
    "byte_perplexity": "a byte of UTF-8",
    "bits_per_byte": "of UTF-8",
    "stops": "share of samples that end by themselves, as measured after training",
    "copied_words": "longest run of words copied from the training text, as measured after training",
}
SHARES = ("gain", "stops")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
FORM = re.compile(r"\s*([a-z_]+)\s*(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(%?)\s*", re.I)


@dataclass(frozen=True)
class Check:
    """One condition."""

    metric: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.limit:g}"

    def holds(self, value: float | None) -> bool:
        """Whether a number meets it; one that is not known or not finite does not."""
        return value is not None and math.isfinite(value) and OPERATORS[self.sign](value, self.limit)


def parse(expressions: Sequence[str]) -> tuple[Check, ...]:
    """Conditions as typed.

    Raises:
        UsageProblem: anything but METRIC OP NUMBER.
    """
    return tuple(_parse(text) for text in expressions)


def _parse(text: str) -> Check:
    match = FORM.fullmatch(text)
    if match is None:
        raise UsageProblem(
            f"--require {text!r} is not METRIC OP NUMBER.",
            hint=f"for example --require 'gain>=0.20'; metrics: {', '.join(METRICS)}; operators: {' '.join(OPERATORS)}",
        )
    metric, sign, number, percent = match[1].lower(), match[2], float(match[3]), match[4]
    if metric not in METRICS:
        close = nearest(metric, METRICS)
        raise UsageProblem(
            f"--require {text!r}: there is no metric {metric!r}"
            + (f"; did you mean {close!r}?" if close else "."),
            hint=f"metrics: {', '.join(METRICS)}",
        )
    if percent and metric not in SHARES:
        raise UsageProblem(
            f"--require {text!r}: {metric} is no share, so it takes no %.",
            hint=f"shares are {' and '.join(SHARES)}",
        )
    return Check(metric, sign, number / 100 if percent else number)
