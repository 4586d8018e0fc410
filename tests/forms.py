"""Versions of odd forms: made by a given manifest, imported without data or scores, or trained on chats or pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from adapterkit.model.base import locate
from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from tests.make import make_peft_adapter
from tests.versions import FINGERPRINTS, adapter_config, manifest_of, tensors

CHATTER = {"template": "{role}: {content}\n"}
ASKED = {"prompt": "{question}\n", "completion": "answer"}
TWICE = {"prompt": "{context}\nQ: {question}\n", "completion": "answer"}


def publish_form(registry: Registry, base: Path, name: str, **data: Any) -> Version:
    """A version of the base whose recipe has these keys of ``data``."""
    known = locate(str(base)).fingerprints
    prints = {"weights": known.weights, "config": known.config, "tokenizer": known.tokenizer}
    manifest = manifest_of(name, "lora", "tiny", prints, Metrics())
    manifest["recipe"]["data"] |= data
    manifest["recipe"]["lora"]["targets"] = ["attn.c_attn"]
    with registry.staging() as folder:
        make_peft_adapter(folder, base, seed=len(registry.versions()), targets=["attn.c_attn"])
        _as_ours(folder)
        return registry.publish(folder, manifest)


def _as_ours(folder: Path) -> None:
    """PEFT's files as training writes them: canonical, and without a path of this machine."""
    weights = folder / "adapter_model.safetensors"
    stored = load_file(weights)
    tensorfile.write(weights, {k: ("F32", x.shape, x.tobytes()) for k, x in stored.items()}, {"format": "pt"})
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "tiny"}))
    (folder / "README.md").write_text("# an adapter\n")


def fill_shelf(registry: Registry, base: Path) -> None:
    """``plain``, ``chatter``, ``asked`` and ``twice``."""
    forms: dict[str, dict[str, str]] = {"plain": {}, "chatter": CHATTER, "asked": ASKED, "twice": TWICE}
    for name, data in forms.items():
        publish_form(registry, base, name, **data)


def publish_by(
    registry: Registry, manifest: dict[str, Any], *, seed: int = 0, note: str = "", recipe_json: bool = True
) -> Version:
    """Publish random weights under a manifest as it is."""
    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", tensors(seed), {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config(manifest["base"]["id"])))
        if recipe_json:
            told = {"recipe": manifest["recipe"], "origins": {}, "environment": {}}
            (folder / "recipe.json").write_text(json.dumps(told))
        return registry.publish(folder, manifest, note=note)


def import_manifest(name: str, fingerprints: Mapping[str, str] = FINGERPRINTS, **more: Any) -> dict[str, Any]:
    """What ``import`` writes for an adapter that another tool made: no data, no scores, half a recipe."""
    told = manifest_of(name, "lora", "tiny", fingerprints, Metrics())
    lora = {"r": 4, "alpha": 8.0, "dropout": 0.05, "rslora": False, "targets": ["attn.c_attn", "attn.c_proj"]}
    return (
        told
        | {
            "data": None,
            "made_from": None,
            "metrics": asdict(Metrics()),
            "recipe": {"base": "tiny", "method": "lora", "lora": lora},
            "lineage": {"how": "import", "parents": []},
            "imported": {"from": "somebody/noir", "revision": "0123456789abcdef", "sha256": "88" * 32},
        }
        | more
    )
