"""The tokenizer of the small base, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterkit.model.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(tiny_base: Path) -> Tokenizer:
    return Tokenizer(tiny_base)
