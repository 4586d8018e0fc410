"""``doctor``: versions, device, places, problems."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.cli import start
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No look for a GPU, no count of a real cache, and a registry here."""
    monkeypatch.setattr(start, "_device", lambda: "Device: cpu, 2 cores, float32. No CUDA GPU.")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    place.create(tmp_path / "desk" / "adapters")


def _damage(path: Path) -> None:
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes() + b"\n")


def test_a_sound_installation_has_no_problems(cli: Cli) -> None:
    publish(Registry(), "noir")
    code, out, err = cli("doctor")
    assert (code, err) == (0, "")
    assert out.endswith("\nNo problems.\n")


def test_versions_device_and_places_are_told(cli: Cli, tmp_path: Path) -> None:
    out = cli("doctor")[1]
    assert "torch 2." in out
    assert "\nDevice: cpu, 2 cores, float32. No CUDA GPU.\n" in out
    assert f"  registry   {tmp_path}/desk/adapters   " in out
    assert f"  cache      {os.environ['ADAPTERKIT_CACHE']}   " in out
    assert f"  hub        {tmp_path}/hub   0 B, " in out


def test_as_json_every_package_and_place_has_its_field(cli: Cli) -> None:
    told = json.loads(cli("doctor", "--json")[1])
    assert (told["schema"], told["problems"]) == (1, [])
    assert set(told["packages"]) == set(start.PACKAGES)
    assert set(told["places"]) == {"registry", "cache", "hub"}


def test_a_changed_file_is_a_problem_and_ends_with_3(cli: Cli) -> None:
    _damage(publish(Registry(), "noir").path / "README.md")
    code, out, _ = cli("doctor")
    assert code == 3
    assert "\n1 problem\n  noir@1 is damaged: README.md is not the file that was published" in out


def test_under_json_a_problem_ends_with_3_too(cli: Cli) -> None:
    _damage(publish(Registry(), "noir").path / "README.md")
    code, out, _ = cli("doctor", "--json")
    assert (code, len(json.loads(out)["problems"])) == (3, 1)


def test_a_torn_manifest_is_a_problem_beside_the_others(cli: Cli) -> None:
    _damage(publish(Registry(), "noir").path / "README.md")
    (torn := publish(Registry(), "shanty").path / "manifest.json").chmod(0o644)
    torn.write_text("{")
    code, out, _ = cli("doctor")
    assert code == 3
    assert "2 problems" in out


def test_an_unfinished_write_is_a_problem_with_its_repair(cli: Cli, tmp_path: Path) -> None:
    left = tmp_path / "desk" / "adapters" / ".staging" / "0123"
    left.mkdir(parents=True)
    assert f"1 unfinished write in {left.parent}: rm -r {left.parent}\n" in cli("doctor")[1]


def test_a_missing_package_is_a_problem(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = start._version
    monkeypatch.setattr(start, "_version", lambda p: None if p == "peft" else real(p))
    code, out, _ = cli("doctor")
    assert code == 3
    assert "  peft is not installed: pip install peft\n" in out


def test_without_bitsandbytes_nothing_is_wrong(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = start._version
    monkeypatch.setattr(start, "_version", lambda p: None if p == "bitsandbytes" else real(p))
    assert cli("doctor")[0] == 0


def test_a_look_creates_no_registry(cli: Cli, tmp_path: Path) -> None:
    cli("doctor", "--registry", str(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()
