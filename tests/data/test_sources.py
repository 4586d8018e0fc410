"""Text from files of many kinds, in a fixed order; what can't be read is named."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest

from adapterkit.data.prepare import prepare
from adapterkit.data.reading import decode
from adapterkit.data.sources import Documents, Read, read
from adapterkit.data.text import Text
from adapterkit.errors import DataError
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec

PLAY = "Der Müller\nsagte „nein“ – für 3 €.\n"


def _write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _listed(*sources: Path | str, folder: Path | None = None, **keys: Any) -> Read:
    named = [str(s) for s in sources]
    return read(DataSpec(source=named[0] if len(named) == 1 else named, **keys), folder)


class Done:
    """A source read to its end."""

    def __init__(self, found: Read) -> None:
        self.texts = list(found.texts())
        self.contents = [t.content for t in self.texts]
        self.names = [t.name for t in self.texts]
        self.said, self.unreadable, self.files = found.said, found.unreadable, found.files
        self.read = found


def _read(*sources: Path | str, folder: Path | None = None, **keys: Any) -> Done:
    return Done(_listed(*sources, folder=folder, **keys))


def _contents(found: Done) -> list[str]:
    return found.contents


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
    with pytest.raises(DataError, match=r"a\.txt can't be read \(.*\), nothing was trained") as caught:
        _listed(_write(tmp_path / "a.txt", raw))
    assert caught.value.code == "unreadable-text"
    assert caught.value.hint


# --- several files ---


def test_a_folder_is_read_whole_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "c/d.txt"):
        _write(tmp_path / "tales" / name, name)
    assert _contents(_read(tmp_path / "tales")) == ["a.md", "b.txt", "c/d.txt"]


def test_what_is_not_text_in_a_folder_is_left_out_by_name(tmp_path: Path) -> None:
    for name in ("a.txt", "cover.jpg", "~$ch3.docx", "notes.rst"):
        _write(tmp_path / "tales" / name, "one")
    _write(tmp_path / "tales" / "cache.bin2", b"\0\1\2")
    found = _read(tmp_path / "tales")
    assert found.contents == ["one"]
    assert found.unreadable == [
        "cache.bin2 (not text)",
        "cover.jpg (not text)",
        "notes.rst (.rst is no ending of a text)",
        "~$ch3.docx (a lock file of Word)",
    ]


def test_more_than_four_left_out_are_counted_all_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    for i in range(6):
        _write(tmp_path / "tales" / f"{i}.jpg", "")
    found = _read(tmp_path / "tales")
    assert len(found.unreadable) == 6
    said = prepare(DataSpec(source=str(tmp_path / "tales")), tokenizer, 64, strict=False).said
    assert "  left out: 0.jpg (not text), 1.jpg (not text), 2.jpg (not text), 3.jpg (not text), ..." in said


@pytest.mark.parametrize("name", ["notes.pdf", "notes.RTF", "notes.doc", "x.pages", "x.wpd"])
def test_writing_that_cannot_be_read_stops_everything(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    _write(tmp_path / "tales" / name, "two")
    with pytest.raises(DataError, match=rf"1 of 2 files can't be read: {name} \(.+\); nothing was") as caught:
        _listed(tmp_path / "tales")
    assert caught.value.code == "unreadable-text"
    assert caught.value.hint == "save them as .docx or .txt, or leave them out: --skip-unreadable"


def test_many_files_that_cannot_be_read_are_counted_by_kind(tmp_path: Path) -> None:
    for name in (*(f"{i}.txt" for i in range(11)), "a.pdf", "b.pdf", "c.rtf"):
        _write(tmp_path / "tales" / name, "one")
    with pytest.raises(DataError) as caught:
        _listed(tmp_path / "tales")
    assert caught.value.message == "3 of 14 files can't be read (.pdf 2, .rtf 1), nothing was trained."


def test_files_that_cannot_be_read_are_left_out_when_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("a.txt", "b.pdf", "c.docx"):
        _write(tmp_path / "tales" / name, "one")
    found = _read(tmp_path / "tales", skip_unreadable=True)
    assert (found.contents, found.files) == (["one"], 1)
    assert found.unreadable == ["b.pdf (PDF)", "c.docx (damaged, no docx file)"]


def test_a_file_named_by_itself_is_never_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"notes\.pdf can't be read \(PDF\)"):
        _listed(_write(tmp_path / "notes.pdf", "one"), skip_unreadable=True)


def test_a_picture_named_by_itself_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cover\.jpg can't be read \(not text\)") as caught:
        _listed(_write(tmp_path / "cover.jpg", "one"))
    assert ".docx" in caught.value.hint


def test_a_lone_file_in_a_folder_goes_by_its_ending_like_any_other(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.rst", "one")
    with pytest.raises(DataError, match=r"nothing to read in .*tales: a\.rst \(\.rst is no ending"):
        _listed(tmp_path / "tales")


def test_a_binary_file_with_an_ending_of_text_stops_everything(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    _write(tmp_path / "tales" / "b.txt", b"\0\1\2\3" * 10)
    with pytest.raises(DataError, match=r"1 of 2 files can't be read: b\.txt \(binary data\)"):
        _listed(tmp_path / "tales")


def test_bytes_that_go_wrong_only_later_stop_everything_when_they_are_met(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    _write(tmp_path / "tales" / "b.txt", b"word " * 2000 + b"\0" * 2000)
    found = _listed(tmp_path / "tales")
    with pytest.raises(DataError, match=r"b\.txt \(binary data\)"):
        list(found.texts())


def test_bytes_that_go_wrong_only_later_are_left_out_when_that_is_asked_for(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    _write(tmp_path / "tales" / "b.txt", b"word " * 2000 + b"\0" * 2000)
    found = _read(tmp_path / "tales", skip_unreadable=True)
    assert (found.contents, found.unreadable, found.files) == (["one"], ["b.txt (binary data)"], 1)


def test_a_file_without_permission_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal of the system is played."""
    real = Path.open

    def refuse(path: Path, *args: Any, **keys: Any) -> Any:
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **keys)

    for name in ("a.txt", "b.txt"):
        _write(tmp_path / "tales" / name, "one")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"b\.txt \(no permission to read it\)"):
        _listed(tmp_path / "tales")


