"""``--force-base`` of evaluate and train --from: needed, said, recorded; and refused without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.model.base import Base, remember
from adapterkit.registry.store import Registry
from tests.forms import publish_form
from tests.make import make_base

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def words(
    registry: Registry, tiny_base: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Flags of another base of the same sizes; ``stories`` was made on the tiny one."""
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    remember(Base("tiny", tiny_base))
    publish_form(registry, tiny_base, "stories")
    return ["--base", str(make_base(tmp_path / "other", seed=5)), "--device", "cpu"]


def test_evaluate_refuses_another_base_and_scores_there_when_forced(
    cli: Cli, words: list[str], text_file: Path
) -> None:
    typed = ["evaluate", "stories", "base", "--data", str(text_file), "--document", "line", *words]
    assert cli(*typed)[0] == 1
    code, _, err = cli(*typed, "--force-base")
    assert (code, err.count("--force-base")) == (0, 1)
    rows = json.loads(cli(*typed, "--force-base", "--json")[1])["scores"]
    assert [r["forced_base"] for r in rows] == [True, False]


def test_the_style_test_refuses_it(cli: Cli, words: list[str]) -> None:
    code, _, err = cli("evaluate", "stories", "--style-test", "--force-base", *words)
    assert (code, "--force-base beside --style-test" in err) == (2, True)


def train(cli: Cli, text_file: Path, words: list[str], *more: str) -> tuple[int, str, str]:
    flags = ["--document", "line", "--epochs", "1", "--max-new-tokens", "3", "--max-length", "64"]
    return cli("train", str(text_file), "--name", "onward", "--from", "stories", *flags, *words, *more)


def test_train_from_another_base_is_refused_and_when_forced_is_said_and_recorded(
    cli: Cli, words: list[str], text_file: Path, registry: Registry
) -> None:
    assert train(cli, text_file, words)[0] == 1
    code, _, err = train(cli, text_file, words, "--force-base")
    assert (code, "because of --force-base" in err) == (0, True)
    lineage = registry["onward"].manifest["lineage"]
    assert (lineage["parents"], lineage["forced_base"]) == ([registry["stories"].digest], True)
    assert "\n                  which was made on another base (--force-base)\n" in cli("show", "onward")[1]
    assert json.loads(train(cli, text_file, words, "--force-base", "--json")[1])["forced_base"] is True


def test_force_base_without_from_is_refused(cli: Cli, text_file: Path) -> None:
    code, _, err = cli("train", str(text_file), "--force-base")
    assert (code, "--force-base is for --from" in err) == (2, True)
