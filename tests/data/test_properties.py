"""What holds for all documents, whatever they are made of: nothing lost, nothing learned twice, contexts never."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from adapterkit.data.encode import IGNORE
from adapterkit.data.pack import Rows, pack, stack
from adapterkit.data.pieces import shorten
from adapterkit.data.split import split
from adapterkit.data.text import Document
from adapterkit.model.tokenizer import Tokenizer
from tests.data.words import TOKEN, Numbered, any_documents, corpus, targets, whole

FILLER = (1 << 30) - 1
MODES = st.sampled_from([("isolated", None), ("concat", None), ("none", None), ("none", 16), ("none", 64)])
LENGTHS = st.integers(2, 200)
SHARES = st.sampled_from([0.0, 0.02, 0.1, 0.5])

often = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def _learned(docs: list[Document]) -> tuple[set[int], int]:
    """Numbers of the tokens to learn, told by the words of the texts alone, and how many tokens there are."""
    found, number = set(), 0
    for document in docs:
        for text, learned in document.segments():
            count = len(TOKEN.findall(text))
            found |= set(range(number + 1, number + count + 1)) if learned else set()
            number += count
    return found, number


def _packed(docs: list[Document], share: float, length: int, mode: tuple[str, int | None], **options: Any) -> list[Rows]:  # fmt: skip
    encoder = Numbered()
    found, everything = corpus(docs, encoder), np.arange(len(docs))
    parts = split(found, everything.astype(np.int32), everything, share, encoder)
    return [
        pack(p, length, FILLER, mode=mode[0], pad_to=mode[1], **options)
        for p in (parts.train, parts.held_out)
    ]


# --- tokens ---


@often
@given(docs=any_documents())
def test_decoding_gives_every_character_back(docs: list[Document], tokenizer: Tokenizer) -> None:
    found = corpus(docs, tokenizer)
    assert [tokenizer.decode(found.tokens(i)[1:-1].tolist()) for i in range(len(docs))] == [
        d.text for d in docs
    ]


@often
@given(docs=any_documents())
def test_contexts_decode_to_what_is_not_learned(docs: list[Document], tokenizer: Tokenizer) -> None:
    found = corpus(docs, tokenizer)
    for i, document in enumerate(docs):
        tokens = found.tokens(i).tolist()
        assert [tokenizer.decode(tokens[a:b]) for a, b in found.context(i).tolist()] == [
            document.text[a:b] for a, b in document.context
        ]


@often
@given(docs=any_documents())
def test_a_corpus_gives_its_documents_back(docs: list[Document], tokenizer: Tokenizer) -> None:
    assert list(corpus(docs, tokenizer)) == docs


@often
@given(docs=any_documents(), length=LENGTHS, mode=MODES)
def test_there_are_as_many_end_labels_as_documents(
    docs: list[Document], length: int, mode: tuple[str, int | None], tokenizer: Tokenizer
) -> None:
    """Also where texts hold the end token's name."""
    rows = pack(whole(docs, tokenizer), length, 1, mode=mode[0], pad_to=mode[1])
    assert Counter(targets(rows))[tokenizer.end] == len(docs)


# --- split and packed ---


@often
@given(docs=any_documents(30), share=SHARES, length=LENGTHS, mode=MODES)
def test_every_token_to_learn_is_a_target_exactly_once_and_no_other_is(
    docs: list[Document], share: float, length: int, mode: tuple[str, int | None]
) -> None:
    """Over both sides of the split; the end of each document too."""
    wanted, _ = _learned(docs)
    found = Counter(t for rows in _packed(docs, share, length, mode) for t in targets(rows))
    assert found == Counter(wanted) + Counter({0: len(docs)})


@often
@given(docs=any_documents(30), share=SHARES, length=LENGTHS, mode=MODES)
def test_every_token_is_seen_but_where_nothing_is_learned(
    docs: list[Document], share: float, length: int, mode: tuple[str, int | None]
) -> None:
    """Rows leave out no token of a piece that has something to learn, and say how many pieces have nothing."""
    _, count = _learned(docs)
    sides = _packed(docs, share, length, mode)
    seen = {t for rows in sides for row in rows for t in row.input_ids.tolist()} - {0, FILLER}
    missing = set(range(1, count + 1)) - seen
    assert missing & _learned(docs)[0] == set()
    assert missing == set() or sum(rows.masked for rows in sides) > 0


@often
@given(docs=any_documents(30), share=SHARES, length=LENGTHS, mode=MODES)
def test_rows_fit_and_count_what_they_hold(
    docs: list[Document], share: float, length: int, mode: tuple[str, int | None]
) -> None:
    for rows in _packed(docs, share, length, mode):
        every = list(rows)
        assert all(
            len(r.input_ids) <= min(length, mode[1] or length) or len(r.input_ids) == mode[1] for r in every
        )
        assert rows.targets == sum(r.targets for r in every)
        assert rows.tokens == sum(int((r.input_ids != FILLER).sum()) for r in every)
        assert all(row.targets > 0 for row in every)


@often
@given(docs=any_documents(30), length=LENGTHS, mode=MODES)
def test_truncation_learns_a_part_once_and_counts_the_rest(
    docs: list[Document], length: int, mode: tuple[str, int | None]
) -> None:
    rows = _packed(docs, 0.0, length, mode, truncate=True)[0]
    wanted, count = _learned(docs)
    found = Counter(targets(rows))
    assert set(found) <= wanted | {0}
    assert [t for t, n in found.items() if n > 1 and t] == []
    longest = min(length, mode[1] or length)
    sizes = corpus(docs, Numbered()).lengths
    assert (int(sizes.sum()), rows.cut) == (count + 2 * len(docs), int(np.maximum(sizes - longest, 0).sum()))


@often
@given(docs=any_documents(), length=LENGTHS)
def test_a_stretch_is_learned_where_it_stands_whatever_row_it_is_in(
    docs: list[Document], length: int
) -> None:
    """Masks of slices, end to end, are the mask of the document."""
    pieces = whole(docs, Numbered())
    parts = shorten(pieces, length)
    told: dict[int, list[bool]] = {}
    for k, (i, _, _) in enumerate(parts):
        told.setdefault(i, []).extend(parts.learned(k)[1:].tolist())
    assert told == {i: pieces.learned(i)[1:].tolist() for i in range(len(docs))}


@often
@given(docs=any_documents(), length=LENGTHS, at_once=st.integers(1, 9))
def test_batches_hold_the_rows_and_nothing_else_to_learn(
    docs: list[Document], length: int, at_once: int
) -> None:
    rows = pack(whole(docs, Numbered()), length, FILLER)
    assume(len(rows) > 0)
    found: Counter[int] = Counter()
    for i in range(0, len(rows), at_once):
        labels = stack(rows[i : i + at_once], FILLER)["labels"]
        found += Counter(labels[labels != IGNORE].tolist())
    assert found == Counter(targets(rows))


@pytest.mark.parametrize("share", [0.1, 0.5])
@often
@given(docs=any_documents(30))
def test_something_is_held_out_and_something_learned_of_two_documents_or_more(
    share: float, docs: list[Document]
) -> None:
    assume(len(docs) > 1)
    encoder = Numbered()
    everything = np.arange(len(docs))
    parts = split(corpus(docs, encoder), everything.astype(np.int32), everything, share, encoder)
    assert (int(parts.train.targets.sum()) > 0, int(parts.held_out.targets.sum()) > 0) == (True, True)
