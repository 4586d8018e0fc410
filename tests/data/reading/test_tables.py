"""Rows of tables of every kind; malformed ones are named with their lines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterkit.data.reading import decode, delimited
from adapterkit.data.reading.kinds import Unreadable
from adapterkit.data.reading.tables import Table
from adapterkit.data.sources import Read, read
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec


def _table(kind: str, content: str | bytes) -> tuple[Table, list[object]]:
    table = Table(f"a.{kind}", kind)
    raw = content.encode() if isinstance(content, str) else content
    return table, list(table.rows(io.BytesIO(raw)))


def _rows(kind: str, content: str | bytes) -> list[object]:
    return _table(kind, content)[1]


def _listed(path: Path, content: str, **keys: Any) -> Read:
    path.write_bytes(content.encode())
    return read(DataSpec(source=str(path), **keys))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LARGE", 8)
    monkeypatch.setattr(decode, "PIECE", 4)


# --- CSV ---


def test_a_cell_may_have_several_lines_and_quotes() -> None:
    assert _rows("csv", 'id,text\r\n1,"one, ""two""\r\nthree"\r\n') == [
        {"id": "1", "text": 'one, "two"\nthree'}
    ]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_sign_between_cells_is_found_in_the_header(sign: str) -> None:
    content = f'title{sign}"text; more, or less"\nA{sign}"Hello, you; there | x"\n'
    assert _rows("csv", content) == [{"title": "A", "text; more, or less": "Hello, you; there | x"}]


def test_the_sign_that_excel_is_told_is_taken() -> None:
    assert _rows("csv", "sep=;\na;b,c\n1;2\n") == [{"a": "1", "b,c": "2"}]


def test_a_table_of_one_column_needs_no_sign() -> None:
    assert _rows("csv", 'text\none\n"two, three"\n') == [{"text": "one"}, {"text": "two, three"}]


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n", "a,b"])
def test_a_header_alone_has_no_rows(content: str) -> None:
    assert _rows("csv", content) == []


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_column() -> None:
    assert _rows("csv", "\ufefftext,n\none,1\n") == [{"text": "one", "n": "1"}]


def test_blanks_around_the_names_of_columns_are_no_part_of_them() -> None:
    assert _rows("csv", "id, text\n1,one\n") == [{"id": "1", "text": "one"}]


def test_blank_lines_and_a_comma_too_many_at_the_end_are_no_fault() -> None:
    table, rows = _table("csv", "a,b\n1,2,\n\n,\n3,4\n")
    assert (rows, table.bad) == ([{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], [])


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_a_row_that_does_not_fit_the_header_is_named_with_its_line(row: str) -> None:
    table, rows = _table("csv", f'a,b\n"x\ny",2\n{row}\n5,6\n')
    assert (len(rows), table.bad) == (2, [4])
    assert table.why.endswith("for 2 columns")


def test_a_quote_that_never_closes_costs_one_row_and_not_the_rest() -> None:
    table, rows = _table("csv", 'a,b\n1,2\n3,"four\n5,6\n7,8\n')
    assert (rows, table.bad) == ([{"a": "1", "b": "2"}, {"a": "5", "b": "6"}, {"a": "7", "b": "8"}], [3])
    assert table.why == "a quote in it never closes"


def test_rows_that_a_quote_would_run_together_are_kept_apart() -> None:
    table, rows = _table("csv", 'a,b\n1,"two\n3,"four\n5,six\n')
    assert (rows, table.bad) == ([{"a": "5", "b": "six"}], [2, 3])


def test_a_quote_within_a_cell_of_one_line_is_a_sign() -> None:
    assert _rows("csv", 'a,b\n1,6" nail\n2,"so" she said\n') == [
        {"a": "1", "b": '6" nail'},
        {"a": "2", "b": "so she said"},
    ]


def test_too_many_quotes_that_never_close_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of each is looked for to the end of the file."""
    monkeypatch.setattr(delimited, "MOST_AGAIN", 10_000)
    with pytest.raises(DataError, match=r"a\.csv has too many quotes that never close") as caught:
        _rows("csv", "a,b\n" + '1,"\n' * 2 * 1000 + '5,"6' + "7\n" * 5000)
    assert caught.value.code == "bad-rows"


def test_lines_are_counted_right_after_blank_ones() -> None:
    assert _table("csv", "\n\na,b\n1\n")[0].bad == [4]
    assert _table("csv", "sep=;\na;b\n1\n")[0].bad == [3]


def test_a_quote_open_for_too_long_never_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LONGEST_ROW", 100)
    table, rows = _table("csv", 'a,b\n1,"2\n' + "3,4\n" * 1000)
    assert (len(rows), table.bad) == (1000, [2])


