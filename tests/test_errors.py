"""The tree of errors: codes, exit codes, hints, and the way between processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from adapterkit import errors
from adapterkit.errors import AdapterKitError, BaseMismatch, NotFound, nearest

KINDS = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, AdapterKitError)]


def test_the_docstring_lists_every_error_with_its_exit_code() -> None:
    told = re.findall(r"^ *[|`]-- (\w+) .*exit (\d+)$", errors.__doc__ or "", re.MULTILINE)
    assert {(n, int(c)) for n, c in told} == {
        (k.__name__, k.exit_code) for k in KINDS if k is not AdapterKitError
    }


def test_no_two_errors_share_a_code() -> None:
    codes = [k.default_code for k in KINDS]
    assert sorted(codes) == sorted(set(codes))


def test_codes_are_words_with_dashes() -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", k.default_code) for k in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling_whole(kind: type[AdapterKitError]) -> None:
    error = kind("it broke at 3", "try 4", code="finer", details={"at": 3})
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.message, back.hint, back.code, back.details) == (
        "it broke at 3",
        "try 4",
        "finer",
        {"at": 3},
    )


def test_the_class_gives_the_code_when_none_is_said() -> None:
    assert BaseMismatch("x").code == "base-mismatch"


def test_str_has_the_hint_on_a_line_of_its_own() -> None:
    assert str(NotFound("no 'x'.", hint="adapterkit list")) == "no 'x'.\nhint:  adapterkit list"


def test_str_without_a_hint_is_the_message() -> None:
    assert str(NotFound("no 'x'.")) == "no 'x'."


def test_no_error_is_a_key_error_whose_str_adds_quotes() -> None:
    assert not any(issubclass(k, KeyError) for k in KINDS)


def test_details_are_a_copy() -> None:
    told = {"at": 3}
    error = NotFound("x", details=told)
    told["at"] = 4
    assert error.details == {"at": 3}


@pytest.mark.parametrize(("word", "expected"), [("storys", "stories"), ("zzz", None)])
def test_nearest_finds_a_slip_and_nothing_else(word: str, expected: str | None) -> None:
    assert nearest(word, ["noir", "stories"]) == expected
