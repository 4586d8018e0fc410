"""Packing: one file, the same bytes anywhere, and back to the same version."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from adapterkit.errors import AdapterKitError, Damaged, NameTaken, Unsupported, UsageProblem
from adapterkit.files import canonical_json, sha256_file
from adapterkit.registry import place, tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version, seal
from adapterkit.sharing import packed
from adapterkit.sharing.incoming import add
from adapterkit.sharing.packed import pack
from tests.sharing.make import publish_full
from tests.versions import publish


@pytest.fixture
def noir(registry: Registry) -> Version:
    return publish(registry, "noir")


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    """Another clone's registry."""
    place.create(tmp_path / "elsewhere")
    return Registry(tmp_path / "elsewhere")


def test_a_packed_version_is_one_file_named_by_its_ref(
    registry: Registry, noir: Version, tmp_path: Path
) -> None:
    path = pack(registry, "noir", to=tmp_path / "out")
    assert path == tmp_path / "out" / "noir-1.adapter.safetensors"
    assert os.listdir(tmp_path / "out") == [path.name]


def test_other_tools_read_its_tensors(registry: Registry, noir: Version, tmp_path: Path) -> None:
    ours = load_file(noir.path / "adapter_model.safetensors")
    theirs = load_file(pack(registry, "noir", to=tmp_path))
    assert theirs.keys() == ours.keys()
    assert all((theirs[name] == ours[name]).all() for name in ours)


def test_the_header_says_what_it_is(registry: Registry, noir: Version, tmp_path: Path) -> None:
    told = tensorfile.read_header(pack(registry, "noir", to=tmp_path)).metadata
    assert told["adapterkit.ref"] == "noir@1"
    assert told["adapterkit.manifest"].encode() == (noir.path / "manifest.json").read_bytes()
    assert told["adapterkit.file.README.md"] == (noir.path / "README.md").read_text()
    assert not [key for key in told if "private" in key]


def test_the_same_bytes_from_any_process_and_hash_seed(
    registry: Registry, noir: Version, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from adapterkit.registry.store import Registry;"
        "from adapterkit.sharing.packed import pack;"
        "[pack(Registry(sys.argv[1]), 'noir', to=Path(sys.argv[2]), half=h) for h in (False, True)]"
    )
    found = set()
    for seed in ("0", "1", "2"):
        to = tmp_path / seed
        env = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(registry.path), str(to)], check=True, env=env)
        found.add(tuple(sha256_file(path) for path in sorted(to.iterdir())))
    assert len(found) == 1
    assert len(found.pop()) == 2


