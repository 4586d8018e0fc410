"""The longest copied run of words."""

from __future__ import annotations

from adapterkit.scoring.samples import longest_copied


def test_the_longest_common_run_is_found_whatever_case_and_punctuation() -> None:
    assert longest_copied(["So: THE old grey cat sat, there."], ["Once the old grey cat sat on it."]) == 5


def test_a_run_does_not_cross_two_documents() -> None:
    assert longest_copied(["one two three four five six"], ["one two three", "four five six"]) == 3


def test_nothing_in_common_is_zero() -> None:
    assert longest_copied(["a b c d"], ["e f g h"]) == 0
