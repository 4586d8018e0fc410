"""The bar of ``--require``: what it says, what it lets through, what it refuses to be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.errors import UsageProblem
from adapterkit.evaluation.require import METRICS, OPERATORS, Check, parse
from adapterkit.evaluation.table import Score


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("gain>=0.20", Check("gain", ">=", 0.2)),
        (" gain >= 20% ", Check("gain", ">=", 0.2)),
        ("gain>-.05", Check("gain", ">", -0.05)),
        ("stops>=80 %", Check("stops", ">=", 0.8)),
        ("perplexity<40", Check("perplexity", "<", 40)),
        ("copied_words<=3e1", Check("copied_words", "<=", 30)),
        ("LOSS<3.", Check("loss", "<", 3)),
    ],
)
def test_a_condition_is_read(text: str, check: Check) -> None:
    assert parse([text]) == (check,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not METRIC OP NUMBER"),
        ("gain", "not METRIC OP NUMBER"),
        ("gain=0.2", "not METRIC OP NUMBER"),
        ("gain>=", "not METRIC OP NUMBER"),
        ("gain>=x", "not METRIC OP NUMBER"),
        ("gain>=nan", "not METRIC OP NUMBER"),
        ("gain>=0.2 or 1", "not METRIC OP NUMBER"),
        ("__import__('os')>=1", "not METRIC OP NUMBER"),
        ("perplexity<40%", "no share"),
        ("gian>=0.2", "no metric 'gian'; did you mean 'gain'"),
        ("speed>=2", "no metric 'speed'"),
    ],
)
def test_anything_else_is_wrong_usage_and_says_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(UsageProblem, match=words.replace("'", ".")) as e:
        parse([text])
    assert "gain" in e.value.hint or "gain" in e.value.message
    assert e.value.exit_code == 2


@given(st.text(max_size=30))
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    try:
        (check,) = parse([text])
    except UsageProblem:
        return
    assert check.metric in METRICS
    assert check.sign in OPERATORS


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
@pytest.mark.parametrize("sign", list(OPERATORS))
def test_what_is_not_known_meets_no_bar(value: float | None, sign: str) -> None:
    assert not Check("gain", sign, 0.2).holds(value)


@pytest.mark.parametrize(("sign", "holds"), [(">=", True), ("<=", True), (">", False), ("<", False)])
def test_the_bar_itself_is_met_by_the_signs_with_an_equals(sign: str, holds: bool) -> None:
    assert Check("gain", sign, 0.2).holds(0.2) is holds


def test_every_metric_is_a_number_of_a_score() -> None:
    assert all(hasattr(Score, m) or m in Score.__annotations__ for m in METRICS)
