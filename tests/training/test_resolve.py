"""What every ``auto`` becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.sources import Documents
from adapterkit.errors import RecipeError
from adapterkit.model.base import Base, locate
from adapterkit.model.device import choose
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec, Recipe, TrainSpec
from adapterkit.training.resolve import Schedule, largest_divisor, resolve, row_length, schedule
from tests.conftest import SENTENCES


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return locate(str(tiny_base))


@pytest.fixture
def prepared(base: Base) -> Prepared:
    texts = [f"{SENTENCES[i % 8]} {SENTENCES[(i + 3) % 8]}" for i in range(150)]
    return prepare(DataSpec(), Tokenizer(base.folder), 64, memory=Documents(texts))


def test_nothing_stays_auto(base: Base, prepared: Prepared) -> None:
    """But for what decides nothing here: there is no file, no pair and no chat."""
    told = resolve(Recipe(), prepared, base, choose("cpu")).model_dump()
    assert [k for k, v in (told["train"] | told["lora"]).items() if v == "auto"] == []
    assert {k for k, v in told["data"].items() if v == "auto"} == {"format", "separator", "template"}


@pytest.mark.parametrize(
    ("name", "content", "resolved"),
    [
        ("a.txt", "Why is it so?<>Because it is.\n", {"document": "line", "separator": "<>"}),
        ("a.csv", "Why is it so?,Because it is.\n", {"document": "row", "prompt": "{setup}\n", "completion": "punchline"}),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}\n', {"template": "{role}: {content}\n"}),
    ],
)  # fmt: skip
def test_what_was_found_in_the_text_is_stored(
    base: Base, tmp_path: Path, name: str, content: str, resolved: dict[str, str]
) -> None:
    """So that the same adapter asks in the form it learned."""
    header = "setup,punchline\n" if name == "a.csv" else ""
    (tmp_path / name).write_text(header + content * 60)
    data = DataSpec(source=str(tmp_path / name), validation="none")
    recipe = Recipe(data=data)
    found = resolve(recipe, prepare(data, Tokenizer(base.folder), 64), base, choose("cpu")).data.model_dump()
    assert {k: found[k] for k in resolved} == resolved


def test_a_stored_recipe_prepares_the_same_text(base: Base, tmp_path: Path) -> None:
    (tmp_path / "jokes.txt").write_text("".join(f"Why is {i} so?<>Because it is {i}.\n" for i in range(60)))
    data, tokenizer = DataSpec(source=str(tmp_path / "jokes.txt"), validation="none"), Tokenizer(base.folder)
    first = prepare(data, tokenizer, 64)
    stored = resolve(Recipe(data=data), first, base, choose("cpu")).data
    assert prepare(stored, tokenizer, 64).fingerprint == first.fingerprint


def test_a_small_corpus_gets_sixty_steps_or_more(base: Base, prepared: Prepared) -> None:
    train = resolve(Recipe(), prepared, base, choose("cpu")).train
    steps = len(prepared.train) / (train.tokens_per_step / train.max_length) * train.epochs  # type: ignore[operator]
    assert steps >= 60


def test_what_is_learned_does_not_depend_on_the_batch_size(base: Base, prepared: Prepared) -> None:
    one, eight = (
        resolve(Recipe(train=TrainSpec(batch_size=b)), prepared, base, choose("cpu")).train for b in (1, 8)
    )
    assert (one.tokens_per_step, one.epochs) == (eight.tokens_per_step, eight.epochs)


def test_a_row_longer_than_the_base_sees_is_refused(base: Base) -> None:
    with pytest.raises(RecipeError, match=r"'train\.max_length' is 128; the base tiny sees 64"):
        row_length(Recipe(train=TrainSpec(max_length=128)), base)


@pytest.mark.parametrize(
    ("rows", "limit", "wanted"), [(8, 3, 2), (7, 3, 1), (16, 16, 16), (1, 5, 1), (6, 4, 3)]
)
def test_a_step_is_cut_into_equal_pieces(rows: int, limit: int, wanted: int) -> None:
    assert largest_divisor(rows, limit) == wanted


def test_full_fine_tunes_learn_slower(base: Base, prepared: Prepared) -> None:
    rates = [
        resolve(Recipe(method=m), prepared, base, choose("cpu")).train.learning_rate for m in ("lora", "full")
    ]
    assert rates == [2e-4, 5e-5]


def test_a_python_key_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(ak.AdapterKitError, match=r"train\(\) has no key 'lora_rank'"):
        ak.train(ak.Documents(["x"]), lora_rank=4)


# --- checkpoints and the way through the rows -------------------------------------------


@pytest.mark.parametrize(
    ("train", "method", "expected"),
    [
        (TrainSpec(tokens_per_step=1024), "lora", 49),  # 50,000 tokens
        (TrainSpec(tokens_per_step=1024), "full", 488),
        (TrainSpec(tokens_per_step=1_000_000), "lora", 17),  # a step has no more tokens than the text
        (TrainSpec(tokens_per_step=1024, save_steps=7), "lora", 7),
    ],
)
def test_a_checkpoint_is_written_about_every_50_000_tokens(
    base: Base, prepared: Prepared, train: TrainSpec, method: str, expected: int
) -> None:
    recipe = Recipe.model_validate({"method": method, "train": train.model_dump()})
    told = resolve(recipe, prepared, base, choose("cpu", "fp32")).train.save_steps
    assert (
        told == expected if train.tokens_per_step == 1024 else told == round(50_000 / prepared.train_tokens)
    )


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 3), (2.5, 8), (0.1, 1)])
def test_the_schedule_goes_through_all_rows_in_each_pass(epochs: float, steps: int) -> None:
    recipe = Recipe(train=TrainSpec(epochs=epochs, tokens_per_step=640, max_length=64))
    assert schedule(recipe, 25) == Schedule(per_step=10, in_pass=3, steps=steps)
