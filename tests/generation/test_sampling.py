"""Filters against transformers' logits processors; draws against the distribution."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from adapterkit.errors import UsageProblem
from adapterkit.generation.sampling import Sampling, draw


def drawn(logits: torch.Tensor, sampling: Sampling, count: int, seen: list[int] | None = None) -> list[int]:
    source = random.Random(0)
    return [draw(logits.clone(), sampling, seen or [], source) for _ in range(count)]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert drawn(torch.tensor([0.1, 2.0, 1.9]), Sampling(temperature=0.0), 3) == [1, 1, 1]


@pytest.mark.parametrize("top_p", [0.2, 0.5, 0.9])
def test_top_p_draws_exactly_from_the_tokens_transformers_keeps(top_p: float) -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1)) * 2
    kept = TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0].isfinite()
    assert set(drawn(logits, Sampling(temperature=1.0, top_p=top_p), 4000)) == set(
        kept.nonzero()[:, 0].tolist()
    )


def test_top_k_draws_exactly_from_the_tokens_transformers_keeps() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(2))
    kept = TopKLogitsWarper(5)(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0].isfinite()
    assert set(drawn(logits, Sampling(temperature=1.0, top_k=5, top_p=1.0), 2000)) == set(
        kept.nonzero()[:, 0].tolist()
    )


def test_repetition_penalty_agrees_with_transformers() -> None:
    logits = torch.tensor([3.0, 2.9, -1.0, -1.1])
    theirs = RepetitionPenaltyLogitsProcessor(1.5)(torch.tensor([[0, 2]]), logits[None].clone())[0]
    taken = draw(logits, Sampling(temperature=0.0, repetition_penalty=1.5), [0, 2], random.Random(0))
    assert taken == int(theirs.argmax()) == 1
    assert int(logits.argmax()) == 0  # what the penalty changed


def test_shares_of_draws_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    got = drawn(logits, Sampling(temperature=1.0, top_p=1.0), 6000)
    shares = torch.bincount(torch.tensor(got), minlength=3) / 6000
    assert torch.allclose(shares, logits.softmax(0), atol=0.03)


def test_one_seed_gives_one_sequence() -> None:
    logits = torch.randn(30, generator=torch.Generator().manual_seed(3))
    assert drawn(logits, Sampling(), 20) == drawn(logits, Sampling(), 20)


def test_a_setting_out_of_its_limits_is_named_with_the_limit() -> None:
    with pytest.raises(UsageProblem, match="temperature is 99; it must be a number, at least 0, at most 10"):
        Sampling().with_(temperature=99)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UsageProblem, match="did you mean 'temperature'"):
        Sampling().with_(temprature=0.5)
