"""What is held out: never nothing, about the share asked for, stable, and nothing lost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from adapterkit.data import copies
from adapterkit.data.encode import Encoder
from adapterkit.data.pieces import Pieces, Span
from adapterkit.data.split import FEW_DOCUMENTS, Split, split
from adapterkit.data.text import Document
from adapterkit.model.tokenizer import Tokenizer
from tests.data.words import Words, babble, corpus, documents, pair, redrafted, text


def _split(docs: Sequence[Document], encoder: Encoder, share: float = 0.1, *, drafts: bool = False) -> Split:
    """Split of all documents; ``drafts`` looks for copies and near-copies, else each stands alone."""
    found = corpus(docs, encoder)
    groups = copies.groups(found, encoder) if drafts else np.arange(len(docs), dtype=np.int32)
    return split(found, groups, np.arange(len(docs)), share, encoder)


def _targets(pieces: Pieces) -> int:
    return int(pieces.targets.sum())


def _texts(pieces: Pieces, encoder: Encoder) -> list[str]:
    return [encoder.decode(pieces.tokens(k)[1:].tolist()) for k in range(len(pieces))]


def _held(parts: Split) -> set[int]:
    return set(parts.held_out.document.tolist())


def _touching(pieces: Pieces) -> list[tuple[Span, Span]]:
    """Pieces of one document with no target between them."""
    return [(a, b) for a, b in pairwise(sorted(pieces)) if a[0] == b[0] and b[1] + 1 <= a[2]]


def _long(count: int, sentences: int, draw: Random) -> list[Document]:
    return [Document("a.txt", i, text(draw, sentences, between="\n")) for i in range(count)]


# --- over many small corpora ---


def _small_corpus(draw: Random) -> list[Document]:
    """1 to 40 documents of a few hundred to a few thousand words in all, with copies and drafts among them."""
    count = draw.randint(1, 40)
    each = draw.randint(300, 4000) // count
    told = [babble(draw, max(8, draw.randint(each // 2, each * 2))) for _ in range(count)]
    for i in range(count):
        if draw.random() < 0.15:
            old = draw.choice(told)
            told[i] = old if draw.random() < 0.5 else redrafted(draw, old)
    return [Document("a.txt", i, t) for i, t in enumerate(told)]


def test_over_1000_small_corpora_both_sides_have_text_and_keep_apart() -> None:
    draw, bad = Random(0), []
    for n in range(1000):
        docs, encoder = _small_corpus(draw), Words()
        found = corpus(docs, encoder)
        groups = copies.groups(found, encoder)
        parts = split(found, groups, np.arange(len(docs)), 0.1, encoder)
        both = set(groups[parts.train.document]) & set(groups[parts.held_out.document])
        alone = {g for g, count in Counter(groups.tolist()).items() if count == 1}
        straddles = both - alone  # passages of one document may stand on both sides, those of drafts may not
        if not _targets(parts.train) or not _targets(parts.held_out) or _touching(parts.held_out):
            bad.append((n, "empty or adjacent"))
        if straddles and (parts.unit == "documents" or not parts.dropped):
            bad.append((n, "copies on both sides"))
    assert bad == []


@pytest.mark.parametrize("count", [1, 3, 19])
def test_a_long_text_is_held_out_in_passages_of_500_to_1000_tokens(count: int) -> None:
    draw, encoder = Random(20), Words()
    parts = _split([Document("a.txt", i, babble(draw, 40_000 // count)) for i in range(count)], encoder)
    sizes = parts.held_out.targets
    assert (parts.unit, parts.units, bool(sizes.min() >= 500), bool(sizes.max() <= 1000)) == (
        "passages",
        len(sizes),
        True,
        True,
    )
    assert 0.1 <= _targets(parts.held_out) / (_targets(parts.train) + _targets(parts.held_out)) < 0.13


def test_passages_of_a_text_of_30000_tokens_are_as_long_as_those_of_a_longer_one() -> None:
    encoder = Words()
    parts = _split([Document("a.txt", 0, babble(Random(21), 30_000))], encoder)
    assert parts.held_out.targets.min() >= 500
    assert parts.held_out.targets.max() <= 1000


def test_every_target_is_kept_exactly_once_over_many_small_corpora(tokenizer: Tokenizer) -> None:
    draw = Random(1)
    for _ in range(30):
        docs = documents(draw, draw.randint(1, 30), 8, odd=0.2)
        parts = _split(docs, tokenizer, draw.choice([0.02, 0.1, 0.5]))
        kept = Counter(
            (i, int(t))
            for p in (parts.train, parts.held_out)
            for k, (i, _, _) in enumerate(p)
            for t in p.tokens(k)[1:]
        )
        found = parts.train.corpus
        assert kept == Counter((i, int(t)) for i in range(len(docs)) for t in found.tokens(i)[1:])


def test_the_spans_of_both_sides_lie_end_to_end(tokenizer: Tokenizer) -> None:
    parts = _split(_long(3, 60, Random(2)), tokenizer)
    spans = sorted([*parts.train, *parts.held_out])
    for i in range(3):
        mine = [(b, e) for d, b, e in spans if d == i]
        assert (mine[0][0], mine[-1][1]) == (0, parts.train.corpus.lengths[i])
        assert all(a[1] == b[0] + 1 for a, b in pairwise(mine))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_the_share_is_met_to_within_a_document(tokenizer: Tokenizer, share: float) -> None:
    parts = _split(documents(Random(3), 120, 6), tokenizer, share)
    total, got = _targets(parts.train) + _targets(parts.held_out), _targets(parts.held_out)
    assert 0 <= got - share * total <= parts.held_out.targets.max()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_the_share_is_met_to_within_a_passage(tokenizer: Tokenizer, share: float) -> None:
    parts = _split(_long(3, 130, Random(4)), tokenizer, share)
    total, got = _targets(parts.train) + _targets(parts.held_out), _targets(parts.held_out)
    assert 0 <= got - share * total <= parts.held_out.targets.max()


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_no_share_holds_out_nothing(tokenizer: Tokenizer, share: float) -> None:
    parts = _split(documents(Random(5), 30, 3), tokenizer, share)
    assert (len(parts.train), len(parts.held_out), parts.units) == (30, 0, 0)


def test_documents_that_are_not_kept_are_on_neither_side(tokenizer: Tokenizer) -> None:
    found, kept = corpus(documents(Random(22), 60, 4), tokenizer), np.arange(0, 60, 2)
    parts = split(found, np.arange(60, dtype=np.int32), kept, 0.1, tokenizer)
    assert sorted([*parts.train.document.tolist(), *parts.held_out.document.tolist()]) == kept.tolist()


# --- whole documents ---


def test_twenty_documents_are_held_out_whole(tokenizer: Tokenizer) -> None:
    parts = _split(documents(Random(6), FEW_DOCUMENTS, 4), tokenizer)
    assert parts.unit == "documents"
    assert all(
        (begin, end) == (0, parts.train.corpus.lengths[i])
        for i, begin, end in [*parts.train, *parts.held_out]
    )


def test_the_same_is_held_out_every_time(tokenizer: Tokenizer) -> None:
    docs = documents(Random(7), 50, 4)
    assert list(_split(docs, tokenizer).held_out) == list(_split(docs, tokenizer).held_out)


def test_the_choice_is_the_same_on_every_machine(tokenizer: Tokenizer) -> None:
    """Golden: the lowest of sha256("('a.txt', 0)") and so on, never Python's own hash."""
    docs = [Document("a.txt", i, f"As many words in number {i:02}.") for i in range(30)]
    assert _split(docs, tokenizer).held_out.document.tolist() == [2, 19, 20]


