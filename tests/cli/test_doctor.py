"""``doctor``: versions, device, places, problems, and what ``--fix`` mends."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.cli import doctor
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.cli.test_upkeep import begin_run, damage, prepared_text
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No look for a GPU, no count of a real cache, and a registry here."""
    monkeypatch.setattr(doctor, "_device", lambda: "Device: cpu, 2 cores, float32. No CUDA GPU.")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    place.create(tmp_path / "desk" / "adapters")


def leave_a_write() -> Path:
    """What a writer that crashed two days ago left."""
    left = Registry().path / ".staging" / "0123"
    left.mkdir(parents=True)
    (left / "adapter_model.safetensors").write_bytes(b"x" * 100)
    for path in (left / "adapter_model.safetensors", left):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    return left


def lose_an_alias() -> None:
    """An alias of a version that was hidden by another clone, which did not know of the alias."""
    store = Registry()
    v = publish(store, "shanty")
    store.alias("shanty", "prod")
    (v.path / "deleted").touch()


def break_marker() -> Path:
    (path := Registry().path / place.MARKER).chmod(0o644)
    path.write_text("{")
    return path


def test_a_sound_installation_has_no_problems(cli: Cli) -> None:
    publish(Registry(), "noir")
    code, out, err = cli("doctor")
    assert (code, err) == (0, "")
    assert out.endswith("\nNo problems.\n")


def test_versions_and_device_are_told(cli: Cli) -> None:
    out = cli("doctor")[1]
    assert "torch 2." in out
    assert "\nDevice: cpu, 2 cores, float32. No CUDA GPU.\n" in out


# --- places -----------------------------------------------------------------------


def test_every_place_is_told_with_its_bytes_and_the_command_that_frees_them(cli: Cli, tmp_path: Path) -> None:
    store = Registry()
    publish(store, "noir")
    publish(store, "shanty")
    store.delete("shanty")
    begin_run(store)
    prepared_text()
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    (tmp_path / "hf" / "hub" / "blob").write_bytes(b"x" * 5000)
    told = json.loads(cli("doctor", "--json")[1])["places"]
    assert list(told) == ["registry", "deleted", "runs", "staging", "text", "cache", "hub"]
    assert {name: told[name]["bytes"] for name in ("text", "staging", "hub")} == {
        "text": 1002,
        "staging": 0,
        "hub": 5000,
    }
    assert all(told[name]["bytes"] > 0 for name in ("registry", "deleted", "runs", "cache"))
    assert told["runs"]["frees"] == "adapterkit gc --runs"


def test_the_bytes_of_the_registry_are_counted_once(cli: Cli) -> None:
    store = Registry()
    publish(store, "noir")
    publish(store, "shanty")
    store.delete("shanty")
    begin_run(store)
    leave_a_write()
    told = json.loads(cli("doctor", "--json")[1])["places"]
    every = sum(p.lstat().st_size for p in store.path.rglob("*") if p.is_file())
    assert sum(told[name]["bytes"] for name in ("registry", "deleted", "runs", "staging")) == every


@pytest.mark.parametrize("name", ["deleted", "runs", "staging", "text"])
def test_the_command_that_frees_a_place_does(cli: Cli, name: str) -> None:
    store = Registry()
    publish(store, "shanty")
    store.delete("shanty")
    begin_run(store)
    leave_a_write()
    prepared_text()
    frees = json.loads(cli("doctor", "--json")[1])["places"][name]["frees"]
    assert cli(*shlex.split(frees)[1:])[0] == 0
    assert json.loads(cli("doctor", "--json")[1])["places"][name]["bytes"] < 4000  # a manifest stays


def test_on_the_screen_a_place_that_is_empty_names_no_command(cli: Cli, tmp_path: Path) -> None:
    prepared_text()
    lines = {line.split()[0]: line for line in cli("doctor")[1].splitlines() if line.startswith("  ")}
    assert lines["text"].split()[1:] == [
        "1.0",
        "kB",
        f"{os.environ['ADAPTERKIT_CACHE']}/text",
        *["adapterkit", "gc", "--text"],
    ]
    assert lines["runs"].split() == ["runs", "0", "B", f"{tmp_path}/desk/adapters/.runs"]


# --- problems ------------------------------------------------------------------------


def test_a_changed_file_is_a_problem_and_ends_with_3(cli: Cli) -> None:
    damage(publish(Registry(), "noir").path / "README.md")
    code, out, _ = cli("doctor")
    assert code == 3
    assert "\n1 problem\n  noir@1 is damaged: README.md is not the file that was published" in out


