"""Lines about prepared text say one thing as one."""

from __future__ import annotations

from typing import Any

import pytest

from adapterkit.data.notes import _count, _done


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (1234, "1,234 tokens")]
)
def test_one_is_not_told_as_several(number: int, expected: str) -> None:
    assert _count(number, "token") == expected


def test_a_plural_of_its_own_is_used() -> None:
    told = [_count(n, "pair or chat", "pairs or chats") for n in (1, 2)]
    assert told == ["1 pair or chat", "2 pairs or chats"]


def test_a_rule_that_changed_one_character_says_so() -> None:
    done: dict[str, Any] = {"rule": "unicode", "documents": 1, "dropped": 0, "characters": 1}
    assert _done(done) == "unicode: 1 document changed, 1 character"
