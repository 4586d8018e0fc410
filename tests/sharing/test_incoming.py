"""Import of our own: the same number never means two things, and nothing else gets in."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from adapterkit.errors import BaseMismatch, Damaged, NameTaken, NotFound, Unsupported, UsageProblem
from adapterkit.files import sha256_file
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from adapterkit.sharing.incoming import add
from adapterkit.sharing.packed import pack
from tests.sharing.make import lora_tensors, peft_folder
from tests.versions import publish


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    place.create(tmp_path / "elsewhere")
    return Registry(tmp_path / "elsewhere")


@pytest.fixture
def noir(registry: Registry, tmp_path: Path) -> Path:
    """noir@1, packed in the first registry."""
    publish(registry, "noir")
    return pack(registry, "noir", to=tmp_path)


def test_importing_twice_gives_the_version_that_is_there(other: Registry, noir: Path) -> None:
    assert add(other, noir) == add(other, noir)
    assert len(other.versions("noir")) == 1


def test_it_is_found_under_the_name_it_has_now(other: Registry, noir: Path) -> None:
    add(other, noir)
    other.rename("noir", "dark")
    assert add(other, noir).ref == "dark@1"
    assert other.names() == ["dark"]


def test_another_version_of_that_number_stands_in_the_way(other: Registry, noir: Path) -> None:
    publish(other, "noir", seed=1)
    with pytest.raises(NameTaken, match="noir@1 is another version here") as told:
        add(other, noir)
    assert told.value.hint == f"adapterkit import {noir} --name noir-2"
    assert add(other, noir, name="noir-2").ref == "noir-2@1"


def test_a_deleted_version_of_that_number_stands_in_the_way_too(other: Registry, noir: Path) -> None:
    publish(other, "noir", seed=1)
    other.delete("noir@1")
    with pytest.raises(NameTaken, match=r"another version here \(deleted\)"):
        add(other, noir)


def test_clones_that_exchange_everything_never_have_a_number_that_means_two_things(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    for seed in range(3):
        publish(registry, "noir", seed=seed)
        publish(other, "noir", seed=10 + seed)
    publish(other, "noir", seed=20)
    for here, there in ((registry, other), (other, registry)):
        for version in here.versions("noir"):
            path = pack(here, version.ref, to=tmp_path / here.path.name)
            try:
                add(there, path)
            except NameTaken:
                add(there, path, name="noir-2")
    digests = [{v.ref: v.digest for v in r.versions("noir")} for r in (registry, other)]
    assert {ref for ref in digests[0].keys() & digests[1].keys() if digests[0][ref] == digests[1][ref]} == {
        "noir@4"
    }
    assert len(registry.versions()) == len(other.versions()) == 7


def test_a_deleted_version_comes_back(other: Registry, noir: Path) -> None:
    add(other, noir)
    other.delete("noir@1")
    back = add(other, noir)
    assert (back.ref, back.deleted) == ("noir@1", False)


def test_a_collected_version_keeps_its_number_taken(other: Registry, noir: Path) -> None:
    add(other, noir)
    other.delete("noir@1")
    other.gc(now=True)
    with pytest.raises(NameTaken, match="gc has taken its files") as told:
        add(other, noir)
    name = told.value.hint.rpartition(" ")[2]
    assert add(other, noir, name=name).ref == f"{name}@1"


def test_another_name_is_another_version_with_the_same_content(
    registry: Registry, other: Registry, noir: Path
) -> None:
    original = registry["noir"]
    dark = add(other, noir, name="dark")
    assert (dark.ref, dark.manifest["content"]) == ("dark@1", original.manifest["content"])
    assert dark.digest != original.digest
    assert (dark.lineage.how, dark.lineage.parents) == ("import", (original.digest,))
    assert dark.manifest["imported"] == {"ref": "noir@1", "digest": original.digest}
    assert (dark.path / "README.md").read_text().count("# dark\n") == 1
    assert add(other, noir, name="dark").ref == "dark@1"


def test_a_version_folder_that_was_copied_elsewhere_is_the_same_version(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    version = publish(registry, "noir")
    shutil.copytree(version.path, tmp_path / "copy")
    assert add(other, tmp_path / "copy").digest == version.digest
    assert not (other["noir"].path / "private").exists()


def test_a_copied_folder_with_a_changed_file_is_damaged(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    shutil.copytree(publish(registry, "noir").path, tmp_path / "copy")
    config = tmp_path / "copy" / "adapter_config.json"
    config.chmod(0o644)
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    with pytest.raises(Damaged, match=r"adapter_config\.json is not the file that was published"):
        add(other, tmp_path / "copy")
    assert other.names() == []


def test_a_file_that_leads_out_of_its_folder_is_not_followed(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    shutil.copytree(publish(registry, "noir").path, tmp_path / "copy")
    (tmp_path / "secret").write_bytes((tmp_path / "copy" / "README.md").read_bytes())
    (tmp_path / "copy" / "README.md").unlink()
    (tmp_path / "copy" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(Unsupported, match=r"README\.md is a link that leads out of its folder"):
        add(other, tmp_path / "copy")


def test_the_sha256_of_a_file_is_checked_first(other: Registry, noir: Path) -> None:
    with pytest.raises(Damaged, match="is not the file that was asked for"):
        add(other, noir, sha256="0" * 64)
    assert other.names() == []
    assert add(other, noir, sha256=f"sha256:{sha256_file(noir).upper()}").ref == "noir@1"


def test_a_folders_sha256_is_that_of_its_weights(registry: Registry, other: Registry) -> None:
    version = publish(registry, "noir")
    good = sha256_file(version.path / "adapter_model.safetensors")
    with pytest.raises(Damaged, match=r"adapter_model\.safetensors is not the file that was asked for"):
        add(other, version.path, sha256="0" * 64)
    assert add(other, version.path, sha256=good) == version


def test_words_that_are_no_sha256_are_wrong_usage(other: Registry, noir: Path) -> None:
    with pytest.raises(UsageProblem, match="'abc' is no sha256"):
        add(other, noir, sha256="abc")


def test_a_base_that_is_given_has_to_be_its_own(other: Registry, noir: Path, tiny_base: Path) -> None:
    with pytest.raises(BaseMismatch, match=r"was trained on tiny .* is another base") as told:
        add(other, noir, base=str(tiny_base))
    assert "leave --base out" in told.value.hint


class _Runs:
    """What a pickle can do when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter.pt", "last.ckpt", "noir.adapter.safetensors"])
