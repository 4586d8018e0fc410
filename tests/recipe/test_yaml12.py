"""Values as YAML 1.2's core schema reads them, and the line of every key."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adapterkit.errors import RecipeError
from adapterkit.recipe import yaml12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2e-4", 2e-4),
        ("2.0e-3", 2e-3),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.5", -0.5),
        ("+1.5", 1.5),
        ("-.inf", -math.inf),
        ("8", 8),
        ("-8", -8),
        ("0123", 123),
        ("0o17", 15),
        ("0xff", 255),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("[a, 2]", ["a", 2]),
    ],
)
def test_a_plain_scalar_is_read_as_in_yaml_1_2(text: str, expected: Any) -> None:
    value = yaml12.scalar(text)
    assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize(
    "text",
    [
        "off",
        "on",
        "yes",
        "no",
        "y",
        "1:30",
        "1_000",
        "0b11",
        "2001-12-14",
        "auto",
        "8bit",
        "<<",
        "8x",
    ],
)
def test_what_only_yaml_1_1_converts_stays_text(text: str) -> None:
    assert yaml12.scalar(text) == text


def test_quotes_make_text_of_a_number() -> None:
    assert yaml12.scalar("'2e-4'") == "2e-4"


def test_not_a_number_is_read_as_such() -> None:
    assert math.isnan(yaml12.scalar(".nan"))


@pytest.mark.parametrize("text", ["[a", "a: b", "*x", "'", "\x00"])
def test_a_flag_that_is_no_value_stays_as_typed(text: str) -> None:
    assert yaml12.scalar(text) == text


def test_every_key_has_its_line() -> None:
    text = "# head\nbase: gpt2\n\nlora:\n  r: 8\n  targets: [a,\n    b]\ntrain: {epochs: 3,\n  seed: 1}\n"
    _, lines = yaml12.read(text, "x.yaml")
    assert lines == {
        "base": 2, "lora": 4, "lora.r": 5, "lora.targets": 6, "train": 8, "train.epochs": 8, "train.seed": 9,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    assert yaml12.read(text, "x.yaml") == ({}, {})


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"x\.yaml is not a recipe: it should hold 'key: value' lines"):
        yaml12.read(text, "x.yaml")


def test_a_syntax_error_names_file_and_line() -> None:
    with pytest.raises(RecipeError, match=r"x\.yaml line 3 is not YAML"):
        yaml12.read("base: gpt2\nlora: {r: 8\n", "x.yaml")


@pytest.mark.parametrize(
    ("text", "path", "line", "first"),
    [("lora: {r: 1}\nlora: {r: 2}\n", "lora", 2, 1), ("lora:\n  r: 1\n  # no\n  r: 2\n", "lora.r", 4, 2)],
)
def test_a_key_written_twice_is_refused(text: str, path: str, line: int, first: int) -> None:
    with pytest.raises(RecipeError, match=f"line {line}: key '{path}' is there twice, first on line {first}"):
        yaml12.read(text, "x.yaml")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.getcwd []", "a: !!python/name:os.system", "a: !mine 3"]
)
def test_a_tag_builds_nothing(text: str) -> None:
    with pytest.raises(RecipeError, match="could not determine a constructor"):
        yaml12.read(text, "x.yaml")


def test_two_documents_in_one_file_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"x\.yaml line 2 is not YAML"):
        yaml12.read("base: gpt2\n---\nbase: gpt2\n", "x.yaml")


def test_a_control_character_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match="is not YAML"):
        yaml12.read("base: gpt\x002\n", "x.yaml")


def test_an_anchor_that_holds_itself_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError):
        yaml12.read("data: &x {source: *x}\n", "x.yaml")
