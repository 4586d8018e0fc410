"""Whole files: write-then-rename, torn lines, staging, a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from adapterkit import files
from adapterkit.errors import Damaged, OutOfSpace


def _fail(number: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_canonical_json_is_sorted_tight_utf8() -> None:
    assert files.canonical_json({"b": 1, "a": ["ä", None]}) == '{"a":["ä",null],"b":1}'.encode()


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical_json({"loss": float("nan")})


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = b"x" * (files.CHUNK + 3)
    (tmp_path / "f").write_bytes(data)
    assert files.sha256_file(tmp_path / "f") == files.sha256_bytes(data)


def test_sha256_of_nothing_is_the_known_one() -> None:
    assert files.sha256_bytes(b"").startswith("e3b0c44298fc1c14")


def test_write_whole_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_write_whole_sets_the_mode(tmp_path: Path) -> None:
    files.write_whole(tmp_path / "f", b"", mode=0o444)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o444


def test_a_failed_write_keeps_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", _fail(errno.EIO))
    with pytest.raises(Damaged, match=r"the disk of .*/f failed \(Input/output error\)"):
        files.write_whole(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == {"f": b"old"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", _fail(number))
    with pytest.raises(OutOfSpace, match=r"no space left on the disk of .*/f \(.* free\)"):
        files.write_whole(tmp_path / "f", b"new")


def test_another_disk_error_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.writing(tmp_path):
        (tmp_path / "absent").read_bytes()


def test_appended_lines_come_back_in_order(tmp_path: Path) -> None:
    for n in (1, 2):
        files.append_line(tmp_path / "log", {"n": n})
    assert files.read_lines(tmp_path / "log") == [{"n": 1}, {"n": 2}]


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert files.read_lines(tmp_path / "log") == []


def test_a_line_torn_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"n":1}\n{"n":2}\n{"n":"\xc3')
    assert files.read_lines(tmp_path / "log") == [{"n": 1}, {"n": 2}]


def test_a_record_appended_after_a_torn_line_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"n":1}\n{"n":')
    files.append_line(tmp_path / "log", {"n": 3})
    assert files.read_lines(tmp_path / "log") == [{"n": 1}, {"n": 3}]


def test_a_staging_folder_is_removed_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.staged(tmp_path) as folder:  # noqa: PT012
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list((tmp_path / ".staging").iterdir()) == []


def test_a_staging_folder_that_was_renamed_away_stays(tmp_path: Path) -> None:
    with files.staged(tmp_path) as folder:
        (folder / "whole").write_text("x")
        folder.rename(tmp_path / "done")
    assert (tmp_path / "done" / "whole").read_text() == "x"


def test_sync_tree_makes_files_read_only_and_folders_removable(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_text("x")
    files.sync_tree(tmp_path / "a", file_mode=0o444)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "a").rglob("*")}
    assert modes == {"b": 0o755, "f": 0o444}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (1_180_000, "1.2 MB"),
        (548_000_000, "548 MB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_human_size_counts_in_thousands(size: float, expected: str) -> None:
    assert files.human_size(size) == expected


def test_the_home_folder_is_shown_as_a_tilde() -> None:
    home = Path.home()
    shown = [files.shown(p) for p in (home, home / "a", f"{home}-2", Path("a"))]
    assert shown == ["~", "~/a", f"{home}-2", "a"]


def test_human_size_never_shows_a_thousand_of_a_unit() -> None:
    assert files.human_size(999_950) == "1.0 MB"
