"""The schema as a flat list: flags, words for limits, help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from adapterkit.recipe.keys import by_flag, keys
from adapterkit.recipe.schema import Recipe


def _leaves(values: Mapping[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in values.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
    return found


def test_every_value_of_a_recipe_is_a_key() -> None:
    assert set(keys()) == _leaves(Recipe().model_dump())


def test_every_key_has_help() -> None:
    assert [k.path for k in keys().values() if not k.help.endswith(".")] == []


def test_no_two_keys_share_a_flag() -> None:
    assert len(by_flag()) == len(keys())


@pytest.mark.parametrize(
    ("path", "flag"),
    [
        ("lora.r", "--lora-r"),
        ("lora.targets", "--lora-targets"),
        ("train.epochs", "--epochs"),
        ("train.learning_rate", "--learning-rate"),
        ("train.device", "--device"),
        ("sample.max_new_tokens", "--max-new-tokens"),
        ("data.document", "--document"),
        ("data.validation", "--validation"),
        ("data.text", "--data-text"),
        ("method", "--method"),
        ("base", "--base"),
    ],
)
def test_a_key_has_the_flag_of_the_design(path: str, flag: str) -> None:
    assert keys()[path].flag == flag


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("lora.r", "a whole number, at least 1, at most 256"),
        ("lora.alpha", "a number, above 0, at most 4096, or auto"),
        ("lora.dropout", "a number, at least 0, below 1"),
        ("data.validation", "a number, above 0, at most 0.5, or text"),
        ("data.subset", "text, or null"),
        ("lora.targets", "text, or a list of texts"),
        ("train.scheduler", "linear, cosine or constant"),
        ("train.precision", "auto, fp32, bf16 or fp16"),
        ("train.seed", "a whole number, at least 0, at most 4294967295"),
        ("sample.prompts", "a list of texts"),
    ],
)
def test_the_limits_of_a_key_are_said_in_words(path: str, words: str) -> None:
    assert keys()[path].allowed == words
