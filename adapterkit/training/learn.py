"""A run's steps between its folder and the files of a version: model, checkpoints, what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from adapterkit import files
from adapterkit.errors import NotFound, OutOfMemory
from adapterkit.model import trainable
from adapterkit.model.base import Base
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.runs import Run
from adapterkit.training import checkpoint, room
from adapterkit.training.build import Built, measured
from adapterkit.training.events import Said
from adapterkit.training.pace import duration
from adapterkit.training.plan import Job
from adapterkit.training.resolve import largest_divisor
from adapterkit.training.sampling import Glimpse, is_small
from adapterkit.training.stop import Stop, interrupted, on_signal
from adapterkit.training.trainer import Curve, Track, begin, fit, settle


class Learning:
    """One process's part of a run.

    Args:
        job: planned; its recipe is the run's.
        built: the model as every process of the run begins.
        run: stored, and held by this process.
    """

    def __init__(self, job: Job, built: Built, run: Run) -> None:
        self.job, self.stored, self._built = job, run, built

    def run(self, folder: Path) -> Curve:
        """Train to the end, and fill a staging folder with the best weights.

        Raises:
            Interrupted: a signal asked for the end; a checkpoint was written.
            OutOfMemory: on the device; goes on in pieces half the size.
        """
        job, glimpse = self.job, None
        job.tell(Said(_plan_line(job, self._built)))
        if self._built.wrapped is not None and is_small(job.base):
            glimpse = Glimpse(self._built.wrapped, job.base, job.device, job.recipe, job.prepared)
        with on_signal() as stop, self._enough_memory():
            curve = fit(self._built.module, self._track(), stop=stop, glimpse=glimpse)
        if stop.asked and not curve.is_over:
            raise interrupted(self.stored)
        self._save(folder, curve)
        return curve

    def end(self, folder: Path) -> Curve:
        """The best weights of the checkpoints so far, without another step.

        Raises:
            NotFound: there is no whole checkpoint.
        """
        module, track = self._built.module, self._track()
        curve, newest = begin(module, track, stop=Stop())
        if newest is None:
            raise NotFound(
                f"the run of {self.stored.name!r} has no checkpoint yet, so there is nothing to publish.",
                hint=f"adapterkit train --resume {self.stored.name}",
            )
        trainable.restore(module, track.weights_of(newest))
        if track.held_out and curve.best is None:
            curve.take(track.test(module))
        settle(module, curve)
        if not curve.is_over:
            self.job = replace(self.job, ends_at=checkpoint.step_of(newest))
        self._save(folder, curve)
        return curve

    def _save(self, folder: Path, curve: Curve) -> None:
        """The files of the weights; the model goes, as samples and scores want its memory."""
        if self._built.wrapped is not None:
            trainable.save_lora(self._built.wrapped, folder, self.job.base.id)
        else:
            trainable.save_full(self._built.model, folder, self.job.base)
        curve.release()
        del self._built

    def _track(self) -> Track:
        job = self.job
        return Track(
            recipe=job.recipe,
            rows=job.prepared.train,
            held_out=job.prepared.held_out,
            device=job.device,
            filler=job.tokenizer.end,
            name=job.name,
            folder=self.stored.path,
            may_stop=job.may_stop,
            tell=job.tell,
            saved=self._saved,
        )

    # --- what is stored ---

    def _saved(self, step: int) -> None:
        self.stored = self.stored.write(step=step)

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Turn a device that is too small into an error, and make the pieces half the size for the next try."""
        try:
            yield
        except (RuntimeError, MemoryError) as e:  # on a CPU torch has no class of its own for it
            if not isinstance(e, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(e):
                raise
            smaller = _halved(self.job)
            if smaller is not None:
                self.stored = self.stored.write(recipe=smaller.model_dump(mode="json"))
            raise _too_small(self.job, self.stored, smaller is not None) from e


def _halved(job: Job) -> Recipe | None:
    """The recipe in pieces half the size; None when they are single rows already."""
    train = job.recipe.train
    rows = int(train.batch_size)
    if rows == 1:
        return None
    changed = train.model_copy(update={"batch_size": largest_divisor(rows, rows // 2)})
    return job.recipe.model_copy(update={"train": changed})


def _too_small(job: Job, run: Run, is_halved: bool) -> OutOfMemory:
    place, told = job.device.place, ""
    if place.type == "cuda":
        free, total = torch.cuda.mem_get_info(place)
        others = max(0, total - free - torch.cuda.memory_reserved(place))
        told = f": {(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB used, {others / 1e9:.1f} GB of it by other programs"
    done = max(checkpoint.steps(run.path), default=0)
    again = f"goes on from step {done:,}" if done else "begins again"
    hint = (
        f"adapterkit train --resume     (nothing lost; {again} in pieces half the size, with the same result)"
        if is_halved
        else "shorter rows: --max-length 256, or --gradient-checkpointing, or --device cpu"
    )
    return OutOfMemory(f"out of memory on {place} after step {done:,}{told}.", hint=hint)


def refuse_without_room(job: Job) -> None:
    """Say before anything is begun that the disk or the memory is too small.

    Raises:
        OutOfSpace, OutOfMemory.
    """
    asked = job.given.train.batch_size
    room.check_disk(job.recipe, job.base, job.registry.path, job.name)
    room.check_memory(job.recipe, job.base, job.device, 1 if asked == "auto" else int(asked))


# --- what is said ---------------------------------------------------------------


def base_line(job: Job) -> str:
    return f"Base {job.base.id}, {_millions(job.base)}. {job.device.said}"


def _plan_line(job: Job, built: Built) -> str:
    prepared, train = job.prepared, job.recipe.train
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
        f"{upto}{passes}{_pass_time(job, built)}{stop}. Ctrl-C is safe. Adapter: {files.human_size(4 * built.parameters)}."
    )


def _pass_time(job: Job, built: Built) -> str:
    """`` of 1 min 30 s``, by what was measured for the size of the pieces; nothing where they were given."""
    if job.given.train.batch_size != "auto":
        return ""
    rows = int(job.recipe.train.batch_size)
    seconds = next((p.seconds for p in measured(job, built) if p.rows == rows), None)
    return f" of {duration(seconds * len(job.prepared.train) / rows)}" if seconds else ""


def _millions(base: Base) -> str:
    dims, c = base.dims, base.config
    block = 4 * dims.width**2 + 2 * dims.width * dims.inner
    count = dims.layers * block + (c["vocab_size"] + c["n_positions"]) * dims.width
    return f"{count / 1e6:.{0 if count > 1e7 else 1}f} M parameters"
