"""``style_test``: whose samples surprise whom."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.errors import NotFound, UsageProblem
from adapterkit.evaluation.style import Styles, style_test
from adapterkit.registry.store import Registry
from tests.evaluation.conftest import QUICK
from tests.make import make_base

STYLES = Styles(
    writers=("noir@1", "shanty@1"),
    judges=("base", "noir@1", "shanty@1"),
    losses=((4.0, 3.0, 3.5), (4.0, 4.2, 3.99)),
    tokens=(900, 950),
)


def test_a_style_took_where_its_own_adapter_is_least_surprised_by_more_than_chance() -> None:
    assert (STYLES.took(0), STYLES.took(1)) == (True, False)
    assert (STYLES.least_surprised(0), STYLES.least_surprised(1)) == ("noir@1", "shanty@1")


def test_the_table_marks_the_least_surprised() -> None:
    assert STYLES.cells() == [
        ("WRITTEN BY", "UNDER base", "UNDER noir@1", "UNDER shanty@1", "STYLE"),
        ("noir@1", "54.6", "20.1 *", "33.1", "took"),
        ("shanty@1", "54.6", "66.7", "54.1 *", "did not take"),
    ]


def test_trained_adapters_expect_their_own_samples(here: Registry, tiny_base: Path) -> None:
    """A LoRA, and a full fine-tune, which is a model of its own; the base writes nothing."""
    found = style_test(["base", "songs", "whole"], registry=here, base=str(tiny_base), device="cpu")
    assert (found.writers, found.judges) == (("songs@1", "whole@1"), ("base", "songs@1", "whole@1"))
    assert found.took(1)
    for i in range(2):  # both learned the same eight sentences, so only the base is sure to be behind
        assert found.losses[i][1 + i] < found.losses[i][0]
    assert all(math.isfinite(loss) for row in found.losses for loss in row)
    json.dumps(found.as_dict(), allow_nan=False)


def test_an_adapter_that_learned_nothing_did_not_take(here: Registry, tiny_base: Path) -> None:
    still = QUICK | {"learning_rate": 1e-6, "epochs": 1}
    ak.train(Path("songs.txt"), name="still", registry=here, base=str(tiny_base), **still)
    assert not style_test(["still"], registry=here, base=str(tiny_base), device="cpu").took(0)


def test_the_same_seed_gives_the_same_numbers(here: Registry, tiny_base: Path) -> None:
    one, other = (style_test(["songs"], registry=here, base=str(tiny_base), device="cpu") for _ in range(2))
    assert one == other


def test_only_adapters_of_one_base_are_tested(here: Registry, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="needs an adapter"):
        style_test(["base"], registry=here)
    with pytest.raises(NotFound, match="songz"):
        style_test(["songz"], registry=here)
    ak.train(
        Path("songs.txt"), name="else", registry=here, base=str(make_base(tmp_path / "o", seed=9)), **QUICK
    )
    from adapterkit.model import base as bases

    bases.remember(bases.locate(str(tiny_base)))
    with pytest.raises(UsageProblem, match="compares adapters of one base"):
        style_test(["songs", "else"], registry=here, device="cpu")
