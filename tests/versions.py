"""Versions in a registry without training: what ``training/run.py`` publishes, with numbers made up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np

from adapterkit.recipe.schema import Recipe
from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version

LAYERS, WIDTH, RANK = 2, 32, 4
TARGETS = {"attn.c_attn": 3 * WIDTH, "attn.c_proj": WIDTH}  # module -> numbers it puts out
FINGERPRINTS = {"weights": "11" * 32, "config": "22" * 32, "tokenizer": "33" * 32}


def publish(
    registry: Registry,
    name: str,
    *,
    base_fingerprints: Mapping[str, str] | None = None,
    base_id: str = "tiny",
    loss: float | None = 3.0,
    base_loss: float = 3.5,
    held_out: str = "44" * 32,
    note: str = "",
    seed: int = 0,
    kind: str = "lora",
    fresh: bool = False,
) -> Version:
    """Publish one small adapter; another ``seed`` is another content, ``loss`` None was not tested."""
    manifest = manifest_of(
        name, kind, base_id, base_fingerprints or FINGERPRINTS, _metrics(loss, base_loss, held_out)
    )
    with registry.staging() as folder:
        weights = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
        tensorfile.write(folder / weights, tensors(seed), {"format": "pt"})
        config = "adapter_config.json" if kind == "lora" else "config.json"
        (folder / config).write_text(json.dumps(adapter_config(base_id)))
        (folder / "README.md").write_text(f"# {name}\n")
        told = {"recipe": manifest["recipe"], "origins": {"train.seed": "--seed"}, "environment": {}}
        (folder / "recipe.json").write_text(json.dumps(told))
        (folder / "private").mkdir()
        (folder / "private" / "samples.json").write_text(
            json.dumps([{"prompt": "The sea", "text": " was calm.", "base_text": None}])
        )
        return registry.publish(folder, manifest, note=note, fresh=fresh)


def tensors(seed: int) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """A and B of every target under peft's names, float32."""
    draw = np.random.default_rng(seed)
    made: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for layer in range(LAYERS):
        for module, out in TARGETS.items():
            for side, shape in (("A", (RANK, WIDTH)), ("B", (out, RANK))):
                name = f"base_model.model.transformer.h.{layer}.{module}.lora_{side}.weight"
                made[name] = ("F32", shape, draw.normal(0, 0.05, shape).astype("<f4").tobytes())
    return made


def adapter_config(base_id: str = "tiny") -> dict[str, Any]:
    """What peft writes beside the weights."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_id,
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.05,
        "target_modules": list(TARGETS),
        "fan_in_fan_out": True,
        "bias": "none",
        "inference_mode": True,
        "use_rslora": False,
    }


def manifest_of(
    name: str, kind: str, base_id: str, fingerprints: Mapping[str, str], metrics: Metrics
) -> dict[str, Any]:
    """The keys of ``training/run.py::_manifest``, with a resolved recipe."""
    source = f"{name}.txt"
    train: dict[str, Any] = {"epochs": 3.0, "tokens_per_step": 1024, "batch_size": 1, "max_length": 64}
    train |= {"learning_rate": 2e-4, "log_steps": 1, "eval_steps": 3, "precision": "fp32", "device": "cpu"}
    recipe = Recipe.model_validate(
        {
            "base": base_id,
            "method": kind,
            "data": {"source": source, "document": "line"},
            "lora": {"r": RANK, "alpha": 2.0 * RANK},
            "train": train,
        }
    )
    told = recipe.model_dump(mode="json")
    return {
        "name": name,
        "kind": kind,
        "base": {"id": base_id, "revision": None, "layers": LAYERS, **fingerprints},
        "lora": {"r": RANK, "alpha": 2.0 * RANK, "targets": list(TARGETS)} if kind == "lora" else None,
        "data": {
            "source": source,
            "fingerprint": "55" * 32,
            "documents": 120,
            "words": 2600,
            "train_tokens": 3400,
            "held_out": {"unit": "documents", "count": 12, "tokens": 380},
            "revision": None,
        },
        "recipe": told,
        "made_from": sha256(json.dumps([told, metrics.loss], sort_keys=True).encode()).hexdigest(),
        "environment": {"adapterkit": "0.1.0", "python": "3.12.0", "device": "cpu"},
        "metrics": asdict(metrics),
        "lineage": {"how": "train", "parents": []},
    }


def _metrics(loss: float | None, base_loss: float, held_out: str) -> Metrics:
    if loss is None:
        return Metrics(stops=0.5, copied_words=6)
    return Metrics(
        loss=loss,
        base_loss=base_loss,
        perplexity=math.exp(loss),
        base_perplexity=math.exp(base_loss),
        tokens=380,
        held_out=held_out,
        stops=0.9,
        copied_words=6,
    )
