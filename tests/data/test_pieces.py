"""Slices of documents: every target once, what is read but not learned never, cut to rows without loss."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest

from adapterkit.data.pieces import Pieces, shorten
from adapterkit.data.text import Document
from tests.data.words import Numbered, corpus, pair, whole


def _document(words: int) -> Document:
    return Document("a.txt", 0, " ".join(["word"] * words))


def _slices(length: int, bounds: list[int]) -> Pieces:
    """Passages of one document, ``length`` tokens with its start and end."""
    found = corpus([_document(length - 2)], Numbered())
    return Pieces.of(found, [(0, a - 1, b) for a, b in pairwise(bounds)])


def _tokens(pieces: Pieces) -> list[list[int]]:
    return [pieces.tokens(k).tolist() for k in range(len(pieces))]


# --- pieces ---


def test_slices_overlap_by_one_token() -> None:
    assert _tokens(_slices(6, [1, 3, 6])) == [[0, 1, 2], [2, 3, 4, 0]]


def test_a_piece_has_a_target_for_every_token_but_its_first() -> None:
    pieces = _slices(8, [1, 8])
    assert (pieces.targets.tolist(), pieces.learned(0).tolist()) == ([7], [False] + [True] * 7)


def test_whole_documents_are_a_piece_each() -> None:
    docs = [_document(3), _document(1), _document(5)]
    assert list(Pieces.whole(corpus(docs, Numbered()), np.array([0, 2]))) == [(0, 0, 5), (2, 0, 7)]


def test_no_pieces_have_no_tokens() -> None:
    pieces = Pieces.of(corpus([_document(3)], Numbered()), [])
    assert (len(pieces), int(pieces.sizes.sum()), int(pieces.targets.sum())) == (0, 0, 0)


def test_pieces_are_taken_by_mask_and_by_index() -> None:
    pieces = _slices(9, [1, 3, 5, 9])
    assert list(pieces.take(np.array([True, False, True]))) == list(pieces.take(np.array([0, 2])))


# --- what is read but not learned ---


def test_a_prompt_is_no_target() -> None:
    pieces = whole([pair("one two three", " four five")], Numbered())
    assert pieces.learned(0).tolist() == [False, False, False, False, True, True, True]
    assert pieces.targets.tolist() == [3]


@pytest.mark.parametrize(("begin", "end"), [(a, b) for a in range(7) for b in range(a + 2, 9)])
def test_a_slice_counts_the_targets_that_its_mask_has(begin: int, end: int) -> None:
    """Wherever a slice begins and ends, before, in or after what is not learned."""
    segments = [("one", True), (" two three", False), (" four", True), (" five", False), (" six", True)]
    found = corpus([Document("a.txt", 0, "").rebuilt(segments)], Numbered())
    pieces = Pieces.of(found, [(0, begin, end)])
    learned = [False, True, False, False, True, False, True, True][begin:end]
    assert pieces.learned(0).tolist() == [False, *learned[1:]]
    assert pieces.targets.tolist() == [sum(learned[1:])]


# --- cut to rows ---


@pytest.mark.parametrize("longest", [2, 3, 7, 64])
def test_a_shortened_piece_keeps_every_target_once_and_in_order(longest: int) -> None:
    for length in range(2, 80):
        parts = shorten(whole([_document(length - 2)], Numbered()), longest)
        assert [t for part in _tokens(parts) for t in part[1:]] == [*range(1, length - 1), 0]
        assert int(parts.sizes.max()) <= longest


def test_shortened_passages_keep_every_target_once_and_in_order() -> None:
    draw = Random(0)
    for _ in range(100):
        length = draw.randint(10, 300)
        bounds = [1, *sorted(draw.sample(range(2, length), 3)), length]
        parts = shorten(_slices(length, bounds), draw.randint(2, 50))
        assert [t for part in _tokens(parts) for t in part[1:]] == [*range(1, length - 1), 0]


def test_a_piece_that_fits_is_not_cut() -> None:
    assert list(shorten(_slices(8, [1, 8]), 8)) == [(0, 0, 8)]


def test_a_row_that_begins_in_a_prompt_has_the_rest_of_it_masked() -> None:
    parts = shorten(whole([pair("one two three four five", " six")], Numbered()), 4)
    assert [parts.learned(k).tolist() for k in range(len(parts))] == [
        [False, False, False, False],
        [False, False, False, True],
        [False, True],
    ]


def test_truncation_keeps_the_beginning_of_every_piece() -> None:
    parts = shorten(_slices(12, [1, 4, 12]), 5, truncate=True)
    assert list(parts) == [(0, 0, 4), (0, 3, 8)]


def test_truncation_leaves_out_the_end_label_of_what_it_cut() -> None:
    found = _tokens(shorten(whole([_document(3), _document(20)], Numbered()), 8, truncate=True))
    assert [t[-1] == 0 for t in found] == [True, False]
