"""A damaged version becomes whole again by importing its packed file, whatever was damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterkit.errors import Damaged, NameTaken
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from adapterkit.sharing.incoming import add
from adapterkit.sharing.packed import pack
from tests.versions import publish


@pytest.fixture
def noir(registry: Registry) -> Version:
    return publish(registry, "noir")


@pytest.fixture
def shipped(registry: Registry, noir: Version, tmp_path: Path) -> Path:
    return pack(registry, "noir", to=tmp_path)


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "README.md", "recipe.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "link"])
def test_a_damaged_file_is_put_back(
    name: str, damage: str, registry: Registry, noir: Version, shipped: Path, tmp_path: Path
) -> None:
    _damage(noir.path / name, damage, tmp_path)
    with pytest.raises(Damaged):
        registry["noir"].verify()
    assert add(registry, shipped).digest == noir.digest
    registry["noir"].verify()
    assert (noir.path / name).stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_manifest_is_put_back(
    damage: str, registry: Registry, noir: Version, shipped: Path, tmp_path: Path
) -> None:
    before = (noir.path / "manifest.json").read_bytes()
    _damage(noir.path / "manifest.json", damage, tmp_path)
    assert add(registry, shipped).digest == noir.digest
    assert (noir.path / "manifest.json").read_bytes() == before


def test_what_stands_in_that_place_is_not_replaced_by_guessing(
    registry: Registry, noir: Version, shipped: Path, tmp_path: Path
) -> None:
    for name in ("manifest.json", "adapter_model.safetensors"):
        _damage(noir.path / name, "cut", tmp_path)
    with pytest.raises(NameTaken, match="too damaged to tell whether it is the same version"):
        add(registry, shipped)
    assert add(registry, shipped, name="noir-2").ref == "noir-2@1"


def test_another_version_is_never_touched(
    registry: Registry, noir: Version, shipped: Path, tmp_path: Path
) -> None:
    other = Registry(tmp_path / "elsewhere")
    there = publish(other, "noir", seed=1)
    before = {p.name: p.read_bytes() for p in there.path.iterdir() if p.is_file()}
    with pytest.raises(NameTaken):
        add(other, shipped)
    assert {p.name: p.read_bytes() for p in there.path.iterdir() if p.is_file()} == before


def test_a_whole_version_is_not_written_to(registry: Registry, noir: Version, shipped: Path) -> None:
    before = {p.name: p.stat().st_ino for p in noir.path.iterdir()}
    add(registry, shipped)
    assert {p.name: p.stat().st_ino for p in noir.path.iterdir()} == before


def _damage(path: Path, how: str, tmp_path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    if how == "flip":
        path.write_bytes(data[:20] + bytes([data[20] ^ 4]) + data[21:] if len(data) > 20 else b"x" + data[1:])
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    if how == "link":
        (tmp_path / "outside").write_bytes(data)
        path.symlink_to(tmp_path / "outside")
