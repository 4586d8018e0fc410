"""CSV rows whose inner quotes were not doubled: one reading, or none."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.data.reading.misquoted import mended

WORDS = st.text(alphabet='ab ,"', max_size=12)


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ('"act","say "yes", or "no"",FALSE', ["act", 'say "yes", or "no"', "FALSE"]),
        ('act,"You are ""Guide"", a helper",1', ["act", 'You are "Guide", a helper', "1"]),
        ('a,b,"the "end", twice"', ["a", "b", 'the "end", twice']),
        ('"the "start", twice",b,c', ['the "start", twice', "b", "c"]),
    ],
)
def test_quotes_within_quotes_have_one_reading(row: str, cells: list[str]) -> None:
    assert mended(row, ",", 3) == cells


@pytest.mark.parametrize("row", ["a,b,c,d", '"open,b,c,d', '"a", "b" and "c", d,"e" f', 'a,"b" and,c" d,e'])
def test_what_has_no_single_reading_is_left_alone(row: str) -> None:
    assert mended(row, ",", 3) is None


@given(st.lists(WORDS, min_size=3, max_size=3))
def test_a_row_that_is_written_as_it_should_be_is_never_read_otherwise(cells: list[str]) -> None:
    row = io.StringIO()
    csv.writer(row, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    assert mended(row.getvalue(), ",", 3) in (None, cells)
