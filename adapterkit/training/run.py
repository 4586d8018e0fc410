"""One training run from recipe to published version.

recipe -> base -> text -> rows -> steps -> scores -> samples -> staging -> version
"""

from __future__ import annotations

import json
import math
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import adapterkit
from adapterkit import files
from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.sources import Documents
from adapterkit.errors import NameTaken, RecipeError, Unsupported, UsageProblem, nearest
from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine
from adapterkit.model import base as bases
from adapterkit.model import trainable
from adapterkit.model.base import Base
from adapterkit.model.device import Device, choose
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe import load as recipes
from adapterkit.recipe.given import load_sources
from adapterkit.recipe.keys import by_flag
from adapterkit.recipe.schema import Recipe, target_modules
from adapterkit.refs import check_name, suggest_name
from adapterkit.registry.card import card
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from adapterkit.scoring.loss import PackedLoss, probe_isolation
from adapterkit.training.events import Finished, Listener, Said, Sampled, ignore
from adapterkit.training.resolve import resolve, row_length
from adapterkit.training.sampling import Samples, write_samples
from adapterkit.training.trainer import Curve, fit

SAME_TEXT = 0.1  # share of common documents from which two texts are versions of one


@dataclass
class Job:
    """Everything decided before the first step."""

    name: str
    note: str
    recipe: Recipe  # resolved
    origins: Mapping[str, str]
    prepared: Prepared
    base: Base
    device: Device
    tokenizer: Tokenizer
    registry: Registry
    tell: Listener
    may_stop: bool  # epochs were auto

    @property
    def made_from(self) -> str:
        """What the result depends on: resolved recipe, text and base, not the place or the speed."""
        told = self.recipe.model_dump(mode="json")
        for key in ("device", "batch_size", "log_steps"):
            told["train"].pop(key)
        told["data"].pop("source")
        told.pop("base")
        return files.sha256_bytes(
            files.canonical_json([told, self.prepared.fingerprint, asdict(self.base.fingerprints)])
        )


def train(
    source: str | Path | Documents | Sequence[str | Path] | Recipe,
    *,
    name: str | None = None,
    note: str = "",
    registry: Registry | Path | str | None = None,
    fresh: bool = False,
    on_event: Listener | None = None,
    **keys: Any,
) -> Version:
    """Learn a style from text and publish it as a version.

    Args:
        source: a file, folder, glob, Hub id, list of files, ``Documents``, a recipe's
            name or path, or a Recipe. Never the text itself.
        name: of the adapter; the source's name when left out.
        note: kept with the version.
        registry: a Registry, its folder, or None for the usual search.
        fresh: train also when the same recipe on the same text has been trained.
        on_event: told what happens, see ``adapterkit.training.events``.
        keys: recipe keys as flags: ``lora_r=16, epochs=3, base="embedded"``.

    Returns:
        The new version, or the one that exists for the same recipe, text and base.

    Raises:
        AdapterKitError: with what to do about it; nothing is published then.
    """
    flags = _flags(keys)
    memory = source if isinstance(source, Documents) else None
    if isinstance(source, Recipe):
        dumped = _flat(source.model_dump(mode="python"))
        loaded = recipes.from_flags(dumped | flags, name=name or "")
    elif memory is not None:
        loaded = recipes.from_flags(flags, name=suggest_name(memory.name))
    else:
        several = isinstance(source, Sequence) and not isinstance(source, str)
        given = [str(s) for s in source] if several else [str(source)]  # type: ignore[union-attr]
        tell = on_event or ignore
        loaded = load_sources(given, flags, lambda text: tell(Said(text)))[0]
    return run(loaded, name=name, note=note, registry=registry, fresh=fresh, on_event=on_event, memory=memory)


def run(
    loaded: recipes.Loaded,
    *,
    name: str | None = None,
    note: str = "",
    registry: Registry | Path | str | None = None,
    fresh: bool = False,
    on_event: Listener | None = None,
    memory: Documents | None = None,
) -> Version:
    """``train`` for a loaded recipe."""
    begun = time.monotonic()
    tell = on_event or ignore
    job = plan(loaded, name=name, note=note, registry=registry, tell=tell, memory=memory)
    if not fresh and (existing := find_same(job)):
        tell(Finished(existing, existed=True, seconds=time.monotonic() - begun))
        return existing
    with job.registry.staging() as folder:
        version = _train(job, folder, fresh)
    tell(Finished(version, existed=False, seconds=time.monotonic() - begun))
    return version


