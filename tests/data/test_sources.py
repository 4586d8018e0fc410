"""Text from files of many kinds, in a fixed order; what can't be read is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterkit.data.sources import Documents, Read, Text, read
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

PLAY = "Der Müller\nsagte „nein“ – für 3 €.\n"


def _write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _read(*sources: Path | str, text: str | None = None, folder: Path | None = None) -> Read:
    named = [str(s) for s in sources]
    return read(DataSpec(source=named[0] if len(named) == 1 else named, text=text), folder)


def _contents(found: Read) -> list[str]:
    return [t.content for t in found.texts]


# --- plain text ---


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("cp1252", "Windows-1252, as it is not UTF-8"),
    ],
)
def test_text_is_read_in_the_usual_encodings(tmp_path: Path, encoding: str, said: str) -> None:
    found = _read(_write(tmp_path / "a.txt", PLAY.encode(encoding)))
    assert (_contents(found), found.said) == ([PLAY], [f"a.txt was read as {said}"] if said else [])


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf_16_is_read_in_both_byte_orders(tmp_path: Path, mark: bytes) -> None:
    encoding = "utf-16-le" if mark == b"\xff\xfe" else "utf-16-be"
    assert _contents(_read(_write(tmp_path / "a.txt", mark + PLAY.encode(encoding)))) == [PLAY]


def test_utf_16_cut_in_a_character_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt"):
        _read(_write(tmp_path / "a.txt", PLAY.encode("utf-16")[:-1]))


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
def test_line_ends_become_one_kind(tmp_path: Path, ending: str) -> None:
    assert _contents(_read(_write(tmp_path / "a.txt", f"one{ending}two{ending}"))) == ["one\ntwo\n"]


def test_nothing_but_line_ends_is_changed(tmp_path: Path) -> None:
    odd = "\u2028a\u0085b\u200b \t\x0c\u00a0e\u0301\U0001f600\n"
    assert _contents(_read(_write(tmp_path / "a.txt", odd))) == [odd]


@pytest.mark.parametrize("name", ["a.txt", "a.TXT", "a.md", "a.text", "a", "a.rst"])
def test_a_single_file_is_read_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    assert _contents(_read(_write(tmp_path / name, "one"))) == ["one"]


@pytest.mark.parametrize(
    "raw",
    [b"\x89PNG\r\n\x1a\n\0\0", b"%PDF-1.7 ...", b"{\\rtf1 ...", b"\x7fELF\0"],
    ids=["png", "pdf", "rtf", "elf"],
)
def test_a_binary_file_is_refused_by_name(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.txt is not text: it holds binary data") as caught:
        _read(_write(tmp_path / "a.txt", raw))
    assert caught.value.hint == "save it as .txt in UTF-8"


# --- several files ---


def test_a_folder_is_read_whole_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "c/d.txt"):
        _write(tmp_path / "tales" / name, name)
    assert _contents(_read(tmp_path / "tales")) == ["a.md", "b.txt", "c/d.txt"]


def test_what_is_not_text_in_a_folder_is_left_out_by_name(tmp_path: Path) -> None:
    for name in ("a.txt", "cover.jpg", "~$ch3.txt", "notes.docx"):
        _write(tmp_path / "tales" / name, "one")
    found = _read(tmp_path / "tales")
    assert (_contents(found), found.said) == (
        ["one"],
        ["left out: cover.jpg, notes.docx, ~$ch3.txt (not text)"],
    )


def test_more_than_four_left_out_are_counted_all_the_same(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    for i in range(6):
        _write(tmp_path / "tales" / f"{i}.jpg", "")
    found = _read(tmp_path / "tales")
    assert (len(found.unreadable), found.said) == (
        6,
        ["left out: 0.jpg, 1.jpg, 2.jpg, 3.jpg, ... (not text)"],
    )


def test_hidden_files_are_not_part_of_a_folder(tmp_path: Path) -> None:
    for name in (".git/config", ".DS_Store", "a.txt"):
        _write(tmp_path / "tales" / name, "one")
    assert _contents(_read(tmp_path / "tales")) == ["one"]


def test_a_folder_below_a_hidden_one_is_read(tmp_path: Path) -> None:
    _write(tmp_path / ".local" / "tales" / "a.txt", "one")
    assert _contents(_read(tmp_path / ".local" / "tales")) == ["one"]


def test_a_folder_with_nothing_readable_says_what_is_in_it(tmp_path: Path) -> None:
    for name in ("cover.jpg", "map.png"):
        _write(tmp_path / "tales" / name, "")
    with pytest.raises(DataError, match=r"nothing to read in .*tales: cover\.jpg, map\.png"):
        _read(tmp_path / "tales")


def test_an_empty_folder_says_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "tales").mkdir()
    with pytest.raises(DataError, match="it is empty"):
        _read(tmp_path / "tales")


def test_files_of_one_name_in_two_folders_have_names_of_their_own(tmp_path: Path) -> None:
    """The names decide what is held out: 20 files called text.txt must not all rank the same."""
    for chapter in ("one", "two"):
        _write(tmp_path / "book" / chapter / "text.txt", chapter)
    assert len({t.name for t in _read(tmp_path / "book").texts}) == 2


def test_a_glob_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b1.txt", "a1.txt", "a2.md"):
        _write(tmp_path / name, name)
    assert _contents(_read(tmp_path / "*.txt")) == ["a1.txt", "b1.txt"]


def test_a_glob_goes_into_folders_with_two_stars(tmp_path: Path) -> None:
    _write(tmp_path / "x" / "y" / "a.txt", "deep")
    assert _contents(_read(f"{tmp_path}/**/*.txt")) == ["deep"]


def test_a_file_with_brackets_in_its_name_is_no_glob(tmp_path: Path) -> None:
    assert _contents(_read(_write(tmp_path / "a[1].txt", "one"))) == ["one"]


def test_a_list_is_read_in_its_own_order(tmp_path: Path) -> None:
    b, a = _write(tmp_path / "b.txt", "b"), _write(tmp_path / "a.jsonl", '{"text": "a"}')
    assert _contents(_read(b, a)) == ["b", "a"]


def test_a_relative_source_is_looked_up_beside_the_recipe_first(tmp_path: Path) -> None:
    _write(Path("a.txt"), "here")
    _write(tmp_path / "recipes" / "a.txt", "beside")
    assert _contents(_read("a.txt", folder=tmp_path / "recipes")) == ["beside"]


def test_a_relative_source_that_is_not_beside_the_recipe_is_looked_up_here(tmp_path: Path) -> None:
    _write(Path("a.txt"), "here")
    assert _contents(_read("a.txt", folder=tmp_path)) == ["here"]


def test_a_path_that_is_not_there_suggests_the_nearest(tmp_path: Path) -> None:
    _write(Path("stories/a.txt"), "one")
    with pytest.raises(DataError, match=r"there is no file or folder '\./storise/'") as caught:
        _read("./storise/")
    assert (caught.value.code, caught.value.hint.split("  ")[0]) == (
        "no-such-text",
        "adapterkit train stories/",
    )


def test_a_recipe_without_a_source_says_what_to_set() -> None:
    with pytest.raises(DataError, match="names no text") as caught:
        _read("")
    assert "data.source" in caught.value.hint


# --- tables ---

ROWS = [{"id": 1, "text": 'one, "two"\nthree'}, {"id": 2, "text": "Müller"}]


def _table(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".jsonl":
        return _write(path, "\n".join(json.dumps(r) for r in ROWS) + "\n\n")
    if suffix == ".json":
        return _write(path, json.dumps(ROWS))
    if suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        return path
    part = "\t" if suffix == ".tsv" else ","
    return _write(path, f'id{part}text\r\n1{part}"one, ""two""\nthree"\r\n2{part}Müller\r\n')


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_a_row_of_a_table_is_a_text(tmp_path: Path, suffix: str) -> None:
    found = _read(_table(tmp_path, suffix))
    assert found.texts == [
        Text(f"rows{suffix}[0]", ROWS[0]["text"], is_row=True),
        Text(f"rows{suffix}[1]", "Müller", is_row=True),
    ]


def test_lines_of_json_may_be_plain_strings(tmp_path: Path) -> None:
    assert _contents(_read(_write(tmp_path / "a.jsonl", '"one"\n"two"\n'))) == ["one", "two"]


def test_a_separator_inside_a_json_string_is_no_line_end(tmp_path: Path) -> None:
    assert _contents(_read(_write(tmp_path / "a.jsonl", '{"text": "a\u2028b\u0085c"}\n'))) == [
        "a\u2028b\u0085c"
    ]


def test_the_column_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "text,joke\nno,yes\n")
    assert _contents(_read(path, text="joke")) == ["yes"]


@pytest.mark.parametrize("column", ["content", "story", "body"])
def test_columns_with_the_usual_names_are_found(tmp_path: Path, column: str) -> None:
    assert _contents(_read(_write(tmp_path / "a.csv", f"title,{column}\nno,yes\n"))) == ["yes"]


def test_the_only_column_of_words_is_found(tmp_path: Path) -> None:
    assert _contents(_read(_write(tmp_path / "a.jsonl", '{"n": 1, "verse": "yes"}'))) == ["yes"]


def test_a_table_without_a_text_column_names_its_columns(tmp_path: Path) -> None:
    path = _write(tmp_path / "jokes.csv", "setup,punchline,score\na,b,3\n")
    with pytest.raises(
        DataError, match=r"jokes\.csv has no column 'text'. It has: setup, punchline, score"
    ) as caught:
        _read(path)
    assert (caught.value.code, caught.value.details) == (
        "no-text-column",
        {"columns": ["setup", "punchline", "score"]},
    )


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'verse'\. It has: text"):
        _read(_write(tmp_path / "a.csv", "text\none\n"), text="verse")


def test_a_row_with_more_cells_than_columns_is_no_bug_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="setup, punchline"):
        _read(_write(tmp_path / "a.csv", "setup,punchline\na,b,c\n"))


def test_a_cell_may_be_a_novel(tmp_path: Path) -> None:
    novel = "word " * 60_000
    assert _contents(_read(_write(tmp_path / "a.csv", f'text\n"{novel}"\n'))) == [novel]


@pytest.mark.parametrize("line", ['{"text": "two"', "two", '{"text": "two"} x'])
def test_a_line_that_is_not_json_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = _write(tmp_path / "a.jsonl", f'{{"text": "one"}}\n\n{line}\n')
    with pytest.raises(DataError, match=r"a\.jsonl line 3 is not JSON"):
        _read(path)


def test_a_json_file_that_is_not_json_is_named_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json line 2 is not JSON"):
        _read(_write(tmp_path / "a.json", '[{"text": "one"},\n{"text": ]'))


@pytest.mark.parametrize("row", ["3", "null", "[1, 2]", "true"])
def test_a_row_that_is_no_object_is_named(tmp_path: Path, row: str) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl"):
        _read(_write(tmp_path / "a.jsonl", f"{row}\n{row}\n"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"text": "one"}', "{}"),
        ('{"text": "one"}', '{"text": null}'),
        ('{"text": "one"}', '{"body": "two"}'),
        ('{"body": "one"}', '"two"'),
    ],
)
def test_rows_without_text_are_not_passed_over_in_silence(tmp_path: Path, first: str, second: str) -> None:
    found = _read(_write(tmp_path / "a.jsonl", f"{first}\n{second}\n"))
    assert len(found.texts) == 2 or found.said or found.unreadable


def test_rows_of_a_table_have_one_kind_of_line_end(tmp_path: Path) -> None:
    assert _contents(_read(_write(tmp_path / "a.jsonl", '{"text": "a\\r\\nb"}'))) == ["a\nb"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_table_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / name)
    else:
        _write(tmp_path / name, "text\n" if name == "a.csv" else "\n")
    with pytest.raises(DataError, match=r"nothing to read in .*: it is empty"):
        _read(tmp_path / name)


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.parquet"):
        _read(_write(tmp_path / "a.parquet", b"PAR1 no more"))


# --- memory ---


def test_texts_from_memory_are_rows_of_their_own() -> None:
    found = read(DataSpec(), memory=Documents(["one", "two\r\n"], name="mine"))
    assert [(t.name, t.is_row) for t in found.texts] == [("mine[0]", True), ("mine[1]", True)]


def test_documents_take_any_iterable_once() -> None:
    held = Documents(c for c in "ab")
    assert (held.texts, repr(held)) == (["a", "b"], "Documents(2 texts, name='memory')")
