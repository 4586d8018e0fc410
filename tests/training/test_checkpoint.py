"""Checkpoints that are whole or not there."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from adapterkit.training import checkpoint
from adapterkit.training.checkpoint import MANIFEST, begin, commit, is_whole, newest, steps


def save(root: Path, step: int) -> Path:
    aside = begin(root, step)
    (aside / "weights").write_bytes(bytes(range(200)) * step)
    (aside / "told.json").write_text(json.dumps({"step": step}))
    return commit(aside)


def test_a_checkpoint_is_there_under_its_step_and_whole(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert save(root, 3) == root / "checkpoint-3"
    assert is_whole(root / "checkpoint-3")
    assert [p.name for p in root.iterdir()] == ["checkpoint-3"]


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 9, 10):
        save(tmp_path, step)
    assert steps(tmp_path) == [10, 9]


def test_one_that_was_not_committed_is_not_seen_and_gives_way(tmp_path: Path) -> None:
    save(tmp_path, 3)
    (begin(tmp_path, 5) / "weights").write_bytes(b"half")
    assert steps(tmp_path) == [3]
    assert list(begin(tmp_path, 5).iterdir()) == []


def test_a_damaged_one_is_written_again(tmp_path: Path) -> None:
    (save(tmp_path, 3) / "weights").write_bytes(b"torn")
    assert is_whole(save(tmp_path, 3))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path, pytest.fail) is None
    assert newest(tmp_path / "gone", pytest.fail) is None


def test_the_newest_whole_one_is_taken_and_the_damaged_are_told(tmp_path: Path) -> None:
    for step in (3, 6):
        save(tmp_path, step)
    (tmp_path / "checkpoint-6" / "weights").write_bytes(b"")
    told: list[str] = []
    assert newest(tmp_path, told.append) == tmp_path / "checkpoint-3"
    assert told == ["The checkpoint of step 6 is damaged, the one before is taken."]


def test_what_will_be_written_again_is_removed(tmp_path: Path) -> None:
    for step in (3, 6):
        save(tmp_path, step)
    checkpoint.drop_after(tmp_path, 3)
    assert steps(tmp_path) == [3]


@pytest.mark.parametrize("name", ["weights", "told.json", MANIFEST])
def test_any_byte_cut_or_changed_is_seen(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, 3)
    whole, draw = (folder / name).read_bytes(), random.Random(name)
    for _ in range(40):
        at = draw.randrange(len(whole))
        changed = bytearray(whole)
        changed[at] ^= 1 << draw.randrange(8)
        for damaged in (whole[:at], bytes(changed)):
            (folder / name).write_bytes(damaged)
            assert not is_whole(folder), (name, at)
    (folder / name).write_bytes(whole)
    assert is_whole(folder)


def test_a_file_too_many_or_too_few_is_seen(tmp_path: Path) -> None:
    (save(tmp_path, 3) / "more").write_bytes(b"")
    (save(tmp_path, 4) / "weights").unlink()
    assert newest(tmp_path, lambda line: None) is None


def test_a_folder_by_another_name_is_not_that_step(tmp_path: Path) -> None:
    save(tmp_path, 3).rename(tmp_path / "checkpoint-30")
    assert not is_whole(tmp_path / "checkpoint-30")
