"""fp16: a version of its own, the same on every computer, with the measured difference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from adapterkit.errors import Unsupported
from adapterkit.registry import place, tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from adapterkit.sharing.incoming import add
from adapterkit.sharing.packed import pack
from tests.sharing.make import publish_full
from tests.versions import FINGERPRINTS, adapter_config, manifest_of, publish, tensors


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    place.create(tmp_path / "elsewhere")
    return Registry(tmp_path / "elsewhere")


def test_a_half_has_a_name_of_its_own_and_its_parents_number(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    whole = publish(registry, "noir")
    half = add(other, pack(registry, "noir", to=tmp_path, half=True))
    assert half.ref == "noir-half@1"
    assert (half.lineage.how, half.lineage.parents) == ("half", (whole.digest,))
    assert half.created == whole.created


def test_its_weights_are_the_nearest_in_fp16(registry: Registry, other: Registry, tmp_path: Path) -> None:
    whole = load_file(publish(registry, "noir").path / "adapter_model.safetensors")
    half = load_file(
        add(other, pack(registry, "noir", to=tmp_path, half=True)).path / "adapter_model.safetensors"
    )
    assert all((half[name] == whole[name].astype(np.float16)).all() for name in whole)
    assert {t.dtype for t in half.values()} == {np.dtype(np.float16)}


def test_the_difference_is_that_of_the_products(registry: Registry, other: Registry, tmp_path: Path) -> None:
    whole = load_file(publish(registry, "noir").path / "adapter_model.safetensors")
    half = add(other, pack(registry, "noir", to=tmp_path, half=True))
    now = load_file(half.path / "adapter_model.safetensors")
    changed, size, each = 0.0, 0.0, []
    for a in [n for n in whole if ".lora_A." in n]:
        b = a.replace(".lora_A.", ".lora_B.")
        before = whole[b].astype(np.float64) @ whole[a].astype(np.float64)
        after = now[b].astype(np.float64) @ now[a].astype(np.float64)
        changed, size = changed + ((after - before) ** 2).sum(), size + (before**2).sum()
        each.append(np.linalg.norm(after - before) / np.linalg.norm(before))
    told = half.manifest["half"]
    assert told["of"] == "noir@1"
    assert told["difference"] == pytest.approx(float(np.sqrt(changed / size)), rel=5e-3)
    assert told["largest"] == pytest.approx(max(each), rel=5e-3)


def test_a_clone_without_the_private_files_makes_the_same_half(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    publish(registry, "noir")
    add(other, pack(registry, "noir", to=tmp_path))
    ours = pack(registry, "noir", to=tmp_path / "ours", half=True)
    theirs = pack(other, "noir", to=tmp_path / "theirs", half=True)
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_long_name_is_cut(registry: Registry, tmp_path: Path) -> None:
    publish(registry, "n" * 64)
    assert pack(registry, "n" * 64, to=tmp_path, half=True).name == f"{'n' * 59}-half-1.adapter.safetensors"


def test_a_half_can_not_be_halved(registry: Registry, tmp_path: Path) -> None:
    publish(registry, "noir")
    add(registry, pack(registry, "noir", to=tmp_path, half=True))
    with pytest.raises(Unsupported, match="noir-half@1 is stored in 16 bits already"):
        pack(registry, "noir-half", to=tmp_path, half=True)


def test_a_number_that_fp16_can_not_hold_is_refused(registry: Registry, tmp_path: Path) -> None:
    _publish_scaled(registry, 1e6)
    with pytest.raises(Unsupported, match=r"holds a number over 65,504 in .*lora_A"):
        pack(registry, "loud", to=tmp_path, half=True)
    assert list(tmp_path.glob("*.safetensors")) == []


def test_a_full_fine_tune_has_a_half(
    registry: Registry, other: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    publish_full(registry, "sea", tiny_base)
    half = add(other, pack(registry, "sea", to=tmp_path, half=True))
    assert {e.dtype for e in tensorfile.read_header(half.path / "model.safetensors").entries.values()} == {
        "F16"
    }
    assert 0 < half.manifest["half"]["difference"] < 1e-3


def _publish_scaled(registry: Registry, factor: float) -> Version:
    loud = {
        name: (kind, shape, (np.frombuffer(data, "<f4") * np.float32(factor)).tobytes())
        for name, (kind, shape, data) in tensors(0).items()
    }
    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", loud, {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config()))
        return registry.publish(folder, manifest_of("loud", "lora", "tiny", FINGERPRINTS, Metrics()))
