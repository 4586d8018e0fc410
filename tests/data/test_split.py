"""What is held out: never nothing, about the share asked for, stable, and nothing lost."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from adapterkit.data.documents import Document
from adapterkit.data.encode import Piece, Tokens, encode
from adapterkit.data.split import FEW_DOCUMENTS, Split, split
from adapterkit.model.tokenizer import Tokenizer
from tests.data.words import documents, text


def _split(docs: list[Document], tokenizer: Tokenizer, share: float = 0.1) -> Split:
    return split(docs, encode(docs, tokenizer), share, tokenizer)


def _targets(pieces: list[Piece]) -> int:
    return sum(p.targets for p in pieces)


def _spans(pieces: list[Piece], tokens: list[Tokens]) -> list[tuple[int, int, int]]:
    """(document, first target, end) of each piece, found by its own tokens."""
    spans = []
    for p in pieces:
        whole, n = tokens[p.document], len(p.tokens)
        at = next(i for i in range(len(whole)) if np.array_equal(whole[i : i + n], p.tokens))
        spans.append((p.document, at + 1, at + n))
    return spans


def _numbered(count: int, sentences: int, draw: Random) -> list[Document]:
    """Documents in which every passage is different, so that spans can be found."""
    return [
        Document("a.txt", i, " ".join(f"{i}.{n} {text(draw, 1)}\n" for n in range(sentences)))
        for i in range(count)
    ]


# --- over many small corpora ---


def test_what_is_held_out_is_never_nothing_over_300_small_corpora(tokenizer: Tokenizer) -> None:
    draw, bad = Random(0), []
    for n in range(300):
        docs = documents(draw, draw.randint(1, 30), 4, odd=0.1)
        if len(docs) == 1:  # a document of one passage can't be parted
            docs = [Document("a.txt", 0, text(draw, 12, between=draw.choice([" ", "\n", "\n\n"])))]
        parts = _split(docs, tokenizer)
        if not parts.held_out or not parts.train or _targets(parts.held_out) < 1:
            bad.append(n)
    assert bad == []


def test_every_target_is_kept_exactly_once_over_many_small_corpora(tokenizer: Tokenizer) -> None:
    draw = Random(1)
    for _ in range(30):
        docs = documents(draw, draw.randint(1, 30), 8, odd=0.2)
        tokens = encode(docs, tokenizer)
        parts = split(docs, tokens, draw.choice([0.02, 0.1, 0.5]), tokenizer)
        kept = Counter((p.document, int(t)) for p in parts.train + parts.held_out for t in p.tokens[1:])
        assert kept == Counter((i, int(t)) for i, ids in enumerate(tokens) for t in ids[1:])


def test_the_spans_of_both_sides_lie_end_to_end(tokenizer: Tokenizer) -> None:
    docs = _numbered(3, 60, Random(2))
    tokens = encode(docs, tokenizer)
    parts = split(docs, tokens, 0.1, tokenizer)
    spans = sorted(_spans(parts.train + parts.held_out, tokens))
    whole = [(d, len(ids)) for d, ids in enumerate(tokens)]
    assert [(d, b) for d, b, _ in spans] == [
        (d, begin) for d, end in whole for begin in [1, *(e for at, _, e in spans if at == d and e < end)]
    ]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_the_share_is_met_to_within_a_document(tokenizer: Tokenizer, share: float) -> None:
    docs = documents(Random(3), 120, 6)
    parts = _split(docs, tokenizer, share)
    total, got = _targets(parts.train) + _targets(parts.held_out), _targets(parts.held_out)
    assert 0 <= got - share * total <= max(p.targets for p in parts.held_out)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_the_share_is_met_to_within_a_passage(tokenizer: Tokenizer, share: float) -> None:
    docs = documents(Random(4), 1, 1) + _numbered(2, 200, Random(4))
    parts = _split(docs, tokenizer, share)
    total, got = _targets(parts.train) + _targets(parts.held_out), _targets(parts.held_out)
    assert 0 <= got - share * total <= max(p.targets for p in parts.held_out)


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_no_share_holds_out_nothing(tokenizer: Tokenizer, share: float) -> None:
    parts = _split(documents(Random(5), 30, 3), tokenizer, share)
    assert (len(parts.train), parts.held_out, parts.units) == (30, [], 0)


# --- whole documents ---


def test_twenty_documents_are_held_out_whole(tokenizer: Tokenizer) -> None:
    docs = documents(Random(6), FEW_DOCUMENTS, 4)
    tokens = encode(docs, tokenizer)
    parts = split(docs, tokens, 0.1, tokenizer)
    assert parts.unit == "documents"
    assert all(np.array_equal(p.tokens, tokens[p.document]) for p in parts.held_out + parts.train)


def test_the_same_is_held_out_every_time(tokenizer: Tokenizer) -> None:
    docs = documents(Random(7), 50, 4)
    one, two = _split(docs, tokenizer), _split(docs, tokenizer)
    assert [p.document for p in one.held_out] == [p.document for p in two.held_out]


def test_the_choice_is_the_same_on_every_machine(tokenizer: Tokenizer) -> None:
    """Golden: the lowest of sha256("('a.txt', 0)") and so on, never Python's own hash."""
    docs = [Document("a.txt", i, f"As many words in number {i:02}.") for i in range(30)]
    assert [p.document for p in _split(docs, tokenizer).held_out] == [2, 19, 20]


