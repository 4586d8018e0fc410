"""An adapter is for the base it was made on: weights, config and tokenizer, each by itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from adapterkit.errors import BaseMismatch
from adapterkit.generation.fit import check_base
from adapterkit.model.base import Base
from adapterkit.registry.store import Registry
from tests.versions import publish


def test_the_base_it_was_made_on_fits(registry: Registry, tiny_base: Path) -> None:
    base = Base("tiny", tiny_base)
    v = publish(registry, "noir", base_fingerprints=asdict(base.fingerprints))
    assert check_base(v, base) is False


@pytest.mark.parametrize("part", ["weights", "config", "tokenizer"])
def test_a_base_that_differs_in_one_thing_alone_is_refused(
    registry: Registry, tiny_base: Path, part: str
) -> None:
    base = Base("tiny", tiny_base)
    v = publish(registry, "noir", base_fingerprints=asdict(base.fingerprints) | {part: "99" * 32})
    with pytest.raises(BaseMismatch, match=f"whose {part}") as caught:
        check_base(v, base)
    assert caught.value.details["differs"] == part


@pytest.mark.parametrize("part", ["weights", "config", "tokenizer"])
def test_it_may_be_forced_where_the_shapes_fit(registry: Registry, tiny_base: Path, part: str) -> None:
    base = Base("tiny", tiny_base)
    v = publish(registry, "noir", base_fingerprints=asdict(base.fingerprints) | {part: "99" * 32})
    assert check_base(v, base, force=True) is True
