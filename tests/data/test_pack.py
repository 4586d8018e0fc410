"""Packed rows: every token a target once, ends learned once, rows full, documents apart."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from adapterkit.data.documents import Document
from adapterkit.data.encode import IGNORE, Piece, encode
from adapterkit.data.pack import Row, pack, stack
from adapterkit.data.split import split
from adapterkit.model.tokenizer import END, Tokenizer
from tests.data.words import documents, text


def _pieces(lengths: list[int]) -> list[Piece]:
    """Pieces whose tokens are all different, so that each can be followed."""
    begins = np.cumsum([0, *lengths])
    return [
        Piece(np.arange(a, a + n, dtype=np.int32), i)
        for i, (a, n) in enumerate(zip(begins, lengths, strict=False))
    ]


def _random(seed: int, count: int, longest: int) -> list[Piece]:
    draw = Random(seed)
    return _pieces([draw.randint(2, longest) for _ in range(count)])


def _targets(rows: list[Row]) -> Counter[int]:
    return Counter(int(t) for row in rows for t in row.labels[row.labels != IGNORE])


def _segments(row: Row) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of a row, parted where the positions restart."""
    starts = [*np.flatnonzero(row.position_ids == 0).tolist(), len(row.input_ids)]
    return [(row.input_ids[a:b].tolist(), row.labels[a:b].tolist()) for a, b in pairwise(starts)]


# --- from text to rows ---


@pytest.mark.parametrize("mode", ["isolated", "concat"])
def test_every_token_but_a_start_is_a_target_exactly_once(tokenizer: Tokenizer, mode: str) -> None:
    """Over split and pack, with documents that are cut over several rows."""
    draw = Random(2)
    docs = documents(draw, 40, 3, odd=0.3)
    docs += [Document("a.txt", 40 + i, text(draw, 40)) for i in range(3)]  # about nine rows of 64 each
    tokens = encode(docs, tokenizer)
    parts = split(docs, tokens, 0.1, tokenizer)
    found = _targets(pack(parts.train, 64, mode)) + _targets(pack(parts.held_out, 64, mode))
    assert found == Counter(int(t) for ids in tokens for t in ids[1:])


def test_there_is_exactly_one_end_label_a_document(tokenizer: Tokenizer) -> None:
    docs = documents(Random(3), 60, 20, odd=0.5)
    rows = pack([Piece(t, i) for i, t in enumerate(encode(docs, tokenizer))], 64)
    assert _targets(rows)[tokenizer.end] == 60


def test_a_literal_end_of_text_adds_no_end(tokenizer: Tokenizer) -> None:
    docs = [Document("a.txt", i, f"One{END}two {END}") for i in range(5)]
    rows = pack([Piece(t, i) for i, t in enumerate(encode(docs, tokenizer))], 64)
    assert _targets(rows)[tokenizer.end] == 5
    assert sum(int((r.input_ids == tokenizer.end).sum()) for r in rows) == 10


def test_a_long_document_goes_on_with_its_last_token_as_context() -> None:
    rows = pack(_pieces([20]), 8)
    assert sorted(_segments(r)[0][0] for r in rows) == [
        list(range(8)),
        list(range(7, 15)),
        list(range(14, 20)),
    ]


# --- rows ---


@pytest.mark.parametrize("length", [8, 33, 64])
def test_no_row_is_longer_than_the_limit(length: int) -> None:
    assert all(len(row.input_ids) <= length for row in pack(_random(0, 300, 150), length))


@pytest.mark.parametrize(("length", "longest"), [(64, 20), (1024, 60), (1024, 400)])
def test_rows_of_many_short_pieces_are_over_99_percent_full(length: int, longest: int) -> None:
    rows = pack(_random(1, 3000, longest), length)
    assert sum(len(r.input_ids) for r in rows) / (length * len(rows)) >= 0.99


def test_positions_restart_where_a_piece_begins() -> None:
    for row in pack(_random(4, 200, 20), 64):
        for tokens, _ in _segments(row):
            assert np.all(np.diff(tokens) == 1)  # one piece, whole, in its order
        assert [s[0][0] for s in _segments(row)] == sorted({s[0][0] for s in _segments(row)})


def test_positions_count_up_inside_a_piece() -> None:
    row = pack(_pieces([3, 4]), 16)[0]
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_the_first_label_of_every_piece_is_masked_and_no_other() -> None:
    for row in pack(_random(5, 200, 20), 64):
        for tokens, labels in _segments(row):
            assert labels == [IGNORE, *tokens[1:]]


def test_labels_are_the_tokens_at_the_same_place() -> None:
    """transformers shifts labels itself, so they must not be shifted here."""
    for row in pack(_random(6, 50, 30), 64):
        kept = row.labels != IGNORE
        assert np.array_equal(row.labels[kept], row.input_ids[kept])


def test_concat_counts_positions_through_the_row() -> None:
    row = pack(_pieces([3, 4]), 16, "concat")[0]
    assert row.position_ids.tolist() == list(range(7))


def test_concat_learns_from_the_same_targets() -> None:
    pieces = _random(7, 100, 30)
    assert _targets(pack(pieces, 64, "concat")) == _targets(pack(pieces, 64))


def test_packing_is_the_same_every_time() -> None:
    one, two = pack(_random(8, 100, 30), 64), pack(_random(8, 100, 30), 64)
    assert [r.input_ids.tolist() for r in one] == [r.input_ids.tolist() for r in two]


def test_a_piece_without_targets_makes_no_row() -> None:
    assert pack(_pieces([1]), 8) == []


def test_nothing_packs_into_nothing() -> None:
    assert pack([], 8) == []


def test_a_row_counts_its_targets() -> None:
    assert pack(_pieces([3, 4]), 16)[0].targets == 5


# --- batches ---


def test_padding_is_no_target() -> None:
    batch = stack(pack(_pieces([30, 5]), 30), filler=0)
    assert (batch["labels"].shape, int((batch["labels"] != IGNORE).sum())) == ((2, 30), 29 + 4)


def test_padding_is_a_piece_of_its_own() -> None:
    """Its positions restart, so that no text sees it and it sees no text."""
    batch = stack(pack(_pieces([8, 5]), 8), filler=99)
    assert (batch["position_ids"][1].tolist(), batch["input_ids"][1, 5:].tolist()) == (
        [0, 1, 2, 3, 4, 0, 1, 2],
        [99, 99, 99],
    )


def test_rows_come_back_out_of_a_batch() -> None:
    rows = pack(_random(9, 40, 30), 64)
    batch = stack(rows, filler=0)
    for i, row in enumerate(rows):
        assert np.array_equal(batch["input_ids"][i, : len(row.input_ids)], row.input_ids)
        assert np.array_equal(batch["labels"][i, : len(row.labels)], row.labels)
        assert np.array_equal(batch["position_ids"][i, : len(row.labels)], row.position_ids)


def test_a_batch_holds_64_bit_integers_as_torch_wants() -> None:
    batch = stack(pack(_pieces([3]), 8), filler=0)
    assert {str(a.dtype) for a in batch.values()} == {"int64"}