def plan(
    loaded: recipes.Loaded,
    *,
    name: str | None,
    note: str = "",
    registry: Registry | Path | str | None = None,
    tell: Listener = ignore,
    memory: Documents | None = None,
) -> Job:
    """Read text and base, decide every ``auto``; trains nothing, writes nothing."""
    recipe = loaded.recipe
    chosen = check_name(name) if name is not None else check_name(suggest_name(loaded.name))
    store = registry if isinstance(registry, Registry) else Registry(registry)
    if recipe.method == "full" and recipe.train.quantize != "none":
        raise RecipeError(
            "'train.quantize' is 8bit with method full; the weights of a full fine-tune are trained and can't be 8-bit.",
            hint="leave --quantize out, or --method lora",
        )
    device = choose(recipe.train.device, recipe.train.precision)
    if device.place.index:
        raise Unsupported(
            f"training runs on the first GPU that it sees, not on {device.place}.",
            hint=f"CUDA_VISIBLE_DEVICES={device.place.index} and --device cuda",
        )
    base = bases.locate(recipe.base, loaded.folder, on_download=lambda line: tell(Said(line)))
    tokenizer = Tokenizer(base.folder)
    prepared = prepare(recipe.data, tokenizer, row_length(recipe, base), loaded.folder, memory)
    job = Job(
        name=chosen,
        note=note,
        recipe=resolve(recipe, prepared, base, device),
        origins=loaded.origins,
        prepared=prepared,
        base=base,
        device=device,
        tokenizer=tokenizer,
        registry=store,
        tell=tell,
        may_stop=recipe.train.epochs == "auto",
    )
    for line in prepared.said:
        tell(Said(line))
    if name is None and loaded.folder is None:
        _refuse_other_text(job)
    return job


def find_same(job: Job) -> Version | None:
    """The version that the same recipe, text and base made before."""
    made = job.made_from
    same = [v for v in job.registry.versions(job.name) if v.manifest.get("made_from") == made]
    return same[-1] if same else None


# --- the run ------------------------------------------------------------------


def _train(job: Job, folder: Path, fresh: bool) -> Version:
    recipe, prepared = job.recipe, job.prepared
    job.tell(Said(f"Base {job.base.id}, {_millions(job.base)}. {job.device.said}"))
    torch.manual_seed(recipe.train.seed)
    bases.remember(job.base)
    model = trainable.load_model(job.base, job.device, recipe)
    wrapped = trainable.attach_lora(model, recipe) if recipe.method == "lora" else None
    module = PackedLoss(wrapped.get_base_model() if wrapped is not None else model)
    if recipe.data.packing == "isolated":
        probe_isolation(module, job.base.config["vocab_size"], int(recipe.train.max_length), job.device.place)
    job.tell(Said(_plan_line(job, module)))
    with tempfile.TemporaryDirectory() as scratch:  # Trainer insists on an output folder
        curve = fit(
            module,
            recipe,
            prepared.train,
            prepared.held_out,
            device=job.device,
            filler=job.tokenizer.end,
            scratch=Path(scratch),
            may_stop=job.may_stop,
            tell=job.tell,
        )
    if wrapped is not None:
        trainable.save_lora(wrapped, folder, job.base.id)
    else:
        trainable.save_full(model, folder, job.base)
    del module, wrapped, model
    return _publish(job, folder, curve, fresh)


