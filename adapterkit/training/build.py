"""The model of a job, ready to learn, with its loss around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from adapterkit.generation.load import put_full
from adapterkit.model import base as bases
from adapterkit.model import trainable
from adapterkit.registry import full
from adapterkit.registry.strict import read_version
from adapterkit.scoring.loss import PackedLoss, probe_isolation
from adapterkit.training import pace
from adapterkit.training.pace import Pace
from adapterkit.training.plan import Job
from adapterkit.training.resolve import rows_per_step


@dataclass(frozen=True)
class Built:
    """What learns, and through which callable."""

    module: PackedLoss
    model: nn.Module
    wrapped: Any | None  # PEFT's wrapper; None for a full fine-tune

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)


def build(job: Job) -> Built:
    """Load the base, attach the LoRA, and prove that packed documents do not see each other.

    Raises:
        CheckFailed: they do.
    """
    recipe = job.recipe
    torch.manual_seed(recipe.train.seed)
    bases.remember(job.base)
    job.base.check()
    model = trainable.load_model(job.base, job.device, recipe)
    if job.start is not None and recipe.method == "full":
        full.check_architecture(job.start, job.base.config, job.base.id)
        put_full(model, full.read_tensors(job.start, job.base.config))
    wrapped = trainable.attach_lora(model, recipe) if recipe.method == "lora" else None
    if job.start is not None and wrapped is not None:
        trainable.put_lora(wrapped, read_version(job.start, job.base.dims))
    inner = wrapped.get_base_model() if wrapped is not None else model
    module = PackedLoss(inner, fast=recipe.train.fast, dtype=job.device.dtype)
    if recipe.data.packing == "isolated":
        length, vocabulary = int(recipe.train.max_length), job.base.config["vocab_size"]
        exact = recipe.train.quantize == "none"
        probe_isolation(module, vocabulary, length, job.device.place, exact=exact)
    return Built(module, model, wrapped)


def measured(job: Job, built: Built) -> list[Pace]:
    """Micro-batches of this job, timed once a machine; the random numbers go on as if nothing had been."""
    recipe, dims = job.recipe, job.base.dims
    train = recipe.train
    key = {
        "base": [dims.layers, dims.width, dims.inner, int(job.base.config["vocab_size"])],
        "length": int(train.max_length),
        "method": [recipe.method, recipe.lora.r, recipe.lora.targets, recipe.lora.dropout > 0],
        "how": [
            train.precision,
            train.quantize,
            train.fast,
            train.gradient_checkpointing,
            train.base_dropout > 0,
        ],
        "packing": recipe.data.packing,
    }
    rows = job.prepared.train
    per_step = rows_per_step(int(train.tokens_per_step), int(train.max_length), len(rows))
    return pace.paces(built.module, rows, per_step, filler=job.tokenizer.end, place=job.device.place, key=key)


def with_batch_size(job: Job, built: Built) -> Job:
    """The job with ``batch_size: auto`` decided: it cuts a step into pieces, and changes no result."""
    found = measured(job, built)
    best = pace.chosen(found, pace.free_bytes(job.device.place))
    train = job.recipe.train.model_copy(update={"batch_size": best.rows})
    return replace(job, recipe=job.recipe.model_copy(update={"train": train}))
