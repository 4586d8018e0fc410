"""What keeps a push from starting: checks of this computer, before anything is asked of the Hub."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapterkit.errors import CheckFailed, Unreachable, Unsupported, UsageProblem
from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from adapterkit.sharing.hub import files_to_push, push
from tests.versions import FINGERPRINTS, adapter_config, manifest_of, publish, tensors


def test_samples_that_copy_a_page_are_not_made_public(registry: Registry) -> None:
    _copying(registry, 30)
    with pytest.raises(CheckFailed, match="parrot@1 copied 30 words in a row of its training text") as told:
        push(registry, "parrot", "ann/parrot", public=True)
    assert "--allow-copies" in told.value.hint


def test_a_phrase_is_no_copy(registry: Registry) -> None:
    _copying(registry, 29)
    assert _goes_on(registry, public=True)


def test_copies_may_be_published_when_that_is_said(registry: Registry) -> None:
    _copying(registry, 60)
    assert _goes_on(registry, public=True, allow_copies=True)


def test_copies_may_be_pushed_privately(registry: Registry) -> None:
    _copying(registry, 60)
    assert _goes_on(registry)


def test_what_is_made_of_one_that_copies_is_not_made_public(registry: Registry) -> None:
    parent = _copying(registry, 40)
    manifest = manifest_of("mixed", "lora", "tiny", FINGERPRINTS, Metrics())
    manifest["lineage"] = {
        "how": "blend",
        "parents": [publish(registry, "noir", seed=3).digest, parent.digest],
    }
    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", tensors(5), {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config()))
        registry.publish(folder, manifest)
    with pytest.raises(CheckFailed, match="mixed@1 is made of parrot@1, which copied 40 words in a row"):
        push(registry, "mixed", "ann/mixed", public=True)
    assert _goes_on(registry, name="mixed", public=True, allow_copies=True)


@pytest.mark.parametrize("repo", ["noir", "ann/noir/1", "../noir", "ann/", "https://huggingface.co/ann/noir"])
def test_a_repository_is_written_owner_and_name(repo: str, registry: Registry) -> None:
    publish(registry, "noir")
    with pytest.raises(UsageProblem, match="is no repository") as told:
        push(registry, "noir", repo)
    assert told.value.hint == "adapterkit push noir@1 YOUR-NAME/noir"


def test_a_version_that_names_a_place_here_is_not_listed(registry: Registry) -> None:
    manifest = manifest_of("noir", "lora", "tiny", FINGERPRINTS, Metrics())
    manifest["data"]["source"] = "/home/ann/novel.txt"
    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", tensors(0), {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config()))
        registry.publish(folder, manifest)
    with pytest.raises(Unsupported, match=r"names a place here, '/home/ann/novel\.txt'"):
        files_to_push(registry, "noir")


def _goes_on(registry: Registry, name: str = "parrot", **options: Any) -> bool:
    """Whether the checks let a push through to its first question, which is asked of a Hub that is off."""

    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        push(registry, name, f"ann/{name}", **options)
    return True


def _copying(registry: Registry, words: int) -> Version:
    manifest = manifest_of("parrot", "lora", "tiny", FINGERPRINTS, Metrics(copied_words=words))
    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", tensors(0), {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config()))
        return registry.publish(folder, manifest)
