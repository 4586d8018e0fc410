"""What the columns of a table are taken for, and what a row of it becomes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.data.columns import Columns, finds_separator, split_pair
from adapterkit.data.text import Text
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

DATA = os.environ.get("ADAPTERKIT_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="ADAPTERKIT_DATA names no folder with the texts")

LONG = "I want you to act as a terminal. " * 20
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]


def _columns(row: dict[str, Any], **keys: Any) -> Columns:
    """Decided at one row."""
    columns = Columns(DataSpec(**keys), "t.csv")
    columns.text(row, 0)
    return columns


def _text(row: object, **keys: Any) -> Text:
    text = Columns(DataSpec(**keys), "t.csv").text(row, 0)
    assert text is not None
    return text


# --- a text -------------------------------------------------------------------


def test_a_row_is_named_by_its_place_in_the_table() -> None:
    text = Columns(DataSpec(), "deep/t.csv").text({"text": "one"}, 7)
    assert text == Text("deep/t.csv[7]", "one", is_row=True)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"title": "no", "content": "yes"}, "content"),
        ({"story": "yes", "body": "no"}, "story"),
        ({"body": "yes", "note": "no"}, "body"),
        ({"Text": "yes", "note": "no"}, "Text"),
        ({"n": 1, "verse": "yes"}, "verse"),
        ({"n": "1.5", "share": "20%", "verse": "yes"}, "verse"),
        ({"act": "Terminal", "prompt": LONG, "for_devs": "TRUE"}, "prompt"),
        ({"number": "3"}, "number"),
    ],
)
def test_the_column_with_the_text_is_found(row: dict[str, Any], column: str) -> None:
    columns = Columns(DataSpec(), "t.csv")
    text = columns.text(row, 0)
    assert text is not None
    assert (text.content, columns.resolved) == (row[column], {"text": column})


def test_a_column_named_text_needs_no_words() -> None:
    columns = _columns({"text": "one", "story": "two"})
    assert (columns.said, columns.resolved) == ("", {})


def test_another_column_is_said() -> None:
    assert _columns({"body": "one"}).said == "t.csv: column 'body'"


def test_a_column_taken_for_its_length_says_how_to_have_the_other() -> None:
    said = _columns({"the act": "Terminal", "prompt": LONG}).said
    assert said == "t.csv: column 'prompt', by far the longest (else: --data-text 'the act')"


def test_the_column_that_is_asked_for_is_taken_before_any_other() -> None:
    row = {"text": "no", "question": "no", "answer": "no", "joke": "yes", "messages": CHAT}
    assert _text(row, text="joke").content == "yes"


def test_the_first_row_decides_for_all() -> None:
    columns = _columns({"body": "one", "note": "x"})
    assert columns.text({"body": "a", "text": "b"}, 1) == Text("t.csv[1]", "a", is_row=True)


def test_blank_rows_before_the_first_decide_nothing() -> None:
    columns = _columns({"a": "", "b": None})
    text = columns.text({"a": "1", "b": "words"}, 1)
    assert (text and text.content, columns.resolved) == ("words", {"text": "b"})


@pytest.mark.parametrize(
    "row", [{}, {"text": None}, {"text": ""}, {"text": " \n\t"}, "", " ", {"other": 3}, {"other": " "}]
)
def test_a_row_without_text_is_none(row: object) -> None:
    columns = _columns({"text": "one"})
    assert columns.text(row, 1) is None


def test_blank_rows_of_articles_are_kept_as_they_part_them() -> None:
    columns = Columns(DataSpec(document="article"), "wiki")
    assert columns.text({"text": ""}, 3) == Text("wiki[3]", "", is_row=True)


def test_rows_may_be_plain_strings_and_have_one_kind_of_line_end() -> None:
    assert _text("a\r\nb\rc").content == "a\nb\nc"


@pytest.mark.parametrize("row", [3, None, [1, 2], True])
def test_a_row_that_is_no_object_is_named_by_its_number(row: object) -> None:
    with pytest.raises(DataError, match=r"t\.csv row 3 is .*, neither text nor a row with columns"):
        Columns(DataSpec(), "t.csv").text(row, 2)


@pytest.mark.parametrize("value", [["one"], {"en": "one"}, b"one"])
def test_a_text_that_is_nested_is_an_error_that_names_the_row(value: object) -> None:
    with pytest.raises(DataError, match=r"t\.csv row 5: 'text' is .*, not text"):
        Columns(DataSpec(), "t.csv").text({"text": value}, 4)


def test_cells_beyond_the_header_are_passed_over() -> None:
    assert _text({"text": "one", None: ["two"]}).content == "one"


# --- rows unlike the first ---


@pytest.mark.parametrize(
    ("first", "row", "keys", "column", "has"),
    [
        ({"content": "a"}, {"text": "b", "n": 1}, {}, "content", "text, n"),
        ({"talk": "a"}, {"text": "b"}, {"text": "talk"}, "talk", "text"),
        ({"question": "a", "answer": "b"}, {"question": "a", "reply": "b"}, {}, "answer", "question, reply"),
        ({"question": "a", "answer": "b"}, {"asked": "a", "answer": "b"}, {}, "question", "asked, answer"),
        ({"messages": CHAT}, {"text": "b"}, {}, "messages", "text"),
        ({"messages": CHAT}, {"conversations": SHARED}, {}, "messages", "conversations"),
        ({"text": "a"}, {"messages": CHAT}, {}, "text", "messages"),
    ],
)
def test_a_row_with_its_text_in_another_column_is_refused(
    first: dict[str, Any], row: dict[str, Any], keys: dict[str, str], column: str, has: str
) -> None:
    columns = _columns(first, **keys)
    with pytest.raises(
        DataError, match=rf"^t\.csv row 2 has no column '{column}'\. It has: {has}\."
    ) as caught:
        columns.text(row, 1)
    assert (caught.value.code, caught.value.details) == ("no-text-column", {"columns": list(row)})
    assert "--data-text COLUMN" in caught.value.hint


def test_an_instruction_may_have_no_input_at_all() -> None:
    columns = _columns({"instruction": "a", "input": "b", "output": "c"})
    text = columns.text({"instruction": "Sing.", "output": "La."}, 1)
    assert text
    assert text.content == "Sing.\nLa."


# --- no header ---


@pytest.mark.parametrize("name", ["x" * 61, "one\ntwo"])
@pytest.mark.parametrize("more", [{}, {"n": "3"}, {"short": "b"}])
def test_a_first_row_of_text_is_no_header(name: str, more: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"^t\.csv has no header: its first row is text\.") as caught:
        _columns({name: "the second row", **more})
    assert caught.value.code == "no-header"
    assert caught.value.hint.startswith("put a line such as: text above it")
    assert name not in str(caught.value)


def test_a_long_header_that_is_asked_for_is_one() -> None:
    name = "What would you tell someone who comes here for the first time in spring?"
    assert _text({name: "Bring boots."}, text=name).content == "Bring boots."


def test_a_long_name_of_60_characters_is_one() -> None:
    assert _text({"x" * 60: "words"}).content == "words"


@pytest.mark.parametrize("file", ["t.jsonl", "T.JSON", "t.ndjson.gz", "t.parquet"])
def test_files_whose_rows_name_their_columns_need_no_header(file: str) -> None:
    text = Columns(DataSpec(), file).text({"x" * 61: "words"}, 0)
    assert text
    assert text.content == "words"


# --- no text ------------------------------------------------------------------


def test_a_table_without_a_text_column_names_its_columns() -> None:
    with pytest.raises(
        DataError, match=r"^t\.csv has no column 'text'\. It has: opener, closer, score\."
    ) as caught:
        _columns({"opener": "Why?", "closer": "So.", "score": "3"})
    assert (caught.value.code, caught.value.details) == (
        "no-text-column",
        {"columns": ["opener", "closer", "score"]},
    )


def test_two_columns_of_words_are_offered_as_a_pair() -> None:
    with pytest.raises(DataError) as caught:
        _columns({"opener": "Why?", "the closer": "So.", "score": 3})
    assert caught.value.hint == (
        "--data-text 'the closer', or learn the answers only: --data-prompt opener --data-completion 'the closer'"
    )


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"a": "one", "b": "two", "c": "three"}, "--data-text c"),
        ({"a": "a long one", "b": "two", "c": "a longer one", "d": ""}, "--data-text c"),
        ({"n": 1, "m": 2}, "--data-text m"),
    ],
)
def test_otherwise_the_likeliest_column_is_named(row: dict[str, Any], hint: str) -> None:
    with pytest.raises(DataError) as caught:
        _columns(row)
    assert caught.value.hint == hint


def test_a_short_text_is_not_taken_for_its_length() -> None:
    with pytest.raises(DataError, match="no column 'text'"):
        _columns({"opener": "Why did the chicken cross the road?", "closer": "So."})


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"has no column 'verse'\. It has: text, n\."):
        _columns({"text": "one", "n": 1}, text="verse")


# --- pairs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "prompt", "completion"),
    [
        (["prompt", "completion"], "{prompt}\n", "completion"),
        (["id", "Question", "Answer"], "{Question}\n", "Answer"),
        (["instruction", "output"], "{instruction}\n", "output"),
        (["instruction", "input", "output", "text"], "{instruction}\n{input}\n", "output"),
        (["setup", "punchline", "score"], "{setup}\n", "punchline"),
        (["prompt", "response"], "{prompt}\n", "response"),
        (["input", "output"], "{input}\n", "output"),
    ],
)
def test_pairs_are_known_by_their_names(columns: list[str], prompt: str, completion: str) -> None:
    found = _columns(dict.fromkeys(columns, "x"))
    assert found.resolved == {"prompt": prompt, "completion": completion}


def test_a_pair_is_its_prompt_and_what_is_learned_after_it() -> None:
    text = _text({"question": "Who?\r\n", "answer": "You. \n"})
    assert (text.content, text.context) == ("Who?\nYou.", ((0, 5),))


def test_a_pair_says_which_column_is_learned() -> None:
    said = _columns({"question": "Who?", "answer": "You."}).said
    assert said == "t.csv: 'question' is read, 'answer' is learned (else: --data-text answer)"


def test_an_instruction_with_input_says_that_both_are_read() -> None:
    said = _columns({"instruction": "a", "input": "b", "output": "c"}).said
    assert said.startswith("t.csv: 'instruction' and 'input' are read, 'output' is learned")


def test_a_blank_input_leaves_no_line() -> None:
    text = _text({"instruction": "Sing.", "input": "", "output": "La."})
    assert (text.content, text.context) == ("Sing.\nLa.", ((0, 6),))


@pytest.mark.parametrize("completion", [None, "", "  \n"])
def test_a_row_without_a_completion_has_no_text(completion: object) -> None:
    columns = _columns({"question": "Who?", "answer": "You."})
    assert columns.text({"question": "Who?", "answer": completion}, 1) is None


def test_a_completion_without_a_prompt_is_learned_whole() -> None:
    text = _text({"question": None, "answer": "You."})
    assert (text.content, text.context) == ("You.", ())


def test_a_number_is_a_completion() -> None:
    assert _text({"question": "6 * 7?", "answer": 42}).content == "6 * 7?\n42"


def test_a_completion_that_is_nested_is_an_error_that_names_the_row() -> None:
    with pytest.raises(DataError, match=r"t\.csv row 1: 'answer' is \[\"You\.\"\], not text"):
        _text({"question": "Who?", "answer": ["You."]})


def test_a_prompt_that_is_asked_for_may_be_a_column() -> None:
    found = _columns({"text": "x", "opener": "a", "closer": "b"}, prompt="opener", completion="closer")
    assert found.resolved == {"prompt": "{opener}\n", "completion": "closer"}


def test_a_prompt_that_is_asked_for_says_so_without_another_way() -> None:
    found = _columns({"opener": "a", "closer": "b"}, prompt="opener", completion="closer")
    assert found.said == "t.csv: 'opener' is read, 'closer' is learned"


def test_a_prompt_with_columns_in_it_is_used_as_written() -> None:
    text = _text({"q": "Who?", "a": "You."}, prompt="{{Q}} {q}\nA:", completion="a")
    assert (text.content, text.context) == ("{Q} Who?\nA:You.", ((0, 11),))


def test_what_was_decided_reads_the_same_when_it_is_asked_for() -> None:
    rows = [{"instruction": "Sing.", "input": i, "output": "La."} for i in ("", "a song", None)]
    columns = Columns(DataSpec(), "t.csv")
    found = [columns.text(r, i) for i, r in enumerate(rows)]
    again = Columns(DataSpec(**columns.resolved), "t.csv")
    assert [again.text(r, i) for i, r in enumerate(rows)] == found


@pytest.mark.parametrize(
    ("prompt", "completion"), [("{q} {w}", "a"), ("w", "a"), ("q", "w"), ("{q.upper}", "a")]
)
def test_an_unknown_column_of_a_pair_is_named_with_those_there_are(prompt: str, completion: str) -> None:
    with pytest.raises(DataError, match=r"has no column '(w|q\.upper)'\. It has: q, a\.") as caught:
        _columns({"q": "Who?", "a": "You."}, prompt=prompt, completion=completion)
    assert caught.value.code == "no-text-column"


@pytest.mark.parametrize(
    ("keys", "said", "hint"),
    [
        (
            {"prompt": "q"},
            "data.prompt is 'q', but nothing is said to be learned",
            "--data-completion COLUMN",
        ),
        ({"completion": "a"}, "data.completion is 'a', but nothing is said to be read", "--data-text a"),
        ({"text": "t", "prompt": "q", "completion": "a"}, "the recipe has both", "leave out data.text"),
        ({"text": "t", "completion": "a"}, "the recipe has both", "leave out data.text"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys: dict[str, str], said: str, hint: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        Columns(DataSpec(**keys), "t.csv")
    assert hint in caught.value.hint


# --- chats --------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": SHARED},
        {"messages": SHARED, "text": "no"},
        {"conversations": CHAT},
    ],
)
def test_a_list_of_turns_is_a_chat(row: dict[str, Any]) -> None:
    columns = Columns(DataSpec(), "t.csv")
    text = columns.text(row, 0)
    assert text == Text("t.csv[0]", "User: Hi\nAssistant: Hello.", is_row=True, context=((0, 19),))
    assert columns.resolved == {"template": "{role}: {content}\n"}


def test_a_chat_says_what_is_learned() -> None:
    assert (
        _columns({"messages": CHAT}).said == "t.csv: a chat in 'messages'; what the assistant says is learned"
    )


def test_a_column_with_turns_may_be_asked_for() -> None:
    assert _text({"id": "x", "talk": CHAT}, text="talk").content == "User: Hi\nAssistant: Hello."


def test_a_chat_is_written_by_the_template_of_the_recipe() -> None:
    text = _text({"messages": CHAT}, template="<{role}>{content}</>\n")
    assert text.content == "<User>Hi</>\n<Assistant>Hello.</>"


@pytest.mark.parametrize("turns", [None, [], CHAT[:1], [{"role": "assistant", "content": None}]])
def test_a_chat_in_which_the_assistant_is_silent_has_no_text(turns: object) -> None:
    assert _columns({"messages": CHAT}).text({"messages": turns}, 1) is None


@pytest.mark.parametrize("turns", ["Hi", [["Hi"]], [{"role": "user"}]])
def test_a_chat_that_is_no_list_of_turns_is_an_error_that_names_the_row(turns: object) -> None:
    with pytest.raises(DataError, match=r"t\.csv row 2: 'messages' is .*, not a list of turns"):
        _columns({"messages": CHAT}).text({"messages": turns}, 1)


def test_a_turn_that_is_nested_is_an_error_that_names_the_row() -> None:
    with pytest.raises(DataError, match=r"t\.csv row 1: 'content' is .*, not text"):
        _text({"messages": [{"role": "user", "content": [{"type": "image"}]}]})


# --- pairs in lines -----------------------------------------------------------


def test_a_line_is_parted_at_its_separator() -> None:
    assert split_pair("setup <> punchline\n", "<>") == ("setup\npunchline", ((0, 6),))


@pytest.mark.parametrize("text", ["no pair", "a<>b<>c", "<>b", "a<> ", "", "<>"])
def test_what_is_not_exactly_one_pair_is_none(text: str) -> None:
    assert split_pair(text, "<>") is None


def test_an_empty_separator_parts_nothing() -> None:
    assert split_pair("ab", "") is None


def test_lines_that_are_nearly_all_pairs_are_found() -> None:
    assert finds_separator(["a<>b", "", " "] * 19 + ["a<>b", "title"])


@pytest.mark.parametrize(
    "lines",
    [["a<>b"] * 19, ["a<>b"] * 18 + ["a"] * 2, ["a<>b<>c"] * 30, ["<>b"] * 30, []],
    ids=["too few", "too seldom", "twice", "one side", "none"],
)
def test_other_lines_are_no_pairs(lines: list[str]) -> None:
    assert not finds_separator(lines)


# --- whatever a table holds -----------------------------------------------------

CELLS = st.none() | st.integers() | st.text()
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "x"]), "content": st.none() | st.text()}
    )
)
ROWS = (
    st.fixed_dictionaries({"instruction": CELLS, "input": CELLS, "output": CELLS})
    | st.fixed_dictionaries({"question": CELLS, "answer": CELLS})
    | st.fixed_dictionaries({"messages": TURNS})
    | st.fixed_dictionaries({"text": CELLS})
)


@given(ROWS)
def test_every_text_has_something_to_learn_and_spans_within_it(row: dict[str, Any]) -> None:
    text = Columns(DataSpec(), "t").text(row, 0)
    if text is not None:
        edges = [edge for span in text.context for edge in span]
        assert edges == sorted(set(edges))
        assert 0 <= min(edges, default=0) <= max(edges, default=0) < len(text.content)
        assert "\r" not in text.content


@given(st.text(), st.text())
def test_the_content_of_a_pair_is_its_prompt_and_its_completion(question: str, answer: str) -> None:
    text = Columns(DataSpec(), "t").text({"question": question, "answer": answer}, 0)
    if text is not None:
        (_, end), *_ = text.context or ((0, 0),)
        learned = answer.replace("\r\n", "\n").replace("\r", "\n").rstrip()
        assert text.content == text.content[:end] + learned


# --- the data folder ------------------------------------------------------------


def _read(rows: Iterable[object]) -> tuple[Columns, int]:
    columns = Columns(DataSpec(), "t")
    return columns, sum(columns.text(row, i) is not None for i, row in enumerate(rows))


@needs_data
def test_prompts_csv_needs_no_option() -> None:
    with (Path(DATA) / "prompts-csv/prompts.csv").open(encoding="utf-8", newline="") as file:
        columns, count = _read(csv.DictReader(file))
    assert (columns.resolved, count) == ({"text": "prompt"}, 209)


@needs_data
def test_gsm8k_is_questions_and_answers() -> None:
    lines = (Path(DATA) / "gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()
    columns, count = _read(json.loads(line) for line in lines)
    assert (columns.resolved, count) == ({"prompt": "{question}\n", "completion": "answer"}, 7473)


@needs_data
@pytest.mark.parametrize(("file", "found"), [("dadjokes/jokes.txt", True), ("kjv/kjv.txt", False)])
def test_jokes_are_pairs_and_verses_are_not(file: str, found: bool) -> None:
    assert finds_separator((Path(DATA) / file).read_text(encoding="utf-8").split("\n")) is found