def _publish(job: Job, folder: Path, curve: Curve, fresh: bool) -> Version:
    samples = write_samples(_engine_of(job, folder), folder, job.recipe, job.prepared, job.base.dims)
    job.tell(Sampled(samples.shown))
    manifest = _manifest(job, curve, samples)
    (folder / "README.md").write_text(card(manifest, samples.shown), encoding="utf-8")
    (folder / "history.json").write_text(json.dumps([asdict(p) for p in curve.points]))
    told = {
        "recipe": manifest["recipe"],
        "origins": _origins(job),
        "environment": _environment(job),
    }
    (folder / "recipe.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    private = folder / "private"
    private.mkdir()
    (private / "samples.json").write_text(json.dumps([asdict(s) for s in samples.shown]), encoding="utf-8")
    (private / "documents.json").write_text(json.dumps(_document_marks(job)))
    return job.registry.publish(folder, manifest, note=job.note, fresh=fresh)


def _engine_of(job: Job, folder: Path) -> Engine:
    base = job.base if job.recipe.method == "lora" else Base(job.name, folder)
    return loading.engine(base, job.device)


def _manifest(job: Job, curve: Curve, samples: Samples) -> dict[str, Any]:
    recipe, prepared = job.recipe, job.prepared
    base = {"id": job.base.id, "revision": job.base.revision, "layers": job.base.dims.layers}
    data = {
        "source": _source_names(job),
        "fingerprint": prepared.fingerprint,
        "documents": len(prepared.documents),
        "words": prepared.words,
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
        "environment": _environment(job),
        "metrics": asdict(_metrics(job, curve, samples)),
        "lineage": {"how": "train", "parents": []},
    }


def _metrics(job: Job, curve: Curve, samples: Samples) -> Metrics:
    if curve.best is None or curve.base_loss is None:
        return Metrics(stops=samples.stops, copied_words=samples.copied_words)
    loss = curve.best[0]
    return Metrics(
        loss=loss,
        base_loss=curve.base_loss,
        perplexity=math.exp(loss),
        base_perplexity=math.exp(curve.base_loss),
        tokens=job.prepared.held_out_tokens,
        held_out=job.prepared.held_out_fingerprint,
        stops=samples.stops,
        copied_words=samples.copied_words,
    )


def _source_names(job: Job) -> Any:
    """The source without any path of this machine."""
    source = job.recipe.data.source
    many = [source] if isinstance(source, str) else source
    names = [
        Path(s).name if Path(s).is_absolute() or s[:1] == "~" or ".." in Path(s).parts else s for s in many
    ]
    return names[0] if len(names) == 1 else names


def _origins(job: Job) -> dict[str, str]:
    """Where each value came from; of a recipe file only its name, not where it lies."""
    return {k: f"{Path(o.partition(' line ')[0]).name} line {o.partition(' line ')[2]}" if " line " in o else o
            for k, o in job.origins.items()}  # fmt: skip


def _environment(job: Job) -> dict[str, str]:
    from importlib.metadata import version

    told = {p: version(p) for p in ("torch", "transformers", "peft")}
    return told | {
        "adapterkit": adapterkit.__version__,
        "python": platform.python_version(),
        "device": job.device.place.type,
    }


def _document_marks(job: Job) -> list[str]:
    return sorted({files.sha256_bytes(d.text.encode())[:12] for d in job.prepared.documents})


def _refuse_other_text(job: Job) -> None:
    """A name that comes from a path must not mix two texts, such as two projects' data.txt."""
    versions = job.registry.versions(job.name)
    if not versions:
        return
    path = versions[-1].path / "private" / "documents.json"
    if not path.exists():
        return
    before, now = set(json.loads(path.read_text())), set(_document_marks(job))
    common = len(before & now)
    if common >= SAME_TEXT * min(len(before), len(now)) or _is_draft(versions[-1], job):
        return
    source = job.recipe.data.source
    shown = source if isinstance(source, str) else source[0]
    raise NameTaken(
        f"{job.name!r} is already an adapter, trained on other text ({common} of {len(now)} documents in common).",
        hint=f"adapterkit train {shown} --name {job.name}-2     (to add a version to it anyway: --name {job.name})",
        details={"name": job.name, "common": common, "documents": len(now)},
    )


def _is_draft(version: Version, job: Job) -> bool:
    """A single long document that was edited has nothing in common by hash; its length tells."""
    before, now = version.manifest["data"], job.prepared
    alike = 0.8 < before["words"] / max(now.words, 1) < 1.25
    return bool(before["documents"] == len(now.documents) == 1 and alike)


def _plan_line(job: Job, module: PackedLoss) -> str:
    prepared, train = job.prepared, job.recipe.train
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    test = (
        f"test on {prepared.held_out_tokens:,} never shown ({prepared.split.units} {prepared.split.unit})"
        if prepared.held_out
        else "no test (--validation none)"
    )
    upto = "up to " if job.may_stop else ""
    passes = f"{float(train.epochs):g} pass" + ("es" if float(train.epochs) != 1 else "")
    stop = ", stops when the test stops improving" if job.may_stop and prepared.held_out else ""
    return (
        f"Plan: learn from {prepared.train_tokens:,} tokens, {test}. {train.tokens_per_step:,} tokens a step, "
        f"{upto}{passes}{stop}. Adapter: {files.human_size(4 * count)}."
    )


def _millions(base: Base) -> str:
    dims, c = base.dims, base.config
    block = 4 * dims.width**2 + 2 * dims.width * dims.inner
    count = dims.layers * block + (c["vocab_size"] + c["n_positions"]) * dims.width
    return f"{count / 1e6:.{0 if count > 1e7 else 1}f} M parameters"


def _flags(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Python keywords to recipe keys: ``lora_r`` is ``--lora-r`` is ``lora.r``."""
    known = {flag.removeprefix("--").replace("-", "_"): key.path for flag, key in by_flag().items()}
    for word in keys:
        if word not in known:
            close = nearest(word, known)
            raise UsageProblem(
                f"train() has no key {word!r}.",
                hint=f"did you mean {close}?" if close else "see the recipe's keys",
            )
    return {known[word]: value for word, value in keys.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