def test_a_mended_typo_moves_no_document(tokenizer: Tokenizer) -> None:
    docs = documents(Random(8), 100, 4)
    mended = [*docs[:50], Document("a.txt", 50, docs[50].text + "!"), *docs[51:]]
    before, after = ({p.document for p in _split(d, tokenizer).held_out} for d in (docs, mended))
    assert len(before ^ after) <= 1


def test_documents_that_are_appended_move_few_others(tokenizer: Tokenizer) -> None:
    """What was held out stays so, but for those at the edge of the share."""
    draw = Random(9)
    docs = [Document("a.txt", i, text(draw, 3)) for i in range(400)]
    more = [*docs, *(Document("a.txt", 400 + i, text(draw, 3)) for i in range(40))]
    before = {p.document for p in _split(docs, tokenizer).held_out}
    after = {p.document for p in _split(more, tokenizer).held_out if p.document < 400}
    assert len(before ^ after) <= 0.15 * len(before)


def test_what_is_held_out_does_not_follow_the_order_of_the_text(tokenizer: Tokenizer) -> None:
    held = [p.document for p in _split(documents(Random(10), 200, 4), tokenizer).held_out]
    assert min(held) < 50
    assert max(held) >= 150


def test_copies_of_a_document_stand_on_one_side(tokenizer: Tokenizer) -> None:
    draw = Random(11)
    once = [text(draw, 3) for _ in range(100)]
    docs = [Document("a.txt", i, t) for i, t in enumerate(once + once)]
    parts = _split(docs, tokenizer)
    assert {docs[p.document].text for p in parts.train}.isdisjoint(
        docs[p.document].text for p in parts.held_out
    )


# --- passages ---


@pytest.mark.parametrize("count", [1, 2, 7, FEW_DOCUMENTS - 1])
def test_passages_that_are_held_out_are_never_adjacent(tokenizer: Tokenizer, count: int) -> None:
    docs = _numbered(count, 400 // count, Random(12))
    tokens = encode(docs, tokenizer)
    parts = split(docs, tokens, 0.2, tokenizer)
    spans = sorted(_spans(parts.held_out, tokens))
    touching = [(a, b) for a, b in pairwise(spans) if a[0] == b[0] and a[2] == b[1]]
    assert (parts.unit, len(spans) == parts.units > 1, touching) == ("passages", True, [])


def test_what_is_learned_between_two_passages_is_one_piece(tokenizer: Tokenizer) -> None:
    """So that a held-out passage of one novel leaves one hole, not forty cuts."""
    docs = _numbered(1, 300, Random(13))
    parts = _split(docs, tokenizer)
    assert len(parts.train) <= parts.units + 1


def test_passages_begin_at_paragraphs_where_there_are_some(tokenizer: Tokenizer) -> None:
    draw = Random(14)
    novel = "\n\n".join(f"{n}. {text(draw, 3)}" for n in range(120))
    docs = [Document("a.txt", 0, novel)]
    held = [
        tokenizer.decode([int(t) for t in p.tokens[1:]]).strip() for p in _split(docs, tokenizer).held_out
    ]
    assert all(passage.split(".")[0].isdigit() for passage in held)


@pytest.mark.parametrize(
    "between",
    ["\n\n", "\n", " ", ".", "\r", "\u3000"],
    ids=["paragraphs", "lines", "spaces", "none", "cr", "wide"],
)
def test_one_long_document_works_whatever_parts_it(tokenizer: Tokenizer, between: str) -> None:
    docs = [Document("a.txt", 0, text(Random(15), 200, between=between))]
    parts = _split(docs, tokenizer)
    total = _targets(parts.train) + _targets(parts.held_out)
    assert 0.08 <= _targets(parts.held_out) / total <= 0.2


def test_a_text_without_any_space_works(tokenizer: Tokenizer) -> None:
    """Chinese and Japanese are written so."""
    docs = [Document("a.txt", 0, "日本語の文章はこのように書かれる。" * 300)]
    assert _split(docs, tokenizer).held_out != []


def test_short_documents_among_few_are_held_out_whole(tokenizer: Tokenizer) -> None:
    docs = documents(Random(16), 10, 1)
    tokens = encode(docs, tokenizer)
    held = split(docs, tokens, 0.1, tokenizer).held_out
    assert all(np.array_equal(p.tokens, tokens[p.document]) for p in held)


def test_two_tiny_documents_leave_one_to_learn_from(tokenizer: Tokenizer) -> None:
    parts = _split([Document("a.txt", i, "One.") for i in range(2)], tokenizer, 0.5)
    assert (len(parts.train), len(parts.held_out)) == (1, 1)


def test_a_tiny_document_is_left_to_learn_from(tokenizer: Tokenizer) -> None:
    parts = _split([Document("a.txt", 0, "One.")], tokenizer, 0.5)
    assert (len(parts.train), parts.held_out) == (1, [])
