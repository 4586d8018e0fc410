"""Small versions and folders that tests of sharing send around."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from tests.versions import FINGERPRINTS, manifest_of

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def publish_full(registry: Registry, name: str, base: Path, *, merges: str | None = None) -> Version:
    """A full fine-tune with the weights and the tokenizer of a base."""
    manifest = manifest_of(name, "full", "tiny", FINGERPRINTS, Metrics())
    header = tensorfile.read_header(base / "model.safetensors")
    with (base / "model.safetensors").open("rb") as file:
        tensors = {
            n.removeprefix("transformer."): (e.dtype, e.shape, tensorfile.read_bytes(file, header, n))
            for n, e in header.entries.items()
        }
    with registry.staging() as folder:
        tensorfile.write(folder / "model.safetensors", tensors, {"format": "pt"})
        for file_name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / file_name).write_bytes((base / file_name).read_bytes())
        if merges is not None:
            (folder / "merges.txt").write_text(merges)
        (folder / "README.md").write_text(f"# {name}\n")
        return registry.publish(folder, manifest)


def lora_tensors(
    modules: Mapping[tuple[int, str], int],
    *,
    width: int = 32,
    seed: int = 0,
    name: str = "base_model.model.transformer.h.{layer}.{module}.lora_{side}.weight",
    dtype: str = "<f4",
) -> Tensors:
    """A and B of (layer, module) -> rank, as other tools store them."""
    sizes = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, 4 * width),
        "mlp.c_proj": (4 * width, width),
    }
    kinds = {"<f4": "F32", "<f2": "F16"}
    draw = np.random.default_rng(seed)
    made: Tensors = {}
    for (layer, module), r in modules.items():
        n_in, n_out = sizes[module]
        for side, shape in (("A", (r, n_in)), ("B", (n_out, r))):
            values = draw.normal(0, 0.05, shape).astype(dtype)
            made[name.format(layer=layer, module=module, side=side)] = (kinds[dtype], shape, values.tobytes())
    return made


def peft_folder(folder: Path, tensors: Tensors, **config: Any) -> Path:
    """A folder as PEFT saves it; a key that is given as ``...`` is left out."""
    told: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["c_attn"],
        "fan_in_fan_out": True,
        "bias": "none",
        **config,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({k: v for k, v in told.items() if v is not ...}))
    tensorfile.write(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder
