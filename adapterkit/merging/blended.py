"""A blend as a version: its files, its manifest and lineage, and what was measured of it."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import adapterkit
from adapterkit.merging.deltas import Floats, Thin
from adapterkit.registry import card, strict, tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import Dims, LoraFiles
from adapterkit.registry.version import Metrics, Version

DIGITS = 3  # of a residual: more would depend on the order in which a machine adds


@dataclass(frozen=True)
class Asked:
    """What a person wants; see ``blend``."""

    name: str
    rank: int | None = None
    method: str = "exact"
    density: float | None = None
    seed: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Parent:
    version: Version
    weight: float
    files: LoraFiles


@dataclass(frozen=True)
class Module:
    """The update of one module as it is stored, and the Frobenius norms of what it lacks and of what was meant."""

    layer: int
    target: str
    kept: Thin
    lost: float
    size: float

    @property
    def name(self) -> str:
        return f"h.{self.layer}.{self.target}"

    @property
    def residual(self) -> float:
        return _rounded(self.lost / self.size if self.size else 0.0)


@dataclass(frozen=True)
class Made:
    """All modules of a blend."""

    r: int
    targets: tuple[str, ...]
    dims: Dims
    modules: tuple[Module, ...]

    @cached_property
    def residual(self) -> float:
        """Of all modules together."""
        size = math.hypot(*(m.size for m in self.modules))
        return _rounded(math.hypot(*(m.lost for m in self.modules)) / size if size else 0.0)

    @property
    def worst(self) -> Module:
        return max(self.modules, key=lambda m: m.residual)


@dataclass(frozen=True)
class Blended:
    """What was published and what was measured.

    Attributes:
        version: the blend.
        parents: with their weights.
        ranks: of the parents, in their order.
        residual: relative Frobenius norm of what the stored update lacks of the one that was meant.
        residuals: the same by module, ``h.3.mlp.c_fc``.
        existed: these weights were published before.
    """

    version: Version
    parents: tuple[tuple[Version, float], ...]
    ranks: tuple[int, ...]
    r: int
    method: str
    density: float | None
    seed: int | None
    residual: float
    residuals: dict[str, float]
    worst: str
    existed: bool

    @property
    def is_sum(self) -> bool:
        """Nothing is lost but what float32 rounds away."""
        return self.method == "exact" and self.residual < 1e-6


def publish(registry: Registry, parents: Sequence[Parent], made: Made, asked: Asked) -> Blended:
    """Write, read back with the strict loader, commit."""
    manifest = _manifest(parents, made, asked)
    before = {v.digest for v in registry.versions(asked.name)}
    with registry.staging() as folder:
        _fill(folder, manifest, made)
        strict.read_lora(folder, made.dims, asked.name)
        version = registry.publish(folder, manifest, note=asked.note)
    return Blended(
        version=version,
        parents=tuple((p.version, p.weight) for p in parents),
        ranks=tuple(p.files.r for p in parents),
        r=made.r,
        method=asked.method,
        density=asked.density,
        seed=asked.seed,
        residual=made.residual,
        residuals={m.name: m.residual for m in made.modules},
        worst=made.worst.name,
        existed=version.digest in before,
    )


def _fill(folder: Path, manifest: dict[str, Any], made: Made) -> None:
    told = {
        "base_model_name_or_path": manifest["base"]["id"],
        "bias": "none",
        "fan_in_fan_out": True,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": made.r,  # with r a scale of 1: weights and scales lie in B
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": made.r,
        "target_modules": list(made.targets),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }
    (folder / strict.CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tensors = {
        strict.tensor_name(m.layer, m.target, side): _stored(matrix)
        for m in made.modules
        for side, matrix in (("A", m.kept.a), ("B", m.kept.b))
    }
    tensorfile.write(folder / strict.WEIGHTS, tensors, {"format": "pt"})
    recipe = {"recipe": manifest["recipe"], "origins": {}, "environment": manifest["environment"]}
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card.card(manifest, ()), encoding="utf-8")


def _stored(matrix: Floats) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", matrix.shape, matrix.astype("<f4").tobytes()


def _manifest(parents: Sequence[Parent], made: Made, asked: Asked) -> dict[str, Any]:
    bases = [p.version.manifest["base"] for p in parents]
    base = next((b for b in bases if b.get("forced")), bases[0])
    lora = {"r": made.r, "alpha": float(made.r), "targets": list(made.targets)}
    recipe: dict[str, Any] = {"base": base["id"], "method": "lora", "lora": lora}
    return {
        "name": asked.name,
        "kind": "lora",
        "base": dict(base),
        "lora": lora,
        "data": None,
        "recipe": recipe | _sample(parents),
        "made_from": None,
        "environment": {
            "adapterkit": adapterkit.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "metrics": asdict(Metrics()),
        "lineage": _lineage(parents, made, asked),
    }


def _lineage(parents: Sequence[Parent], made: Made, asked: Asked) -> dict[str, Any]:
    """All that is needed to make it again, and how far it is from what was meant."""
    told: dict[str, Any] = {
        "how": "blend",
        "parents": [p.version.digest for p in parents],
        "weights": [float(p.weight) for p in parents],
        "method": asked.method,
    }
    told |= {k: v for k, v in (("density", asked.density), ("seed", asked.seed)) if v is not None}
    return told | {"residual": made.residual, "largest": made.worst.residual}


def _sample(parents: Sequence[Parent]) -> dict[str, Any]:
    """How it writes by default: as its parents if they agree, as a blend in a generator does."""
    told = [p.version.recipe.sample.model_dump(mode="json", exclude={"prompts"}) for p in parents]
    return {"sample": told[0]} if all(t == told[0] for t in told) else {}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS - 1}e}")
