"""``verify`` and ``gc``: what they find and free, and what they leave."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterkit.cache import text_folder
from adapterkit.registry import runs
from adapterkit.registry.keeping import UNDO_DAYS
from adapterkit.registry.runs import Run
from adapterkit.registry.store import Registry
from adapterkit.registry.version import DELETED
from tests.cli.test_browser import on_a_terminal
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    return registry


def damage(path: Path) -> None:
    mode = path.stat().st_mode
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.chmod(path, mode)


def sizes(text: str) -> str:
    return re.sub(r"\d+(\.\d)? k?B", "N B", text)


# --- verify -----------------------------------------------------------------------


def test_a_sound_registry_says_so(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "shanty")
    code, out, err = cli("verify")
    assert (code, sizes(out), err) == (0, "2 versions, N B: every byte is as it was published.\n", "")


def test_a_sound_registry_quietly_says_nothing(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("verify", "-q") == (0, "", "")


def test_a_changed_file_is_a_line_on_stdout_and_ends_with_3(cli: Cli, here: Registry) -> None:
    damage(publish(here, "noir").path / "README.md")
    publish(here, "shanty")
    code, out, err = cli("verify")
    assert (code, err, out.count("\n")) == (3, "", 1)
    assert out.startswith("noir@1 is damaged: README.md is not the file that was published (sha256 ")
    assert out.rstrip().endswith("adapterkit train --repeat noir@1")


def test_quietly_a_problem_is_still_told(cli: Cli, here: Registry) -> None:
    damage(publish(here, "noir").path / "README.md")
    assert cli("verify", "-q")[1].startswith("noir@1 is damaged: ")


def test_a_torn_manifest_a_changed_file_and_a_lost_alias_are_three_lines(cli: Cli, here: Registry) -> None:
    (torn := publish(here, "noir").path / "manifest.json").chmod(0o644)
    torn.write_text("{")
    damage(publish(here, "shanty").path / "adapter_model.safetensors")
    publish(here, "ledger")
    here.alias("ledger@1", "prod")
    damage(here.path / "ledger" / "aliases" / "prod")
    code, out, _ = cli("verify")
    assert (code, [line.split(" is ")[0] for line in out.splitlines()]) == (
        3, ["noir@1", "the alias 'prod' of ledger", "shanty@1"],
    )  # fmt: skip


def test_only_the_versions_named_are_looked_at(cli: Cli, here: Registry) -> None:
    damage(publish(here, "noir").path / "README.md")
    publish(here, "shanty")
    assert cli("verify", "shanty")[0] == 0
    assert cli("verify", "noir", "shanty")[0] == 3


def test_a_deleted_version_is_looked_at_and_one_without_files_is_not(cli: Cli, here: Registry) -> None:
    damage(publish(here, "noir").path / "README.md")
    here.delete("noir@1")
    assert cli("verify")[0] == 3
    here.gc(now=True)
    assert cli("verify")[0] == 0


def test_a_version_that_may_not_be_read_is_a_problem_beside_the_others(
    cli: Cli, here: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(here, "noir")
    publish(here, "shanty")
    real = Path.open

    def refused(self: Path, *args: Any, **more: Any) -> Any:
        if "noir" in self.parts and self.name == "README.md":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, *args, **more)

    monkeypatch.setattr(Path, "open", refused)
    code, out, _ = cli("verify")
    assert (code, out.count("\n"), out.split(":")[0]) == (3, 1, "noir@1 can't be read")


def test_an_unknown_name_is_refused_before_anything_is_read(cli: Cli, here: Registry) -> None:
    publish(here, "shanty")
    code, out, err = cli("verify", "shnty")
    assert (code, out, "adapterkit verify shanty" in err) == (1, "", True)


def test_verify_as_json(cli: Cli, here: Registry) -> None:
    damage(publish(here, "noir").path / "README.md")
    code, out, _ = cli("verify", "--json")
    told = json.loads(out)
    assert (code, told["schema"], told["verified"]) == (3, 1, 1)
    only = told["problems"][0]
    assert set(only) == {"ref", "what", "hint", "code", "path", "can_be_mended"}
    assert (only["ref"], only["code"], only["can_be_mended"]) == ("noir@1", "damaged", False)


def test_a_terminal_sees_a_bar_when_it_takes_long(
    here: Registry, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from adapterkit.cli import upkeep

    publish(here, "noir")
    monkeypatch.setattr(upkeep, "LONG", 1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert upkeep.problems(here, upkeep.with_files(here), False, whole=True) == []
    assert "checking" in capfd.readouterr().err


def test_off_a_terminal_there_is_no_bar(here: Registry, tmp_path: Path) -> None:
    publish(here, "noir")
    told = on_a_terminal(["verify"], {"ADAPTERKIT_REGISTRY": str(here.path)})  # stderr is a pipe there
    assert "checking" not in told


# --- gc ------------------------------------------------------------------------------


def test_nothing_to_remove(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("gc") == (0, "Nothing to remove.\n", "")


def aged(v_path: Path, days: float) -> None:
    moment = time.time() - days * 86400
    os.utime(v_path / DELETED, (moment, moment))


def test_a_version_deleted_long_ago_goes_and_its_bytes_are_told(cli: Cli, here: Registry) -> None:
    v = publish(here, "noir")
    here.delete("noir")
    aged(v.path, UNDO_DAYS + 1)
    code, out, err = cli("gc")
    assert (code, sizes(out), err) == (0, "removed noir@1, N B\nN B freed\n", "")
    assert sorted(p.name for p in v.path.iterdir()) == ["collected", "manifest.json"]


def test_a_dry_run_removes_nothing(cli: Cli, here: Registry) -> None:
    v = publish(here, "noir")
    here.delete("noir")
    aged(v.path, UNDO_DAYS + 1)
    assert sizes(cli("gc", "--dry-run")[1]) == "would remove noir@1, N B\nN B would be freed\n"
    assert (v.path / "README.md").exists()


KEPT = """\
kept noir@1: deleted just now, to be restored for 7 more days (--now removes it)
Nothing to remove.
"""


def test_a_version_just_deleted_is_kept_with_the_reason_and_the_flag(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    here.delete("noir")
    code, out, err = cli("gc")
    assert (code, out) == (0, KEPT)
    assert sizes(err) == "· N B more would go with adapterkit gc --now\n"


def test_the_flag_that_is_told_frees_as_much_as_told(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    here.delete("noir")
    said = json.loads(cli("gc", "--json")[1])["more"]["--now"]
    assert said == json.loads(cli("gc", "--now", "--json")[1])["bytes"]


def begin_run(store: Registry) -> Run:
    made_from = "a" * 64
    run = Run(
        name="noir", made_from=made_from, text="", given={}, recipe={}, origins={}, folder=None, source="x.txt",
        note="", is_fresh=False, after=0, begun=runs.now(), saved=runs.now(), steps=10,
        path=runs.place(store.path, "noir", made_from),
    ).write(step=5)  # fmt: skip
    told = json.loads((run.path / "run.json").read_text()) | {"pid": 0}  # that of no process
    (run.path / "run.json").write_text(json.dumps(told))
    return run


def test_unfinished_runs_stay_until_asked_for(cli: Cli, here: Registry) -> None:
    run = begin_run(here)
    assert "gc --runs" in cli("gc")[2]
    assert run.path.exists()
    assert "removed the run noir-aaaaaa, 50 %" in cli("gc", "--runs")[1]
    assert not run.path.exists()


def prepared_text(key: str = "ab" * 16, *, age: float = 0.0) -> Path:
    folder = text_folder()
    assert folder is not None
    (made := folder / key).mkdir(parents=True)
    (made / "documents.arrow").write_bytes(b"x" * 1000)
    (made / "facts.json").write_text("{}")
    for path in (made / "documents.arrow", made / "facts.json", made):
        os.utime(path, (time.time() - age, time.time() - age))
    return made


def test_prepared_text_stays_until_asked_for(cli: Cli, here: Registry) -> None:
    made = prepared_text()
    assert "1.0 kB more would go with adapterkit gc --text" in cli("gc")[2]
    assert made.exists()
    code, out, err = cli("gc", "--text")
    assert (code, sizes(out), err) == (0, "removed 1 prepared copy of a text, N B\nN B freed\n", "")
    assert not made.exists()


def test_a_dry_run_leaves_prepared_text(cli: Cli, here: Registry) -> None:
    made = prepared_text()
    assert cli("gc", "--text", "--dry-run")[1].startswith("would remove 1 prepared copy")
    assert made.exists()


def test_a_text_that_is_being_prepared_stays_and_an_abandoned_one_goes(cli: Cli, here: Registry) -> None:
    going_on, abandoned = prepared_text("." + "cd" * 16), prepared_text("." + "ef" * 16, age=2 * 86400)
    cli("gc", "--text")
    assert (going_on.exists(), abandoned.exists()) == (True, False)


def test_what_is_no_prepared_text_stays(cli: Cli, here: Registry, tmp_path: Path) -> None:
    folder = prepared_text().parent
    (folder / "letters").mkdir()
    (folder / "letters" / "mine.txt").write_text("mine")
    (folder / ("12" * 16)).symlink_to(folder / "letters")
    cli("gc", "--text")
    assert (folder / "letters" / "mine.txt").read_text() == "mine"
    assert (folder / ("12" * 16)).is_symlink()


def test_text_that_was_removed_is_prepared_again(cli: Cli, text_file: Path, tiny_base: Path) -> None:
    look = ["data", str(text_file), "--base", str(tiny_base), "--json"]
    before = json.loads(cli(*look)[1])
    assert "removed 1 prepared copy" in cli("gc", "--text")[1]
    assert json.loads(cli(*look)[1]) == before


def test_gc_quietly_says_the_bytes(cli: Cli, here: Registry) -> None:
    prepared_text()
    assert cli("gc", "--text", "-q") == (0, "1002\n", "")


def test_gc_as_json(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    here.delete("noir")
    prepared_text()
    told = json.loads(cli("gc", "--now", "--json")[1])
    assert (told["dry_run"], told["kept"], told["more"]) == (False, [], {"--text": 1002})
    assert (told["removed"][0]["kind"], told["removed"][0]["what"]) == ("version", "noir@1")
    assert told["bytes"] == told["removed"][0]["bytes"] > 1000
    assert told["texts"] == {"count": 0, "bytes": 0}