def test_a_file_that_vanishes_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "one")
    found = _listed(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.txt can't be read \(it is gone\)"):
        list(found.texts())


def test_an_empty_file_among_others_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    _write(tmp_path / "tales" / "b.txt", "")
    assert _read(tmp_path / "tales").unreadable == ["b.txt (empty)"]


def test_an_empty_file_by_itself_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to read in .*a\.txt: it is empty"):
        _listed(_write(tmp_path / "a.txt", ""))


def test_pipes_and_sockets_are_named_and_never_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    _write(folder / "a.txt", "one")
    os.mkfifo(folder / "pipe.txt")
    held = socket.socket(socket.AF_UNIX)
    held.bind(os.path.relpath(folder / "s.txt"))
    found = _read(folder)
    held.close()
    assert found.unreadable == ["pipe.txt (no regular file)", "s.txt (no regular file)"]


def test_a_pipe_named_by_itself_is_refused_with_the_way_to_read_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is neither a file nor a folder") as caught:
        _listed(tmp_path / "pipe")
    assert "adapterkit train - < " in caught.value.hint


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    folder = tmp_path / "tales"
    _write(folder / "sub" / "a.txt", "one")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "sub" / "self").symlink_to(folder / "sub")
    (folder / "itself.txt").symlink_to(folder / "itself.txt")
    found = _listed(folder, skip_unreadable=True)
    assert [t.name for t in found.texts()] == ["sub/a.txt"]
    assert _read(f"{folder}/**/*.txt").names == ["a.txt"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    _write(tmp_path / "elsewhere" / "a.txt", "one")
    (tmp_path / "tales").mkdir()
    (tmp_path / "tales" / "linked").symlink_to(tmp_path / "elsewhere")
    assert _read(tmp_path / "tales").contents == ["one"]


def test_a_file_that_is_met_twice_is_read_once_and_that_is_said(tmp_path: Path) -> None:
    path = _write(tmp_path / "tales" / "a.txt", "one")
    found = _read(path, tmp_path / "tales")
    assert (found.contents, found.said) == (["one"], ["a.txt is a.txt again, and read once"])


def test_files_of_one_name_from_two_sources_have_names_of_their_own(tmp_path: Path) -> None:
    one, two = _write(tmp_path / "1" / "a.txt", "one"), _write(tmp_path / "2" / "a.txt", "two")
    assert _read(one, two).names == ["a.txt", "a.txt (2)"]


def test_a_name_of_undecodable_bytes_can_be_printed(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / os.fsdecode(b"caf\xe9.txt"), "one")
    (name,) = _read(tmp_path / "tales").names
    assert name == "caf\\udce9.txt"
    name.encode()


def test_a_name_that_only_looks_as_if_it_had_an_ending_is_text(tmp_path: Path) -> None:
    for name in ("Chapter 1.5", "2. The sea", "Mr. Smith"):
        _write(tmp_path / "tales" / name, name)
    assert _read(tmp_path / "tales").contents == ["2. The sea", "Chapter 1.5", "Mr. Smith"]


def test_no_name_says_anything_of_this_machine(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "x" / "a.txt", "one")
    _write(tmp_path / "tales" / "x" / "b.csv", "text\none\n")
    _write(tmp_path / "tales" / "c.pdf", "one")
    found = _read(tmp_path / "tales", skip_unreadable=True)
    assert found.names == ["x/a.txt", "x/b.csv[0]"]
    assert str(tmp_path) not in repr((found.said, found.unreadable, found.texts))


def test_the_format_of_the_recipe_goes_before_the_ending(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.rst", "text\none\n")
    _write(tmp_path / "tales" / "b.txt", "text\ntwo\n")
    assert _read(tmp_path / "tales", format="csv").contents == ["one", "two"]


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
    with pytest.raises(
        DataError, match=r"nothing to read in .*tales: cover\.jpg \(not text\), map\.png \(not text\)"
    ):
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


@pytest.mark.parametrize("source", ["word " * 2000, "~nobody-of-that-name/a.txt", "a\0b.txt", "[", "**"])
def test_a_source_that_can_be_no_path_is_not_there(source: str) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        _listed(source)


def test_a_link_to_nothing_stops_everything(tmp_path: Path) -> None:
    _write(tmp_path / "tales" / "a.txt", "one")
    (tmp_path / "tales" / "b.txt").symlink_to(tmp_path / "gone")
    (tmp_path / "tales" / "c.jpg").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"1 of 2 files can't be read: b\.txt \(it is gone\)"):
        _listed(tmp_path / "tales")


def test_a_folder_that_may_not_be_looked_into_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    _write(tmp_path / "tales" / "a.txt", "one")
    _write(tmp_path / "tales" / "closed" / "b.txt", "two")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"closed \(no permission to look into it\)"):
        _listed(tmp_path / "tales")


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


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'verse'\. It has: text"):
        _read(_write(tmp_path / "a.csv", "text\none\n"), text="verse")


