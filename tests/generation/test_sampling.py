"""Filters against transformers' logits processors; draws against the distribution."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from adapterkit.errors import UsageProblem
from adapterkit.generation.sampling import Sampling, draw, from_spec
from adapterkit.recipe.schema import SampleSpec


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


# --- logit bias, and what else came later ------------------------------------------------


class Words:
    """An encoder of words split at spaces."""

    size = 5

    def encode(self, text: str) -> list[int]:
        return [{"the": 0, "lamp": 1, "sea": 2}[word] for word in text.split()]


@pytest.mark.parametrize(
    "given",
    [
        {"the": -5, 4: 2.5},
        {"the": -5, "4": 2.5},
        ["the=-5", "4=2.5"],
        [("the", -5), (4, 2.5)],
        ["the=9", "the=-5", "4=2.5"],
    ],
)
def test_a_bias_may_be_given_in_many_ways(given: object) -> None:
    assert Sampling().with_(logit_bias=given).logit_bias == (("the", -5.0), (4, 2.5))


def test_one_bias_may_be_one_text() -> None:
    assert Sampling().with_(logit_bias="a=b=1e1").logit_bias == (("a=b", 10.0),)


def test_none_is_no_bias_and_no_stop() -> None:
    before = Sampling().with_(logit_bias={3: 1}, stop="x")
    assert before.with_(logit_bias=None, stop=None) == Sampling()


def test_a_bias_stays_when_something_else_changes() -> None:
    assert Sampling().with_(logit_bias={3: 1}).with_(top_k=3).logit_bias == ((3, 1.0),)


def test_a_bias_is_for_ids_once_the_tokenizer_is_known() -> None:
    sampling = Sampling().with_(logit_bias={"lamp": 3, 4: 1, "the": -1})
    assert sampling.in_ids(Words()).logit_bias == ((1, 3.0), (4, 1.0), (0, -1.0))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("the", "logit_bias has 'the', which is not TOKEN=BIAS with a number from -100 to 100"),
        ("=5", "logit_bias has '=5', which is not TOKEN=BIAS"),
        ([3], "logit_bias has '3', which is not TOKEN=BIAS"),
        (3, "logit_bias has '3', which is not TOKEN=BIAS"),
        ("the=much", "logit_bias has 'the=much', which is not"),
        ({"the": 101}, "logit_bias has 'the=101', which is not"),
        ({"the": float("nan")}, "logit_bias has 'the=nan', which is not"),
    ],
)
def test_a_bias_that_is_none_is_told(given: object, said: str) -> None:
    with pytest.raises(UsageProblem, match=said):
        Sampling().with_(logit_bias=given)


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        ({"the lamp": 1}, "'the lamp', which is 2 tokens, not one", "--logit-bias 0=-5 --logit-bias 1=-5"),
        ({5: 1}, "the id 5; this base has 5 tokens", "--logit-bias 4=-5"),
    ],
)
def test_a_bias_for_what_is_no_token_is_told(given: object, said: str, hint: str) -> None:
    with pytest.raises(UsageProblem, match=said) as told:
        Sampling().with_(logit_bias=given).in_ids(Words())
    assert hint in told.value.hint


def test_a_draw_with_a_bias_for_a_text_says_that_it_needs_an_id() -> None:
    with pytest.raises(UsageProblem, match="logit_bias has 'the', which is text"):
        draw(torch.zeros(5), Sampling().with_(logit_bias={"the": 1}), [], random.Random(0))


def test_a_setting_is_a_key_of_the_recipe() -> None:
    names = {f.name for f in fields(Sampling)} - {"stop"}
    assert names == set(SampleSpec.model_fields) - {"prompts"}


def test_settings_that_travel_with_an_adapter_are_all_taken() -> None:
    told = {
        "temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.7, "repetition_penalty": 1.2,
        "presence_penalty": 0.1, "frequency_penalty": -0.1, "no_repeat_ngram_size": 3, "max_new_tokens": 7,
        "logit_bias": [" whale=5", "262=-100"],
    }  # fmt: skip
    taken = from_spec(SampleSpec.model_validate(told))
    assert taken == Sampling().with_(**told)
    assert hash(taken) == hash(Sampling().with_(**told))


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("min_p", 1.5, "a number, at least 0, at most 1"),
        ("typical_p", 0, "a number, above 0, at most 1"),
        ("presence_penalty", 3, "a number, at least -2, at most 2"),
        ("frequency_penalty", -3, "a number, at least -2, at most 2"),
        ("no_repeat_ngram_size", 1.5, "a whole number, at least 0, at most 1024"),
    ],
)
def test_a_new_setting_out_of_its_limits_is_named_with_the_limit(
    name: str, value: object, limit: str
) -> None:
    with pytest.raises(UsageProblem, match=f"{name} is .*; it must be {limit}"):
        Sampling().with_(**{name: value})