@pytest.mark.parametrize("size", [700_000, 3_000_000])
def test_a_cell_may_be_a_novel(size: int) -> None:
    novel = "a line of it,\n" * (size // 14)
    assert _rows("csv", f'text\n"{novel}"\n') == [{"text": novel}]


def test_a_few_zeros_in_a_table_are_taken_out() -> None:
    assert len(_rows("csv", "text\n" + "some words\n" * 200 + "a\0b\n")) == 201


def test_other_separators_end_no_line() -> None:
    assert _rows("csv", "text\na\u2028b\u0085c\x0cd\n") == [{"text": "a\u2028b\u0085c\x0cd"}]


# --- TSV ---


def test_a_tsv_with_quotes_is_read_with_them() -> None:
    assert _rows("tsv", 'id\ttext\n1\t"one, ""two""\nthree"\n') == [{"id": "1", "text": 'one, "two"\nthree'}]


def test_a_tsv_without_quoting_keeps_quotes_as_signs() -> None:
    content = 'id\ttext\n1\t"Hello\n2\the said "yes"\n3\tbye"\n'
    assert [r["text"] for r in _rows("tsv", content)] == ['"Hello', 'he said "yes"', 'bye"']  # type: ignore[index]


# --- JSON Lines ---


def test_a_row_is_a_line_and_blank_lines_are_none() -> None:
    assert _rows("jsonl", '{"a": 1}\n\n  \n"two"\n') == [{"a": 1}, "two"]


def test_lines_that_are_no_json_are_named() -> None:
    table, rows = _table("jsonl", '{"a": 1}\n{"a": \n{"a": 3}\nfour\n')
    assert (rows, table.bad) == ([{"a": 1}, {"a": 3}], [2, 4])
    assert table.why.startswith("not JSON: ")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a": ' * 100_000, "1" * 5000])
def test_a_line_that_no_parser_can_take_is_only_a_bad_line(line: str) -> None:
    table, rows = _table("jsonl", f'{{"a": 1}}\n{line}\n')
    assert (rows, table.bad) == ([{"a": 1}], [2])


@pytest.mark.usefixtures("small_pieces")
def test_lines_cut_by_pieces_are_whole_again() -> None:
    assert _rows("jsonl", '{"a": "Müller"}\r\n{"a": 2}\r\n{"a": 3}') == [{"a": "Müller"}, {"a": 2}, {"a": 3}]


def test_a_jsonl_that_is_one_list_is_read_and_that_is_said() -> None:
    table, rows = _table("jsonl", '[\n{"a": 1},\n{"a": 2}\n]')
    assert (rows, table.said) == ([{"a": 1}, {"a": 2}], "a.jsonl holds one list, not JSON Lines")


def test_a_jsonl_of_one_object_over_several_lines_is_read() -> None:
    assert _rows("jsonl", '{\n  "a": 1\n}\n') == [{"a": 1}]


def test_the_only_row_of_a_jsonl_is_a_row_whatever_is_in_it() -> None:
    assert _rows("jsonl", '{"a": [{"b": 1}]}\n') == [{"a": [{"b": 1}]}]


# --- JSON ---


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("[]", []),
        (" \n", []),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('["one", "two"]', ["one", "two"]),
        ('{"a": 1}', [{"a": 1}]),
        ('{"version": 1, "data": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        ('{"texts": ["one", "two"]}', ["one", "two"]),
        ('{"a": [{"b": 1}], "c": [{"d": 1}]}', [{"a": [{"b": 1}], "c": [{"d": 1}]}]),
        ('"one"', ["one"]),
    ],
)
def test_rows_of_json_are_found_in_its_list(content: str, rows: list[object]) -> None:
    assert _rows("json", content) == rows


def test_a_json_that_is_json_lines_is_read_and_that_is_said() -> None:
    table, rows = _table("json", '{"a": 1}\n{"a": 2}\n')
    assert (rows, table.said) == ([{"a": 1}, {"a": 2}], "a.json holds JSON Lines")


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "content",
    [
        '[{"a": "Müller, \\"x\\" ]"}, 12345678901, true, null, "\\u00e9\\ud83d\\ude00"]',
        "[1234567,   -1.5e10]",
        "[[1,2],[],{}]",
    ],
)
def test_a_large_list_is_read_bit_by_bit(content: str) -> None:
    assert _rows("json", content) == json.loads(content)