def test_its_mode_is_what_the_umask_leaves(registry: Registry, noir: Version, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = pack(registry, "noir", to=tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_it_comes_back_as_the_same_version(
    registry: Registry, noir: Version, other: Registry, tmp_path: Path
) -> None:
    back = add(other, pack(registry, "noir", to=tmp_path))
    assert (back.ref, back.digest) == ("noir@1", noir.digest)
    for name in [*noir.manifest["files"], "manifest.json"]:
        assert (back.path / name).read_bytes() == (noir.path / name).read_bytes()
    assert not (back.path / "private").exists()


def test_a_full_fine_tune_comes_back_too(
    registry: Registry, other: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    version = publish_full(registry, "sea", tiny_base)
    path = pack(registry, "sea", to=tmp_path)
    assert "adapterkit.file.tokenizer.json" in {
        **tensorfile.read_header(path).entries,
        **tensorfile.read_header(path).metadata,
    }
    back = add(other, path)
    assert back.digest == version.digest
    back.verify()


def test_a_large_text_becomes_a_tensor_so_that_the_header_stays_small(
    registry: Registry, other: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    version = publish_full(registry, "sea", tiny_base, merges="#version: 0.2\n" + "a b\n" * 30_000)
    path = pack(registry, "sea", to=tmp_path)
    header = tensorfile.read_header(path)
    assert header.entries["adapterkit.file.merges.txt"].dtype == "U8"
    assert header.data_start < 128 << 10
    assert add(other, path).digest == version.digest


def test_packing_again_gives_the_file_that_is_there(
    registry: Registry, noir: Version, tmp_path: Path
) -> None:
    path = pack(registry, "noir", to=tmp_path)
    before = path.stat().st_ino
    assert pack(registry, "noir", to=tmp_path) == path
    assert path.stat().st_ino == before


def test_another_file_of_that_name_is_never_overwritten(
    registry: Registry, noir: Version, tmp_path: Path
) -> None:
    mine = tmp_path / "noir-1.adapter.safetensors"
    mine.write_text("my notes")
    with pytest.raises(NameTaken, match="there already") as told:
        pack(registry, "noir", to=tmp_path)
    assert f"rm {mine}" in told.value.hint
    assert mine.read_text() == "my notes"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".noir")] == []


def test_a_file_in_place_of_the_folder_is_said(registry: Registry, noir: Version, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageProblem, match="is a file; --to names a folder"):
        pack(registry, "noir", to=tmp_path / "out")


def test_a_damaged_version_is_not_packed(registry: Registry, noir: Version, tmp_path: Path) -> None:
    weights = noir.path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Damaged, match=r"adapter_model\.safetensors is not the file that was published"):
        pack(registry, "noir", to=tmp_path)


def test_after_a_rename_it_travels_under_its_new_name(
    registry: Registry, noir: Version, other: Registry, tmp_path: Path
) -> None:
    registry.rename("noir", "dark")
    path = pack(registry, "dark", to=tmp_path)
    back = add(other, path)
    assert path.name == "dark-1.adapter.safetensors"
    assert (back.ref, back.digest, back.manifest["name"]) == ("dark@1", noir.digest, "noir")


def test_every_flipped_bit_is_found(
    registry: Registry, noir: Version, other: Registry, tmp_path: Path
) -> None:
    path = pack(registry, "noir", to=tmp_path)
    whole, draw = path.read_bytes(), random.Random(0)
    start = tensorfile.read_header(path).data_start
    places = [draw.randrange(start) for _ in range(400)] + [
        draw.randrange(start, len(whole)) for _ in range(100)
    ]
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        with pytest.raises(AdapterKitError):
            packed.read(path)


def test_a_half_copied_file_is_damaged_at_any_length(
    registry: Registry, noir: Version, other: Registry, tmp_path: Path
) -> None:
    path = pack(registry, "noir", to=tmp_path)
    whole = path.read_bytes()
    for size in (1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(Damaged):
            add(other, path)
    assert other.names() == []


def test_a_file_of_a_newer_layout_says_so(
    registry: Registry, noir: Version, other: Registry, tmp_path: Path
) -> None:
    path = _with(pack(registry, "noir", to=tmp_path), {"adapterkit": "2"})
    with pytest.raises(Unsupported, match="written by a newer AdapterKit") as told:
        add(other, path)
    assert told.value.hint == "pip install -U adapterkit"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adapterkit": "one"}, "its layout"),
        ({"adapterkit.ref": "../../etc@1"}, "which is no version"),
        ({"adapterkit.ref": "noir@2"}, "its manifest says 1"),
        ({"adapterkit.ref": "noir"}, "its manifest says 1"),
        ({"adapterkit.file.private/x": "1"}, "has no place there"),
        ({"adapterkit.file.../../evil": "1"}, "has no place there"),
        ({"adapterkit.file.run.py": "1"}, "has no place there"),
        ({"adapterkit.manifest": "{}"}, "manifest"),
        ({"adapterkit.file.README.md": "# other\n"}, r"README\.md is not the file that was published"),
    ],
)
def test_a_changed_part_is_damaged(
    change: dict[str, str], words: str, registry: Registry, noir: Version, other: Registry, tmp_path: Path
) -> None:
    path = _with(pack(registry, "noir", to=tmp_path), change)
    with pytest.raises(Damaged, match=words):
        add(other, path)
    assert other.names() == []


def test_a_manifest_is_not_believed_because_it_is_sealed(
    registry: Registry, noir: Version, other: Registry, tmp_path: Path
) -> None:
    told = {**noir.manifest, "content": "00" * 32}
    path = _with(
        pack(registry, "noir", to=tmp_path), {"adapterkit.manifest": canonical_json(seal(told)).decode()}
    )
    with pytest.raises(Damaged, match="content is not that of its files"):
        add(other, path)


def _with(path: Path, change: dict[str, str]) -> Path:
    """The file with other words in its header."""
    header = tensorfile.read_header(path)
    with path.open("rb") as file:
        tensors = {
            name: (e.dtype, e.shape, tensorfile.read_bytes(file, header, name))
            for name, e in header.entries.items()
        }
    told = {**header.metadata, **change}
    tensorfile.write(path, tensors, told | {"adapterkit.sha256": packed.words_sum(told)})
    return path
