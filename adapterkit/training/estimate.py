"""``train --plan``: what a run would cost, from three real steps whose result is thrown away."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from adapterkit.data.pack import stack
from adapterkit.data.sources import Documents
from adapterkit.files import human_size
from adapterkit.model.matching import match
from adapterkit.model.quantize import base_bytes
from adapterkit.recipe.load import Loaded
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.store import Registry
from adapterkit.training import pace, room
from adapterkit.training import plan as jobs
from adapterkit.training.build import Built, build, measured
from adapterkit.training.events import Listener, ignore
from adapterkit.training.learn import refuse_without_room
from adapterkit.training.pace import duration
from adapterkit.training.plan import Job, find_same
from adapterkit.training.resolve import schedule
from adapterkit.training.source import Source, understand
from adapterkit.training.start import Start, named

STEPS = 3  # measured


@dataclass(frozen=True)
class Plan:
    """What a run would learn from, take and write."""

    name: str
    base: str
    exists: str | None  # the version that the same recipe and text made already
    documents: int
    train_tokens: int
    held_out_tokens: int
    steps: int  # at most
    passes: float  # at most
    may_stop: bool  # earlier, when the test stops improving
    seconds_per_step: float
    seconds_per_test: float
    seconds_per_pass: float
    seconds: float  # at most
    tokens_per_second: float
    memory: int  # bytes at the peak, of this process
    free_memory: int
    disk: int  # bytes while it runs
    adapter: int  # bytes of the weights that are kept
    matched: str  # which modules learn
    device: str
    resolved: dict[str, Any]  # each auto of the recipe and what it became

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person, a fact a line."""
        upto = "up to " if self.may_stop else ""
        told = [
            ("learn from", f"{self.train_tokens:,} tokens in {self.documents:,} document{'s' * (self.documents != 1)}"),
            ("test on", f"{self.held_out_tokens:,} tokens never shown" if self.held_out_tokens else "nothing (--validation none)"),
            ("steps", f"{upto}{self.steps:,} in {self.passes:g} passes" + (", stops when the test stops improving" if self.may_stop else "")),
            ("learns", self.matched),
            ("time", f"{upto}{duration(self.seconds)}: {duration(self.seconds_per_pass)} a pass, {self.tokens_per_second:,.0f} tokens a second (steps and tests)"),
            ("memory", f"{human_size(self.memory)} at the peak, {human_size(self.free_memory)} free"),
            ("disk", f"{human_size(self.disk)} while it runs, {human_size(self.adapter)} for the adapter"),
            ("device", self.device.removeprefix("Device: ")),
        ]  # fmt: skip
        autos = ", ".join(f"{key} {value}" for key, value in self.resolved.items())
        told.append(("auto is", autos))
        if self.exists:
            told.append(("exists", f"the same text and recipe made {self.exists} already"))
        return [f"  {what:<11} {value}" for what, value in told]

    def __str__(self) -> str:
        return "\n".join([f"Plan for {self.name}, on {self.base}:", *self.lines()])


def plan(source: Source | Recipe, *, name: str | None = None, start_from: Start = None,
             registry: Registry | Path | str | None = None, on_event: Listener | None = None,
             force_base: bool = False, **keys: Any) -> Plan:  # fmt: skip
    """What ``train`` with the same arguments would do and take; trains and publishes nothing.

    Args:
        source, name, start_from, registry, on_event, force_base, keys: as for ``train``.

    Raises:
        AdapterKitError: what ``train`` would refuse.
    """
    loaded, memory = understand(source, keys, on_event or ignore, verb="plan", name=name or "")
    return estimate(
        loaded,
        name=name,
        start_from=start_from,
        registry=registry,
        tell=on_event or ignore,
        memory=memory,
        force_base=force_base,
    )


