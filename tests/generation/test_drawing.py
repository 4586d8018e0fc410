"""The distribution that is drawn from, against transformers' processors chained as its ``generate`` does."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from adapterkit.generation.drawing import Turn, draw, draw_batch
from adapterkit.generation.sampling import Sampling

CLOSE = 1e-6
PLAIN = {"temperature": 1.0, "top_p": 1.0}


class Given(random.Random):
    """Gives one number, ever again."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.fixture(scope="module")
def transformers_model() -> GPT2LMHeadModel:
    """Knows in which order ``generate`` puts its processors."""
    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=8))


def theirs(
    model: GPT2LMHeadModel, settings: dict[str, Any], seen: list[int], prompt: int, logits: torch.Tensor
) -> torch.Tensor:
    """Shares of each token: transformers' processors, OpenAI's two penalties in plain Python, its warpers."""
    told = {k: v for k, v in settings.items() if k not in ("presence_penalty", "frequency_penalty")}
    bias = told.pop("logit_bias", {})
    if bias:
        told["sequence_bias"] = {(token,): amount for token, amount in bias.items()}
    told.setdefault("top_k", 0)
    chain = model._get_logits_processor(
        GenerationConfig(do_sample=True, **told), input_ids_seq_length=len(seen)
    )
    ids, scores = torch.tensor([seen]), logits[None].clone()
    is_warper = [type(each).__name__.endswith("Warper") for each in chain]
    assert is_warper == sorted(is_warper)
    for each in chain:
        if not type(each).__name__.endswith("Warper"):
            scores = each(ids, scores)
    for token, times in Counter(seen[prompt:]).items():
        scores[0, token] -= settings.get("frequency_penalty", 0.0) * times
        scores[0, token] -= settings.get("presence_penalty", 0.0)
    for each in chain:
        if type(each).__name__.endswith("Warper"):
            scores = each(ids, scores)
    return scores[0].softmax(-1)


def random_settings(rng: random.Random, size: int) -> dict[str, Any]:
    ways: dict[str, Any] = {
        "top_k": rng.choice([1, 2, 5, 40, size // 2, size + 5]),
        "top_p": rng.choice([0.01, 0.3, 0.7, 0.9, 0.95, 0.999]),
        "min_p": rng.choice([0.001, 0.05, 0.3, 1.0]),
        "typical_p": rng.choice([0.05, 0.5, 0.9, 0.99]),
        "repetition_penalty": rng.choice([0.7, 1.1, 1.5, 3.0]),
        "presence_penalty": rng.choice([-1.0, 0.4, 2.0]),
        "frequency_penalty": rng.choice([-0.5, 0.3, 2.0]),
        "no_repeat_ngram_size": rng.choice([1, 2, 3]),
        "logit_bias": {rng.randrange(size): rng.uniform(-8, 8) for _ in range(3)},
    }
    chosen = rng.sample(sorted(ways), rng.randint(0, 5))
    return PLAIN | {"temperature": rng.choice([0.1, 0.7, 1.0, 1.3, 3.0])} | {k: ways[k] for k in chosen}


def differs(shares: torch.Tensor, settings: dict[str, Any], seen: list[int], prompt: int,
            logits: torch.Tensor, rng: random.Random) -> bool:  # fmt: skip
    """Whether a uniform number just inside the bounds of some tokens' shares draws another token."""
    upto = shares.double().cumsum(-1)
    inside = (shares > 6 * CLOSE).nonzero()[:, 0].tolist()
    probed = rng.sample(inside, min(len(inside), 8))
    asked = [
        (number, token)
        for token in probed
        for number in (
            float(upto[token - 1] if token else 0) + 2 * CLOSE,
            float(upto[token]) / float(upto[-1]) - 2 * CLOSE,
        )
    ]
    sampling = Sampling().with_(**settings)
    turns = [Turn(sampling, seen, Given(number), prompt) for number, _ in asked]
    return draw_batch(logits.expand(len(turns), -1), turns) != [token for _, token in asked]


@pytest.mark.parametrize("part", range(8))
def test_tokens_and_shares_are_those_of_transformers(transformers_model: GPT2LMHeadModel, part: int) -> None:
    """500 random cases a part; one that differs may only be where transformers' own rounding decides."""
    rng, excused, cases = random.Random(part), 0, 500
    for case in range(cases):
        size = rng.choice([20, 70, 300, 3000])
        generator = torch.Generator().manual_seed(part * cases + case)
        logits = torch.randn(size, generator=generator) * rng.choice([0.5, 2.0, 6.0])
        seen = [rng.randrange(min(size, 12)) for _ in range(rng.randint(1, 30))]
        prompt = rng.randint(0, len(seen))
        settings = random_settings(rng, size)
        shares = theirs(transformers_model, settings, seen, prompt, logits)
        if differs(shares, settings, seen, prompt, logits, rng):
            exact = theirs(transformers_model, settings, seen, prompt, logits.double())
            assert not torch.equal(shares > 0, exact > 0), (size, settings)
            assert not differs(exact, settings, seen, prompt, logits, rng), (size, settings)
            excused += 1
    assert excused <= cases // 200


@pytest.mark.parametrize("part", range(2))
def test_the_likeliest_token_is_that_of_transformers(transformers_model: GPT2LMHeadModel, part: int) -> None:
    """Temperature 0 takes what penalties leave highest; nothing that cuts changes it."""
    rng = random.Random(part)
    for case in range(500):
        logits = torch.randn(60, generator=torch.Generator().manual_seed(case))
        seen = [rng.randrange(12) for _ in range(rng.randint(1, 30))]
        settings = random_settings(rng, 60) | {"temperature": 1.0}
        penalties = {k: v for k, v in settings.items() if "top" not in k and not k.endswith("_p")}
        shares = theirs(transformers_model, penalties | PLAIN, seen, 3, logits)
        greedy = Sampling().with_(**settings | {"temperature": 0.0})
        assert draw(logits, greedy, seen, random.Random(0), prompt_tokens=3) == int(shares.argmax()), settings


def test_equal_scores_at_the_edge_of_top_k_all_stay() -> None:
    logits = torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0])
    sampling = Sampling(temperature=1.0, top_k=1, top_p=1.0)
    got = {draw(logits, sampling, [], Given(u)) for u in (0.1, 0.5, 0.9)}
    assert got == {1, 2, 3}


