"""Variants of LoRA that PEFT knows are refused by their names, with why."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterkit.errors import RecipeError
from adapterkit.recipe import load


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("lora.use_dora", "DoRA can't be served beside other adapters"),
        ("lora.dora", "DoRA can't be served beside other adapters"),
        ("lora.variant", "DoRA can't be served beside other adapters"),
        ("lora.init_lora_weights", "it changes the base itself"),
        ("lora.pissa", "it changes the base itself"),
        ("lora.loftq_config", "it changes the base itself"),
        ("lora.rank_pattern", "every layer's update has one rank"),
        ("lora.alpha_pattern", "every layer's update has one rank"),
        ("lora.bias", "an adapter holds LoRA updates alone"),
        ("lora.modules_to_save", "an adapter holds LoRA updates alone"),
        ("modules_to_save", "an adapter holds LoRA updates alone"),
        ("lora.layer_replication", "only plain LoRA is served"),
    ],
)
def test_a_variant_is_refused_with_its_reason(key: str, why: str) -> None:
    with pytest.raises(RecipeError, match=f"^--set: '{key}' is not done: {why}"):
        load.from_flags({key: "true"})


def test_a_recipe_names_the_line() -> None:
    Path("noir.yaml").write_text("lora:\n  r: 4\n  use_dora: true\n")
    with pytest.raises(RecipeError, match=r"noir\.yaml line 3: 'lora.use_dora' is not done: DoRA"):
        load.from_file(Path("noir.yaml"))


def test_the_same_word_elsewhere_is_just_unknown() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'data\.bias'"):
        load.from_flags({"data.bias": "all"})


@pytest.mark.parametrize("key", ["use_rslora", "lora.use_rslora"])
def test_pefts_name_of_rslora_leads_to_ours(key: str) -> None:
    with pytest.raises(RecipeError, match=f"unknown key '{key}', did you mean 'lora.rslora'?"):
        load.from_flags({key: "true"})
