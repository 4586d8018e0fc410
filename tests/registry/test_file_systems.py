"""File systems that can't do everything, as synchronised and network drives: it works, and is said once."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterkit import files
from adapterkit.errors import AdapterKitError
from adapterkit.registry.store import Registry
from tests.registry import traced
from tests.registry.operations import everything, put

REFUSALS = ("ENOTSUP", "ENOSYS", "EPERM", "EINVAL")


@pytest.fixture(autouse=True)
def _not_said_yet() -> Iterator[None]:
    files._say_once.cache_clear()
    yield
    files._say_once.cache_clear()


def refusing(name: str, is_meant: Callable[[Any], bool] = lambda _: True) -> Callable[..., Any]:
    """An ``os`` function that answers with an error of that name where it is meant."""
    number = getattr(errno, name)

    def make(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            if is_meant(first):
                raise OSError(number, os.strerror(number))
            return real(first, *args, **kwargs)

        return call

    return make


def is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


WITHOUT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "fsync of a folder": ("fsync", is_folder),
    "fsync of a file": ("fsync", lambda fd: not is_folder(fd)),
    "chmod": ("chmod", lambda _: True),
    "link": ("link", lambda _: True),
}
CASES = [(what, answer) for what in WITHOUT for answer in REFUSALS]


def take_away(monkeypatch: pytest.MonkeyPatch, what: str, answer: str) -> None:
    call, is_meant = WITHOUT[what]
    monkeypatch.setattr(os, call, refusing(answer, is_meant)(getattr(os, call)))


@pytest.mark.parametrize(("what", "answer"), CASES)
def test_everything_works_without_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, answer: str
) -> None:
    take_away(monkeypatch, what, answer)
    assert everything(registry, tmp_path / "away") == ["rouge@1", "rouge@2", "noir@1"]


@pytest.mark.parametrize("what", ["fsync of a folder", "fsync of a file", "chmod"])
def test_what_is_missing_is_said_once(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    take_away(monkeypatch, what, "ENOTSUP")
    with caplog.at_level(logging.WARNING, "adapterkit"):
        everything(registry, tmp_path / "away")
    assert [r.getMessage() for r in caplog.records if "file system" in r.getMessage()] == [
        r.getMessage() for r in caplog.records
    ]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("answer", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("what", ["fsync of a folder", "fsync of a file"])
def test_a_disk_that_fails_is_not_taken_for_one_that_can_not(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, answer: str
) -> None:
    put(registry, "noir", 1)
    take_away(monkeypatch, what, answer)
    with pytest.raises(AdapterKitError, match="disk"):
        registry.alias("noir@1", "prod")


# --- whole processes -------------------------------------------------------------

FSYNC, MODES = ("fsync", "fdatasync"), ("chmod", "fchmod", "fchmodat", "fchmodat2")
LINKS = ("link", "linkat")
QUICK = "--epochs 1 --max-length 64 --tokens-per-step 512 --max-new-tokens 4 --device cpu --precision fp32"


class Drive:
    """The command line on a drive that knows neither fsync nor chmod nor links."""

    def __init__(self, folder: Path, error: str) -> None:
        self.answers = {error: (*FSYNC, *MODES, *LINKS)}
        self.log, self.refused = folder / "calls", 0

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One command; it has to succeed, and may say of each thing once that it is missing."""
        done = traced.whole([sys.executable, "-m", "adapterkit", *words], self.answers, self.log)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        said = [line for line in done.stderr.splitlines() if "file system can't" in line]
        assert len(said) == len(set(said)), said
        refused = self.log.read_text().count("INJECTED")
        assert bool(said) <= bool(refused)
        self.refused += refused
        return done


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EOPNOTSUPP", "ENOSYS", "EPERM"])
def test_the_command_line_works_where_the_system_itself_refuses(
    error: str, tiny_base: Path, text_file: Path, tmp_path: Path
) -> None:
    if why := traced.missing():
        pytest.skip(why)
    drive = Drive(tmp_path, error)
    drive("train", text_file.name, "--base", str(tiny_base), "--name", "noir", *QUICK.split())
    done = drive("alias", "noir@1", "prod")
    assert "file system can't" in done.stderr
    drive("pack", "noir@prod", "--to", "away")
    drive("rename", "noir", "rouge")
    drive("import", "away/noir-1.adapter.safetensors", "--name", "noir-2")
    drive("delete", "rouge@1", "--force")
    drive("restore", "rouge@1")
    drive("delete", "rouge@1")
    drive("gc", "--now")
    drive("verify")
    assert drive.refused > 40
    assert [v.ref for v in Registry().versions()] == ["noir-2@1"]
