"""What the numbers of a version mean, in one sentence: is it good, and does it copy? Never imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adapterkit.registry.version import COPIED as COPIED
from adapterkit.registry.version import Metrics, Point

LITTLE = 0.02  # of perplexity; less is within what another seed changes
# Nats between unseen text and what was learned from; at ln 2 what was seen is twice as easy, token by token. Measured on
# two texts of 2,600 words, rank 32: 0.2 and 0.4 where unseen text was still getting easier, 1.4 when it got harder
# again, 3.6 when it was harder than for the base.
MEMORISED = math.log(2)

Word = Literal["learning", "memorising"]


@dataclass(frozen=True)
class Gap:
    """How much easier what was learned from is than unseen text."""

    nats: float  # a token: held-out loss less training loss

    @property
    def word(self) -> Word:
        return "memorising" if self.nats > MEMORISED else "learning"

    @property
    def times(self) -> float:
        """As a ratio of perplexities: 1.2 is 20 % easier."""
        return math.exp(self.nats)


def gap(train_loss: float | None, held_out: float | None) -> Gap | None:
    """The gap between two losses in nats a token; None where one was not measured.

    Args:
        train_loss: over the last pass, not of the last step, which may be on easy text.
        held_out: of the weights that are kept.
    """
    if train_loss is None or held_out is None:
        return None
    return Gap(held_out - train_loss)


def train_loss(points: Sequence[Point]) -> float | None:
    """Nats a token while the weights that are kept were learned: between their test and the one before."""
    tests = [(p.held_out, p.step) for p in points if p.held_out is not None]
    if not tests:
        return None
    end = min(tests)[1]
    begin = max((step for _, step in tests if step < end), default=0)
    those = [p.loss for p in points if begin < p.step <= end and p.loss is not None]
    return sum(those) / len(those) if those else None


def pair(metrics: Metrics) -> str:
    """``41.2 → 27.9, −32 %``: the pair and the gain always together; empty where nothing was tested."""
    if metrics.perplexity is None or metrics.base_perplexity is None or metrics.gain is None:
        return ""
    change = f"{'−' if metrics.gain < 0 else '+'}{abs(metrics.gain):.0%}".replace("%", " %")
    return f"{metrics.base_perplexity:.1f} → {metrics.perplexity:.1f}, {change}"


def verdict(metrics: Metrics, train_loss: float | None = None) -> str:
    """One sentence on whether a version is good.

    Args:
        metrics: of the manifest.
        train_loss: nats a token over the last pass; None leaves the gap out.
    """
    copied = metrics.copied_words or 0
    if metrics.gain is None:
        return f"It was not tested on unseen text, so nobody knows if it writes more like your text{_but(copied)}."
    found = gap(train_loss, metrics.loss)
    memorises = found is not None and found.word == "memorising"
    if metrics.gain > -LITTLE:
        remedy = (
            "it is memorising: fewer passes or more text"
            if memorises
            else "more text or more passes may help"
        )
        return f"It does not write more like your text than the base does ({pair(metrics)}): {remedy}{_but(copied)}."
    better = f"It writes more like your text than the base does ({pair(metrics)})"
    if copied >= COPIED:
        return f"{better}, but it copies {copied} words in a row: fewer passes or more text."
    if found is not None and memorises:
        return (
            f"{better}, but it is memorising: what it learned from is {found.times:.1f} times as easy for it "
            "as unseen text; fewer passes or more text."
        )
    return f"{better}, and it does not copy." if metrics.copied_words is not None else f"{better}."


def _but(copied: int) -> str:
    return f", and it copies {copied} words in a row" if copied >= COPIED else ""
