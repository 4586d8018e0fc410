"""The models: frozen, strict, nothing unknown; presets of targets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from adapterkit.recipe.bias import parse_bias
from adapterkit.recipe.keys import keys
from adapterkit.recipe.schema import (
    DataSpec,
    LoraSpec,
    Recipe,
    SampleSpec,
    TrainSpec,
    target_modules,
)

SPECS = (Recipe, DataSpec, LoraSpec, TrainSpec, SampleSpec)


@pytest.mark.parametrize("spec", SPECS)
def test_every_spec_refuses_an_unknown_key(spec: type[Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        spec(no_such_key=1)


@pytest.mark.parametrize("spec", SPECS)
def test_every_spec_is_frozen(spec: type[Any]) -> None:
    one = spec()
    name = next(iter(spec.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(one, name, getattr(one, name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.validation", 0.1),
        ("data.document", "auto"),
        ("data.packing", "isolated"),
        ("method", "lora"),
        ("lora.r", 8),
        ("lora.alpha", "auto"),
        ("lora.dropout", 0.05),
        ("train.epochs", "auto"),
        ("train.tokens_per_step", "auto"),
        ("train.batch_size", "auto"),
        ("train.learning_rate", "auto"),
        ("train.scheduler", "linear"),
        ("train.base_dropout", 0.0),
        ("train.quantize", "none"),
        ("train.seed", 17),
        ("sample.temperature", 0.8),
        ("sample.top_p", 0.95),
        ("sample.max_new_tokens", 200),
        ("sample.min_p", 0.0),
        ("sample.typical_p", 1.0),
        ("sample.presence_penalty", 0.0),
        ("sample.frequency_penalty", 0.0),
        ("sample.no_repeat_ngram_size", 0),
        ("sample.logit_bias", []),
        ("base", "gpt2"),
    ],
)
def test_a_default_is_the_one_of_the_design(path: str, value: Any) -> None:
    assert keys()[path].default == value


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("lora", "r", 0),
        ("lora", "r", 257),
        ("lora", "r", 8.0),
        ("lora", "r", True),
        ("lora", "r", "8"),
        ("lora", "alpha", 0),
        ("lora", "alpha", float("nan")),
        ("lora", "dropout", 1.0),
        ("train", "epochs", -1),
        ("train", "epochs", float("inf")),
        ("train", "learning_rate", "fast"),
        ("train", "max_length", 1025),
        ("train", "scheduler", "step"),
        ("train", "seed", 2**32),
        ("data", "validation", 0.6),
        ("data", "source", ["a", 1]),
        ("sample", "top_p", 0),
        ("sample", "prompts", "one"),
        ("sample", "min_p", -0.1),
        ("sample", "typical_p", 0),
        ("sample", "presence_penalty", 2.1),
        ("sample", "frequency_penalty", -2.1),
        ("sample", "no_repeat_ngram_size", -1),
        ("sample", "logit_bias", ["whale"]),
        ("sample", "logit_bias", {" whale": 101}),
    ],
)
def test_a_value_beyond_its_limits_is_refused(group: str, key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{group}.{key}"):
        Recipe.model_validate({group: {key: value}})


def test_a_whole_number_is_fine_where_a_number_is_asked() -> None:
    assert Recipe.model_validate({"lora": {"alpha": 32}}).lora.alpha == 32


def test_a_recipe_survives_json() -> None:
    recipe = Recipe.model_validate({"lora": {"targets": ["attn.c_attn"]}, "train": {"epochs": 3}})
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("attn", ["attn.c_attn", "attn.c_proj"]),
        ("mlp", ["mlp.c_fc", "mlp.c_proj"]),
        ("all", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
        ("attn.c_attn", ["attn.c_attn"]),
        (["mlp.c_fc"], ["mlp.c_fc"]),
    ],
)
def test_a_preset_stands_for_exact_names(targets: str | list[str], expected: list[str]) -> None:
    assert target_modules(targets) == expected


def test_a_bias_may_be_a_mapping_and_is_kept_as_a_list() -> None:
    recipe = Recipe.model_validate({"sample": {"logit_bias": {" whale": 5, 262: -100}}})
    assert recipe.sample.logit_bias == [" whale=5", "262=-100"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("262=-5", (262, -5.0)), (" whale=0.5", (" whale", 0.5)), ("==3", ("=", 3.0)), ("½=1", ("½", 1.0))],
)
def test_a_bias_is_for_an_id_or_a_text(text: str, expected: tuple[int | str, float]) -> None:
    assert parse_bias(text) == expected
