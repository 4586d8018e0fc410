"""Scores taken later: what they are comparable with, and lines that a crash has torn."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from adapterkit.registry import evaluations
from adapterkit.registry.evaluations import Evaluation, Yardstick
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from tests.versions import FINGERPRINTS, publish


def _by(v: Version) -> Yardstick:
    found = evaluations.yardstick(v)
    assert found is not None
    return found


def _record(registry: Registry, v: Version, loss: float, by: Yardstick) -> None:
    evaluations.record(registry.path, v.name, Evaluation(v.digest, loss, 380, "fp32", by))


@pytest.fixture
def two(registry: Registry) -> tuple[Version, Version]:
    """The first was tested on other text than the second."""
    first = publish(registry, "noir", seed=1, loss=2.0, held_out="aa" * 32)
    return first, publish(registry, "noir", seed=2, loss=2.9)


def test_best_moves_when_both_were_scored_on_the_same_text(
    registry: Registry, two: tuple[Version, Version]
) -> None:
    first, second = two
    assert registry.best("noir") == second
    _record(registry, first, 2.5, _by(second))
    assert registry.best("noir") == first


@pytest.mark.parametrize(
    "change",
    [{"held_out": "bb" * 32}, {"base": "b"}, {"tokenizer": "c"}, {"length": 32}, {"packing": "concat"}],
)
def test_a_score_by_another_yardstick_does_not_count(
    registry: Registry, two: tuple[Version, Version], change: dict[str, str | int]
) -> None:
    first, second = two
    _record(registry, first, 2.5, replace(_by(second), **change))  # type: ignore[arg-type]
    assert registry.best("noir") == second


@pytest.mark.parametrize("key", ["weights", "tokenizer"])
def test_a_version_of_another_base_is_not_compared(registry: Registry, key: str) -> None:
    publish(registry, "noir", seed=1, loss=2.0, base_fingerprints=FINGERPRINTS | {key: "99" * 32})
    second = publish(registry, "noir", seed=2, loss=2.9)
    assert registry.best("noir") == second


def test_a_line_says_what_was_measured_and_when(registry: Registry, two: tuple[Version, Version]) -> None:
    first, second = two
    _record(registry, first, 2.5, _by(second))
    (line,) = (registry.path / "noir" / "evaluations.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told.pop("at").endswith("+00:00")
    assert told == {
        "digest": first.digest, "loss": 2.5, "tokens": 380, "precision": "fp32", **asdict(_by(second))
    }  # fmt: skip


def test_the_same_score_again_adds_no_line(registry: Registry, two: tuple[Version, Version]) -> None:
    first, second = two
    for loss in (2.5, 2.5, 2.6):
        _record(registry, first, loss, _by(second))
    assert len((registry.path / "noir" / "evaluations.jsonl").read_text().splitlines()) == 2


def test_the_last_score_of_a_text_is_the_one_that_counts(
    registry: Registry, two: tuple[Version, Version]
) -> None:
    first, second = two
    for loss in (2.5, 3.3):
        _record(registry, first, loss, _by(second))
    assert evaluations.loss_by(registry.path, first, _by(second)) == 3.3
    assert registry.best("noir") == second


@pytest.mark.parametrize("torn", ['{"at":"2026', "3", "[]", '{"digest":1,"loss":null}', "\x00\x00"])
def test_a_torn_line_is_passed_over_and_swallows_nothing(
    registry: Registry, two: tuple[Version, Version], torn: str
) -> None:
    first, second = two
    path = registry.path / "noir" / "evaluations.jsonl"
    path.write_text(torn)
    assert registry.best("noir") == second
    _record(registry, first, 2.5, _by(second))
    assert registry.best("noir") == first


def test_a_version_without_a_test_has_no_yardstick(registry: Registry) -> None:
    assert evaluations.yardstick(publish(registry, "noir", loss=None)) is None
