"""Documents as tokens: every character comes back, one start and one end, told by position."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from adapterkit.data.documents import Document
from adapterkit.data.encode import Piece, encode, shorten, slices
from adapterkit.model.tokenizer import END, Tokenizer
from tests.data.words import documents


def _one(text: str, tokenizer: Tokenizer) -> list[int]:
    return [int(t) for t in encode([Document("a.txt", 0, text)], tokenizer)[0]]


def _piece(length: int, document: int = 0) -> Piece:
    return Piece(np.arange(length, dtype=np.int32), document)


def test_every_character_comes_back(tokenizer: Tokenizer) -> None:
    docs = documents(Random(0), 300, 6, odd=0.5)
    decoded = [tokenizer.decode([int(t) for t in ids[1:-1]]) for ids in encode(docs, tokenizer)]
    assert decoded == [d.text for d in docs]


def test_characters_of_all_of_unicode_come_back(tokenizer: Tokenizer) -> None:
    """The alphabets, then every 37th character, but for the surrogates."""
    points = [chr(c) for c in [*range(0x3000), *range(0x3000, 0x110000, 37)] if not 0xD800 <= c < 0xE000]
    texts = ["".join(points[i : i + 2000]) for i in range(0, len(points), 2000)]
    found = encode([Document("a.txt", i, t) for i, t in enumerate(texts)], tokenizer)
    assert [tokenizer.decode([int(t) for t in ids[1:-1]]) for ids in found] == texts


@pytest.mark.parametrize(
    "text", [" leading", "trailing ", "a  b", "\n\n", "don 't , you ?", "I 'm", "x .", ""]
)
def test_spaces_are_not_tidied(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(_one(text, tokenizer)[1:-1]) == text


def test_a_document_begins_and_ends_with_the_end_token(tokenizer: Tokenizer) -> None:
    ids = _one("The sea.", tokenizer)
    assert (ids[0], ids[-1], ids.count(tokenizer.end)) == (tokenizer.end, tokenizer.end, 2)


@pytest.mark.parametrize("text", [END, f"a{END}b", f"{END}{END}", f" {END} ", END[:-1] + END])
def test_a_literal_end_of_text_holds_no_end_token(tokenizer: Tokenizer, text: str) -> None:
    ids = _one(text, tokenizer)[1:-1]
    assert (tokenizer.end in ids, tokenizer.decode(ids)) == (False, text)


def test_documents_are_encoded_one_by_one_and_together_alike(tokenizer: Tokenizer) -> None:
    docs = documents(Random(1), 20, 3, odd=0.3)
    assert [[int(t) for t in ids] for ids in encode(docs, tokenizer)] == [
        _one(d.text, tokenizer) for d in docs
    ]


def test_offsets_begin_where_the_tokens_begin(tokenizer: Tokenizer) -> None:
    text = "The bell rang for noon, naïve 🙂 though."
    ids, starts = tokenizer.offsets(text)
    assert (ids, starts[0], starts == sorted(starts), max(starts) < len(text)) == (
        tokenizer.encode(text),
        0,
        True,
        True,
    )


def test_slices_overlap_by_one_token() -> None:
    pieces = slices(np.arange(6, dtype=np.int32), 3, [1, 3, 6])
    assert [(p.tokens.tolist(), p.document) for p in pieces] == [([0, 1, 2], 3), ([2, 3, 4, 5], 3)]


@pytest.mark.parametrize("longest", [2, 3, 7, 64])
def test_a_shortened_piece_keeps_every_target_once_and_in_order(longest: int) -> None:
    for length in range(2, 80):
        parts = shorten(_piece(length), longest)
        assert [t for p in parts for t in p.tokens[1:].tolist()] == list(range(1, length))
        assert max(len(p.tokens) for p in parts) <= longest


def test_a_piece_that_fits_is_not_cut() -> None:
    assert [p.tokens.tolist() for p in shorten(_piece(8), 8)] == [list(range(8))]


def test_a_piece_has_a_target_for_every_token_but_its_first() -> None:
    assert _piece(8).targets == 7
