"""The size of a micro-batch: measured once, and no effect on what is learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adapterkit.cache import cache_folder
from adapterkit.data.pack import Rows
from adapterkit.data.prepare import prepare
from adapterkit.model.base import locate
from adapterkit.model.device import choose
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.model.trainable import attach_lora, load_model
from adapterkit.recipe.schema import DataSpec, LoraSpec, Recipe
from adapterkit.scoring.loss import PackedLoss
from adapterkit.training.pace import Pace, chosen, divisors, measure, paces, predicted

CPU = torch.device("cpu")
GB = 1 << 30


@pytest.fixture
def module(tiny_base: Path) -> PackedLoss:
    recipe = Recipe(lora=LoraSpec(alpha=16.0))
    wrapped = attach_lora(load_model(locate(str(tiny_base)), choose("cpu", "fp32"), recipe), recipe)
    return PackedLoss(wrapped.get_base_model())


@pytest.fixture
def rows(tiny_base: Path, text_file: Path) -> Rows:
    return prepare(DataSpec(source=str(text_file), document="line"), Tokenizer(tiny_base), 64).train


def test_measuring_changes_neither_weights_nor_random_numbers(module: PackedLoss, rows: Rows) -> None:
    torch.manual_seed(5)
    before = {n: p.clone() for n, p in module.named_parameters()}
    state = torch.get_rng_state()
    found = measure(module, rows, [0, 1], filler=0, place=CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in module.named_parameters())
    assert (found.rows, found.tokens) == (2, sum(len(rows[i].input_ids) for i in (0, 1)))
    assert found.seconds > 0


def test_it_is_measured_once_and_kept(module: PackedLoss, rows: Rows) -> None:
    first = paces(module, rows, 8, filler=0, place=CPU, key={"of": "a test"})
    assert first[0].rows == 1
    (path,) = cache_folder().glob("machine/pace-*.json")
    told = json.loads(path.read_text())
    told[0]["seconds"] = 42.0
    path.write_text(json.dumps(told))
    assert paces(module, rows, 8, filler=0, place=CPU, key={"of": "a test"})[0].seconds == 42.0
    assert paces(module, rows, 8, filler=0, place=CPU, key={"of": "another"})[0].seconds != 42.0


@pytest.mark.parametrize(
    ("speeds", "free", "rows"),
    [
        ({1: 100, 2: 103, 4: 104}, 16 * GB, 1),  # all near: the smallest
        ({1: 100, 2: 150, 4: 152}, 16 * GB, 2),
        ({1: 100, 2: 150, 4: 200}, 16 * GB, 4),
        ({1: 100, 2: 150, 4: 200}, 2 * GB, 2),  # four rows would take 2 GB of the 1.2 that may be had
        ({1: 100, 2: 150, 4: 200}, GB // 4, 1),  # nothing fits, and the smallest is tried
    ],
)
def test_the_smallest_near_the_best_that_leaves_memory(speeds: dict[int, int], free: int, rows: int) -> None:
    found = [Pace(n, n * 100, n * 100 / s, n * GB // 2) for n, s in speeds.items()]
    assert chosen(found, free).rows == rows


def test_memory_of_more_rows_is_told_by_those_before() -> None:
    one = Pace(1, 10, 1.0, 500)
    assert predicted([one], 2) == 1000
    assert predicted([one, Pace(2, 20, 1.0, 1100)], 4) == 2300
    # memory that the allocator kept from the smaller one hides growth: half of the whole is taken at least
    assert predicted([one, Pace(2, 20, 1.0, 700)], 4) == 1400


@pytest.mark.parametrize(("rows", "parts"), [(1, [1]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 12]), (7, [1, 7])])
def test_parts_divide_a_step_evenly(rows: int, parts: list[int]) -> None:
    assert divisors(rows) == parts
