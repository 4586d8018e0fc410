"""An extracted adapter as a version: its files, what it lacks of the full fine-tune, and its score beside both."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import adapterkit
from adapterkit.merging.scored import Perplexities, measure
from adapterkit.model.base import Base
from adapterkit.registry import strict, tensorfile
from adapterkit.registry.card import card
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import read_lora
from adapterkit.registry.version import Metrics, Version

EXPORT = "export.json"
DIGITS = 3  # of a residual


@dataclass(frozen=True)
class Asked:
    """What a person wants: a name, and a rank or the share of the squared change to keep."""

    name: str
    rank: int | None = None
    energy: float | None = None


@dataclass(frozen=True)
class Module:
    """The change of one matrix, u (i, k) diag(s) v (k, o); of u and v only the first parts, of s all."""

    layer: int
    target: str
    u: Tensor
    s: Tensor
    v: Tensor

    @property
    def name(self) -> str:
        return f"h.{self.layer}.{self.target}"

    @property
    def size(self) -> float:
        """Frobenius norm of the change."""
        return float(self.s.norm())

    def lost(self, r: int) -> float:
        """Frobenius norm of what the nearest update of a rank lacks."""
        return float(self.s[r:].norm())

    def pair(self, r: int) -> tuple[Tensor, Tensor]:
        """A (r, i) and B (o, r), as PEFT stores them; zeros where the matrix has fewer parts."""
        root = self.s[:r].sqrt().float()
        k = min(r, len(root), self.u.shape[1])
        a, b = torch.zeros(r, self.u.shape[0]), torch.zeros(self.v.shape[1], r)
        a[:k] = (self.u[:, :k] * root[:k]).T
        b[:, :k] = self.v[:k].T * root[:k]
        return a, b


@dataclass(frozen=True)
class Left:
    """A tensor that changed and that no LoRA holds: norms of its change and of what it was in the base."""

    name: str
    change: float
    size: float

    @property
    def kind(self) -> str:
        if self.name.startswith(("wte", "wpe")):
            return "embeddings"
        return "norms" if "ln_" in self.name else "biases"


@dataclass(frozen=True)
class Extracted:
    """What was published and what was measured.

    Attributes:
        residual: relative Frobenius norm of what the adapter lacks of the change of all matrices.
        residuals: the same by module, ``h.3.mlp.c_fc``.
        left: what changed and no LoRA can hold.
        perplexity: None where the held-out text is not there.
    """

    version: Version
    r: int
    residual: float
    residuals: dict[str, float]
    left: tuple[Left, ...]
    perplexity: Perplexities | None


def publish(
    store: Registry, version: Version | None, label: str, base: Base, asked: Asked, r: int,
    modules: Sequence[Module], left: Sequence[Left], say: Callable[[str], None],
) -> Extracted:  # fmt: skip
    """Write, read back with the strict loader, score, commit."""
    targets = tuple(_changed(modules))
    kept = [m for m in modules if m.target in targets]
    residuals = {m.name: _rounded(m.lost(r) / m.size if m.size else 0.0) for m in kept}
    whole = math.hypot(*(m.size for m in kept))
    residual = _rounded(math.hypot(*(m.lost(r) for m in kept)) / whole)
    with store.staging() as folder:
        _write(folder, base.id, r, targets, kept)
        files = read_lora(folder, base.dims, asked.name)
        score = measure(version, base, files, say)
        manifest = _manifest(version, base, asked, r, targets, score, residual)
        told = {
            "schema": 1,
            "format": "lora",
            "source": {"name": label, "digest": version.digest if version else None},
            "base": manifest["base"],
            "rank": r,
            "energy": asked.energy,
            "residual": residual,
            "residuals": residuals,
            "left": [asdict(x) | {"kind": x.kind} for x in left],
            "perplexity": asdict(score) if score else None,
            "tools": manifest["environment"],
        }
        _put(folder / EXPORT, told)
        _put(folder / "recipe.json", {"recipe": manifest["recipe"], "origins": {}, "environment": manifest["environment"]})  # fmt: skip
        (folder / "README.md").write_text(_card(manifest, label, residual, left, score), encoding="utf-8")
        made = store.publish(folder, manifest)
    return Extracted(made, r, residual, residuals, tuple(left), score)


def _changed(modules: Sequence[Module]) -> list[str]:
    """The kinds of matrices that changed in any layer, sorted."""
    return sorted({m.target for m in modules if m.size})


# --- files --------------------------------------------------------------------


def _write(folder: Path, base_id: str, r: int, targets: Sequence[str], modules: Sequence[Module]) -> None:
    config = {
        "base_model_name_or_path": base_id,
        "bias": "none",
        "fan_in_fan_out": True,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": r,  # with r a scale of 1
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": r,
        "target_modules": list(targets),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }
    _put(folder / strict.CONFIG, config)
    tensors = {}
    for m in modules:
        for side, matrix in zip("AB", m.pair(r), strict=True):
            raw = matrix.contiguous().numpy().tobytes()
            tensors[strict.tensor_name(m.layer, m.target, side)] = ("F32", tuple(matrix.shape), raw)
    tensorfile.write(folder / strict.WEIGHTS, tensors, {"format": "pt"})


def _put(path: Path, told: Any) -> None:
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS - 1}e}")


# --- what is told -------------------------------------------------------------


def _manifest(
    version: Version | None, base: Base, asked: Asked, r: int, targets: Sequence[str],
    score: Perplexities | None, residual: float,
) -> dict[str, Any]:  # fmt: skip
    own = {"id": base.id, "revision": base.revision, "layers": base.dims.layers}
    before = version.manifest if version else {}
    lora = {"r": r, "alpha": float(r), "targets": list(targets)}
    recipe = {**(before.get("recipe") or {"base": base.id}), "method": "lora"}
    recipe["lora"] = {**recipe.get("lora", {}), **lora, "rslora": False}
    return {
        "name": asked.name,
        "kind": "lora",
        "base": before.get("base") or own | asdict(base.fingerprints),
        "lora": lora,
        "data": before.get("data"),
        "recipe": recipe,
        "made_from": None,
        "environment": {
            "adapterkit": adapterkit.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "metrics": asdict(_metrics(version, score)),
        "lineage": {"how": "extract", "parents": [version.digest] if version else [], "residual": residual},
    }


def _metrics(version: Version | None, score: Perplexities | None) -> Metrics:
    if version is None or score is None:
        return Metrics()
    return Metrics(
        loss=math.log(score.extracted),
        base_loss=math.log(score.base),
        perplexity=score.extracted,
        base_perplexity=score.base,
        tokens=version.metrics.tokens,
        held_out=version.metrics.held_out,
    )


def left_by_kind(left: Sequence[Left]) -> dict[str, tuple[float, float]]:
    """Norm of the change, and its share of what it was, for embeddings, norms and biases as far as they changed."""
    told = {}
    for kind in ("embeddings", "norms", "biases"):
        some = [x for x in left if x.kind == kind]
        if some:
            change, size = math.hypot(*(x.change for x in some)), math.hypot(*(x.size for x in some))
            told[kind] = (change, change / size if size else math.inf)
    return told


def _card(
    manifest: dict[str, Any], label: str, residual: float, left: Sequence[Left], score: Perplexities | None
) -> str:
    lines = [
        f"Taken from the full fine-tune `{label}` by SVD of what it changed; {residual:.1%} (Frobenius norm) of the"
    ]
    lines += ["change of its matrices is not in this adapter."]
    for kind, (change, share) in left_by_kind(left).items():
        lines += [
            f"- {kind.capitalize()} changed by {change:.3g} ({share:.1%} of their size), which no LoRA holds."
        ]
    if score:
        lines += ["", "| perplexity | base | full fine-tune | this |", "|---|---|---|---|"]
        lines += [
            f"| {score.tokens:,} tokens of unseen text | {score.base:.2f} | {score.full:.2f} | {score.extracted:.2f} |"
        ]
    return card(manifest, ()) + "\n## Extracted\n\n" + "\n".join(lines) + "\n"
