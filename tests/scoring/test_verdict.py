"""The one sentence on a version, and the gap between what was learned from and unseen text."""

from __future__ import annotations

import math
import re

import pytest

from adapterkit.registry.version import Metrics, Point
from adapterkit.scoring.verdict import gap, pair, train_loss, verdict


def metrics(perplexity: float = 27.9, base: float = 41.2, copied: int | None = 7) -> Metrics:
    loss, base_loss = math.log(perplexity), math.log(base)
    return Metrics(loss, base_loss, perplexity, base, tokens=900, held_out="44" * 32, copied_words=copied)


def test_the_pair_and_the_gain_stand_together() -> None:
    assert pair(metrics()) == "41.2 → 27.9, −32 %"


def test_a_good_version_is_called_so() -> None:
    wanted = "It writes more like your text than the base does (41.2 → 27.9, −32 %), and it does not copy."
    assert verdict(metrics()) == verdict(metrics(), train_loss=3.0) == wanted


@pytest.mark.parametrize(
    ("told", "train_loss", "words"),
    [
        (metrics(copied=31), None, "copies 31 words in a row: fewer passes or more text"),
        (metrics(), 2.0, "memorising: what it learned from is 3.8 times as easy"),
        (metrics(perplexity=41.0), None, r"does not write more like .* \(41.2 → 41.0, −0 %\)"),
        (metrics(perplexity=50), None, r"does not write more like .* \(41.2 → 50.0, \+21 %\)"),
        (metrics(perplexity=50), 1.7, r"does not write more like .*: it is memorising: fewer passes"),
        (metrics(perplexity=50, copied=99), None, "and it copies 99 words"),
        (Metrics(copied_words=40), None, "not tested on unseen text.*copies 40 words"),
        (Metrics(), 2.0, "not tested on unseen text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(told: Metrics, train_loss: float | None, words: str) -> None:
    sentence = verdict(told, train_loss)
    assert re.search(words, sentence), sentence
    assert sentence.endswith(".")


def test_a_version_whose_copying_was_not_measured_is_not_said_not_to_copy() -> None:
    assert "copy" not in verdict(metrics(copied=None))


def test_text_that_is_twice_as_easy_when_seen_is_memorised() -> None:
    small, large = gap(3.0, 3.6), gap(3.0, 3.8)
    assert small is not None
    assert large is not None
    assert (small.word, large.word) == ("learning", "memorising")
    assert large.times == pytest.approx(math.exp(0.8))


def test_without_a_test_there_is_no_gap() -> None:
    assert gap(3.0, None) is gap(None, 3.0) is None


def test_the_training_loss_is_that_of_the_pass_before_the_best_test() -> None:
    told = [(1, 5.0, None), (2, 4.0, 4.5), (3, 3.0, None), (4, 2.0, 4.0), (5, 1.0, None), (6, 0.5, 4.2)]
    points = [Point(step, step, loss, held_out, None, 0.0) for step, loss, held_out in told]
    assert train_loss(points) == 2.5
    assert train_loss(points[:1]) is None
