"""From file and flags to one recipe; every problem at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterkit.errors import NotFound, RecipeError
from adapterkit.recipe import load
from adapterkit.recipe.schema import Recipe

Write = Callable[[str], Path]


@pytest.fixture
def write() -> Write:
    def put(text: str) -> Path:
        Path("configs").mkdir(exist_ok=True)
        Path("configs/noir.yaml").write_text(text, encoding="utf-8")
        return Path("configs/noir.yaml")

    return put


def _problems(path: Path, flags: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load.from_file(path, flags)
    return list(caught.value.details["problems"])


def test_an_empty_recipe_is_the_defaults(write: Write) -> None:
    assert load.from_file(write("")).recipe == Recipe()


def test_no_flags_are_the_defaults() -> None:
    assert load.from_flags({}).recipe == Recipe()


def test_a_rate_may_be_written_2e_4(write: Write) -> None:
    assert load.from_file(write("train: {learning_rate: 2e-4}")).recipe.train.learning_rate == 2e-4


def test_off_is_text_and_not_false(write: Write) -> None:
    assert load.from_file(write("data: {split: off}")).recipe.data.split == "off"


def test_a_recipe_knows_its_name_and_folder(write: Write) -> None:
    loaded = load.from_file(write("base: gpt2"))
    assert (loaded.name, loaded.folder) == ("noir", Path("configs"))


def test_each_value_knows_where_it_came_from(write: Write) -> None:
    loaded = load.from_file(write("lora:\n  r: 4\ntrain:\n  epochs: 3\n"), {"train.epochs": "5"})
    assert loaded.origins == {"lora.r": "configs/noir.yaml line 2", "train.epochs": "--epochs"}


def test_a_flag_goes_over_the_file(write: Write) -> None:
    assert load.from_file(write("lora: {r: 4}"), {"lora.r": "16"}).recipe.lora.r == 16


@pytest.mark.parametrize(
    ("key", "typed", "expected"),
    [
        ("lora.r", "16", 16),
        ("lora.alpha", "auto", "auto"),
        ("train.learning_rate", "2e-4", 2e-4),
        ("data.validation", "none", "none"),
        ("data.revision", "0123", "0123"),
        ("data.document", "<eos>", "<eos>"),
        ("lora.targets", "[attn.c_attn, mlp.c_fc]", ["attn.c_attn", "mlp.c_fc"]),
        ("sample.prompts", '["The sea", ""]', ["The sea", ""]),
        ("lora.r", 16, 16),
    ],
)
def test_a_flag_is_read_as_its_key_wants_it(key: str, typed: object, expected: object) -> None:
    group, name = key.split(".")
    assert load.from_flags({key: typed}).recipe.model_dump()[group][name] == expected


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("unicode", ["unicode"]),
        ("unicode,whitespace", ["unicode", "whitespace"]),
        ("unicode, whitespace", ["unicode", "whitespace"]),
        ("[unicode, whitespace]", ["unicode", "whitespace"]),
        ("[]", []),
        ('{drop: "wolf"}', [{"drop": "wolf"}]),
        ('unicode, {drop: "a,b"}, {min_words: 3}', ["unicode", {"drop": "a,b"}, {"min_words": 3}]),
    ],
)
def test_rules_may_be_typed_without_brackets(typed: str, expected: list[Any]) -> None:
    assert load.from_flags({"data.clean": typed}).recipe.model_dump()["data"]["clean"] == expected


@pytest.mark.parametrize("typed", ["", "null", "{drop: ", "3"])
def test_what_is_no_rule_is_told_by_its_flag(typed: str) -> None:
    with pytest.raises(RecipeError, match="--data-clean"):
        load.from_flags({"data.clean": typed})


def test_a_sentence_with_commas_is_one_prompt() -> None:
    typed = "The sea, the sand, the sun"
    assert load.from_flags({"sample.prompts": typed}).recipe.sample.prompts == [typed]


def test_null_takes_a_text_key_back() -> None:
    assert load.from_flags({"data.subset": "null"}).recipe.data.subset is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora:\n  rank: 4", "configs/noir.yaml line 2: unknown key 'lora.rank', did you mean 'lora.r'?"),
        ("\nlr: 1", "configs/noir.yaml line 2: unknown key 'lr', did you mean 'train.learning_rate'?"),
        ("train: {epoch: 3}", "configs/noir.yaml line 1: unknown key 'train.epoch', did you mean 'train.epochs'?"),
        ("epochs: 3", "configs/noir.yaml line 1: unknown key 'epochs', did you mean 'train.epochs'?"),
        ("xyzzy: 3", "configs/noir.yaml line 1: unknown key 'xyzzy'"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_its_line_and_the_nearest_key(write: Write, text: str, expected: str) -> None:
    assert _problems(write(text)) == [expected]


def test_a_dotted_key_misspelt_is_answered_with_its_nested_form(write: Write) -> None:
    assert "'lora: {r: ...}'" in _problems(write("lora.rank: 16"))[0]


def test_a_dotted_key_is_answered_with_its_nested_form(write: Write) -> None:
    assert "did you mean 'lora.r'" not in _problems(write("lora.r: 16"))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora:\n  r: 8.5", "line 2: 'lora.r' is 8.5; it must be a whole number, at least 1, at most 256"),
        ("lora: {r: 999}", "line 1: 'lora.r' is 999; it must be a whole number, at least 1, at most 256"),
        ("train: {epochs: often}", "line 1: 'train.epochs' is 'often'; it must be a number, above 0, at most 1000, or auto"),
        ("train: {epochs: off}", "line 1: 'train.epochs' is 'off'; it must be a number, above 0, at most 1000, or auto"),
        ("method: lira", "line 1: 'method' is 'lira'; it must be lora or full"),
        ("lora: 8", "line 1: 'lora' is 8; it must hold keys of its own"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_limits(write: Write, text: str, expected: str) -> None:
    assert _problems(write(text)) == [f"configs/noir.yaml {expected}"]


def test_a_value_with_several_types_is_one_problem(write: Write) -> None:
    assert len(_problems(write("lora: {alpha: [], targets: 3}\ndata: {source: 3}"))) == 3


def test_all_problems_of_file_and_flags_are_told_at_once(write: Write) -> None:
    path = write("lora:\n  rank: 4\n  r: 0\nsample: {top_p: 2}\n")
    found = _problems(path, {"train.epochs": "-1", "train.lr": "1"})
    assert {p.split(":")[0] for p in found} == {
        "configs/noir.yaml line 2",
        "configs/noir.yaml line 3",
        "configs/noir.yaml line 4",
        "--epochs",
        "--set",
    }


def test_the_message_counts_the_problems_and_shows_each(write: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        load.from_file(write("lora: {rank: 4, r: 0}"))
    first, *rest = caught.value.message.split("\n")
    assert first == "2 problems:"
    assert sorted(line.strip() for line in rest) == sorted(caught.value.details["problems"])


def test_a_wrong_flag_is_told_by_its_flag() -> None:
    with pytest.raises(RecipeError, match=r"--lora-r: 'lora.r' is 'many'"):
        load.from_flags({"lora.r": "many"})


def test_a_flag_of_a_group_that_is_no_mapping_is_a_problem_of_the_file(write: Write) -> None:
    assert _problems(write("lora: 3"), {"lora.r": "8"}) == [
        "configs/noir.yaml line 1: 'lora' is 3; it must hold keys of its own"
    ]


def test_a_key_that_is_a_number_is_an_unknown_key(write: Write) -> None:
    assert "unknown key '1'" in _problems(write("1: 2"))[0]


def test_a_missing_recipe_is_not_found() -> None:
    with pytest.raises(NotFound, match=r"there is no recipe 'configs/gone\.yaml'"):
        load.from_file(Path("configs/gone.yaml"))


def test_a_folder_is_no_recipe() -> None:
    Path("x.yaml").mkdir()
    with pytest.raises(RecipeError, match=r"x\.yaml is not a recipe"):
        load.from_file(Path("x.yaml"))


def test_a_file_that_is_no_utf8_is_no_recipe() -> None:
    Path("x.yaml").write_bytes(b"base: \xff\xfe")
    with pytest.raises(RecipeError, match=r"x\.yaml is not a recipe"):
        load.from_file(Path("x.yaml"))


def test_a_recipe_of_the_project_goes_before_the_packaged_one(write: Write) -> None:
    path = write("base: gpt2")
    assert load.find("noir") == path


def test_a_packaged_recipe_is_found_anywhere() -> None:
    assert load.find("noir") == load.packaged("noir")


def test_a_recipe_that_is_nowhere_names_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        load.find("wikitex")
    assert caught.value.hint == "--recipe wikitext"


@pytest.mark.parametrize("name", load.packaged_names())
def test_every_packaged_recipe_loads(name: str) -> None:
    assert load.from_file(load.find(name)).recipe.data.source
