"""Merging: PEFT's merge and transformers' logits are the oracle; nothing unverified ever has the name."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2LMHeadModel

import adapterkit as ak
from adapterkit.errors import BaseMismatch, CheckFailed, NotFound, Unsupported, UsageProblem
from adapterkit.merging import verify
from adapterkit.model.base import locate
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import read_version
from tests.conftest import SENTENCES
from tests.make import make_base, make_peft_adapter
from tests.versions import publish

TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
IDS = torch.tensor([[399, *range(5, 300, 13)]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("peft")
    made = {
        "noir": make_peft_adapter(root / "noir", tiny_base, seed=1, r=4, alpha=8.0, targets=TARGETS),
        "stable": make_peft_adapter(root / "stable", tiny_base, seed=2, r=9, alpha=7.0, targets=TARGETS[:2]),
    }
    config = made["stable"] / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    return made


@pytest.fixture
def store(registry: Registry, folders: dict[str, Path], tiny_base: Path) -> Registry:
    for name, folder in folders.items():
        registry.add(folder, name=name, base=str(tiny_base), force_base=True)
    return registry


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return GPT2LMHeadModel.from_pretrained(folder).eval()(IDS, use_cache=False).logits


def test_the_merged_weights_are_those_of_peft(
    store: Registry, folders: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    ak.merge("noir", to=tmp_path / "out", registry=store)
    base = GPT2LMHeadModel.from_pretrained(tiny_base)
    theirs = PeftModel.from_pretrained(base, folders["noir"]).merge_and_unload().state_dict()
    ours = load_file(tmp_path / "out" / "model.safetensors")
    plain = load_file(tiny_base / "model.safetensors")
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[f"transformer.{name}"], atol=1e-5), name
    changed = {n for n in ours if not torch.equal(ours[n], plain[f"transformer.{n}"])}
    assert changed == {f"h.{i}.{t}.weight" for i in range(2) for t in TARGETS}


def test_transformers_computes_with_the_folder_what_peft_computes_live(
    store: Registry, folders: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    written = ak.merge("noir", to=tmp_path / "out", registry=store)
    live = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), folders["noir"]).eval()
    with torch.inference_mode():
        wanted = live(input_ids=IDS, use_cache=False).logits
    assert (wanted - logits(tiny_base)).abs().max() > 0.05
    assert torch.allclose(logits(written.path), wanted, atol=1e-4)


def test_rslora_is_scaled_by_the_root_of_its_rank(
    store: Registry, folders: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    ak.merge("stable", to=tmp_path / "out", registry=store)
    ours = load_file(tmp_path / "out" / "model.safetensors")
    plain = load_file(tiny_base / "model.safetensors")
    pairs = load_file(folders["stable"] / "adapter_model.safetensors")
    for i in range(2):
        for target in TARGETS[:2]:
            a, b = (pairs[f"base_model.model.transformer.h.{i}.{target}.lora_{x}.weight"] for x in "AB")
            wanted = plain[f"transformer.h.{i}.{target}.weight"] + (7.0 / 3.0) * (b @ a).T  # sqrt(9)
            assert torch.allclose(ours[f"h.{i}.{target}.weight"], wanted, atol=1e-6)


def test_the_numbers_are_those_measured_and_stand_beside_the_weights(store: Registry, tmp_path: Path) -> None:
    written = ak.merge("noir", to=tmp_path / "out", registry=store)
    found = written.differences
    assert found.logits <= 1e-4 < 0.05 < found.effect
    assert found.agreement == 1.0
    assert 0 < found.counted <= found.positions
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    assert told["source"] == {"ref": "noir@1", "digest": store["noir"].digest}
    assert told["differences"]["logits"] == found.logits
    assert told["tools"]["transformers"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md", "config.json", "export.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_tokenizer_and_the_end_token_come_along(store: Registry, tiny_base: Path, tmp_path: Path) -> None:
    ak.merge("noir", to=tmp_path / "out", registry=store)
    ours, base = (AutoTokenizer.from_pretrained(p) for p in (tmp_path / "out", tiny_base))
    assert ours(SENTENCES[0])["input_ids"] == base(SENTENCES[0])["input_ids"]
    end = GPT2LMHeadModel.from_pretrained(tmp_path / "out").generation_config.eos_token_id
    assert end == base.eos_token_id


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_a_base_in_half_precision_is_merged_in_float32(
    stored: torch.dtype, registry: Registry, folders: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    GPT2LMHeadModel.from_pretrained(tiny_base, dtype=stored).save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "half" / name).write_bytes((tiny_base / name).read_bytes())
    registry.add(folders["noir"], name="noir", base=str(tmp_path / "half"), force_base=True)
    ak.merge("noir", to=tmp_path / "out", registry=registry)
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for t in ours.values()} == {torch.float32}
    wide = GPT2LMHeadModel.from_pretrained(tmp_path / "half", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(wide, folders["noir"]).merge_and_unload().state_dict()
    assert all(torch.allclose(t, theirs[f"transformer.{n}"], atol=1e-5) for n, t in ours.items())


# --- kept as a version --------------------------------------------------------


def test_a_registered_merge_is_a_full_version_with_the_adapter_as_its_parent(
    store: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    written = ak.merge("noir", to=tmp_path / "out", registry=store, register=True)
    version = store["noir-merged"]
    assert written.version == version
    assert version.kind == "full"
    assert version.lineage.how == "merge"
    assert version.lineage.parents == (store["noir"].digest,)
    assert store.verify("noir-merged") == []
    with ak.Generator(str(tiny_base), registry=store, device="cpu") as gen:
        prompt, settings = "The lamp", {"temperature": 0.0, "max_new_tokens": 12}
        assert (
            gen(prompt, adapter="noir-merged", **settings).text
            == gen(prompt, adapter="noir", **settings).text
        )


# --- corrupted ----------------------------------------------------------------


@pytest.fixture
def merged(store: Registry, tiny_base: Path, tmp_path: Path) -> tuple[Path, verify.Reference]:
    ak.merge("noir", to=tmp_path / "out", registry=store)
    base = locate(str(tiny_base))
    return tmp_path / "out", verify.take(base, read_version(store["noir"], base.dims), tmp_path / "logits")


def spoil(weights: Path, where: str, value: float) -> None:
    tensors = load_file(weights)
    tensors[where].view(-1)[3] = value
    weights.unlink()
    save_file(tensors, weights, {"format": "pt"})


def test_a_good_folder_passes(merged: tuple[Path, verify.Reference]) -> None:
    found, tools = verify.verify(*merged)
    assert found.logits <= 1e-4
    assert "transformers" in tools


@pytest.mark.parametrize("value", [float("nan"), 1e4])
def test_a_wrong_number_in_the_weights_is_found(value: float, merged: tuple[Path, verify.Reference]) -> None:
    spoil(merged[0] / "model.safetensors", "h.1.mlp.c_fc.weight", value)
    with pytest.raises(CheckFailed, match=r"a logit differs by .*, over 0\.002") as e:
        verify.verify(*merged)
    assert "logits" in e.value.details


def test_any_flipped_bit_is_found_by_the_sum(merged: tuple[Path, verify.Reference]) -> None:
    weights = merged[0] / "model.safetensors"
    sha256 = json.loads((merged[0] / "export.json").read_text())["sha256"]["model.safetensors"]
    verify.verify(*merged, sha256=sha256)
    data = bytearray(weights.read_bytes())
    data[-4] ^= 1  # the lowest bit of the last number
    weights.unlink()
    weights.write_bytes(data)
    with pytest.raises(CheckFailed, match="not what was written"):
        verify.verify(*merged, sha256=sha256)


def test_fifty_corrupted_folders_are_all_reported(merged: tuple[Path, verify.Reference]) -> None:
    weights = merged[0] / "model.safetensors"
    sha256 = json.loads((merged[0] / "export.json").read_text())["sha256"]["model.safetensors"]
    whole, draw = weights.read_bytes(), random.Random(50)
    weights.chmod(0o644)
    for i in range(50):
        data, at = bytearray(whole), draw.randrange(len(whole))
        data[at] ^= 1 << draw.randrange(8)
        weights.write_bytes(data if i % 2 else data[:at])
        with pytest.raises(CheckFailed):
            verify.verify(*merged, sha256=sha256)
    weights.write_bytes(whole)
    verify.verify(*merged, sha256=sha256)


@pytest.mark.slow
def test_without_the_sum_the_child_answers_for_each_of_twelve(merged: tuple[Path, verify.Reference]) -> None:
    """In the header or the exponents; whatever transformers does, this process goes on."""
    weights = merged[0] / "model.safetensors"
    whole, draw = weights.read_bytes(), random.Random(12)
    start = 8 + int.from_bytes(whole[:8], "little")
    weights.chmod(0o644)
    for i in range(12):
        data = bytearray(whole)
        if i % 2:
            data[draw.randrange(8, start)] = draw.randrange(256)
        else:
            data[start + 4 * draw.randrange((len(whole) - start) // 4) + 3] ^= 0x40  # times or over 2 ** 128
        weights.write_bytes(data)
        found = None
        with contextlib.suppress(CheckFailed):
            found, _ = verify.verify(*merged)
        assert found is None or found.logits <= verify.LIMIT


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_torn_file_is_found_and_this_process_lives(
    keep: int, merged: tuple[Path, verify.Reference]
) -> None:
    weights = merged[0] / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:keep])
    with pytest.raises(CheckFailed, match="transformers can't open it"):
        verify.verify(*merged)


def test_a_tokenizer_of_another_base_is_found(merged: tuple[Path, verify.Reference]) -> None:
    path = merged[0] / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["merges"] = told["model"]["merges"][:20]
    path.unlink()
    path.write_text(json.dumps(told))
    with pytest.raises(CheckFailed, match="tokenizer cuts texts otherwise"):
        verify.verify(*merged)


def test_nothing_appears_when_the_check_fails(
    store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "LIMIT", 0.0)  # which rounding alone exceeds
    with pytest.raises(CheckFailed, match="Nothing was kept"):
        ak.merge("noir", to=tmp_path / "deep" / "out", registry=store, register=True)
    assert list((tmp_path / "deep").iterdir()) == []
    with pytest.raises(NotFound):
        store["noir-merged"]


# --- refused ------------------------------------------------------------------


def test_a_folder_that_holds_something_is_left_alone(store: Registry, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(Unsupported, match="not empty"):
        ak.merge("noir", to=tmp_path / "out", registry=store)
    with pytest.raises(Unsupported, match="is a file"):
        ak.merge("noir", to=tmp_path / "out" / "mine", registry=store)
    assert [p.read_text() for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_empty_folder_is_taken(store: Registry, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    ak.merge("noir", to=tmp_path / "out", registry=store)
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("ref", "mix"),
    [
        ("noir,stable", "noir=0.5,stable=0.5"),
        ("noir=0.7,stable=0.3", "noir=0.7,stable=0.3"),
        ("noir=0.5", "noir=0.5 --name"),
    ],
)
def test_a_mix_is_answered_with_blend(ref: str, mix: str, store: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="merge puts one adapter into the base") as e:
        ak.merge(ref, to=tmp_path / "out", registry=store)
    assert f"adapterkit blend {mix}" in e.value.hint


def test_the_base_is_no_adapter(store: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="plain GPT-2"):
        ak.merge("base", to=tmp_path / "out", registry=store)


def test_a_full_fine_tune_is_a_whole_model_already(registry: Registry, tmp_path: Path) -> None:
    publish(registry, "whole", kind="full")
    with pytest.raises(Unsupported, match="nothing to merge"):
        ak.merge("whole", to=tmp_path / "out", registry=registry)


def test_an_adapter_that_is_not_there(store: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="noire"):
        ak.merge("noire", to=tmp_path / "out", registry=store)
    assert not (tmp_path / "out").exists()


def test_another_base_is_refused_and_forced_only_on_request(store: Registry, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", seed=7)
    with pytest.raises(BaseMismatch):
        ak.merge("noir", to=tmp_path / "out", registry=store, base=other)
    ak.merge("noir", to=tmp_path / "out", registry=store, base=other, force_base=True)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["base"]["forced"] is True


# --- the command --------------------------------------------------------------


def test_the_command_says_what_it_measured(
    cli: Callable[..., tuple[int, str, str]], store: Registry, tmp_path: Path
) -> None:
    place = ["--registry", str(store.path)]
    code, out, err = cli("merge", "noir", "--to", str(tmp_path / "out"), *place)
    assert code == 0, err
    assert "out" in out
    assert "no logit differs by more than" in err
    code, out, _ = cli("merge", "noir", "--to", str(tmp_path / "two"), "--register", "--json", *place)
    told = json.loads(out)
    assert (code, told["version"], told["differences"]["agreement"]) == (0, "noir-merged@1", 1.0)


def test_the_command_answers_two_adapters_with_blend(
    cli: Callable[..., tuple[int, str, str]], store: Registry, tmp_path: Path
) -> None:
    code, _, err = cli(
        "merge", "noir", "stable", "--to", str(tmp_path / "out"), "--registry", str(store.path)
    )
    assert code == 2
    assert "adapterkit blend noir=0.5,stable=0.5 --name c" in err


# --- killed -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.3, 1.5])
def test_a_killed_merge_leaves_nothing_under_the_name(delay: float, store: Registry, tmp_path: Path) -> None:
    code = "import sys, adapterkit as ak; ak.merge('noir', to=sys.argv[1], registry=sys.argv[2])"
    out = tmp_path / "place" / "out"
    child = subprocess.Popen([sys.executable, "-c", code, str(out), str(store.path)])
    while child.poll() is None and not (out.parent.is_dir() and any(out.parent.iterdir())):
        time.sleep(0.001)
    time.sleep(delay)
    assert child.poll() is None, "it ended before it was killed"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not out.exists()
    ak.merge("noir", to=out, registry=store)  # and what was left goes with the next one
    assert [p.name for p in out.parent.iterdir()] == ["out"]
