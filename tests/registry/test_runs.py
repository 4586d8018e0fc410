"""Unfinished runs as the registry keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterkit.errors import NotFound, Overloaded
from adapterkit.registry import runs
from adapterkit.registry.runs import Run


def begin(root: Path, name: str, made_from: str = "ab12cd34", **more: Any) -> Run:
    told: dict[str, Any] = {
        "text": "11/22",
        "given": {"base": "gpt2"},
        "recipe": {"base": "gpt2"},
        "origins": {"base": "--base"},
        "folder": str(root),
        "source": "tales.txt",
        "note": "",
        "is_fresh": False,
        "after": 0,
        "begun": "2026-11-21T12:00:00.000+00:00",
        "saved": "2026-11-21T12:00:00.000+00:00",
        "steps": 50,
    }
    run = Run(name=name, made_from=made_from, path=runs.place(root, name, made_from), **told | more)
    return run.write()


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    run = begin(tmp_path, "noir", step=31)
    assert runs.unfinished(tmp_path) == [run]
    assert (run.id, run.share, run.path.name) == ("noir-ab12cd", 0.62, "noir-ab12cd")


def test_the_one_saved_last_comes_first(tmp_path: Path) -> None:
    first, second = begin(tmp_path, "noir"), begin(tmp_path, "shanty", "ffeeddcc")
    assert runs.find(tmp_path, None) == second
    assert runs.find(tmp_path, None) == second
    again = first.write(step=3)
    assert runs.find(tmp_path, None) == again


@pytest.mark.parametrize("word", ["noir", "noir-ab12cd"])
def test_a_run_is_found_by_name_or_id(tmp_path: Path, word: str) -> None:
    run = begin(tmp_path, "noir")
    begin(tmp_path, "shanty", "ffeeddcc")
    assert runs.find(tmp_path, word) == run


def test_a_slip_names_the_nearest(tmp_path: Path) -> None:
    begin(tmp_path, "shanty")
    with pytest.raises(NotFound, match="no unfinished run 'shnaty'; there is shanty") as caught:
        runs.find(tmp_path, "shnaty")
    assert caught.value.hint == "adapterkit train --resume shanty"


def test_without_any_the_hint_begins_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no unfinished run in") as caught:
        runs.find(tmp_path, None)
    assert "adapterkit train" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 9}'])
def test_what_can_not_be_read_is_passed_over(tmp_path: Path, text: str) -> None:
    run = begin(tmp_path, "noir")
    (run.path / "run.json").write_text(text)
    assert runs.unfinished(tmp_path) == []


def test_a_key_of_another_version_is_passed_over(tmp_path: Path) -> None:
    path = begin(tmp_path, "noir").path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    assert runs.unfinished(tmp_path) == []


def test_dropping_the_last_run_leaves_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path / "adapters", "noir")
    (run.path / "checkpoint-3").mkdir()
    run.drop()
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.parent != tmp_path] == [
        "adapters/.staging"
    ]
    run.drop()  # once more is no error


def test_a_run_that_is_held_is_alive_and_not_to_be_had(tmp_path: Path) -> None:
    run = begin(tmp_path, "noir")
    assert not run.is_alive
    assert [p.name for p in run.path.iterdir()] == ["run.json"]  # looking leaves nothing
    with run.held():
        assert run.is_alive
        with pytest.raises(Overloaded, match="'noir' is being trained already"), run.held():
            pass
    assert not run.is_alive


def test_the_time_is_told_with_its_day_when_it_was_another(tmp_path: Path) -> None:
    assert "Nov" in begin(tmp_path, "noir", begun="2020-11-21T12:00:00.000+00:00").begun_here
    assert len(begin(tmp_path, "noir", begun=runs.now()).begun_here) == 5