def test_a_pickle_is_not_opened(name: str, other: Registry, tmp_path: Path) -> None:
    path, mark = tmp_path / name, tmp_path / "ran"
    path.write_bytes(pickle.dumps(_Runs(mark)))
    with pytest.raises(Unsupported, match="a pickle can run code, so it is not opened") as told:
        add(other, path)
    assert not mark.exists()
    assert "convert it where you trust it" in told.value.hint


def test_the_line_that_converts_a_pickle_works(other: Registry, tmp_path: Path, tiny_base: Path) -> None:
    import subprocess
    import sys

    folder = peft_folder(tmp_path / "old", lora_tensors({(i, "attn.c_attn"): 4 for i in range(2)}))
    from safetensors.torch import load_file

    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(Unsupported) as told:
        add(other, folder, base=str(tiny_base))
    line = told.value.hint.removeprefix("convert it where you trust it: ").replace(
        "python -c", f"{sys.executable} -c"
    )
    subprocess.run(line, shell=True, check=True)
    assert add(other, folder, base=str(tiny_base)).ref == "old@1"


@pytest.mark.parametrize(
    ("start", "words"),
    [(b"GGUF\x03\x00\x00\x00", "is a GGUF file"), (b"\x1f\x8b\x08\x00", "is an archive"), (b"", "is empty")],
)
def test_other_files_are_named(start: bytes, words: str, other: Registry, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.write_bytes(start + bytes(100) * bool(start))
    with pytest.raises((Unsupported, Damaged), match=words) as told:
        add(other, path)
    assert told.value.hint


def test_a_zip_is_to_be_unpacked(other: Registry, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "noir.zip", "w") as file:
        file.writestr("adapter_config.json", "{}")
    with pytest.raises(Unsupported, match="is an archive") as told:
        add(other, tmp_path / "noir.zip")
    assert told.value.hint == "unpack it, then: adapterkit import noir/"


def test_plain_weights_are_no_adapter(registry: Registry, other: Registry) -> None:
    with pytest.raises(Unsupported, match="not an adapter with its manifest") as told:
        add(other, publish(registry, "noir").path / "adapter_model.safetensors")
    assert "adapterkit import FOLDER" in told.value.hint


def test_what_is_not_there_may_be_on_the_hub(other: Registry) -> None:
    with pytest.raises(NotFound, match="there is no file or folder 'acme/noir'") as told:
        add(other, "acme/noir")
    assert told.value.hint == "from the Hub it is: adapterkit import hub:acme/noir"


def test_a_folder_of_folders_shows_the_way_in(registry: Registry, other: Registry) -> None:
    version = publish(registry, "noir")
    with pytest.raises(NotFound, match="holds no adapter") as told:
        add(other, version.path.parent)
    assert told.value.hint == f"adapterkit import {version.path}"


def test_a_whole_model_is_a_base(other: Registry, tiny_base: Path) -> None:
    with pytest.raises(Unsupported, match="a whole model, not an adapter") as told:
        add(other, tiny_base)
    assert f"--base {tiny_base}" in told.value.hint


def test_a_revision_is_for_the_hub(other: Registry, noir: Path) -> None:
    with pytest.raises(UsageProblem, match="--revision is for the Hub"):
        add(other, noir, revision="main")


def test_the_registry_has_doors_to_both(registry: Registry, other: Registry, tmp_path: Path) -> None:
    version = publish(registry, "noir")
    assert other.add(registry.pack("noir", to=tmp_path)) == version