def test_a_large_list_is_not_held() -> None:
    """Its first row comes while the most of it is unread."""

    class Stream(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            block = super().read(min(size or 1 << 20, 1 << 20))
            Stream.taken += len(block)
            return block

    raw = b"[" + b",\n".join(b'{"a": "%s"}' % (b"x" * 100_000) for _ in range(1000)) + b"]"
    rows = Table("a.json", "json").rows(Stream(raw))
    next(rows)
    assert Stream.taken < 0.8 * len(raw)
    assert sum(1 for _ in rows) == 999


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[{"a": 1},\n{"a": ]', 2),
        ('[{"a": 1}\n{"a": 2}]', 2),
        ('[{"a": 1},\n{"a": 2}', 2),
        ('[{"a": 1}]\nmore', 2),
        ('{"a": \n}', 2),
        ('[\n\n"never closed', 3),
        ("[" * 100_000, 1),
        ("two", 1),
    ],
)
def test_a_json_file_that_is_none_is_named_with_the_line(content: str, line: int) -> None:
    with pytest.raises(DataError, match=rf"a\.json line {line} is not JSON: ") as caught:
        _rows("json", content)
    assert caught.value.hint == "mend that line"


@pytest.mark.usefixtures("small_pieces")
def test_the_line_is_right_in_pieces_too() -> None:
    with pytest.raises(DataError, match=r"a\.json line 4 is not JSON"):
        _rows("json", '[{"a": 1},\n{"a": 2},\n{"a": 3},\n{"a": nope},\n{"a": 5}]')


# --- Parquet ---


def _parquet(rows: list[dict[str, object]], group: int = 2) -> bytes:
    import pyarrow
    from pyarrow import parquet

    held = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), held, row_group_size=group)
    return held.getvalue()


def test_rows_of_parquet_come_in_their_order() -> None:
    rows: list[object] = [{"text": f"verse {i}", "n": i} for i in range(2500)]
    assert _rows("parquet", _parquet(rows, 700)) == rows  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-10], lambda raw: b"PAR1 no more", lambda raw: raw[:4] + raw[-8:]]
)
def test_a_damaged_parquet_file_is_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Unreadable, match="damaged, no whole parquet file"):
        _rows("parquet", damage(_parquet([{"text": "one"}])))


# --- how many may be malformed ---


def _lines(good: int, bad: int) -> str:
    return '{"text": "one"}\n' * good + "two\n" * bad


def test_a_share_of_malformed_rows_stops_everything_and_names_five(tmp_path: Path) -> None:
    found = _listed(tmp_path / "b.jsonl", _lines(590, 7))
    with pytest.raises(DataError) as caught:
        list(found.texts())
    assert caught.value.message.startswith(
        "7 of 597 rows of b.jsonl are malformed: lines 591, 592, 593, 594, 595, ... (not JSON: expecting value"
    )
    assert (caught.value.code, caught.value.hint) == (
        "bad-rows",
        "mend those lines, or leave them out: --allow-bad-rows",
    )


def test_one_in_a_hundred_is_left_out_and_said(tmp_path: Path) -> None:
    found = _listed(tmp_path / "a.jsonl", _lines(198, 2))
    assert len(list(found.texts())) == 198
    assert found.bad_rows == ["a.jsonl line 199", "a.jsonl line 200"]
    (said,) = found.said
    assert said.startswith("2 of 200 rows of a.jsonl are malformed and left out: lines 199, 200 (not JSON")


def test_more_are_left_out_when_that_is_allowed(tmp_path: Path) -> None:
    found = _listed(tmp_path / "a.jsonl", _lines(1, 3), allow_bad_rows=True)
    assert len(list(found.texts())) == 1
    assert len(found.bad_rows) == 3


def test_half_a_character_that_json_can_spell_does_not_get_through(tmp_path: Path) -> None:
    (text,) = _listed(tmp_path / "a.jsonl", '{"text": "a\\ud83d b"}').texts()
    assert text.content == "a\ufffd b"


def test_the_encoding_of_a_table_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text\nMüller\n".encode("cp1252"))
    found = read(DataSpec(source=str(tmp_path / "a.csv")))
    assert [t.content for t in found.texts()] == ["Müller"]
    assert found.said == ["a.csv was read as Windows-1252, as it is not UTF-8"]


def test_rows_without_text_are_counted_and_if_all_are_that_is_an_error(tmp_path: Path) -> None:
    found = _listed(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": null}\n{}\n')
    assert ([t.content for t in found.texts()], found.without_text) == (["one"], 2)
    with pytest.raises(DataError, match="none of its 2 rows has text"):
        list(_listed(tmp_path / "b.jsonl", '{"text": null}\n{"text": null}\n').texts())
