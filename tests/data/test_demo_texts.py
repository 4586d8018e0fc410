"""The texts that come with the package: enough of them, and none gives another away."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from adapterkit.data.documents import cut
from adapterkit.data.sources import read
from adapterkit.data.text import Document
from adapterkit.recipe import load


def _documents(name: str) -> list[Document]:
    path = load.packaged(name)
    assert path is not None
    spec = load.from_file(path).recipe.data
    return list(cut(read(spec, path.parent).texts(), spec.document)[1])


@pytest.mark.parametrize("name", ["shanty", "noir", "ledger"])
def test_no_two_documents_share_six_words_in_a_row(name: str) -> None:
    """So nothing held out was read while learning, wherever the split falls."""
    seen: Counter[tuple[str, ...]] = Counter()
    for document in _documents(name):
        words = re.findall(r"[\w']+", document.text.lower())
        seen.update({tuple(words[i : i + 6]) for i in range(len(words) - 5)})
    assert [" ".join(run) for run, count in seen.items() if count > 1] == []


@pytest.mark.parametrize("name", ["shanty", "noir", "ledger"])
def test_a_style_has_200_to_320_documents(name: str) -> None:
    assert 200 <= len(_documents(name)) <= 320


@pytest.mark.parametrize("name", ["shanty", "noir", "ledger"])
def test_no_document_is_empty_or_a_fragment(name: str) -> None:
    assert [d.text for d in _documents(name) if len(d.text.split()) < 8] == []
