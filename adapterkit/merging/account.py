"""What is told of a merged model: export.json, a manifest, a card."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

import torch

import adapterkit
from adapterkit.merging.verify import Differences, Reference
from adapterkit.model.base import Base
from adapterkit.registry.card import card
from adapterkit.registry.full import WEIGHTS
from adapterkit.registry.strict import LoraFiles
from adapterkit.registry.version import Version


@dataclass(frozen=True)
class Job:
    """What is merged into what."""

    version: Version
    base: Base
    files: LoraFiles
    is_forced: bool


def export(
    job: Job, differences: Differences, sha256: str, tools: dict[str, str], reference: Reference
) -> dict[str, Any]:
    """What export.json holds: the source, the tools, the measured differences."""
    return {
        "schema": 1,
        "format": "transformers",
        "source": {"ref": job.version.ref, "digest": job.version.digest},
        "base": _base_of(job) | ({"forced": True} if job.is_forced else {}),
        "dtype": "float32",
        "sha256": {WEIGHTS: sha256},
        "tools": _tools() | tools,
        "differences": asdict(differences),
        "compared_on": {"texts": [t for t, _ in reference.texts], "rows": len(reference.rows)},
    }


def _base_of(job: Job) -> dict[str, Any]:
    """As a manifest tells it: the version's own words, unless it was forced onto another."""
    if not job.is_forced:
        return dict(job.version.manifest["base"])
    told = {"id": job.base.id, "revision": job.base.revision, "layers": job.base.dims.layers}
    return told | asdict(job.base.fingerprints)


def _tools() -> dict[str, str]:
    return {
        "adapterkit": adapterkit.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def manifest(job: Job, name: str) -> dict[str, Any]:
    """Of the merged version; its scores are the adapter's, whose logits it was compared with on the same base."""
    before = job.version.manifest
    return {
        "name": name,
        "kind": "full",
        "base": _base_of(job),
        "lora": None,
        "data": before.get("data"),
        "recipe": before.get("recipe"),
        "made_from": None,  # training would have made the adapter
        "environment": _tools(),
        "metrics": {} if job.is_forced else before["metrics"],
        "lineage": {"how": "merge", "parents": [job.version.digest]}
        | ({"forced_base": True} if job.is_forced else {}),
    }


def merged_card(job: Job, name: str, found: Differences) -> str:
    lines = [
        "## Merged",
        "",
        f"The adapter `{job.version.ref}` ({job.version.digest[:8]}) is in these weights, computed in float64 and stored",
        f"in float32. On {found.positions} positions of fixed text no logit differs from the live adapter's by more than",
        f"{found.logits:.2g} (the adapter itself moves them by up to {found.effect:.2g}).",
    ]
    if manifest(job, name)["metrics"].get("perplexity") is not None:
        lines.append("The scores above were measured with the adapter.")
    return card(manifest(job, name), ()) + "\n" + "\n".join(lines) + "\n"
