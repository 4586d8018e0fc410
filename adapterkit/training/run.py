"""One training run from recipe to published version.

plan -> steps -> scores -> samples -> staging -> version
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from adapterkit import files
from adapterkit.data.sources import Documents
from adapterkit.model import base as bases
from adapterkit.model import trainable
from adapterkit.model.base import Base
from adapterkit.recipe import load as recipes
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from adapterkit.scoring.loss import PackedLoss, probe_isolation
from adapterkit.training.events import Finished, Listener, Said, ignore
from adapterkit.training.plan import Job, find_same, plan
from adapterkit.training.publish import publish
from adapterkit.training.source import understand
from adapterkit.training.trainer import fit


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
    loaded, memory = understand(source, keys, on_event or ignore, verb="train", name=name or "")
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
        length, vocabulary = int(recipe.train.max_length), job.base.config["vocab_size"]
        probe_isolation(module, vocabulary, length, job.device.place, exact=recipe.train.quantize == "none")
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
    return publish(job, folder, curve, fresh)


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
