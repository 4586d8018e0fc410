"""gz and zip: read as if unpacked, guarded against what is made to fill a disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from adapterkit.data.reading import archives
from adapterkit.data.sources import Read, read
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec


def _listed(path: Path, *, skip: bool = False) -> Read:
    return read(DataSpec(source=str(path), skip_unreadable=skip))


def _texts(path: Path) -> dict[str, str]:
    return {t.name: t.content for t in _listed(path).texts()}


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _gz(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


# --- gz ---


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("a.txt.gz", b"one", ["a.txt.gz"]),
        ("A.TXT.GZ", b"one", ["A.TXT.GZ"]),
        ("a.gz", b"one", ["a.gz"]),
        ("a.jsonl.gz", b'{"text": "one"}', ["a.jsonl.gz[0]"]),
        ("a.csv.gz", b"text\none\n", ["a.csv.gz[0]"]),
        ("a.html.gz", b"<p>one</p>", ["a.html.gz"]),
    ],
)
def test_a_gz_is_read_by_the_ending_before_it(
    tmp_path: Path, name: str, content: bytes, names: list[str]
) -> None:
    assert _texts(_gz(tmp_path / name, content)) == dict.fromkeys(names, "one")


def test_a_parquet_file_may_be_packed(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    held = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["one"]}), held)
    assert _texts(_gz(tmp_path / "a.parquet.gz", held.getvalue())) == {"a.parquet.gz[0]": "one"}


def test_a_gz_that_breaks_off_is_named(tmp_path: Path) -> None:
    path = _gz(tmp_path / "a.txt.gz", bytes(range(32, 120)) * 500)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.txt\.gz can't be read \(damaged, it breaks off\)"):
        _texts(path)


def test_a_gz_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_text("one")
    with pytest.raises(DataError, match=r"a\.txt\.gz can't be read \(damaged, it can't be unpacked\)"):
        _texts(tmp_path / "a.txt.gz")


def test_a_gz_made_to_fill_a_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1 << 16)
    path = _gz(tmp_path / "a.txt.gz", b"a line\n" * (1 << 18))
    with pytest.raises(DataError, match="it unpacks to over 200 times its size"):
        _texts(path)


@pytest.mark.parametrize("name", ["a.pdf.gz", "a.zip.gz", "a.tar.gz", "a.tgz"])
def test_what_is_in_a_gz_must_be_text_too(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} can't be read"):
        _texts(_gz(tmp_path / name, b"one"))


# --- zip ---


def test_a_zip_is_read_like_a_folder_in_the_order_of_its_names(tmp_path: Path) -> None:
    files = {"b/2.txt": b"two", "a.csv": b"text\none\n", "c.txt.gz": gzip.compress(b"three")}
    found = _texts(_zip(tmp_path / "all.zip", files))
    assert found == {"all.zip/a.csv[0]": "one", "all.zip/b/2.txt": "two", "all.zip/c.txt.gz": "three"}


def test_what_a_system_hides_in_a_zip_is_no_part_of_it(tmp_path: Path) -> None:
    files = {"a.txt": b"one", "__MACOSX/a.txt": b"x", ".hidden": b"x", "b/.c/d.txt": b"x", "empty/": b""}
    assert _texts(_zip(tmp_path / "all.zip", files)) == {"all.zip/a.txt": "one"}


def test_pictures_and_zips_in_a_zip_are_named(tmp_path: Path) -> None:
    found = _listed(_zip(tmp_path / "all.zip", {"a.txt": b"one", "b.jpg": b"x", "c.zip": b"x"}))
    assert found.unreadable == ["all.zip/b.jpg (not text)", "all.zip/c.zip (a zip in a zip)"]


def test_writing_in_a_zip_that_cannot_be_read_stops_everything(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 2 files can't be read: all\.zip/b\.pdf \(PDF\)"):
        _listed(_zip(tmp_path / "all.zip", {"a.txt": b"one", "b.pdf": b"x"}))


def test_a_zip_of_only_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to read in .*all\.zip: all\.zip/a\.png \(not text\)"):
        _listed(_zip(tmp_path / "all.zip", {"a.png": b"x"}))


def test_an_empty_zip_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to read in .*all\.zip: it is empty"):
        list(_listed(_zip(tmp_path / "all.zip", {})).texts())


def test_a_member_with_a_password_stops_everything(tmp_path: Path) -> None:
    path = _zip(tmp_path / "all.zip", {"a.txt": b"one", "b.txt": b"two"})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")  # what the directory says of the last member
    raw[at + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"all\.zip/b\.txt \(it has a password\)"):
        _listed(path)
    assert _listed(path, skip=True).unreadable == ["all.zip/b.txt (it has a password)"]


def test_a_zip_that_is_none_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.zip").write_text("two")
    with pytest.raises(DataError, match=r"b\.zip \(a damaged zip\)"):
        _listed(tmp_path)


def test_a_member_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = _zip(tmp_path / "all.zip", {"a.txt": bytes(range(32, 120)) * 9, "b.txt": b"two"})
    raw = bytearray(path.read_bytes())
    raw[60] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"all\.zip/a\.txt \("):
        list(_listed(path).texts())


def test_a_member_made_to_fill_a_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1 << 16)
    path = _zip(tmp_path / "all.zip", {"a.txt": b"a line\n" * (1 << 18)})
    with pytest.raises(DataError, match="it unpacks to over 200 times its size"):
        _listed(path)


def test_a_zip_packed_in_an_unknown_way_is_named(tmp_path: Path) -> None:
    path = _zip(tmp_path / "all.zip", {"a.txt": b"one"})
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = raw.index(mark) + offset
        raw[at : at + 2] = b"\x63\0"
    path.write_bytes(raw)
    with pytest.raises(DataError, match="packed in a way that is not known here"):
        _listed(path)


def test_a_zip_next_to_other_files_has_its_place_among_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    _zip(tmp_path / "b.zip", {"x.txt": b"two"})
    (tmp_path / "c.txt").write_text("three")
    assert list(_texts(tmp_path)) == ["a.txt", "b.zip/x.txt", "c.txt"]


def test_other_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
    assert _listed(tmp_path).unreadable == ["b.tar.gz (an archive)"]


def test_a_stream_that_is_damaged_inside_is_no_bug_of_ours() -> None:
    with pytest.raises(DataError, match="damaged"), archives.problems():
        raise zlib.error("invalid distance")
