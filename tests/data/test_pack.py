"""Packed rows: every token a target once, ends learned once, rows full, documents apart."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest

from adapterkit.data.encode import IGNORE
from adapterkit.data.pack import Row, Rows, pack, stack
from adapterkit.data.pieces import Pieces
from adapterkit.data.split import split
from adapterkit.data.text import Document
from adapterkit.model.tokenizer import END, Tokenizer
from tests.data.words import Numbered, corpus, documents, pair, targets, text, whole

FILLER = 99


def _pieces(lengths: list[int]) -> Pieces:
    """Pieces of so many tokens, all different but for the starts and ends, so that each can be followed."""
    return whole([Document("a.txt", i, "w " * (n - 2)) for i, n in enumerate(lengths)], _Exact())


class _Exact(Numbered):
    """As many tokens as there are letters w."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[self._id(word) for word in t.split()] for t in texts]


def _pack(lengths: list[int], length: int, **changes: Any) -> Rows:
    return pack(_pieces(lengths), length, FILLER, **changes)


def _random(seed: int, count: int, longest: int) -> list[int]:
    draw = Random(seed)
    return [draw.randint(2, longest) for _ in range(count)]


def _segments(row: Row) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of a row, parted where the positions restart."""
    starts = [*np.flatnonzero(row.position_ids == 0).tolist(), len(row.input_ids)]
    return [(row.input_ids[a:b].tolist(), row.labels[a:b].tolist()) for a, b in pairwise(starts)]


# --- from text to rows ---


@pytest.mark.parametrize("mode", ["isolated", "concat", "none"])
def test_every_token_but_a_start_is_a_target_exactly_once(tokenizer: Tokenizer, mode: str) -> None:
    """Over split and pack, with documents that are cut over several rows."""
    draw = Random(2)
    docs = documents(draw, 40, 3, odd=0.3)
    docs += [Document("a.txt", 40 + i, text(draw, 40)) for i in range(3)]  # about nine rows of 64 each
    found, everything = corpus(docs, tokenizer), np.arange(43)
    parts = split(found, everything, everything, 0.1, tokenizer)
    rows = [*pack(parts.train, 64, FILLER, mode=mode), *pack(parts.held_out, 64, FILLER, mode=mode)]
    assert Counter(targets(rows)) == Counter(t for i in range(43) for t in found.tokens(i)[1:].tolist())


def test_there_is_exactly_one_end_label_a_document(tokenizer: Tokenizer) -> None:
    rows = pack(whole(documents(Random(3), 60, 20, odd=0.5), tokenizer), 64, FILLER)
    assert Counter(targets(rows))[tokenizer.end] == 60


def test_a_literal_end_of_text_adds_no_end(tokenizer: Tokenizer) -> None:
    rows = pack(whole([Document("a.txt", i, f"One{END}two {END}") for i in range(5)], tokenizer), 64, FILLER)
    assert Counter(targets(rows))[tokenizer.end] == 5
    assert sum(int((r.input_ids == tokenizer.end).sum()) for r in rows) == 10


def test_a_long_document_goes_on_with_its_last_token_as_context() -> None:
    rows = _pack([20], 8)
    assert sorted((_segments(r)[0][0] for r in rows), key=lambda t: t[1]) == [
        list(range(8)),
        list(range(7, 15)),
        [*range(14, 19), 0],
    ]


# --- rows ---


@pytest.mark.parametrize("length", [8, 33, 64])
@pytest.mark.parametrize("mode", ["isolated", "concat", "none"])
def test_no_row_is_longer_than_the_limit(length: int, mode: str) -> None:
    assert all(len(row.input_ids) <= length for row in _pack(_random(0, 300, 150), length, mode=mode))


@pytest.mark.parametrize(("length", "longest"), [(64, 20), (1024, 60), (1024, 400)])
def test_rows_of_many_short_pieces_are_over_99_percent_full(length: int, longest: int) -> None:
    rows = _pack(_random(1, 3000, longest), length)
    assert rows.tokens / rows.slots() >= 0.99
    assert rows.tokens == sum(len(r.input_ids) for r in rows)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("longest", [24, 40, 64])
def test_rows_are_no_more_than_best_fit_decreasing_makes(seed: int, longest: int) -> None:
    """Against the plain way to do that; one row more is let pass."""
    lengths = _random(seed, 400, longest)
    free: list[int] = []
    for size in sorted(lengths, reverse=True):
        room = [f for f in free if f >= size]
        if room:
            free.remove(min(room))
        free.append((min(room) if room else 64) - size)
    assert len(_pack(lengths, 64)) <= len(free) + 1


def test_positions_restart_where_a_piece_begins() -> None:
    for row in _pack(_random(4, 200, 20), 64):
        for tokens, _ in _segments(row):
            assert (tokens[0], tokens[-1]) == (0, 0)
            assert np.all(np.diff(tokens[1:-1]) == 1)  # one piece, whole, in its order


def test_pieces_of_a_row_keep_the_order_of_the_text() -> None:
    for row in _pack([n + 1 for n in _random(4, 200, 20)], 64):  # each has a token of its own
        assert [s[0][1] for s in _segments(row)] == sorted(s[0][1] for s in _segments(row))


def test_positions_count_up_inside_a_piece() -> None:
    row = _pack([3, 4], 16)[0]
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_the_first_label_of_every_piece_is_masked_and_no_other() -> None:
    for row in _pack(_random(5, 200, 20), 64):
        for tokens, labels in _segments(row):
            assert labels == [IGNORE, *tokens[1:]]


def test_labels_are_the_tokens_at_the_same_place() -> None:
    """transformers shifts labels itself, so they must not be shifted here."""
    for row in _pack(_random(6, 50, 30), 64):
        kept = row.labels != IGNORE
        assert np.array_equal(row.labels[kept], row.input_ids[kept])


def test_concat_counts_positions_through_the_row() -> None:
    row = _pack([3, 4], 16, mode="concat")[0]
    assert row.position_ids.tolist() == list(range(7))


def test_concat_learns_from_the_same_targets() -> None:
    lengths = _random(7, 100, 30)
    assert Counter(targets(_pack(lengths, 64, mode="concat"))) == Counter(targets(_pack(lengths, 64)))


def test_packing_is_the_same_every_time() -> None:
    one, two = _pack(_random(8, 100, 30), 64), _pack(_random(8, 100, 30), 64)
    assert [r.input_ids.tolist() for r in one] == [r.input_ids.tolist() for r in two]


@pytest.mark.parametrize("mode", ["isolated", "concat", "none"])
def test_nothing_packs_into_nothing(mode: str) -> None:
    rows = pack(_pieces([5]).take(np.arange(0)), 8, FILLER, mode=mode)
    assert (len(rows), list(rows), rows.targets, rows.tokens, rows.slots()) == (0, [], 0, 0, 0)


def test_a_row_counts_its_targets() -> None:
    rows = _pack([3, 4], 16)
    assert (rows[0].targets, rows.targets) == (5, 5)


# --- rows as a sequence ---


def test_rows_are_sliced_and_counted_from_the_end_like_a_list() -> None:
    rows = _pack(_random(11, 100, 30), 64)
    every = [r.input_ids.tolist() for r in rows]
    assert [r.input_ids.tolist() for r in rows[2:9:3]] == every[2:9:3]
    assert [r.input_ids.tolist() for r in rows[-3:]] == every[-3:]
    assert rows[-1].input_ids.tolist() == every[-1]


@pytest.mark.parametrize("index", [1, -2])
def test_a_row_that_is_not_there_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        _pack([3, 4], 16)[index]


def test_members_tell_which_pieces_a_row_holds() -> None:
    rows = _pack(_random(12, 60, 30), 64)
    told = [[t for k in rows.members(i) for t in rows.pieces.tokens(k).tolist()] for i in range(len(rows))]
    assert told == [r.input_ids.tolist() for r in rows]


# --- a row a document ---


def test_mode_none_gives_every_document_a_row_in_their_order() -> None:
    rows = _pack([5, 3, 7], 16, mode="none")
    assert [len(r.input_ids) for r in rows] == [5, 3, 7]
    assert [r.position_ids.tolist() for r in rows] == [list(range(5)), list(range(3)), list(range(7))]


def test_pad_to_fills_every_row_with_what_is_no_target() -> None:
    row = _pack([5, 3], 64, mode="none", pad_to=8)[1]
    assert row.input_ids.tolist() == [0, 4, 0, FILLER, FILLER, FILLER, FILLER, FILLER]
    assert row.labels.tolist() == [IGNORE, 4, 0, *[IGNORE] * 5]
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


def test_pad_to_cuts_what_is_longer_without_loss() -> None:
    rows = _pack([20], 64, mode="none", pad_to=8)
    assert [len(r.input_ids) for r in rows] == [8, 8, 8]
    assert list(targets(rows)) == [*range(1, 19), 0]


@pytest.mark.parametrize("mode", ["isolated", "concat"])
def test_pad_to_is_nothing_to_packed_rows(mode: str) -> None:
    rows = _pack([20, 9], 64, mode=mode, pad_to=16)
    assert [len(r.input_ids) for r in rows] == [29]


def test_slots_count_what_is_computed() -> None:
    """Packed rows are full length; unpadded ones are as long as the longest of their batch."""
    lengths = [5, 9, 3, 7]
    assert _pack(lengths, 12).slots() == 2 * 12
    assert _pack(lengths, 12, mode="none").slots(2) == 2 * 9 + 2 * 7
    assert _pack(lengths, 12, mode="none", pad_to=10).slots(2) == 4 * 10


def test_slots_of_unpadded_rows_are_those_of_their_batches() -> None:
    rows = _pack(_random(13, 50, 30), 64, mode="none")
    batches = [stack(rows[i : i + 8], FILLER)["input_ids"] for i in range(0, len(rows), 8)]
    assert rows.slots(8) == sum(b.size for b in batches)


# --- what is dropped ---


def test_truncation_counts_the_tokens_it_drops() -> None:
    rows = _pack([20, 8, 11], 8, truncate=True)
    assert (rows.cut, rows.tokens) == (12 + 0 + 3, 24)


def test_nothing_is_dropped_unless_truncation_is_asked_for() -> None:
    rows = _pack([20, 8, 11], 8)
    assert (rows.cut, rows.targets) == (0, 19 + 7 + 10)


def test_pieces_with_nothing_to_learn_are_left_out_and_counted() -> None:
    """The first and second row of 4 hold prompt only."""
    rows = pack(whole([pair("w " * 6, "w w")], _Exact()), 4, FILLER, mode="none")
    assert rows.masked == 2
    assert [r.labels.tolist() for r in rows] == [[IGNORE, 7, 8, 0]]


def test_what_truncation_leaves_of_a_long_prompt_is_counted_as_masked() -> None:
    rows = pack(whole([pair("w " * 6, "w w"), pair("w", "w")], _Exact()), 4, FILLER, truncate=True)
    assert (rows.masked, rows.cut, rows.targets) == (1, 6, 2)


def test_a_prompt_is_no_target_in_any_row() -> None:
    draw, encoder = Random(14), Numbered()
    docs = [pair("p " * draw.randint(1, 30), "c" + " c" * draw.randint(0, 30), i) for i in range(100)]
    rows = pack(whole(docs, encoder), 16, FILLER)
    assert {encoder.decode([t]).strip() for t in targets(rows)} == {"c", ""}
    assert rows.targets == sum(d.text.count("c") for d in docs) + 100


# --- batches ---


def test_padding_is_no_target() -> None:
    batch = stack(list(_pack([30, 5], 30)), filler=0)
    assert (batch["labels"].shape, int((batch["labels"] != IGNORE).sum())) == ((2, 30), 29 + 4)


def test_padding_is_a_piece_of_its_own() -> None:
    """Its positions restart, so that no text sees it and it sees no text."""
    batch = stack(list(_pack([8, 5], 8)), filler=99)
    assert (batch["position_ids"][1].tolist(), batch["input_ids"][1, 5:].tolist()) == (
        [0, 1, 2, 3, 4, 0, 1, 2],
        [99, 99, 99],
    )


def test_rows_come_back_out_of_a_batch() -> None:
    rows = _pack(_random(9, 40, 30), 64)
    batch = stack(list(rows), filler=0)
    for i, row in enumerate(rows):
        assert np.array_equal(batch["input_ids"][i, : len(row.input_ids)], row.input_ids)
        assert np.array_equal(batch["labels"][i, : len(row.labels)], row.labels)
        assert np.array_equal(batch["position_ids"][i, : len(row.labels)], row.position_ids)


def test_a_batch_holds_64_bit_integers_as_torch_wants() -> None:
    batch = stack(list(_pack([3], 8)), filler=0)
    assert {str(a.dtype) for a in batch.values()} == {"int64"}