def test_under_json_a_problem_ends_with_3_too(cli: Cli) -> None:
    damage(publish(Registry(), "noir").path / "README.md")
    code, out, _ = cli("doctor", "--json")
    assert (code, [p["code"] for p in json.loads(out)["problems"]]) == (3, ["damaged"])


def test_a_torn_manifest_is_a_problem_beside_the_others(cli: Cli) -> None:
    damage(publish(Registry(), "noir").path / "README.md")
    (torn := publish(Registry(), "shanty").path / "manifest.json").chmod(0o644)
    torn.write_text("{")
    torn.chmod(0o444)
    code, out, _ = cli("doctor")
    assert code == 3
    assert "\n2 problems\n" in out


def test_a_missing_package_is_a_problem(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda p: None if p == "peft" else real(p))
    code, out, _ = cli("doctor")
    assert code == 3
    assert "  peft is not installed: pip install peft\n" in out


def test_without_bitsandbytes_nothing_is_wrong(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda p: None if p == "bitsandbytes" else real(p))
    assert cli("doctor")[0] == 0


def test_a_look_creates_no_registry(cli: Cli, tmp_path: Path) -> None:
    cli("doctor", "--registry", str(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()


def test_quietly_only_problems_are_told(cli: Cli) -> None:
    damage(publish(Registry(), "noir").path / "README.md")
    code, out, _ = cli("doctor", "-q")
    assert (code, out.count("\n"), out.split(":")[0]) == (3, 1, "noir@1 is damaged")


# --- mending --------------------------------------------------------------------------


def wrong_modes() -> Path:
    path = publish(Registry(), "noir").path / "README.md"
    path.chmod(0o666)
    return path


BROKEN: dict[str, tuple[Callable[[], object], str]] = {
    "staging": (leave_a_write, "removed"),
    "alias": (lose_an_alias, "alias removed"),
    "mode": (wrong_modes, "modes set as published"),
    "marker": (break_marker, "written anew"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_can_be_mended_says_so_and_is_left_alone(cli: Cli, what: str) -> None:
    BROKEN[what][0]()
    code, out, err = cli("doctor")
    assert (code, err) == (3, "")
    assert out.endswith("\n1 can be mended: adapterkit doctor --fix\n")
    assert cli("doctor", "-q")[0] == 3


@pytest.mark.parametrize("what", BROKEN)
def test_fix_mends_it_says_so_and_ends_with_0(cli: Cli, what: str) -> None:
    breaking, done = BROKEN[what]
    breaking()
    code, out, err = cli("doctor", "--fix")
    assert (code, err, out.count("\nmended: ")) == (0, "", 1)
    assert out.endswith(f" ({done})\nNo problems.\n")
    assert cli("doctor")[0] == 0


def test_everything_broken_at_once_is_mended_at_once(cli: Cli) -> None:
    wrong_modes()
    leave_a_write()
    lose_an_alias()
    break_marker()
    code, out, _ = cli("doctor", "--fix")
    assert (code, out.count("\nmended: ")) == (0, 4)


def test_what_needs_a_person_is_left_and_ends_with_3(cli: Cli) -> None:
    damage(publish(Registry(), "noir").path / "README.md")
    left = leave_a_write()
    code, out, _ = cli("doctor", "--fix")
    assert (code, left.exists(), out.count("\nmended: ")) == (3, False, 1)
    assert "\n1 problem\n  noir@1 is damaged: README.md" in out


def test_a_damaged_marker_loses_no_version(cli: Cli) -> None:
    publish(Registry(), "noir")
    break_marker()
    assert cli("list")[0] == 3
    cli("doctor", "--fix")
    assert cli("list", "-q") == (0, "noir@1\n", "")


def test_fix_on_a_sound_installation_changes_nothing(cli: Cli) -> None:
    store = Registry()
    publish(store, "noir")
    before = {p: p.lstat().st_mtime_ns for p in store.path.rglob("*")}
    assert cli("doctor", "--fix")[0] == 0
    assert {p: p.lstat().st_mtime_ns for p in store.path.rglob("*")} == before


def test_fix_as_json_tells_what_was_mended(cli: Cli) -> None:
    wrong_modes()
    told = json.loads(cli("doctor", "--fix", "--json")[1])
    assert ([p["code"] for p in told["mended"]], told["problems"]) == (["mode"], [])


def test_as_json_every_package_has_its_field(cli: Cli) -> None:
    told = json.loads(cli("doctor", "--json")[1])
    assert (told["schema"], told["problems"], told["mended"]) == (1, [], [])
    assert set(told["packages"]) == set(doctor.PACKAGES)