def test_the_choice_of_passages_is_the_same_on_every_machine() -> None:
    """Golden: sha256("('a.txt', 0, 12)") for the thirteenth passage of the first document, and so on."""
    docs = [Document("a.txt", i, babble(Random(i), 2000)) for i in range(3)]
    assert list(_split(docs, Words()).held_out) == [
        (1, 260, 391),
        (1, 780, 911),
        (1, 1040, 1171),
        (2, 780, 911),
        (2, 1430, 1561),
    ]


def test_a_mended_typo_moves_no_document(tokenizer: Tokenizer) -> None:
    docs = documents(Random(8), 100, 4)
    mended = [*docs[:50], Document("a.txt", 50, docs[50].text + "!"), *docs[51:]]
    assert _held(_split(docs, tokenizer)) == _held(_split(mended, tokenizer))


def test_a_mended_typo_moves_no_passage() -> None:
    """A word in the place of a word, in a text whose passages end at paragraphs."""
    old = babble(Random(23), 8000)
    at = old.index(" ", len(old) // 2)
    mended = f"{old[:at]} mended{old[old.index(' ', at + 1) :]}"
    before, after = (list(_split([Document("a.txt", 0, t)], Words()).held_out) for t in (old, mended))
    assert before == after


def test_documents_that_are_appended_move_few_others(tokenizer: Tokenizer) -> None:
    """What was held out stays so, but for those at the edge of the share."""
    draw = Random(9)
    docs = [Document("a.txt", i, text(draw, 3)) for i in range(400)]
    more = [*docs, *(Document("a.txt", 400 + i, text(draw, 3)) for i in range(40))]
    before = _held(_split(docs, tokenizer))
    after = {i for i in _held(_split(more, tokenizer)) if i < 400}
    assert len(before ^ after) <= 0.15 * len(before)


def test_files_that_are_added_before_others_move_few_of_them(tokenizer: Tokenizer) -> None:
    """The choice goes by the name of a file, not by its place among the others."""
    draw = Random(24)
    docs = [Document(f"{i:03}.txt", 0, text(draw, 3)) for i in range(400)]
    more = [Document(f"000-{i:02}.txt", 0, text(draw, 3)) for i in range(40)]
    before = {docs[i].source for i in _held(_split(docs, tokenizer))}
    after = {(more + docs)[i].source for i in _held(_split(more + docs, tokenizer))}
    assert len(before - after) <= 0.15 * len(before)


def test_what_is_held_out_does_not_follow_the_order_of_the_text(tokenizer: Tokenizer) -> None:
    held = _held(_split(documents(Random(10), 200, 4), tokenizer))
    assert min(held) < 50
    assert max(held) >= 150


@pytest.mark.parametrize("long", [1, 2, 3])
def test_a_few_documents_that_are_most_of_the_text_are_held_out_in_passages(long: int) -> None:
    draw = Random(25)
    docs = [Document("a.txt", i, babble(draw, 4000 if i < long else 5)) for i in range(30)]
    parts = _split(docs, Words())
    share = _targets(parts.held_out) / (_targets(parts.held_out) + _targets(parts.train))
    assert (parts.unit, 0.05 < share < 0.2) == ("passages", True)


# --- copies and drafts ---


def test_copies_of_a_document_stand_on_one_side(tokenizer: Tokenizer) -> None:
    draw = Random(11)
    once = [text(draw, 3) for _ in range(100)]
    docs = [Document("a.txt", i, t) for i, t in enumerate(once + once)]
    parts = _split(docs, tokenizer, drafts=True)
    assert parts.held_out
    assert {docs[i].text for i in parts.train.document}.isdisjoint(docs[i].text for i in _held(parts))


def test_drafts_of_a_document_stand_on_one_side() -> None:
    draw = Random(26)
    once = [babble(draw, 300) for _ in range(60)]
    docs = [Document("a.txt", i, t) for i, t in enumerate(once + [redrafted(draw, t) for t in once])]
    parts = _split(docs, Words(), drafts=True)
    assert {i % 60 for i in parts.train.document.tolist()}.isdisjoint(i % 60 for i in _held(parts))
    assert 0.05 < _targets(parts.held_out) / _targets(parts.train) < 0.2


def test_among_few_documents_none_with_a_draft_is_held_out() -> None:
    draw = Random(27)
    novel = babble(draw, 3000)
    told = [novel, babble(draw, 3000), redrafted(draw, novel), babble(draw, 3000)]
    parts = _split([Document("a.txt", i, t) for i, t in enumerate(told)], Words(), drafts=True)
    assert (parts.unit, _held(parts) <= {1, 3}, parts.dropped) == ("passages", True, 0)


def _runs(told: str, words: int) -> set[tuple[str, ...]]:
    """Every run of so many words."""
    split = re.findall(r"\w+", told)
    return {tuple(split[i : i + words]) for i in range(len(split) - words + 1)}


@pytest.mark.parametrize(("drafts", "words"), [(2, 20_000), (3, 12_000), (2, 2_000)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.03])
def test_of_drafts_of_one_novel_what_is_like_the_test_is_not_learned(
    drafts: int, words: int, share: float
) -> None:
    """A tenth of the test at most may be found again in what is learned, at the edges of passages."""
    draw, encoder = Random(28), Words()
    novel = babble(draw, words)
    told = [novel, *(redrafted(draw, novel, share) for _ in range(drafts - 1))]
    parts = _split([Document("a.txt", i, t) for i, t in enumerate(told)], encoder, drafts=True)
    learned = set().union(*(_runs(t, 8) for t in _texts(parts.train, encoder)))
    tested = set().union(*(_runs(t, 8) for t in _texts(parts.held_out, encoder)))
    assert parts.dropped > 0
    assert _held(parts) == {0}  # of one draft, or it would be tested on what it has twice
    assert _targets(parts.held_out) >= 0.5 * 0.1 * _targets(parts.train) / drafts
    assert len(tested & learned) <= 0.1 * len(tested)


@pytest.mark.parametrize("count", [2, 5, 30])
def test_copies_of_one_text_leave_something_on_both_sides(count: int) -> None:
    """However often it is there, and also when it is short."""
    for words in (40, 200, 3000):
        told = babble(Random(29), words)
        parts = _split([Document("a.txt", i, told) for i in range(count)], Words(), drafts=True)
        assert (_targets(parts.train) > 0, _targets(parts.held_out) > 0) == (True, True)


# --- pairs ---


def test_pairs_are_held_out_whole_and_counted_by_what_is_learned(tokenizer: Tokenizer) -> None:
    draw = Random(30)
    docs = [pair(text(draw, draw.randint(1, 5)) + "\n", text(draw, 2), i) for i in range(100)]
    parts = _split(docs, tokenizer)
    total = _targets(parts.train) + _targets(parts.held_out)
    assert parts.unit == "documents"
    assert 0 <= _targets(parts.held_out) - 0.1 * total <= parts.held_out.targets.max()


def test_few_pairs_are_held_out_whole(tokenizer: Tokenizer) -> None:
    draw = Random(31)
    docs = [pair(text(draw, 4) + "\n", text(draw, 30), i) for i in range(8)]
    parts = _split(docs, tokenizer)
    assert len(parts.held_out) >= 1
    assert all(
        (begin, end) == (0, parts.train.corpus.lengths[i])
        for i, begin, end in [*parts.train, *parts.held_out]
    )


# --- passages ---


@pytest.mark.parametrize("count", [1, 2, 7, FEW_DOCUMENTS - 1])
def test_passages_that_are_held_out_are_never_adjacent(tokenizer: Tokenizer, count: int) -> None:
    parts = _split(_long(count, 400 // count, Random(12)), tokenizer, 0.2)
    assert (parts.unit, len(parts.held_out) == parts.units > 1, _touching(parts.held_out)) == (
        "passages",
        True,
        [],
    )


def test_what_is_learned_between_two_passages_is_one_piece(tokenizer: Tokenizer) -> None:
    """So that a held-out passage of one novel leaves one hole, not forty cuts."""
    parts = _split(_long(1, 300, Random(13)), tokenizer)
    assert len(parts.train) <= parts.units + 1


@pytest.mark.parametrize("between", ["\n\n", "\n \t\n", "\n\n    ", "\n\n\n \n\t", "\n", "\n  "])
def test_passages_begin_at_paragraphs_or_lines_where_there_are_some(
    tokenizer: Tokenizer, between: str
) -> None:
    draw = Random(14)
    novel = between.join(f"{n}. {text(draw, 3)}" for n in range(120))
    for encoder in (tokenizer, Words()):
        held = _texts(_split([Document("a.txt", 0, novel)], encoder).held_out, encoder)
        assert [passage for passage in held if not re.match(r"\s*\d+\. ", passage)] == []


def test_passages_begin_and_end_with_whole_sentences_where_there_are_only_those() -> None:
    """The blank before a word is a part of its token."""
    encoder = Words()
    prose = re.sub(r"\s+", " ", babble(Random(32), 4000))
    held = _texts(_split([Document("a.txt", 0, prose)], encoder).held_out, encoder)
    assert [passage for passage in held if not passage.endswith(".")] == []


def test_passages_of_real_tokens_end_with_whole_sentences_too(tokenizer: Tokenizer) -> None:
    prose = " ".join(text(Random(33), 1) + "." for _ in range(300))
    held = _texts(_split([Document("a.txt", 0, prose)], tokenizer).held_out, tokenizer)
    assert [passage for passage in held if not passage.endswith(".")] == []


@pytest.mark.parametrize(
    "between",
    ["\n\n", "\n", " ", ".", "\r", "\u3000"],
    ids=["paragraphs", "lines", "spaces", "none", "cr", "wide"],
)
def test_one_long_document_works_whatever_parts_it(tokenizer: Tokenizer, between: str) -> None:
    parts = _split([Document("a.txt", 0, text(Random(15), 200, between=between))], tokenizer)
    total = _targets(parts.train) + _targets(parts.held_out)
    assert 0.08 <= _targets(parts.held_out) / total <= 0.2


def test_a_text_without_any_space_works(tokenizer: Tokenizer) -> None:
    """Chinese and Japanese are written so."""
    docs = [Document("a.txt", 0, "日本語の文章はこのように書かれる。" * 300)]
    assert len(_split(docs, tokenizer).held_out) > 0


def test_short_documents_among_few_are_held_out_whole(tokenizer: Tokenizer) -> None:
    parts = _split(documents(Random(16), 10, 1), tokenizer)
    assert all((b, e) == (0, parts.train.corpus.lengths[i]) for i, b, e in parts.held_out)


def test_two_tiny_documents_leave_one_to_learn_from(tokenizer: Tokenizer) -> None:
    parts = _split([Document("a.txt", i, "One.") for i in range(2)], tokenizer, 0.5)
    assert (len(parts.train), len(parts.held_out)) == (1, 1)


def test_a_tiny_document_is_left_to_learn_from(tokenizer: Tokenizer) -> None:
    parts = _split([Document("a.txt", 0, "One.")], tokenizer, 0.5)
    assert (len(parts.train), len(parts.held_out)) == (1, 0)
