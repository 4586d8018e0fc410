"""The Hub both ways, through huggingface_hub's own client in processes of their own, against a local Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterkit.registry import place
from adapterkit.registry.store import Registry
from adapterkit.sharing.hub import files_to_push
from tests.hub import TOKEN, LocalHub
from tests.sharing.make import lora_tensors, peft_folder
from tests.versions import publish

CALL = """
import json, sys
from adapterkit.errors import AdapterKitError
from adapterkit.registry.store import Registry
from adapterkit.sharing.hub import push
from adapterkit.sharing.incoming import add

verb, folder, words, options = json.loads(sys.argv[1])
registry = Registry(folder)
try:
    if verb == "push":
        told = {"url": push(registry, *words, **options)}
    else:
        version = add(registry, *words, **options)
        told = {"ref": version.ref, "digest": version.digest, "manifest": version.manifest}
except AdapterKitError as e:
    told = {"error": e.default_code, "message": e.message, "hint": e.hint}
print(json.dumps(told))
"""
# huggingface_hub 2.4 uploads without Xet by a word that its own client calls outdated
WARNINGS = ("-W", "error", "-W", "ignore:Use 'content=:DeprecationWarning")
EVERY = {(i, "attn.c_attn"): 4 for i in range(2)}


class Hub(LocalHub):
    """A local Hub, and the calls of AdapterKit that know no other."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        super().__init__(root)

    def call(
        self, verb: str, registry: Registry, *words: str, env: dict[str, str] | None = None, **options: Any
    ) -> Any:
        told = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        told |= {"HF_ENDPOINT": self.url, "HF_HOME": str(self.root / "home"), "no_proxy": "127.0.0.1"}
        told |= {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"} | (env or {})
        argument = json.dumps([verb, str(registry.path), words, options])
        done = subprocess.run(
            [sys.executable, *WARNINGS, "-c", CALL, argument],
            env=told,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert TOKEN not in done.stdout
        return json.loads(done.stdout)

    def files(self, repo: str) -> set[str]:
        return {p.name for p in (self.root / "models" / repo).iterdir()}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as served:
        yield served


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    place.create(tmp_path / "elsewhere")
    return Registry(tmp_path / "elsewhere")


def test_what_is_pushed_comes_back_as_the_same_version(registry: Registry, other: Registry, hub: Hub) -> None:
    version = publish(registry, "noir")
    told = hub.call("push", registry, "noir", "ann/noir")
    assert told == {"url": f"{hub.url}/ann/noir"}
    back = hub.call("add", other, "hub:ann/noir")
    assert (back["ref"], back["digest"]) == ("noir@1", version.digest)
    assert other["noir"].digest == version.digest


def test_what_is_pushed_is_what_was_listed_and_nothing_private(registry: Registry, hub: Hub) -> None:
    publish(registry, "noir")
    listed = {name for name, _ in files_to_push(registry, "noir")}
    hub.call("push", registry, "noir", "ann/noir")
    assert hub.files("ann/noir") == listed | {".gitattributes"}
    assert listed == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "recipe.json",
    }


def test_a_push_is_private_unless_it_is_said(registry: Registry, hub: Hub) -> None:
    publish(registry, "noir")
    hub.call("push", registry, "noir", "ann/noir")
    hub.call("push", registry, "noir", "ann/open", public=True)
    assert hub.private == {"ann/noir"}


def test_the_commit_names_ref_and_digest(registry: Registry, hub: Hub) -> None:
    version = publish(registry, "noir")
    hub.call("push", registry, "noir", "ann/noir")
    assert hub.commits[0]["summary"] == f"noir@1 {version.digest[:8]}"
    assert version.digest in hub.commits[0]["description"]
    assert [e.what for e in registry.log("noir")] == ["published", "pushed"]


def test_a_repository_that_is_public_already_is_no_private_place(registry: Registry, hub: Hub) -> None:
    publish(registry, "noir")
    hub.call("push", registry, "noir", "ann/open", public=True)
    told = hub.call("push", registry, "noir", "ann/open")
    assert told["error"] == "check-failed"
    assert "is there already, and public" in told["message"]
    assert len(hub.commits) == 1


def test_without_a_login_the_hub_takes_nothing(registry: Registry, hub: Hub) -> None:
    publish(registry, "noir")
    told = hub.call("push", registry, "noir", "ann/noir", env={"HF_TOKEN": "hf_wrong"})
    assert told["error"] == "unsupported"
    assert "does not take anything for 'ann/noir'" in told["message"]
    assert "hf auth login" in told["hint"]
    assert "hf_wrong" not in json.dumps(told)


def test_a_private_repository_needs_the_token(registry: Registry, other: Registry, hub: Hub) -> None:
    publish(registry, "noir")
    hub.call("push", registry, "noir", "ann/noir")
    told = hub.call("add", other, "hub:ann/noir", env={"HF_TOKEN": ""})
    assert told["error"] == "not-found"
    assert "hf auth login" in told["hint"]


def test_a_hub_that_is_gone_is_out_of_reach(registry: Registry, other: Registry, hub: Hub) -> None:
    publish(registry, "noir")
    for verb, words in (("push", ("noir", "ann/noir")), ("add", ("hub:ann/noir",))):
        told = hub.call(
            verb, registry if verb == "push" else other, *words, env={"HF_ENDPOINT": "http://127.0.0.1:9"}
        )
        assert told["error"] == "unreachable"


def test_an_adapter_of_anyone_is_imported_with_its_revision(
    other: Registry, hub: Hub, tiny_base: Path
) -> None:
    repo = hub.root / "models" / "bob" / "tales"
    peft_folder(repo, lora_tensors(EVERY))
    (repo / "README.md").write_text("# theirs\n")
    (repo / "optimizer.pt").write_bytes(b"not fetched")
    told = hub.call("add", other, "hub:bob/tales", base=str(tiny_base))
    assert told["ref"] == "tales@1"
    came = told["manifest"]["imported"]
    assert came["from"] == "bob/tales"
    assert len(came["revision"]) == 40
    assert not [r for r in hub.requests if "optimizer.pt" in r]
    again = hub.call("add", other, f"hub:bob/tales@{came['revision']}", base=str(tiny_base))
    assert again["digest"] == told["digest"]


def test_a_revision_that_is_not_there_is_said(other: Registry, hub: Hub, tiny_base: Path) -> None:
    peft_folder(hub.root / "models" / "bob" / "tales", lora_tensors(EVERY))
    told = hub.call("add", other, "hub:bob/tales", revision="v9", base=str(tiny_base))
    assert told["error"] == "not-found"
    assert "at 'v9'" in told["message"]


def test_a_pickled_adapter_is_not_even_fetched(other: Registry, hub: Hub) -> None:
    repo = hub.root / "models" / "bob" / "old"
    peft_folder(repo, lora_tensors(EVERY))
    (repo / "adapter_model.safetensors").rename(repo / "adapter_model.bin")
    told = hub.call("add", other, "hub:bob/old")
    assert told["error"] == "unsupported"
    assert "a pickle can run code" in told["message"]
    assert not [r for r in hub.requests if "adapter_model.bin" in r]


def test_a_whole_model_on_the_hub_is_a_base(other: Registry, hub: Hub, tiny_base: Path) -> None:
    repo = hub.root / "models" / "bob" / "model"
    repo.mkdir(parents=True)
    (repo / "config.json").write_text("{}")
    told = hub.call("add", other, "hub:bob/model")
    assert "is a whole model, not an adapter" in told["message"]
    assert told["hint"] == "use it as a base: adapterkit train SOURCE --base bob/model"
