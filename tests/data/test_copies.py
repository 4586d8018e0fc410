"""Copies and drafts have one label, everything else has its own; what leaks into the test is found."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.data import copies
from adapterkit.data.copies import Labels, exact
from adapterkit.data.corpus import Corpus
from adapterkit.data.pieces import Pieces
from adapterkit.data.text import Document
from adapterkit.data.words import mark
from adapterkit.model.base import locate
from adapterkit.model.tokenizer import Tokenizer
from tests.data.words import ANY_TEXT, babble, corpus, redrafted

DATA = os.environ.get("ADAPTERKIT_DATA", "")
EMBEDDED = Tokenizer(locate("embedded").folder)  # its tokens are words, as those of GPT-2 are


def _corpus(texts: Iterable[str]) -> Corpus:
    return corpus([Document("a.txt", i, t) for i, t in enumerate(texts)], EMBEDDED)


def groups(texts: Iterable[str]) -> Labels:
    return copies.groups(_corpus(texts), EMBEDDED)


def alike(texts: Iterable[str]) -> Labels:
    return copies.alike(_corpus(texts), EMBEDDED)


def leaks(train: list[str], held_out: list[str]) -> list[tuple[int, int, float]]:
    sides = (_corpus(t) for t in (train, held_out))
    return copies.leaks(*(Pieces.whole(c, np.arange(len(c))) for c in sides), EMBEDDED)


def _sentences(draw: Random, count: int) -> list[str]:
    return [babble(draw, draw.randint(8, 16)).replace("\n", " ") + "." for _ in range(count)]


def _rewritten(draw: Random, sentences: list[str], share: float) -> list[str]:
    """So many of the sentences are new."""
    new = set(draw.sample(range(len(sentences)), round(share * len(sentences))))
    return [_sentences(draw, 1)[0] if i in new else s for i, s in enumerate(sentences)]


def _labels(texts: list[str]) -> list[int]:
    return groups(texts).tolist()


# --- one group ---


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [20, 60, 600])
def test_a_draft_with_a_third_of_its_sentences_rewritten_is_in_the_group(seed: int, count: int) -> None:
    draw = Random(seed)
    draft = _sentences(draw, count)
    final = _rewritten(draw, draft, 0.3)
    assert _labels([" ".join(draft), babble(draw, 800), " ".join(final)]) == [0, 1, 0]


def test_a_chapter_and_its_first_half_are_in_one_group() -> None:
    chapter = babble(Random(1), 4000)
    assert _labels(["other", chapter, chapter[: len(chapter) // 2]]) == [0, 1, 1]


def test_copies_are_found_whatever_their_spaces_and_length() -> None:
    assert _labels(["Yes.", "No.", " Yes.\n", "", "  "]) == [0, 1, 0, 3, 3]


def test_punctuation_and_line_ends_make_no_other_text() -> None:
    told = babble(Random(2), 60)
    assert _labels([told, told.replace(" ", "\n", 9).replace(".", "!")]) == [0, 0]


@pytest.mark.parametrize("count", [3, 19, 40, 100])
def test_all_of_many_drafts_hang_together(count: int) -> None:
    draw = Random(3)
    novel = babble(draw, 3000)
    drafts = [redrafted(draw, novel, 0.02) for _ in range(count)]
    assert _labels([babble(draw, 3000), *drafts]) == [0] + [1] * count


def test_drafts_are_chained_through_what_lies_between() -> None:
    draw = Random(4)
    first = _sentences(draw, 100)
    second = _rewritten(draw, first, 0.3)
    third = _rewritten(draw, second, 0.3)
    assert _labels([" ".join(s) for s in (first, second, third)]) == [0, 0, 0]


def test_text_without_spaces_is_compared_by_its_characters() -> None:
    draw = Random(5)
    told = "".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(600))
    other = "".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(600))
    assert _labels([told, other, told[:200] + other[:60] + told[200:], told[:400]]) == [0, 1, 0, 0]


# --- groups of their own ---


def test_chapters_of_one_novel_stand_alone() -> None:
    draw = Random(6)
    common = draw.choices([babble(draw, 6) for _ in range(300)], k=1000)  # phrases its author likes
    chapters = [
        " ".join(x for _ in range(60) for x in (babble(draw, 20), draw.choice(common))) for _ in range(30)
    ]
    assert _labels(chapters) == list(range(30))


@pytest.mark.parametrize(
    "line",
    [
        "What do you call a {0} that plays the {1}?<>A {2} of {3}.",
        "Paid to John Smith of the high street for {0} and {1} {2} shillings and {3} pence",
        "{0} {1}: and it came to pass that the LORD spake unto {2} saying {3}",
    ],
)
@pytest.mark.parametrize("count", [10, 2000])
def test_short_lines_of_one_mould_stand_alone(line: str, count: int) -> None:
    draw = Random(7)
    lines = [line.format(*(f"{draw.randrange(10**6):x}" for _ in range(4))) for _ in range(count)]
    assert len(set(_labels(lines))) == count


def test_songs_that_share_a_refrain_stand_alone() -> None:
    draw = Random(8)
    refrain = babble(draw, 30)
    songs = [f"{babble(draw, 25)}\n\n{refrain}\n\n{babble(draw, 25)}" for _ in range(12)]
    assert _labels(songs) == list(range(12))


def test_form_letters_stand_alone() -> None:
    draw = Random(9)
    frame = babble(draw, 120)
    letters = [f"{frame} {babble(draw, 80)}" for _ in range(50)]
    assert _labels(letters) == list(range(50))


def test_different_texts_without_any_word_stand_alone() -> None:
    assert _labels(["...", "!?", "🙂 🙂", ""]) == [0, 1, 2, 3]


# --- always ---


@given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(["a b", "a  b", babble(Random(1), 50)])), max_size=30))
def test_a_label_is_the_first_of_its_group(texts: list[str]) -> None:
    labels = groups(iter(texts))
    assert (len(labels), labels.dtype) == (len(texts), np.int32)
    assert all(labels[i] <= k and labels[labels[i]] == labels[i] for k, i in enumerate(range(len(labels))))


@given(st.lists(ANY_TEXT, max_size=30))
def test_exact_labels_are_those_of_equal_hashes(texts: list[str]) -> None:
    marks = [mark(t) for t in texts]
    assert exact(np.array(marks, np.uint64)).tolist() == [marks.index(m) for m in marks]


@pytest.mark.parametrize("limit", ["ALL_UP_TO", "BLOCK"])
def test_a_sample_of_the_runs_or_smaller_blocks_find_the_same_drafts(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    draw = Random(10)
    texts = [babble(draw, 2000) for _ in range(40)]
    texts += [redrafted(draw, t, 0.02) for t in texts[:20]]
    whole = _labels(texts)
    monkeypatch.setattr(copies, limit, 20_000)
    assert _labels(texts) == whole


# --- nearly the same throughout ---


def test_alike_are_texts_with_a_few_words_changed_and_no_halves() -> None:
    draw = Random(12)
    told = babble(draw, 1000)
    half, changed = told[: len(told) // 2], redrafted(draw, told, 0.01)
    assert alike([told, half, changed]).tolist() == [0, 1, 0]


def test_a_thousand_that_are_alike_are_found() -> None:
    draw = Random(13)
    told = babble(draw, 300)
    assert set(alike([redrafted(draw, told, 0.003) for _ in range(1000)]).tolist()) == {0}


# --- leaks ---


def test_training_text_that_holds_half_of_a_held_out_text_is_told() -> None:
    draw = Random(14)
    told, other = babble(draw, 600), babble(draw, 600)
    half = told[: int(len(told) * 0.6)]
    found = leaks([other, f"{other[:500]} {half}", told], ["unlike all", told])
    assert [(i, j) for i, j, _ in found] == [(2, 1), (1, 1)]  # the worst first
    assert [s for _, _, s in found] == [1.0, pytest.approx(0.6, abs=0.02)]


def test_every_copy_of_a_held_out_text_is_told() -> None:
    told = babble(Random(15), 80)
    assert leaks(["a", told, told, "b"], ["b", told, told]) == [
        (1, 1, 1.0), (1, 2, 1.0), (2, 1, 1.0), (2, 2, 1.0),
    ]  # fmt: skip


def test_a_passage_in_many_drafts_is_told_for_each() -> None:
    draw = Random(16)
    told = babble(draw, 500)
    drafts = [redrafted(draw, told, 0.02) for _ in range(60)]
    assert sorted(i for i, _, _ in leaks(drafts, [told])) == list(range(60))


def test_nothing_leaks_between_different_texts_or_from_nothing() -> None:
    draw = Random(17)
    assert leaks([babble(draw, 300) for _ in range(10)], [babble(draw, 300), "", "x"]) == []
    assert leaks([], [babble(draw, 300)]) == leaks([babble(draw, 300)], []) == []


# --- real texts ---


@pytest.mark.data
def test_stories_of_the_canon_stand_alone_and_halves_of_them_do_not() -> None:
    book = (Path(DATA) / "sherlock/sherlock.txt").read_text(encoding="utf-8")
    stories = [s for s in re.split(r"\n\s*\n\s*\n\s*\n", book) if len(s) > 2000]
    halves = [s[: len(s) // 2] for s in stories]
    assert _labels(stories + halves) == [*range(len(stories))] * 2


@pytest.mark.data
def test_verses_of_the_bible_are_grouped_only_where_they_repeat() -> None:
    verses = (Path(DATA) / "kjv/kjv.txt").read_text(encoding="utf-8").splitlines()
    counts = Counter(_labels(verses))
    assert max(counts.values()) <= 12
    assert sum(n for n in counts.values() if n > 1) < 0.02 * len(verses)
