"""A finished run as a version: samples, manifest, card, and the private report."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adapterkit
from adapterkit.data.picture import picture
from adapterkit.data.report import DataReport, report
from adapterkit.evaluation import places
from adapterkit.evaluation.score import Losses, fp32_losses
from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine
from adapterkit.model.base import Base
from adapterkit.recipe.schema import target_modules
from adapterkit.registry.card import card
from adapterkit.registry.shape import line
from adapterkit.registry.version import Metrics, Version
from adapterkit.scoring.verdict import COPIED, train_loss, verdict
from adapterkit.training.events import Said, Sampled
from adapterkit.training.plan import Job, document_marks
from adapterkit.training.report_page import Account, page
from adapterkit.training.sampling import Samples, write_samples
from adapterkit.training.trainer import Curve

NAMED = 20  # sources of a text that a manifest names


def publish(job: Job, folder: Path, curve: Curve, fresh: bool) -> Version:
    """Everything of a version around its weights, and the version itself.

    Args:
        folder: a staging folder that holds the weights.
    """
    samples = write_samples(_engine_of(job, folder), folder, job.recipe, job.prepared, job.base.dims)
    job.tell(Sampled(samples.shown))
    losses = _losses(job, folder)
    manifest = _manifest(job, losses, samples)
    (folder / "README.md").write_text(
        card(manifest, () if samples.quote or samples.copied_words >= COPIED else samples.shown),
        encoding="utf-8",
    )
    (folder / "history.json").write_text(json.dumps([asdict(p) for p in curve.points]))
    told = {
        "recipe": manifest["recipe"],
        "origins": _origins(job),
        "environment": environment(job),
    }
    (folder / "recipe.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    private = folder / "private"
    private.mkdir()
    (private / "samples.json").write_text(json.dumps([asdict(s) for s in samples.shown]), encoding="utf-8")
    (private / "marks.json").write_text(json.dumps(document_marks(job)))
    told_of_text = report(
        job.prepared, job.tokenizer, int(job.recipe.train.max_length), context=job.base.context
    )
    (private / "data.json").write_text(
        json.dumps(told_of_text.as_dict(), ensure_ascii=False), encoding="utf-8"
    )
    base_loss = losses.base.mean if losses else None
    _look_back(job, private, curve, _account(job, manifest, curve, samples, told_of_text), base_loss)
    if job.prepared.held_out_fingerprint and not job.is_from_memory:
        places.remember(job.prepared.held_out_fingerprint, job.given.data, job.folder)
    return job.registry.publish(folder, manifest, note=job.note, fresh=fresh)


def _account(
    job: Job, manifest: dict[str, Any], curve: Curve, samples: Samples, told_of_text: DataReport
) -> Account:
    metrics = Metrics(**manifest["metrics"])
    drawn = picture(job.prepared.train, job.tokenizer)
    return Account(
        manifest=manifest,
        made=datetime.now(UTC),
        verdict=verdict(metrics, train_loss(curve.points)),
        points=curve.points,
        base_loss=metrics.base_loss,
        sampled=curve.sampled,
        samples=samples.shown,
        data=told_of_text,
        drawing=drawn.lines() if drawn else (),
        origins=_origins(job),
    )


def _look_back(job: Job, private: Path, curve: Curve, told: Account, base_loss: float | None) -> None:
    """Report and picture; a version that was trained is never lost to what only looks at it."""

    def picture_of_loss(path: Path) -> None:
        from adapterkit.training.figure import draw  # matplotlib takes most of a second

        draw(path, curve.points, base_loss, f"{job.name} on {job.base.id}")

    made: dict[str, Callable[[Path], Any]] = {
        "report.html": lambda path: path.write_bytes(page(told).encode("utf-8", "replace")),
        "loss.png": picture_of_loss,
    }
    for name, make in made.items():
        try:
            make(private / name)
        except Exception as e:
            (private / name).unlink(missing_ok=True)
            job.tell(
                Said(f"{name} could not be made ({type(e).__name__}: {e}); the version is whole without it.")
            )


def _engine_of(job: Job, folder: Path) -> Engine:
    base = job.base if job.recipe.method == "lora" else Base(job.name, folder)
    return loading.engine(base, job.device)


def _losses(job: Job, folder: Path) -> Losses | None:
    """Of the base and of the new weights on the held-out text, in float32, as ``evaluate`` measures them."""
    if not len(job.prepared.held_out):
        return None
    return fp32_losses(job.base, folder, job.prepared.held_out, device=str(job.device.place))


def _manifest(job: Job, losses: Losses | None, samples: Samples) -> dict[str, Any]:
    recipe, prepared = job.recipe, job.prepared
    base = {"id": line(job.base.id), "revision": job.base.revision, "layers": job.base.dims.layers}
    data = {
        "source": _source_names(job),
        "fingerprint": prepared.fingerprint,
        "documents": len(prepared.documents),
        "words": prepared.words,
        "rows": len(prepared.train),
        "fill": round(prepared.train.tokens / max(prepared.train.slots(), 1), 4),
        "train_tokens": prepared.train_tokens,
        "held_out": {
            "unit": prepared.split.unit,
            "count": prepared.split.units,
            "tokens": prepared.held_out_tokens,
        },
        "revision": prepared.revision,
    }
    told = recipe.model_dump(mode="json")
    told["data"]["source"] = data["source"]
    if isinstance(recipe.data.validation, str):
        told["data"]["validation"] = _without_place(recipe.data.validation)
    told["base"] = job.base.id
    lora = {"r": recipe.lora.r, "alpha": recipe.lora.alpha, "targets": target_modules(recipe.lora.targets)}
    return {
        "name": job.name,
        "kind": recipe.method,
        "base": base | asdict(job.base.fingerprints),
        "lora": lora if recipe.method == "lora" else None,
        "data": data,
        "recipe": told,
        "made_from": job.made_from,
        "environment": environment(job),
        "metrics": asdict(_metrics(job, losses, samples)),
        "lineage": {"how": "train", "parents": [job.start.digest] if job.start else []}
        | ({"forced_base": True} if job.is_forced else {}),
    }


def _metrics(job: Job, losses: Losses | None, samples: Samples) -> Metrics:
    if losses is None or losses.adapter is None:
        return Metrics(stops=samples.stops, copied_words=samples.copied_words)
    loss, base_loss = losses.adapter.mean, losses.base.mean
    return Metrics(
        loss=loss,
        base_loss=base_loss,
        perplexity=math.exp(loss),
        base_perplexity=math.exp(base_loss),
        tokens=job.prepared.held_out_tokens,
        held_out=job.prepared.held_out_fingerprint,
        stops=samples.stops,
        copied_words=samples.copied_words,
    )


def _source_names(job: Job) -> Any:
    """The source without any path of this machine."""
    source = job.recipe.data.source
    names = [_without_place(s) for s in ([source] if isinstance(source, str) else source)]
    if len(names) > NAMED:  # a manifest is small; on this machine the cache knows them all
        names = [*names[: NAMED - 1], f"and {len(names) - NAMED + 1:,} more"]
    return names[0] if len(names) == 1 else names


def _without_place(path: str) -> str:
    path = line(path)
    placed = Path(path).is_absolute() or path[:1] == "~" or ".." in Path(path).parts
    return Path(path).name if placed else path


def _origins(job: Job) -> dict[str, str]:
    """Where each value came from; of a recipe file only its name, not where it lies."""
    told: dict[str, str] = {}
    for key, origin in job.origins.items():
        path, is_line, line = origin.rpartition(" line ")
        told[key] = f"{Path(path).name} line {line}" if is_line else origin
    return told


def environment(job: Job) -> dict[str, str]:
    """What the bits of a result may depend on beside the recipe."""
    from importlib.metadata import version

    told = {p: version(p) for p in ("torch", "transformers", "peft")}
    return told | {
        "adapterkit": adapterkit.__version__,
        "python": platform.python_version(),
        "device": job.device.place.type,
    }