@pytest.mark.parametrize("top_p", [0.2, 0.55, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_of_equal_scores_at_the_edge_of_top_p_as_many_stay_as_in_transformers(
    transformers_model: GPT2LMHeadModel, top_p: float, seed: int
) -> None:
    """One token has half of all, a thousand the rest in two steps. Which of equal ones is left open there."""
    logits = torch.randint(0, 2, (1000,), generator=torch.Generator().manual_seed(seed)).float() / 4
    logits[31] = logits.exp().sum().log()
    settings = PLAIN | {"top_p": top_p}
    count = int((theirs(transformers_model, settings, [0], 0, logits) > 0).sum())
    kept = sorted(sorted(range(1000), key=lambda token: (float(logits[token]), token))[-count:])
    shares = torch.zeros(1000)
    shares[kept] = logits[kept].softmax(-1)
    ends = [draw(logits, Sampling().with_(**settings), [], Given(u)) for u in (0.0, 1 - 2**-53)]
    assert ends == [kept[0], kept[-1]]
    assert not differs(shares, settings, [0], 0, logits, random.Random(seed))


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"min_p": 0.1}, {"typical_p": 0.9}, {"top_p": 0.95}])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_a_token_without_a_share_is_never_drawn(settings: dict[str, Any], uniform: float) -> None:
    logits = torch.full((4096,), -500.0)
    logits[[7, 50, 2000]] = 1.0
    sampling = Sampling().with_(**PLAIN | settings)
    assert draw(logits, sampling, [], Given(uniform)) == (7 if uniform == 0 else 2000)


@pytest.mark.parametrize("temperature", [1e-4, 1e-12, 1e-40, 1e-300])
@pytest.mark.parametrize("top_k", [0, 3])
def test_a_temperature_near_zero_takes_the_likeliest(temperature: float, top_k: int) -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 30
    sampling = Sampling(temperature=temperature, top_k=top_k)
    assert draw(logits, sampling, [], random.Random(0)) == int(logits.argmax())


def test_an_ngram_rule_that_leaves_nothing_is_dropped() -> None:
    sampling = Sampling(temperature=0.0, no_repeat_ngram_size=1)
    assert draw(torch.tensor([1.0, 3.0, 2.0]), sampling, [0, 1, 2], random.Random(0)) == 1


def test_logits_are_left_as_they_are_and_may_be_inference_tensors() -> None:
    with torch.inference_mode():
        logits = torch.tensor([3.0, 2.9, 1.0])
    before = logits.tolist()
    sampling = Sampling(temperature=0.0, repetition_penalty=2.0, logit_bias=((2, 1.0),))
    assert draw(logits, sampling, [0], random.Random(0)) == 1
    assert logits.tolist() == before


def test_presence_and_frequency_count_only_what_was_written() -> None:
    logits = torch.tensor([1.0, 0.9, 0.0])
    sampling = Sampling(temperature=0.0, presence_penalty=0.5)
    assert draw(logits, sampling, [0, 0], random.Random(0), prompt_tokens=2) == 0
    assert draw(logits, sampling, [0, 0], random.Random(0), prompt_tokens=1) == 1


def test_a_draw_takes_one_number_from_its_source() -> None:
    source, reference = random.Random(5), random.Random(5)
    logits = torch.randn(300, generator=torch.Generator().manual_seed(1))
    for settings in ({}, {"top_k": 4}, {"top_p": 1.0}, {"typical_p": 0.5, "frequency_penalty": 1.0}):
        draw(logits, Sampling().with_(**settings), [1, 2], source)
        reference.random()
    assert source.getstate() == reference.getstate()