def estimate(loaded: Loaded, *, name: str | None = None, start_from: Start = None,
             registry: Registry | Path | str | None = None, tell: Listener = ignore,
             memory: Documents | None = None, force_base: bool = False) -> Plan:  # fmt: skip
    """``plan`` for a loaded recipe."""
    store = registry if isinstance(registry, Registry) else Registry(registry)
    job = jobs.plan(
        loaded,
        name=name,
        registry=store,
        tell=tell,
        memory=memory,
        start=named(start_from, store),
        force_base=force_base,
    )
    existing = find_same(job)
    refuse_without_room(job)
    built = build(job)
    found = measured(job, built)
    free = pace.free_bytes(job.device.place)
    asked = loaded.recipe.train.batch_size
    piece = pace.chosen(found, free)
    batch = piece.rows if asked == "auto" else int(job.recipe.train.batch_size)
    step, peak = three_steps(job, built, batch)
    train, rows = job.recipe.train, job.prepared.train
    course = schedule(job.recipe, len(rows))
    in_pass, steps = course.in_pass, course.steps
    test = one_test(job, built, batch)
    tests = steps // int(train.eval_steps) + 1
    weights = match(job.base.dims, job.recipe.lora).file_bytes if built.wrapped is not None else _whole(job)
    return Plan(
        name=job.name,
        base=job.base.id,
        exists=existing.ref if existing else None,
        documents=len(job.prepared.documents),
        train_tokens=job.prepared.train_tokens,
        held_out_tokens=job.prepared.held_out_tokens,
        steps=steps,
        passes=float(train.epochs),
        may_stop=job.may_stop and bool(job.prepared.held_out_tokens),
        seconds_per_step=step,
        seconds_per_test=test,
        seconds_per_pass=step * in_pass + test * in_pass / int(train.eval_steps),
        seconds=min(steps * step + tests * test, 60 * train.minutes if train.minutes else math.inf),
        tokens_per_second=job.prepared.train_tokens / (step * in_pass),
        memory=peak
        + base_bytes(job.base, "fp32", "none"),  # writing and scoring at the end hold the base once more
        free_memory=free,
        disk=room.CHECKPOINTS * room.checkpoint_bytes(built.parameters) + weights + room.SMALL,
        adapter=weights,
        matched=str(match(job.base.dims, job.recipe.lora)) if built.wrapped is not None else "every weight",
        device=job.device.said,
        resolved=_resolved(loaded.recipe, job.recipe, batch),
    )


def three_steps(job: Job, built: Built, batch: int) -> tuple[float, int]:
    """Seconds of an optimizer step and the peak in bytes, from STEPS steps of one piece each.

    A step of several pieces takes their number times a piece, and Adam once.
    """
    rows, place = job.prepared.train, job.device.place
    per_step = schedule(job.recipe, len(rows)).per_step
    batch = min(batch, per_step)
    parameters = [p for p in built.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=True)
    built.module.train()
    pieces, updates = [], []
    pace.begin_peak(place)
    for k in range(STEPS):
        which = [(k * batch + i) % len(rows) for i in range(batch)]
        inputs = {
            n: torch.from_numpy(v).to(place)
            for n, v in stack([rows[i] for i in which], job.tokenizer.end).items()
        }
        begun = time.perf_counter()
        built.module(**inputs)["loss"].backward()
        _wait(place)
        middle = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(place)
        pieces.append(middle - begun)
        updates.append(time.perf_counter() - middle)
    return min(pieces) * per_step / batch + min(updates), pace.peak(place)


@torch.inference_mode()
def one_test(job: Job, built: Built, batch: int) -> float:
    """Seconds of a test, from one piece of the held-out rows."""
    held_out = job.prepared.held_out
    if not len(held_out):
        return 0.0
    some = [held_out[i] for i in range(min(batch, len(held_out)))]
    inputs = {n: torch.from_numpy(v).to(job.device.place) for n, v in stack(some, job.tokenizer.end).items()}
    built.module.eval()
    begun = time.perf_counter()
    built.module(**inputs)
    _wait(job.device.place)
    return (time.perf_counter() - begun) * len(held_out) / len(some)


def _resolved(asked: Recipe, resolved: Recipe, batch: int) -> dict[str, Any]:
    """Keys that were auto, and what they became."""
    told: dict[str, Any] = {}
    for group in ("data", "lora", "train"):
        before, after = getattr(asked, group), getattr(resolved, group)
        for key in type(before).model_fields:
            value = batch if (group, key) == ("train", "batch_size") else getattr(after, key)
            if getattr(before, key) == "auto" and value != "auto":
                told[f"{group}.{key}"] = value
    return told


def _whole(job: Job) -> int:
    return base_bytes(job.base, "fp32", "none")


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)
