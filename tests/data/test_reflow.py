"""Wrapped prose is joined, everything else keeps its lines, and words are never touched."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.data.reflow import reflow
from tests.data.words import ANY_TEXT, text

DATA = os.environ.get("ADAPTERKIT_DATA", "")


def _paragraphs(seed: int = 0, count: int = 12) -> list[str]:
    draw = Random(seed)
    return [text(draw, draw.randint(3, 9)) for _ in range(count)]


def _wrapped(paragraphs: list[str], column: int, between: str = "\n\n", **how: Any) -> str:
    return between.join(textwrap.fill(p, column, break_on_hyphens=False, **how) for p in paragraphs)


# --- joined ---


@pytest.mark.parametrize("column", [45, 60, 72, 100])
def test_wrapped_paragraphs_become_a_line_each(column: int) -> None:
    paragraphs = _paragraphs()
    told, found = reflow(_wrapped(paragraphs, column))
    assert told == "\n\n".join(paragraphs)
    assert found == pytest.approx(column, abs=3)


def test_an_indent_begins_a_paragraph_without_a_blank_line() -> None:
    paragraphs = _paragraphs()
    told, _ = reflow(_wrapped(paragraphs, 64, "\n", initial_indent="    "))
    assert told == "\n".join("    " + p for p in paragraphs)


def test_a_margin_that_all_lines_have_goes() -> None:
    paragraphs = _paragraphs()
    told, _ = reflow(_wrapped(paragraphs, 64, initial_indent="     ", subsequent_indent="     "))
    assert told == "\n\n".join(paragraphs)


def test_a_word_broken_at_its_hyphen_keeps_it() -> None:
    paragraphs = [p.replace(" the ", " well-known ") for p in _paragraphs(count=30)]
    broken = "\n\n".join(textwrap.fill(p, 60) for p in paragraphs)
    assert "well-\nknown" in broken
    assert reflow(broken)[0] == "\n\n".join(paragraphs)


def test_a_dash_that_stands_alone_keeps_its_blanks() -> None:
    paragraphs = [p.replace(" the ", " - the ") for p in _paragraphs(count=30)]
    told, _ = reflow(_wrapped(paragraphs, 60))
    assert "-the" not in told


def test_a_short_text_is_joined_when_every_line_shows_the_column() -> None:
    paragraph = text(Random(3), 14)
    assert reflow(textwrap.fill(paragraph, 60))[0] == paragraph


# --- kept within wrapped prose ---


VERSE = (
    "O’er hills, dales, and rocks,\nAway be it whirl’d\nTill the silvery locks\nAre all comb’d and curl’d!"
)
CONTENTS = "\n".join(f"Chapter {i} {'.' * 50} {i * 9}" for i in range(1, 9))
TABLE = "\n".join(f"barrels {i:3d}     carried to the market by cart   {i * 7:4d} loaves" for i in range(8))
LIST = "\n".join(f"- {s}" for s in textwrap.wrap(text(Random(5), 9), 62))
QUOTED = "\n".join(f"> {s}" for s in textwrap.wrap(text(Random(6), 9), 62))


@pytest.mark.parametrize("block", [VERSE, CONTENTS, TABLE, LIST, QUOTED, "CHAPTER II\nThe Lamp"])
def test_blocks_that_are_not_prose_keep_their_lines(block: str) -> None:
    paragraphs = _paragraphs(count=40)
    told, found = reflow(f"{_wrapped(paragraphs[:20], 66)}\n\n{block}\n\n{_wrapped(paragraphs[20:], 66)}")
    assert found is not None
    assert told == "\n\n".join([*paragraphs[:20], block, *paragraphs[20:]])


# --- left alone ---


def _ragged(draw: Random, low: int, high: int, count: int, end: str = "") -> str:
    """Lines of a length of their own, as verse has them."""
    words = text(draw, count * 12).split()
    lines = []
    for _ in range(count):
        line, size = "", draw.randint(low, high)
        while len(line) < size:
            line += (" " if line else "") + words.pop()
        lines.append(line[:1].upper() + line[1:] + end)
    return "\n".join(lines)


@pytest.mark.parametrize(
    "kept",
    [
        _ragged(Random(1), 30, 45, 300),
        _ragged(Random(2), 20, 70, 300, "."),
        "\n".join(text(Random(i), 1) for i in range(200)),
        "\n".join(text(Random(i), 8) for i in range(50)),
        "\n".join(f"{i % 24:02d}:14 <tam> {text(Random(i), 1).lower()}" for i in range(100)),
        "\n".join(f"    if x{i} == {i}:\n        return call({'y, ' * (i % 9)}z)" for i in range(60)),
        "\n".join(
            "我们数了两遍木桶发现比以前多了一个雨落在市场上直到遮篷塌了"[: 18 + i % 10] for i in range(200)
        ),
        "\n".join(_paragraphs()),
        "one line",
        "",
        "\n\n\n",
    ],
    ids=[
        "verse",
        "ended-verse",
        "sentences",
        "paragraph-lines",
        "chat",
        "code",
        "chinese",
        "prose",
        "one",
        "none",
        "blank",
    ],
)
def test_what_was_not_wrapped_stays_as_it_is(kept: str) -> None:
    assert reflow(kept) == (kept, None)


def test_a_python_module_stays_as_it_is() -> None:
    source = Path(textwrap.__file__).read_text(encoding="utf-8")
    assert reflow(source) == (source, None)


# --- always ---


LINES = st.lists(
    st.one_of(
        ANY_TEXT,
        st.sampled_from(["", "    ", "well-", "--", "- item", "\tx", "“So”—"]),
        st.text("ab -\t", max_size=90),
    ),
    max_size=60,
).map("\n".join)


def _bare(told: str) -> str:
    return "".join(told.split())


@given(st.one_of(LINES, st.builds(lambda s, c, x: _wrapped(_paragraphs(s), c) + "\n" + x, st.integers(0, 99), st.integers(40, 110), LINES)))  # fmt: skip
def test_only_blanks_and_line_breaks_ever_change(before: str) -> None:
    after, column = reflow(before)
    assert _bare(after) == _bare(before)
    assert (column is None) <= (after == before)


@given(st.integers(0, 999), st.integers(45, 100))
def test_what_is_joined_once_is_not_wrapped_any_more(seed: int, column: int) -> None:
    once, _ = reflow(_wrapped(_paragraphs(seed, 20), column))
    assert reflow(once) == (once, None)


# --- real texts ---


@pytest.mark.data
@pytest.mark.parametrize(("name", "column"), [("grimm/grimms.txt", 72), ("sherlock/sherlock.txt", 74)])
def test_books_as_they_are_published_are_joined(name: str, column: int) -> None:
    book = (Path(DATA) / name).read_text(encoding="utf-8")
    told, found = reflow(book)
    assert (found, _bare(told) == _bare(book)) == (column, True)
    assert len(told.split("\n")) < 0.5 * len(book.split("\n"))


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["tinyshakespeare/input.txt", "kjv/kjv.txt", "dadjokes/jokes.txt", "wikitext2/wiki.test.raw"]
)
def test_drama_verses_jokes_and_articles_stay_as_they_are(name: str) -> None:
    before = (Path(DATA) / name).read_text(encoding="utf-8")
    assert reflow(before) == (before, None)
