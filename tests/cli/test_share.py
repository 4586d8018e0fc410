"""``pack``, ``import`` and ``push`` as a person types them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from adapterkit.registry.store import Registry
from adapterkit.sharing import hub
from tests.hub import TOKEN, LocalHub
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    publish(registry, "noir", note="first try")
    publish(registry, "shanty")
    return registry


@pytest.fixture
def elsewhere(tmp_path: Path) -> list[str]:
    """Flags of another registry."""
    return ["--registry", str(tmp_path / "elsewhere")]


def test_pack_writes_one_file_each_and_says_size_and_sha256(cli: Cli, here: Registry) -> None:
    code, out, err = cli("pack", "noir", "shanty", "--to", "out")
    assert code == 0
    for line, name in zip(out.splitlines(), ("noir-1", "shanty-1"), strict=True):
        path = Path(f"out/{name}.adapter.safetensors")
        assert line.startswith(f"{path}   ")
        assert line.endswith(f"sha256 {sha256(path.read_bytes()).hexdigest()}")
    assert err.startswith("· brought in by: adapterkit import noir-1.adapter.safetensors")


def test_pack_quietly_is_paths_alone(cli: Cli, here: Registry) -> None:
    assert cli("pack", "noir", "-q") == (0, "noir-1.adapter.safetensors\n", "")


def test_pack_as_json(cli: Cli, here: Registry) -> None:
    told = json.loads(cli("pack", "noir", "--json")[1])["packed"][0]
    data = Path("noir-1.adapter.safetensors").read_bytes()
    assert told == {"ref": "noir@1", "path": "noir-1.adapter.safetensors", "bytes": len(data),
                    "sha256": sha256(data).hexdigest()}  # fmt: skip


def test_of_several_none_is_packed_when_one_is_unknown(cli: Cli, here: Registry) -> None:
    assert cli("pack", "noir", "gone")[0] == 1
    assert list(Path().glob("*.safetensors")) == []


def test_pack_half_is_a_version_of_its_own_name(cli: Cli, here: Registry, elsewhere: list[str]) -> None:
    cli("pack", "noir", "--half")
    assert cli("import", "noir-half-1.adapter.safetensors", "-q", *elsewhere)[1] == "noir-half@1\n"
    page = cli("show", "noir-half", *elsewhere)[1]
    digest = here["noir@1"].digest[:8]
    assert f"  half of         noir@1 {digest}, in fp16, which changed it by 0." in page


def test_a_mix_is_not_packed_and_the_hint_runs(cli: Cli, here: Registry) -> None:
    code, _, err = cli("pack", "noir,shanty")
    hint = err.split("hint:  adapterkit ")[1]
    assert (code, cli(*shlex.split(hint))[0]) == (2, 0)


# --- import --------------------------------------------------------------------------


def test_what_was_packed_is_imported_under_its_name_and_number(
    cli: Cli, here: Registry, elsewhere: list[str]
) -> None:
    cli("pack", "noir")
    code, out, err = cli("import", "noir-1.adapter.safetensors", *elsewhere)
    assert (code, err) == (0, "")
    assert out.startswith(f"imported noir@1 {here['noir'].digest[:8]}   ")
    assert Registry(elsewhere[1])["noir@1"] == here["noir@1"]


def test_what_is_there_already_is_said_so(cli: Cli, here: Registry) -> None:
    cli("pack", "noir")
    told = f"that is noir@1 {here['noir'].digest[:8]} already, every byte as it was published\n"
    assert cli("import", "noir-1.adapter.safetensors") == (0, told, "")


def test_import_under_another_name(cli: Cli, here: Registry) -> None:
    cli("pack", "noir")
    assert cli("import", "noir-1.adapter.safetensors", "--name", "rain", "-q")[1] == "rain@1\n"
    page = cli("show", "rain")[1]
    assert f"  made from       noir@1 {here['noir'].digest[:8]}, trained\n" in page


def test_import_as_json(cli: Cli, here: Registry, elsewhere: list[str]) -> None:
    cli("pack", "noir")
    told = json.loads(cli("import", "noir-1.adapter.safetensors", "--json", *elsewhere)[1])
    assert (told["ref"], told["existed"], told["forced_base"]) == ("noir@1", False, False)
    assert told["digest"] == here["noir"].digest


def test_another_version_of_that_number_is_refused_and_the_hint_runs(
    cli: Cli, here: Registry, elsewhere: list[str]
) -> None:
    publish(Registry(elsewhere[1]), "noir", seed=7)
    cli("pack", "noir")
    code, _, err = cli("import", "noir-1.adapter.safetensors", *elsewhere)
    hint = err.split("hint:  adapterkit ")[1]
    assert code == 1
    assert cli(*shlex.split(hint), *elsewhere)[0] == 0


def test_another_file_than_the_sha256_says_is_refused(cli: Cli, here: Registry, elsewhere: list[str]) -> None:
    cli("pack", "noir")
    code, _, err = cli("import", "noir-1.adapter.safetensors", "--sha256", "0" * 64, *elsewhere)
    assert (code, "sha256" in err) == (3, True)
    assert Registry(elsewhere[1]).versions() == []


def test_the_file_that_the_sha256_says_is_taken(cli: Cli, here: Registry, elsewhere: list[str]) -> None:
    digest = cli("pack", "noir")[1].split()[-1]
    assert cli("import", "noir-1.adapter.safetensors", "--sha256", digest, *elsewhere)[0] == 0


def test_a_file_that_is_not_there_is_an_error(cli: Cli, here: Registry) -> None:
    code, _, err = cli("import", "gone.adapter.safetensors")
    assert (code, "gone.adapter.safetensors" in err) == (1, True)


def test_a_damaged_version_is_mended_by_the_import_that_its_error_names(cli: Cli, here: Registry) -> None:
    cli("pack", "noir")
    path = here["noir"].path / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, out, _ = cli("verify")
    hint = out.split("adapterkit ")[1].split(",")[0]
    assert (code, hint) == (3, "import noir-1.adapter.safetensors")
    assert cli(*hint.split())[0] == 0
    assert cli("verify")[0] == 0


# --- push --------------------------------------------------------------------------------


def test_push_without_a_way_to_the_hub_is_unreachable_after_the_list_of_files(
    cli: Cli, here: Registry
) -> None:
    code, out, err = cli("push", "noir", "somebody/noir")
    assert (code, out) == (4, "")
    lines = err.splitlines()
    assert (
        lines[0]
        == f"· {len(hub.files_to_push(here, 'noir'))} files of noir@1 for somebody/noir, which only you can read:"
    )
    names = [line.split()[1] for line in lines[1:] if line.startswith("·   ")]
    assert {"README.md", "adapter_model.safetensors", "manifest.json"} <= set(names)
    assert not any("private" in name or "samples" in name for name in names)


def test_allow_copies_alone_is_refused(cli: Cli, here: Registry) -> None:
    code, _, err = cli("push", "noir", "somebody/noir", "--allow-copies")
    assert (code, "--public --allow-copies" in err) == (2, True)


def test_push_of_an_unknown_version_names_the_nearest(cli: Cli, here: Registry) -> None:
    code, _, err = cli("push", "nior", "somebody/noir")
    assert (code, err.splitlines()[1]) == (
        1,
        "hint:  adapterkit push noir somebody/noir     (all: adapterkit list)",
    )


def test_push_then_import_through_a_hub_brings_the_same_version(here: Registry, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with LocalHub(tmp_path / "hub") as served:

        def call(*argv: str) -> subprocess.CompletedProcess[str]:
            env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
            env |= {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "hf"), "no_proxy": "127.0.0.1"}
            env |= {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
            command = [sys.executable, "-m", "adapterkit", *argv]
            return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

        pushed = call("push", "noir", "somebody/noir")
        assert (pushed.returncode, pushed.stdout) == (0, f"{served.url}/somebody/noir\n"), pushed.stderr
        assert TOKEN not in pushed.stderr
        brought = call("import", "hub:somebody/noir", "--registry", str(tmp_path / "other"), "-q")
        assert (brought.returncode, brought.stdout) == (0, "noir@1\n"), brought.stderr
    assert Registry(tmp_path / "other")["noir"] == here["noir"]