def test_a_row_with_more_cells_than_columns_is_no_bug_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 1 rows of a\.csv is malformed: line 2 \(3 cells for 2"):
        _read(_write(tmp_path / "a.csv", "setup,punchline\na,b,c\n"))


def test_a_cell_may_be_a_novel(tmp_path: Path) -> None:
    novel = "word " * 60_000
    assert _contents(_read(_write(tmp_path / "a.csv", f'text\n"{novel}"\n'))) == [novel]


@pytest.mark.parametrize("line", ['{"text": "two"', "two", '{"text": "two"} x'])
def test_a_line_that_is_not_json_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = _write(tmp_path / "a.jsonl", f'{{"text": "one"}}\n\n{line}\n')
    with pytest.raises(DataError, match=r"1 of 2 rows of a\.jsonl is malformed: line 3 \(not JSON"):
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
        ('{"text": "one"}', '{"body": 2}'),
        ('{"body": "one"}', '"two"'),
    ],
)
def test_rows_without_text_are_not_passed_over_in_silence(tmp_path: Path, first: str, second: str) -> None:
    found = _read(_write(tmp_path / "a.jsonl", f"{first}\n{second}\n"))
    assert len(found.texts) + found.read.without_text == 2


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
    found = Done(read(DataSpec(), memory=Documents(["one", "two\r\n", "\ud83d"], name="mine")))
    assert (found.names, found.contents) == (["mine[0]", "mine[1]", "mine[2]"], ["one", "two\n", "\ufffd"])
    assert all(t.is_row for t in found.texts)


def test_documents_take_any_iterable_once() -> None:
    held = Documents(c for c in "ab")
    assert (held.texts, repr(held)) == (["a", "b"], "Documents(2 texts, name='memory')")


def test_only_takes_the_place_of_everything_else(tmp_path: Path) -> None:
    path = _write(tmp_path / "test.txt", "held out")
    found = Done(read(DataSpec(source="gone"), memory=Documents(["one"]), only=str(path)))
    assert (found.contents, found.read.name) == (["held out"], str(path))


# --- stdin ---


def _pipe(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))


def test_stdin_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    _pipe(monkeypatch, PLAY.encode("cp1252"))
    found = _read("-")
    assert (found.contents, found.names, found.read.name) == ([PLAY], ["stdin"], "stdin")
    assert found.said == ["stdin was read as Windows-1252, as it is not UTF-8"]


def test_stdin_is_kept_for_the_texts_after_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    _pipe(monkeypatch, b"one")
    found = _listed("-")
    first = found.fingerprint()
    assert ([t.content for t in found.texts()], found.fingerprint()) == (["one"], first)


