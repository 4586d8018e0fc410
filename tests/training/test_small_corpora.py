"""What writers have: one manuscript, or a handful of stories, as text or from Word, with no option."""

from __future__ import annotations

from pathlib import Path
from random import Random

import docx
import pytest

import adapterkit as ak
from adapterkit.registry.store import Registry
from tests.conftest import SENTENCES

WORDS = sorted({w for s in SENTENCES for w in s.split()})


def _story(draw: Random, words: int) -> list[str]:
    """Paragraphs of about so many words in all."""
    told: list[str] = []
    while sum(len(p.split()) for p in told) < words:
        told.append(" ".join(draw.choice(WORDS) for _ in range(draw.randint(20, 90))) + ".")
    return told


def _write(path: Path, paragraphs: list[str]) -> None:
    if path.suffix == ".docx":
        document = docx.Document()
        for p in paragraphs:
            document.add_paragraph(p)
        document.save(str(path))
    else:
        path.write_text("\n\n".join(paragraphs) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".txt", ".docx"])
@pytest.mark.parametrize(("stories", "words"), [(1, 60_000), (5, 2_000), (8, 1_500), (12, 800)])
def test_manuscripts_and_stories_train_with_no_option(
    stories: int, words: int, suffix: str, registry: Registry, tiny_base: Path
) -> None:
    draw = Random(stories)
    folder = Path("stories")
    folder.mkdir()
    for i in range(stories):
        _write(folder / f"ch{i + 1}{suffix}", _story(draw, words))
    told = ak.describe(folder, base=str(tiny_base))
    assert (told.documents.kept, told.refused) == (stories, None)
    assert told.held_out is not None
    assert 0.05 < told.held_out.share < 0.2
    version = ak.train(
        folder, registry=registry, base=str(tiny_base), epochs=0.05
    )  # the base and the time are the test's
    assert version.metrics.loss is not None
    assert version.manifest["data"]["held_out"]["unit"] == "passages"
