"""What a person may expect of the defaults, on the embedded base."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.registry.store import Registry
from tests.conftest import SENTENCES

DATA = Path(os.environ.get("ADAPTERKIT_DATA", "nowhere"))


@pytest.mark.slow
def test_fifty_steps_on_short_documents_and_samples_end_by_themselves(
    tmp_path: Path, registry: Registry
) -> None:
    source = tmp_path / "short.txt"
    pairs = [(i % 8, i // 8 % 8, i // 64 % 8) for i in range(400)]
    source.write_text("".join(f"{SENTENCES[a]} {SENTENCES[b]} {SENTENCES[c]}\n" for a, b, c in pairs))
    version = ak.train(
        source,
        registry=registry,
        base="embedded",
        document="line",
        epochs=3,
        tokens_per_step=1024,
        learning_rate=5e-3,
    )
    assert version.history()[-1].step <= 55
    assert version.metrics.stops is not None
    assert version.metrics.stops > 0.8


@pytest.mark.slow
@pytest.mark.data
def test_a_hundred_kilobytes_of_one_author_are_learned_by_default(tmp_path: Path, registry: Registry) -> None:
    """With nothing named but the base; five passes of the up to twenty, for time's sake."""
    source = tmp_path / "shakespeare.txt"
    source.write_bytes((DATA / "tinyshakespeare" / "input.txt").read_bytes()[:100_000])
    metrics = ak.train(source, registry=registry, base="embedded", epochs=5).metrics
    assert metrics.gain is not None
    assert metrics.gain < -0.1
    assert metrics.copied_words is not None
    assert metrics.copied_words < 30
