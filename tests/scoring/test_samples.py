"""The longest copied run of words."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.scoring import samples
from adapterkit.scoring.samples import longest_copied, words

WORDS = st.lists(
    st.sampled_from(["the", "sea", "was", "calm", "a", "Boat", "it's", "’", "-", "İ", "ΣΑΣ"]), max_size=30
).map(" ".join)


def test_the_longest_common_run_is_found_whatever_case_and_punctuation() -> None:
    assert longest_copied(["So: THE old grey cat sat, there."], ["Once the old grey cat sat on it."]) == 5


def test_a_run_does_not_cross_two_documents() -> None:
    assert longest_copied(["one two three four five six"], ["one two three", "four five six"]) == 3


def test_nothing_in_common_is_zero() -> None:
    assert longest_copied(["a b c d"], ["e f g h"]) == 0


@pytest.mark.parametrize(
    ("told", "training"), [([], ["a b c d"]), (["a b c d"], []), ([""], [""]), (["a b"], ["a b"])]
)
def test_too_little_for_a_run_is_zero(told: list[str], training: list[str]) -> None:
    assert longest_copied(told, training) == 0


def simple(told: list[str], training: list[str]) -> int:
    """Every beginning in every sample against every beginning in every document."""
    best = 0
    for a in map(words, told):
        for b in map(words, training):
            for i in range(len(a)):
                for j in range(len(b)):
                    n = 0
                    while i + n < len(a) and j + n < len(b) and a[i + n] == b[j + n]:
                        n += 1
                    best = max(best, n)
    return best if best >= samples.SEED else 0


@given(told=st.lists(WORDS, max_size=4), training=st.lists(WORDS, max_size=4))
def test_the_fast_search_agrees_with_the_simple_one(told: list[str], training: list[str]) -> None:
    assert longest_copied(told, training) == simple(told, training)


@given(told=st.lists(WORDS, max_size=3), training=st.lists(WORDS, max_size=3), size=st.integers(1, 12))
def test_long_texts_are_searched_in_stretches_to_the_same_end(told: list[str], training: list[str], size: int) -> None:  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "AT_ONCE", size)
        patch.setattr(samples, "PART", 3 * size)
        assert longest_copied(told, training) == simple(told, training)


def test_a_copied_page_is_found_in_a_long_text() -> None:
    draw = random.Random(3)
    text = [f"w{draw.randrange(5000)}" for _ in range(300_000)]
    page = text[123_456:123_500]
    assert longest_copied([" ".join(["x", *page, "y"])], [" ".join(text)]) == len(page)
