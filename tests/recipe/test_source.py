"""What SOURCE is, in the six steps of docs and design, and that a missing path never meets the network."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from adapterkit.errors import DataError, NotFound, UsageProblem
from adapterkit.recipe.source import resolve


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def stories() -> Path:
    folder = Path("stories")
    folder.mkdir()
    (folder / "one.txt").write_text("One.")
    return folder


@pytest.mark.parametrize("text", ["noir.yaml", "configs/noir.yaml", "noir.yml"])
def test_1_a_yaml_file_is_a_recipe(text: str) -> None:
    assert (resolve(text).kind, resolve(text).value) == ("recipe", text)


def test_1_goes_before_2_so_that_a_folder_called_x_yaml_is_a_recipe() -> None:
    Path("x.yaml").mkdir()
    assert resolve("x.yaml").kind == "recipe"


@pytest.mark.parametrize(
    "text", ["stories", "stories/", "./stories", "stories/one.txt", "stories/*.txt", "**/*.txt"]
)
@pytest.mark.usefixtures("stories")
def test_2_what_is_on_disk_is_text(text: str) -> None:
    assert (resolve(text).kind, resolve(text).value) == ("text", text)


def test_2_goes_before_4_so_that_a_folder_is_no_dataset_of_that_name() -> None:
    Path("owner/name").mkdir(parents=True)
    assert resolve("owner/name").kind == "text"


def test_2_the_home_folder_is_understood() -> None:
    (Path.home() / "tales.txt").write_text("x")
    assert resolve("~/tales.txt").value == str(Path.home() / "tales.txt")


def test_2_a_glob_in_the_home_folder_is_understood() -> None:
    (Path.home() / "tales.txt").write_text("x")
    assert resolve("~/*.txt").kind == "text"


@pytest.mark.parametrize(
    "text",
    ["./gone", "/gone/away", "~/gone", "gone/", "owner/gone/", "gone.txt", "owner/gone.csv", "GONE.TXT"],
)
def test_3_what_looks_like_a_path_must_be_there(text: str) -> None:
    with pytest.raises(DataError, match="there is no file or folder") as caught:
        resolve(text)
    assert caught.value.code == "no-such-text"


@pytest.mark.usefixtures("stories")
def test_3_the_path_error_names_the_nearest_folder() -> None:
    with pytest.raises(DataError) as caught:
        resolve("storise/")
    assert caught.value.hint.startswith("adapterkit train stories/ ")


@pytest.mark.usefixtures("stories")
def test_3_the_path_error_names_the_nearest_file_in_a_folder() -> None:
    with pytest.raises(DataError) as caught:
        resolve("stories/noe.txt")
    assert caught.value.hint.startswith("adapterkit train stories/one.txt ")


def test_3_the_path_error_looks_into_the_home_folder() -> None:
    (Path.home() / "tales.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        resolve("~/tale.txt")
    assert "tales.txt" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [("hub:wikitext", "wikitext"), ("hub:a/b", "a/b"), ("Salesforce/wikitext", "Salesforce/wikitext")],
)
def test_4_an_owner_and_a_name_are_a_dataset_on_the_hub(text: str, value: str) -> None:
    found = resolve(text)
    assert (found.kind, found.value, found.said) == ("hub", value, f"Dataset {value} on the Hub.")


@pytest.mark.parametrize("text", ["a/b/c", "owner/", "/owner", "owner/a b"])
def test_4_anything_but_exactly_owner_and_name_is_not(text: str) -> None:
    with pytest.raises((DataError, NotFound), match="there is no"):
        resolve(text)


def test_5_a_bare_word_is_a_recipe_of_this_project_first() -> None:
    Path("configs").mkdir()
    Path("configs/noir.yaml").write_text("")
    assert resolve("noir").value == os.path.join("configs", "noir.yaml")


def test_5_a_bare_word_is_a_packaged_recipe_otherwise() -> None:
    found = resolve("wikitext")
    assert found.kind == "recipe"
    assert found.said == "Recipe wikitext that comes with AdapterKit."


def test_5_a_bare_word_that_is_neither_names_the_nearest_recipe() -> None:
    with pytest.raises(NotFound, match="there is no recipe or text 'wikitex'") as caught:
        resolve("wikitex")
    assert caught.value.hint == "adapterkit train wikitext"


def test_5_a_bare_word_with_nothing_near_lists_the_recipes() -> None:
    with pytest.raises(NotFound) as caught:
        resolve("qqqq")
    listed = caught.value.hint.rpartition("recipes: ")[2].split(", ")
    assert {"ledger", "noir", "shanty", "wikitext"} <= set(listed)


def test_a_bare_word_that_is_a_folder_and_a_recipe_is_refused_with_both_ways() -> None:
    Path("wikitext").mkdir()
    with pytest.raises(UsageProblem, match="also a recipe") as caught:
        resolve("wikitext")
    assert "adapterkit train ./wikitext " in caught.value.hint
    assert caught.value.hint.endswith("adapterkit train --recipe wikitext")


def test_the_first_way_out_of_folder_or_recipe_is_the_folder() -> None:
    Path("wikitext").mkdir()
    assert resolve("./wikitext").kind == "text"


def test_6_a_version_is_answered_with_its_recipe() -> None:
    with pytest.raises(UsageProblem, match="'stories@3' is a version, not a text") as caught:
        resolve("stories@3")
    assert caught.value.hint.startswith("adapterkit show stories@3 --recipe ")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("stories/", "stories"),
        ("stories/one.txt", "one"),
        ("configs/noir.yaml", "noir"),
        ("Salesforce/wikitext", "wikitext"),
    ],
)
@pytest.mark.usefixtures("stories")
def test_the_adapter_is_named_after_the_source(text: str, name: str) -> None:
    assert resolve(text).name == name


def test_a_dash_is_stdin() -> None:
    found = resolve("-")
    assert (found.kind, found.value, found.said, found.name) == ("text", "-", "Text from stdin.", "stdin")


@pytest.mark.parametrize("text", ["owner/gone.txt.gz", "gone.epub", "owner/gone.ndjson", "gone.wpd"])
def test_3_an_ending_of_text_is_never_a_dataset(text: str) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        resolve(text)


def test_every_ending_that_can_be_read_shows_that_a_path_is_meant() -> None:
    from adapterkit.data.reading.kinds import READ
    from adapterkit.recipe.source import TEXT_SUFFIXES

    assert {suffix for suffix in READ if suffix} | {".gz", ".zip"} <= TEXT_SUFFIXES
