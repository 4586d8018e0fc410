"""Which registry is meant, and that looking for it leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterkit.errors import Damaged, Unsupported
from adapterkit.files import canonical_json, sha256_bytes
from adapterkit.registry import place
from adapterkit.registry.store import Registry


def _project(folder: Path) -> Path:
    place.create(folder / "adapters")
    return folder / "adapters"


def _marker(root: Path, body: object) -> None:
    root.mkdir(parents=True, exist_ok=True)
    told = body
    if isinstance(body, dict):
        told = {**body, "sha256": sha256_bytes(canonical_json(body))}
    (root / place.MARKER).write_bytes(canonical_json(told) + b"\n")


def test_a_path_that_is_given_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(tmp_path / "named"))
    _project(Path.cwd())
    assert place.find(tmp_path / "given") == tmp_path / "given"


def test_the_environment_wins_over_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(tmp_path / "named"))
    _project(Path.cwd())
    assert place.find() == tmp_path / "named"


def test_an_empty_environment_variable_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", "")
    assert place.find() == place.home()


def test_the_nearest_project_upward_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _project(Path.cwd())
    near = _project(Path.cwd() / "novel")
    deep = Path.cwd() / "novel" / "parts" / "one"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert place.find() == near


def test_a_folder_adapters_without_the_marker_is_no_registry() -> None:
    (Path.cwd() / "adapters").mkdir()
    assert place.find() == place.home()


def test_the_home_folder_is_the_last_resort(tmp_path: Path) -> None:
    assert place.find() == tmp_path / "home" / ".adapterkit" / "adapters"


def test_a_tilde_is_the_home_folder(tmp_path: Path) -> None:
    assert place.find("~/mine") == tmp_path / "home" / "mine"


def test_reading_creates_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    empty = Registry(tmp_path / "not" / "there")
    assert ("noir" in empty, empty.names(), empty.versions(), empty.versions("noir"), empty.log("noir")) == (
        False,
        [],
        [],
        [],
        [],
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_creating_twice_leaves_the_marker_alone(tmp_path: Path) -> None:
    place.create(tmp_path / "adapters")
    before = (tmp_path / "adapters" / place.MARKER).stat()
    place.create(tmp_path / "adapters")
    after = (tmp_path / "adapters" / place.MARKER).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_marker_of_a_newer_format_is_refused_with_both_formats(tmp_path: Path) -> None:
    _marker(tmp_path, {"schema": place.SCHEMA + 1})
    with pytest.raises(Unsupported, match=r"newer AdapterKit \(format 2, this one reads 1\)"):
        Registry(tmp_path)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="torn"),
        pytest.param(b"\xff\x00", id="not text"),
        pytest.param(b'{"schema":1}', id="no checksum"),
        pytest.param(b"3", id="a number"),
    ],
)
def test_a_damaged_marker_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / place.MARKER).write_bytes(raw)
    with pytest.raises(Damaged, match=r"registry\.json is damaged") as caught:
        Registry(tmp_path)
    assert caught.value.hint.startswith("adapterkit doctor --fix")


def test_a_marker_that_is_a_list_is_damaged(tmp_path: Path) -> None:
    _marker(tmp_path, [])
    with pytest.raises(Damaged, match=r"registry\.json is damaged"):
        Registry(tmp_path)


def test_a_marker_without_a_schema_is_damaged(tmp_path: Path) -> None:
    _marker(tmp_path, {"made_by": "somebody"})
    with pytest.raises(Damaged, match=r"registry\.json is damaged"):
        Registry(tmp_path)


def test_a_marker_that_was_changed_is_damaged(tmp_path: Path) -> None:
    place.create(tmp_path)
    path = tmp_path / place.MARKER
    path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":0'))
    with pytest.raises(Damaged, match=r"registry\.json is damaged"):
        Registry(tmp_path)


def test_creating_again_mends_a_marker_that_was_deleted(tmp_path: Path) -> None:
    place.create(tmp_path / "adapters")
    before = (tmp_path / "adapters" / place.MARKER).read_bytes()
    (tmp_path / "adapters" / place.MARKER).unlink()
    place.create(tmp_path / "adapters")
    assert (tmp_path / "adapters" / place.MARKER).read_bytes() == before
