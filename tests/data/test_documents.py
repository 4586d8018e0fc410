"""What one document is: said, cut at the right places, guessed right on real texts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapterkit.data.documents import Cut, cut, guess
from adapterkit.data.sources import Text, read
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec
from tests.conftest import SENTENCES

DATA = os.environ.get("ADAPTERKIT_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="ADAPTERKIT_DATA names no folder with the texts")
LINES = "\n".join(SENTENCES[i % 8] for i in range(60)) + "\n"  # sixty short lines, each a whole sentence


def _cut(text: str, how: str) -> list[str]:
    return [d.text for d in cut([Text("a.txt", text)], how).documents]


def _wrapped(text: str, width: int) -> str:
    """Prose broken at a width, as books of Project Gutenberg are."""
    from textwrap import fill

    return fill(text.replace("\n", " "), width)


# --- auto ---


def test_auto_takes_rows_as_documents() -> None:
    assert guess([Text("a[0]", "x", is_row=True), Text("a[1]", "y", is_row=True)]) == "row"


def test_auto_takes_several_files_as_one_each() -> None:
    assert guess([Text("a.txt", LINES), Text("b.txt", LINES)]) == "file"


def test_auto_takes_many_short_sentences_as_one_a_line() -> None:
    assert guess([Text("a.txt", LINES)]) == "line"


def test_auto_does_not_mind_blank_lines_at_the_ends() -> None:
    assert guess([Text("a.txt", f"\n\n{LINES}\n\n")]) == "line"


def test_auto_takes_a_text_with_a_blank_line_whole() -> None:
    assert guess([Text("a.txt", LINES + "\n" + LINES)]) == "file"


def test_auto_takes_a_line_of_blanks_for_a_blank_line() -> None:
    assert guess([Text("a.txt", LINES + "  \t\n" + LINES)]) == "file"


@pytest.mark.parametrize(("lines", "how"), [(49, "file"), (50, "line")])
def test_auto_wants_fifty_lines(lines: int, how: str) -> None:
    assert guess([Text("a.txt", "\n".join(["A short line."] * lines))]) == how


@pytest.mark.parametrize("width", [60, 72, 80])
def test_auto_takes_wrapped_prose_whole(width: int) -> None:
    assert guess([Text("a.txt", _wrapped(LINES * 3, width))]) == "file"


@pytest.mark.parametrize(("run_on", "how"), [(4, "line"), (6, "file")])
def test_auto_allows_under_five_percent_of_lines_that_run_on(run_on: int, how: str) -> None:
    """101 lines of fifty characters: 100 of them have a next line."""
    body = "x" * 49
    lines = ["A" + body] * 101
    for i in range(run_on):
        lines[10 * i + 5] = "a" + body
    assert guess([Text("a.txt", "\n".join(lines))]) == how


def test_auto_does_not_take_short_lines_for_wrapped_ones() -> None:
    """Verse begins lines in lower case, but its lines are short."""
    assert guess([Text("a.txt", "\n".join(["and the sea went on"] * 60))]) == "line"


@pytest.mark.parametrize(("long", "how"), [(5, "line"), (6, "file")])
def test_auto_allows_five_percent_of_lines_over_300_characters(long: int, how: str) -> None:
    lines = ["A short line."] * (100 - long) + ["A" * 301] * long
    assert guess([Text("a.txt", "\n".join(lines))]) == how


def test_auto_finds_delimiters() -> None:
    text = "".join(f"<sos>{s}\nAnd more.<eos>\n" for s in SENTENCES * 10)
    assert _cut(text, "auto")[:2] == [f"{s}\nAnd more." for s in SENTENCES[:2]]


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("dadjokes/jokes.txt", "line"),
        ("kjv/kjv.txt", "line"),
        ("grimm/grimms.txt", "file"),
        ("sherlock/sherlock.txt", "file"),
        ("tinyshakespeare/input.txt", "file"),
        ("wikitext2/wiki.test.raw", "file"),
    ],
)
def test_auto_is_right_on_real_texts(name: str, how: str) -> None:
    assert guess(read(DataSpec(source=str(Path(DATA) / name))).texts) == how


@pytest.mark.data
@needs_data
def test_wiki_test_raw_has_the_sixty_articles_of_its_paper() -> None:
    """Merity et al. 2016, table 1: 60 articles in the test split."""
    found = cut(read(DataSpec(source=str(Path(DATA) / "wikitext2/wiki.test.raw"))).texts, "article")
    assert len(found.documents) == 60


# --- the ways to cut ---


def test_lines_are_documents_without_the_blank_ones() -> None:
    assert _cut("one\n\n two \n \nthree", "line") == ["one", "two", "three"]


@pytest.mark.parametrize("gap", ["\n\n", "\n \t\n", "\n\n\n\n"])
def test_blank_lines_part_documents(gap: str) -> None:
    assert _cut(f"one\nstill one{gap}two", "blank-line") == ["one\nstill one", "two"]


def test_a_file_is_one_document() -> None:
    assert _cut("\none\n\ntwo\n", "file") == ["one\n\ntwo"]


@pytest.mark.parametrize("delimiter", ["<eos>", "***", ".", "(|", "\n--\n"])
def test_a_delimiter_is_taken_literally(delimiter: str) -> None:
    assert _cut(f"one{delimiter}two{delimiter}{delimiter}", delimiter) == ["one", "two"]


def test_a_delimiter_that_does_not_occur_leaves_the_text_whole() -> None:
    assert _cut("one\ntwo", "<eos>") == ["one\ntwo"]


def test_articles_begin_at_their_titles_and_not_at_sections() -> None:
    text = " \n = Robert Boulter = \n \n Born . \n \n = = Career = = \n \n Acted . \n\n = Du Fu = \n \n Wrote . \n"
    assert [d.splitlines()[0].strip() for d in _cut(text, "article")] == ["= Robert Boulter =", "= Du Fu ="]


def test_articles_keep_what_comes_before_the_first_title() -> None:
    assert _cut("Before.\n= One =\n\nText.\n", "article") == ["Before.", "= One =\n\nText."]


def test_articles_come_out_the_same_from_rows_and_from_a_file() -> None:
    lines = ["", " = One = \n", "", " Text . \n", "", " = = Part = = \n", "", " = Two = \n", "", " End . \n"]
    rows = [Text(f"wiki[{i}]", line, is_row=True) for i, line in enumerate(lines)]
    whole = "\n".join(line.rstrip("\n") for line in lines)
    assert [d.text for d in cut(rows, "article").documents] == _cut(whole, "article")


@pytest.mark.parametrize(
    "lines",
    [" = Record \n N / A = \n \n", " with inductance L \n = 1 henry and capacitance C = \n 1 farad . \n"],
)
def test_a_formula_or_a_legend_is_no_title(lines: str) -> None:
    """Both are lines of wiki.test.raw; a title is one line with a blank one after it."""
    assert len(_cut(f" \n = One = \n \n Text . \n{lines} End . \n", "article")) == 1


# --- what is told ---


def _told(text: str, how: str) -> Cut:
    return cut([Text("a.txt", text)], how)


def test_a_guess_is_said_with_the_ways_to_say_otherwise() -> None:
    assert _told("one", "auto").said == "One file is one document (else: --document line, blank-line)."


def test_a_choice_is_said_without_other_ways() -> None:
    assert _told("one<eos>two", "<eos>").said == "'<eos>' parts the documents."


def test_blank_documents_are_counted() -> None:
    assert _told("one\n\n \ntwo", "line").empty == 2


def test_documents_know_where_they_stood() -> None:
    assert [(d.source, d.index) for d in _told("one\n\ntwo", "line").documents] == [
        ("a.txt", 0),
        ("a.txt", 2),
    ]


@pytest.mark.parametrize("how", ["auto", "line", "blank-line", "file", "article", "<eos>"])
def test_a_text_of_blanks_is_refused(how: str) -> None:
    with pytest.raises(DataError, match="there is no text in it: every document is blank"):
        _cut(" \n\t\n\n", how)


def test_an_empty_memory_is_refused() -> None:
    with pytest.raises(DataError, match="there is no text in it"):
        cut([], "auto")
