"""SOURCE... of one command as recipes: what is understood, told, and looked up where."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterkit.errors import NotFound, UsageProblem
from adapterkit.recipe.given import load_named, load_sources


@pytest.fixture(autouse=True)
def _texts() -> None:
    Path("configs").mkdir()
    Path("configs/noir.yaml").write_text("data: {source: own.txt}\nlora: {r: 4}\n")
    for name in ("a.txt", "b.txt"):
        Path(name).write_text("One.")


def test_texts_are_one_recipe_named_after_the_first() -> None:
    said: list[str] = []
    (loaded,) = load_sources(["a.txt", "b.txt"], {"lora.r": "2"}, said.append)
    assert (loaded.name, loaded.recipe.data.source, loaded.recipe.lora.r) == ("a", ["a.txt", "b.txt"], 2)
    assert said == ["Text a.txt.", "Text b.txt."]


def test_a_dataset_keeps_its_mark() -> None:
    assert load_sources(["owner/name"], {}, print)[0].recipe.data.source == "hub:owner/name"


def test_recipes_stay_one_each() -> None:
    assert [x.name for x in load_sources(["configs/noir.yaml", "shanty"], {}, print)] == ["noir", "shanty"]


def test_texts_and_recipes_together_are_refused() -> None:
    with pytest.raises(UsageProblem, match="texts and recipes together"):
        load_sources(["a.txt", "noir"], {}, print)


def test_a_named_recipe_has_its_own_text() -> None:
    assert load_named("noir", [], {}, print).recipe.data.source == "own.txt"


def test_a_text_beside_a_named_recipe_is_looked_up_from_the_working_folder() -> None:
    Path("configs/a.txt").write_text("Another, beside the recipe.")
    loaded = load_named("noir", ["a.txt"], {}, print)
    assert (loaded.recipe.data.source, loaded.recipe.lora.r) == (str(Path("a.txt").absolute()), 4)


def test_a_dataset_beside_a_named_recipe_stays_one() -> None:
    assert load_named("noir", ["owner/name"], {}, print).recipe.data.source == "hub:owner/name"


def test_two_recipes_at_once_are_refused() -> None:
    with pytest.raises(UsageProblem, match="are two recipes"):
        load_named("noir", ["configs/noir.yaml"], {}, print)


def test_an_unknown_recipe_is_told_before_its_texts() -> None:
    with pytest.raises(NotFound, match="no recipe 'nior'"):
        load_named("nior", ["gone.txt"], {}, print)
