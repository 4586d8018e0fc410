"""Many requests at once, and how near another token was."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from adapterkit.generation.drawing import Turn, draw, draw_batch, drawn
from adapterkit.generation.sampling import Sampling

WAYS: list[dict[str, Any]] = [
    {"temperature": 0.0}, {"top_p": 1.0}, {}, {"top_k": 5}, {"top_k": 60, "top_p": 1.0, "min_p": 0.02},
    {"min_p": 0.1}, {"typical_p": 0.8, "temperature": 1.4}, {"repetition_penalty": 1.3, "top_k": 40},
    {"temperature": 0.0, "frequency_penalty": 1.0}, {"logit_bias": {3: 4.0}, "no_repeat_ngram_size": 2},
]  # fmt: skip


def logits_of(rows: int, seed: int, size: int = 5000) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_draws_what_each_row_draws_alone(seed: int) -> None:
    rng = random.Random(seed)
    settings = [Sampling().with_(**rng.choice(WAYS)) for _ in range(rng.randint(1, 24))]
    logits = logits_of(len(settings), seed)
    seen = [[rng.randrange(50) for _ in range(rng.randint(0, 20))] for _ in settings]
    turns = [
        Turn(s, w, random.Random(i), len(w) // 2) for i, (s, w) in enumerate(zip(settings, seen, strict=True))
    ]
    alone = [
        draw(row, s, w, random.Random(i), prompt_tokens=len(w) // 2)
        for i, (row, s, w) in enumerate(zip(logits, settings, seen, strict=True))
    ]
    assert draw_batch(logits, turns) == alone


def test_no_rows_draw_nothing() -> None:
    assert draw_batch(torch.empty(0, 50), []) == []


@pytest.mark.parametrize("way", [w for w in WAYS if w.get("temperature") != 0.0])
def test_a_change_within_the_margin_draws_the_same_token(way: dict[str, Any]) -> None:
    """Scores moved so that no share changes by more than a quarter of the margin, 200 times."""
    sampling = Sampling().with_(**way)
    generator = torch.Generator().manual_seed(9)
    changed = 0
    for seed in range(200):
        logits = logits_of(1, seed, 400)
        [was] = drawn(logits, [Turn(sampling, [1, 2], random.Random(seed))])
        noise = (torch.rand(1, 400, generator=generator) * 2 - 1) * was.margin / 8
        [now] = drawn(logits + noise, [Turn(sampling, [1, 2], random.Random(seed))])
        changed += now.token != was.token
    assert changed == 0


@pytest.mark.parametrize("way", [{"top_p": 1.0}, {}, {"top_k": 30, "top_p": 1.0}, {"min_p": 0.02}])
def test_a_uniform_number_at_a_boundary_has_no_margin(way: dict[str, Any]) -> None:
    """Half way between two tokens' numbers, found by bisection, is the boundary."""
    sampling = Sampling(temperature=1.0).with_(**way)
    logits = logits_of(1, 4, 400)

    class At(random.Random):
        number = 0.0

        def random(self) -> float:
            return self.number

    source = At()

    def at(number: float) -> tuple[int, float]:
        source.number = number
        [one] = drawn(logits, [Turn(sampling, [], source)])
        return one.token, one.margin

    low, high = 0.2, 0.8
    first = at(low)[0]
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[0] == first else (low, middle)
    assert at(low)[0] != at(high)[0]
    assert at(high)[1] < 1e-9


def test_the_margin_of_the_likeliest_is_the_gap_of_the_two_highest_scores() -> None:
    [one] = drawn(
        torch.tensor([[1.0, 4.0, 3.25, -2.0]]), [Turn(Sampling(temperature=0.0), [], random.Random())]
    )
    assert one.margin == 0.75


def test_the_margin_is_whole_where_nothing_else_could_be_drawn() -> None:
    [one] = drawn(
        torch.tensor([[0.0, 50.0]]), [Turn(Sampling(temperature=1.0, top_p=0.5), [], random.Random(1))]
    )
    assert one.margin > 0.49


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_on_a_gpu_a_token_differs_only_within_the_margin(way: dict[str, Any]) -> None:
    settings = Sampling().with_(**way)
    logits = logits_of(64, 3, 50257)
    turns = [[Turn(settings, [1, 2, 3], random.Random(i)) for i in range(64)] for _ in range(2)]
    here, there = drawn(logits, turns[0]), drawn(logits.cuda(), turns[1])
    apart = [a.margin for a, b in zip(here, there, strict=True) if a.token != b.token]
    assert all(margin < 1e-5 for margin in apart)
