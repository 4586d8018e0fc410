"""The streaming writer: the very bytes of the writer that holds everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterkit.errors import Damaged
from adapterkit.files import sha256_file
from adapterkit.registry import tensorfile
from adapterkit.sharing import pieces
from tests.versions import tensors


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.safetensors"
    tensorfile.write(path, tensors(0), pieces.PLAIN)
    return path


def test_the_same_bytes_as_the_plain_writer(whole: Path, tmp_path: Path) -> None:
    parts = pieces.of_header(whole, tensorfile.read_header(whole))
    pieces.write(tmp_path / "again", dict(reversed(parts.items())), pieces.PLAIN)
    assert (tmp_path / "again").read_bytes() == whole.read_bytes()


def test_what_is_measured_is_what_would_be_written(whole: Path) -> None:
    parts = pieces.of_header(whole, tensorfile.read_header(whole))
    assert pieces.measure(parts, pieces.PLAIN) == (whole.stat().st_size, sha256_file(whole))


def test_a_file_of_another_writer_is_not_canonical(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    tensorfile.write(other, tensors(0), {"format": "pt", "who": "me"})
    assert pieces.is_canonical(whole)
    assert not pieces.is_canonical(other)


def test_a_file_that_is_there_is_not_written_over(whole: Path) -> None:
    with pytest.raises(FileExistsError):
        pieces.write(whole, {}, pieces.PLAIN)


def test_a_file_that_becomes_shorter_is_damaged(whole: Path) -> None:
    parts = pieces.of_header(whole, tensorfile.read_header(whole))
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(Damaged, match="was cut while it was read"):
        pieces.measure(parts, pieces.PLAIN)