def test_stdin_is_read_in_the_format_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    _pipe(monkeypatch, b'{"text": "one"}')
    assert _read("-", format="jsonl").contents == ["one"]


def test_an_empty_stdin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _pipe(monkeypatch, b"")
    with pytest.raises(DataError, match="nothing to read in stdin: it is empty"):
        _read("-")


# --- large files ---


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files over 1,000 bytes count as large."""
    monkeypatch.setattr(decode, "LARGE", 1000)
    monkeypatch.setattr(decode, "PIECE", 100)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("packed", [False, True])
def test_a_large_text_comes_in_pieces_that_go_on(tmp_path: Path, packed: bool) -> None:
    text = "Der Müller sagte „nein“.\r\n" * 200
    raw = text.encode()
    path = _write(tmp_path / ("a.txt.gz" if packed else "a.txt"), gzip.compress(raw) if packed else raw)
    found = _read(path)
    assert "".join(found.contents) == text.replace("\r\n", "\n")
    assert [t.goes_on for t in found.texts] == [True] * (len(found.texts) - 1) + [False]
    assert len(found.texts) > 20
    assert set(found.names) == {path.name}


@pytest.mark.usefixtures("small_pieces")
def test_a_large_gz_that_breaks_off_is_an_error_even_if_files_may_be_left_out(tmp_path: Path) -> None:
    """Some of it is learned by then, so it can't be left out any more."""
    whole = gzip.compress(os.urandom(3000).hex().encode())
    _write(tmp_path / "tales" / "a.txt.gz", whole[:-100])
    with pytest.raises(DataError, match=r"a\.txt\.gz \(damaged, it breaks off\)"):
        _read(tmp_path / "tales", skip_unreadable=True)


# --- fingerprint ---


def test_the_fingerprint_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        _write(tmp_path / folder / "a.txt", "one")
    assert _listed(tmp_path / "one").fingerprint() == _listed(tmp_path / "two").fingerprint()


@pytest.mark.parametrize(("name", "content"), [("b.txt", "one"), ("a.txt", "two"), ("a.txt", "one\n")])
def test_the_fingerprint_changes_with_names_and_bytes(tmp_path: Path, name: str, content: str) -> None:
    _write(tmp_path / "one" / "a.txt", "one")
    _write(tmp_path / "two" / name, content)
    assert _listed(tmp_path / "one").fingerprint() != _listed(tmp_path / "two").fingerprint()


def test_the_fingerprint_of_texts_in_memory_does_not_run_them_together() -> None:
    one, two = (read(DataSpec(), memory=Documents(texts)) for texts in (["ab", "c"], ["a", "bc"]))
    assert one.fingerprint() != two.fingerprint()


def test_the_fingerprint_of_a_zip_is_that_of_its_bytes(tmp_path: Path) -> None:
    for folder, content in (("1", "one"), ("2", "two")):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / "a.zip", "w") as archive:
            archive.writestr("a.txt", content)
    prints = {_listed(tmp_path / folder).fingerprint() for folder in ("1", "2")}
    assert len(prints) == 2


# --- what is said ---


def test_many_files_of_one_encoding_are_one_remark(tmp_path: Path) -> None:
    for i in range(5):
        _write(tmp_path / "tales" / f"{i}.txt", "Müller".encode("cp1252"))
    assert _read(tmp_path / "tales").said == [
        "5 files were read as Windows-1252, as they are not UTF-8: 0.txt and others"
    ]


def test_alike_tables_are_one_remark(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        _write(tmp_path / "tales" / name, "question,answer\nWhy?,Because.\n")
    found = _read(tmp_path / "tales")
    assert len(found.said) == 1
    assert found.said[0].startswith("a.csv and 1 more: ")
    assert found.read.resolved["completion"] == "answer"


@pytest.mark.data
def test_speeches_of_two_encodings_are_read_from_their_zips() -> None:
    found = _read(f"{os.environ['ADAPTERKIT_DATA']}/nltk-speeches/*.zip")
    assert (found.files, len(found.said)) == (2127, 1)
    assert "Windows-1252" in found.said[0]
    assert "inaugural.zip/inaugural/1789-Washington.txt" in found.names
    assert "\ufffd" not in "".join(found.contents)


@pytest.mark.data
def test_three_formats_of_one_book_hold_the_same_verses() -> None:
    folder = f"{os.environ['ADAPTERKIT_DATA']}/kjv"
    assert _read(f"{folder}/kjv.jsonl").contents == _read(f"{folder}/kjv.parquet").contents


def test_json_lines_in_a_text_file_are_told(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.txt", '{"text": "one"}\n{"text": "two"}\n')
    assert any("--data-format jsonl" in line for line in _read(path).read.said)
