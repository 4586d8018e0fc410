"""What one document is: said, cut at the right places, guessed right on real texts, alike in stretches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from textwrap import fill

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit.data.documents import WORDS, Cut, cut, guess
from adapterkit.data.sources import read
from adapterkit.data.text import Document, Text
from adapterkit.recipe.schema import DataSpec
from tests.conftest import SENTENCES

DATA = os.environ.get("ADAPTERKIT_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="ADAPTERKIT_DATA names no folder with the texts")
LINES = "\n".join(SENTENCES[i % 8] for i in range(60)) + "\n"  # sixty short lines, each a whole sentence
PAIRS = "\n".join(f"Why is {i}?<>Because of {i + 1}." for i in range(60))
WAYS = ["line", "blank-line", "file", "article", "<eos>"]


def _told(texts: Iterable[Text] | str, how: str, **options: object) -> tuple[Cut, list[Document]]:
    """What was cut, and how, after all of it was taken."""
    told, stream = cut([Text("a.txt", texts)] if isinstance(texts, str) else texts, how, **options)  # type: ignore[arg-type]
    return told, list(stream)


def _cut(text: str, how: str) -> list[str]:
    return [d.text for d in _told(text, how)[1]]


def _wrapped(text: str, width: int) -> str:
    """Prose broken at a width, as books of Project Gutenberg are."""
    return fill(text.replace("\n", " "), width)


# --- auto ---


def test_auto_takes_rows_as_documents() -> None:
    assert guess(Text("a[0]", "x", is_row=True), 1) == "row"


def test_auto_takes_several_files_as_one_each() -> None:
    assert guess(Text("a.txt", LINES), 2) == "file"


def test_auto_takes_many_short_sentences_as_one_a_line() -> None:
    assert guess(Text("a.txt", LINES), 1) == "line"


def test_auto_does_not_mind_blank_lines_at_the_ends() -> None:
    assert guess(Text("a.txt", f"\n\n{LINES}\n\n"), 1) == "line"


def test_auto_takes_a_text_with_a_blank_line_whole() -> None:
    assert guess(Text("a.txt", LINES + "\n" + LINES), 1) == "file"


def test_auto_takes_a_line_of_blanks_for_a_blank_line() -> None:
    assert guess(Text("a.txt", LINES + "  \t\n" + LINES), 1) == "file"


@pytest.mark.parametrize(("lines", "how"), [(49, "file"), (50, "line")])
def test_auto_wants_fifty_lines(lines: int, how: str) -> None:
    assert guess(Text("a.txt", "\n".join(["A short line."] * lines)), 1) == how


@pytest.mark.parametrize("width", [60, 72, 80])
def test_auto_takes_wrapped_prose_whole(width: int) -> None:
    assert guess(Text("a.txt", _wrapped(LINES * 3, width)), 1) == "file"


@pytest.mark.parametrize(("run_on", "how"), [(4, "line"), (6, "file")])
def test_auto_allows_under_five_percent_of_lines_that_run_on(run_on: int, how: str) -> None:
    """101 lines of fifty characters: 100 of them have a next line."""
    body = "x" * 49
    lines = ["A" + body] * 101
    for i in range(run_on):
        lines[10 * i + 5] = "a" + body
    assert guess(Text("a.txt", "\n".join(lines)), 1) == how


def test_auto_does_not_take_short_lines_for_wrapped_ones() -> None:
    """Verse begins lines in lower case, but its lines are short."""
    assert guess(Text("a.txt", "\n".join(["and the sea went on"] * 60)), 1) == "line"


@pytest.mark.parametrize(("long", "how"), [(5, "line"), (6, "file")])
def test_auto_allows_five_percent_of_lines_over_300_characters(long: int, how: str) -> None:
    lines = ["A short line."] * (100 - long) + ["A" * 301] * long
    assert guess(Text("a.txt", "\n".join(lines)), 1) == how


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
    assert guess(_first(name), 1) == how


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", ["grimm/grimms.txt", "sherlock/sherlock.txt"])
def test_auto_takes_a_book_with_a_paragraph_a_line_whole(name: str) -> None:
    """As a word processor saves it: no blank lines, none that runs on into the next."""
    paragraphs = re.split(r"\n[ \t]*\n\s*", _first(name).content.strip())
    joined = "\n".join(" ".join(p.split()) for p in paragraphs)
    assert guess(Text("a.txt", joined), 1) == "file"


@pytest.mark.data
@needs_data
def test_wiki_test_raw_has_the_sixty_articles_of_its_paper() -> None:
    """Merity et al. 2016, table 1: 60 articles in the test split."""
    _, found = _told(read(DataSpec(source=str(Path(DATA) / "wikitext2/wiki.test.raw"))).texts(), "article")
    assert len(found) == 60


@pytest.mark.data
@needs_data
def test_the_jokes_are_pairs_a_line() -> None:
    told, found = _told([_first("dadjokes/jokes.txt")], "auto", separator="auto")
    assert (told.how, told.separator) == ("line", "<>")
    assert sum(bool(d.context) for d in found) >= 0.95 * len(found)


def _first(name: str) -> Text:
    return next(iter(read(DataSpec(source=str(Path(DATA) / name))).texts()))


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
    assert [d.text for d in _told(rows, "article")[1]] == _cut(whole, "article")


@pytest.mark.parametrize(
    "lines",
    [" = Record \n N / A = \n \n", " with inductance L \n = 1 henry and capacitance C = \n 1 farad . \n"],
)
def test_a_formula_or_a_legend_is_no_title(lines: str) -> None:
    """Both are lines of wiki.test.raw; a title is one line with a blank one after it."""
    assert len(_cut(f" \n = One = \n \n Text . \n{lines} End . \n", "article")) == 1


def test_rows_are_a_document_each_whatever_lines_they_have() -> None:
    rows = [Text("a[0]", "one\ntwo\n\nthree", is_row=True), Text("a[1]", "four", is_row=True)]
    assert [(d.source, d.index, d.text) for d in _told(rows, "auto")[1]] == [
        ("a[0]", 0, "one\ntwo\n\nthree"),
        ("a[1]", 0, "four"),
    ]


@pytest.mark.parametrize(
    "story",
    [
        "<sos>One.<nl>Two.<eos>",
        "<sos> One. <nl> Two. <eos>",
        "<sos>One.\nTwo.<eos>",
        "\n<sos>One. <nl>Two.<eos>\n",
    ],
)
def test_a_story_with_marks_has_line_breaks_in_their_place(story: str) -> None:
    told, found = _told(story * 3, "auto")
    assert (told.how, [d.text for d in found]) == ("<eos>", ["One.\nTwo."] * 3)


def test_marks_of_line_breaks_are_text_where_no_story_ends_at_a_mark() -> None:
    assert _cut("one <nl> two", "file") == ["one <nl> two"]


# --- several texts, and texts in stretches ---


def test_documents_know_their_file_and_where_they_stood() -> None:
    texts = [Text("a.txt", "one\n\ntwo"), Text("b.txt", "three\nfour")]
    assert [(d.source, d.index, d.text) for d in _told(texts, "line")[1]] == [
        ("a.txt", 0, "one"),
        ("a.txt", 2, "two"),
        ("b.txt", 0, "three"),
        ("b.txt", 1, "four"),
    ]


def test_texts_are_cut_as_they_come() -> None:
    """The first document is there before the second text is asked for."""

    def texts() -> Iterator[Text]:
        yield Text("a.txt", "one\ntwo\n")
        raise AssertionError("nobody asked for more")

    assert next(cut(texts(), "line")[1]).text == "one"


STRETCHES = st.lists(
    st.sampled_from(
        ["one", " ", "\t", "\n", "\n", "\n\n", "<eos>", "<sos>", "<nl>", "= A title =", " = ", "Naïve 🙂.", "and so on"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("how", [*WAYS, "oo", "\n\n\n"])
@settings(max_examples=300, deadline=None, derandomize=True)
@given(content=STRETCHES, cuts=st.lists(st.integers(0, 300), max_size=8), after=STRETCHES)
def test_a_text_in_stretches_gives_the_documents_of_one_piece(
    how: str, content: str, cuts: list[int], after: str
) -> None:
    """Wherever it is cut, also within a delimiter, and with another file after it."""
    last = Text("b.txt", after)
    assert _told([*_stretches(content, cuts), last], how) == _told([Text("a.txt", content), last], how)


@pytest.mark.parametrize("how", ["file", "blank-line"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 9000), min_size=1, max_size=5), width=st.integers(50, 90))
def test_wrapped_prose_in_stretches_is_joined_as_in_one_piece(how: str, cuts: list[int], width: int) -> None:
    content = "\n\n".join(_wrapped(LINES, width) for _ in range(3))
    (one, found), (other, wanted) = _told(_stretches(content, cuts), how), _told(content, how)
    assert (found, one.reflowed.keys()) == (wanted, other.reflowed.keys())


def _stretches(content: str, cuts: list[int]) -> list[Text]:
    bounds = [0, *sorted(min(c, len(content)) for c in cuts), len(content)]
    parts = [content[a:b] for a, b in pairwise(bounds)]
    return [Text("a.txt", p, goes_on=i < len(parts) - 1) for i, p in enumerate(parts)]


# --- several files under auto ---


STORIES = "<sos>One.<nl>Two.<eos>\n<sos>Three.<eos>\n"
PROSE = "\n\n".join(fill(" ".join(SENTENCES), 64) for _ in range(12))
MIXED = {
    "novel": (Text("novel.txt", PROSE), 1),
    "lines": (Text("lines.txt", LINES), 1),
    "pairs": (Text("pairs.txt", PAIRS), 60),
    "stories": (Text("stories.txt", STORIES), 2),
    "row": (Text("table.csv[0]", f"One.<eos>\n{PROSE}", is_row=True), 1),
}


@pytest.mark.parametrize("order", list(permutations(MIXED))[::7])
def test_every_one_of_several_files_decides_for_itself(order: tuple[str, ...]) -> None:
    told, found = _told([MIXED[n][0] for n in order], "auto", files=5, separator="auto")
    of = {n: [d for d in found if d.source == MIXED[n][0].name] for n in order}
    assert {n: len(of[n]) for n in order} == {n: MIXED[n][1] for n in order}
    assert all(d.context for d in of["pairs"])
    assert [d.text for d in of["stories"]] == ["One.\nTwo.", "Three."]
    assert set(of["novel"][0].text.split("\n\n")) == {" ".join(SENTENCES)}
    assert of["row"][0].text == MIXED["row"][0].content
    assert (told.how, told.separator, told.unpaired, list(told.reflowed)) == ("file", "<>", 0, ["novel.txt"])
    assert told.said == (
        "One file is one document, apart from rows and lines of pairs and stories with <eos> "
        "(else: --document line, blank-line)."
    )


@pytest.mark.parametrize(
    ("name", "how"), [("novel", "file"), ("pairs", "line"), ("stories", "<eos>"), ("row", "row")]
)
def test_files_that_are_alike_say_what_they_are(name: str, how: str) -> None:
    """A blank one beside them changes nothing."""
    text = MIXED[name][0]
    texts = [text, Text("blank.txt", " \n"), replace(text, name="other")]
    told, _ = _told(texts, "auto", files=3, separator="auto")
    assert (told.how, told.said.startswith(WORDS[how] + " (else")) == (how, True)


@pytest.mark.parametrize("name", ["novel", "lines", "pairs", "stories"])
def test_one_of_several_files_in_stretches_is_cut_as_in_one_piece(name: str) -> None:
    text = MIXED[name][0]
    parts = [
        replace(text, content=line, goes_on=i < text.content.count("\n"))
        for i, line in enumerate(re.split(r"(?<=\n)", text.content))
    ]
    parts = _joined(parts, 25)
    both = [[MIXED["row"][0], *those, MIXED["novel"][0]] for those in (parts, [text])]
    one, other = (_told(texts, "auto", files=3, separator="auto") for texts in both)
    assert one[1] == other[1]
    assert (one[0].how, one[0].separator) == (other[0].how, other[0].separator)


def _joined(parts: list[Text], each: int) -> list[Text]:
    many = [parts[i : i + each] for i in range(0, len(parts), each)]
    return [replace(m[-1], content="".join(p.content for p in m)) for m in many]


def test_a_choice_applies_to_all_of_several_files() -> None:
    texts = [MIXED["pairs"][0], MIXED["novel"][0]]
    assert len(_told(texts, "file", files=2)[1]) == 2
    assert len(_told(texts, "line", files=2)[1]) == 60 + len([x for x in PROSE.split("\n") if x])


# --- pairs ---


def test_the_halves_of_a_pair_are_lines_and_the_first_is_not_learned() -> None:
    told, found = _told(PAIRS, "auto", separator="auto")
    assert (told.how, told.separator, told.unpaired) == ("line", "<>", 0)
    assert found[3].segments() == [("Why is 3?\n", False), ("Because of 4.", True)]


@pytest.mark.parametrize(
    "content",
    ["\n\n".join(PAIRS.split("\n")), PAIRS.replace(".", " and so on" * 40), f"{PAIRS}\n".lower() * 3],
)
def test_pairs_are_a_line_each_whatever_their_lines_look_like(content: str) -> None:
    """Also with blank lines between, also when they are long, also in several files."""
    for files in (1, 2):
        told, found = _told(content, "auto", separator="auto", files=files)
        assert (told.how, told.separator, told.unpaired, len(found) >= 60) == ("line", "<>", 0, True)


def test_a_separator_that_is_said_is_taken_literally() -> None:
    told, found = _told("Why? ||| Because.\nWho? ||| Tam.", "line", separator="|||")
    assert (told.separator, [d.segments() for d in found]) == (
        "|||",
        [[("Why?\n", False), ("Because.", True)], [("Who?\n", False), ("Tam.", True)]],
    )


def test_documents_without_the_separator_are_learned_whole_and_counted() -> None:
    told, found = _told("Why?<>Because.\nJust so.\na<>b<>c", "line", separator="<>")
    assert told.unpaired == 2
    assert [(d.text, bool(d.context)) for d in found] == [
        ("Why?\nBecause.", True),
        ("Just so.", False),
        ("a<>b<>c", False),
    ]


@pytest.mark.parametrize("separator", ["none", "auto"])
def test_a_text_with_few_separators_has_no_pairs(separator: str) -> None:
    told, found = _told(LINES + "a<>b\n", "line", separator=separator)
    assert (told.separator, told.unpaired, any(d.context for d in found)) == (None, 0, False)


def test_rows_that_are_pairs_already_keep_what_is_not_learned() -> None:
    """As they are: a blank at the end of a prompt is a part of it."""
    row = Text("a[0]", " Why? Because.\n", is_row=True, context=((0, 6),))
    told, found = _told([row], "auto", separator="<>")
    assert (told.separator, found) == (None, [Document("a[0]", 0, " Why? Because.\n", ((0, 6),))])


# --- wrapped prose ---


WRAPPED = "\n\n".join(fill(" ".join(SENTENCES), 64) for _ in range(12))


@pytest.mark.parametrize("how", ["file", "blank-line"])
def test_lines_of_wrapped_prose_are_joined_and_it_is_told(how: str) -> None:
    told, found = _told(WRAPPED, how)
    assert {p for d in found for p in d.text.split("\n\n")} == {" ".join(SENTENCES)}
    assert told.reflowed == {"a.txt": pytest.approx(64, abs=4)}


def test_wrapped_prose_stays_as_it_is_when_asked() -> None:
    told, found = _told(WRAPPED, "file", wrapped=False)
    assert (told.reflowed, found[0].text) == ({}, WRAPPED)


@pytest.mark.parametrize("how", ["line", "<eos>"])
def test_nothing_is_joined_where_lines_or_delimiters_were_asked_for(how: str) -> None:
    told, found = _told(WRAPPED, how)
    assert (told.reflowed, len(found)) == (
        {},
        len([x for x in WRAPPED.split("\n") if x]) if how == "line" else 1,
    )


def test_rows_are_never_joined() -> None:
    told, found = _told([Text("a[0]", WRAPPED, is_row=True)], "file")
    assert (told.reflowed, found[0].text) == ({}, WRAPPED)


# --- what is told ---


def test_a_guess_is_said_with_the_ways_to_say_otherwise() -> None:
    assert _told("one", "auto")[0].said == "One file is one document (else: --document line, blank-line)."


def test_a_choice_is_said_without_other_ways() -> None:
    assert _told("one<eos>two", "***")[0].said == "'***' parts the documents."


def test_blank_documents_are_counted() -> None:
    assert _told("one\n\n \ntwo", "line")[0].blank == 2


@pytest.mark.parametrize("how", ["auto", *WAYS])
def test_a_text_of_blanks_has_no_documents(how: str) -> None:
    told, found = _told(" \n\t\n\n", how)
    assert (found, told.blank > 0) == ([], True)


@pytest.mark.parametrize("how", ["auto", *WAYS])
def test_no_text_has_no_documents(how: str) -> None:
    assert _told([], how)[1] == []
