"""Runs that were broken off, matched with what is asked for now.

What was ``auto`` when a run began is read back from it, so that a machine that
would decide otherwise today goes on with the very same run. All else must be
equal: recipe, text and base.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterkit.errors import DataError, Unsupported
from adapterkit.recipe.keys import keys
from adapterkit.recipe.load import Loaded
from adapterkit.recipe.schema import Recipe
from adapterkit.recipe.source import STDIN
from adapterkit.registry import runs
from adapterkit.registry.runs import Run
from adapterkit.training.events import Said
from adapterkit.training.plan import FREE, Job, with_recipe
from adapterkit.training.resolve import schedule


def match(job: Job) -> tuple[Job, Run | None]:
    """The job as its unfinished run resolved it, and that run; the job itself and None without one."""
    for run in runs.unfinished(job.registry.path, job.name):
        try:
            frozen = with_recipe(job, _frozen(job, run)) if _is_like(job, run) else job
        except Unsupported as e:  # its device is gone, as a notebook's GPU
            job.tell(Said(f"The unfinished run {run.id!r} can't go on here: {e.message}"))
            continue
        if frozen.made_from == run.made_from:
            return frozen, run
    return job, None


def begin(job: Job, *, is_fresh: bool) -> Run:
    """A new run, not stored yet: only who holds it may do that."""
    versions = job.registry.versions(job.name, deleted=True)
    folder = None if _is_gone(job) else str((job.folder or Path()).absolute())
    now = runs.now()
    return Run(
        name=job.name,
        made_from=job.made_from,
        text=_text(job),
        given=job.given.model_dump(mode="json"),
        recipe=job.recipe.model_dump(mode="json"),
        origins=dict(job.origins),
        folder=folder,
        source=_shown(job.given.data.source),
        note=job.note,
        is_fresh=is_fresh,
        start=f"{job.start.name}@{job.start.digest[:8]}" if job.start else "",
        is_forced=job.is_forced,
        after=max((v.number for v in versions), default=0),
        begun=now,
        saved=now,
        steps=schedule(job.recipe, len(job.prepared.train)).steps,
        path=runs.place(job.registry.path, job.name, job.made_from),
    )


def loaded(run: Run) -> Loaded:
    """What was typed when a run began, from whatever folder it goes on.

    Raises:
        Unsupported: its text is not on a disk.
    """
    if run.folder is None:
        raise Unsupported(
            f"the text of {run.name!r} came from {run.source}, so it can't be read again.",
            hint="give the same text to the same command again: it goes on where it was",
        )
    return Loaded(Recipe.model_validate(run.given), run.name, Path(run.folder), run.origins)


def other_text(run: Run) -> DataError:
    return DataError(
        f"the text or the base of {run.name!r} is not what it was when the run began; it can't go on.",
        hint=f"train on it as it is now: adapterkit train {run.source} --name {run.name}",
        details={"run": run.id},
    )


def difference(job: Job, run: Run) -> str:
    """In words, why a run of that name is not the one that is asked for."""
    before, now = (_flat(r) for r in (run.recipe, job.recipe.model_dump(mode="json")))
    free = {f"train.{key}" for key in FREE} | {"data.source", "data.validation"}
    other = [key for key in keys() if key not in free and before.get(key) != now.get(key)]
    told = [f"{key} {_word(before.get(key))} → {_word(now.get(key))}" for key in other[:3]]
    told += [f"{len(other) - 3} more keys"] if len(other) > 3 else []
    told += ["the text"] if run.text != _text(job) else []
    return (
        f"A new run: {', '.join(told) or 'the base'} changed. The unfinished one of {run.name!r} is kept: "
        f"adapterkit train --resume {run.id}"
    )


def _frozen(job: Job, run: Run) -> Recipe:
    """The resolved recipe, but what was ``auto`` as the run has it. Pieces may have been made smaller since."""
    asked, before, now = (
        _flat(r) for r in (job.given.model_dump(mode="json"), run.recipe, job.recipe.model_dump(mode="json"))
    )
    taken = {key for key in keys() if asked.get(key) == "auto"} | {"train.batch_size"}
    told: dict[str, Any] = {}
    for key in keys():
        group, _, name = key.rpartition(".")
        (told.setdefault(group, {}) if group else told)[name] = (before if key in taken else now)[key]
    return Recipe.model_validate(told)


def _is_like(job: Job, run: Run) -> bool:
    """Whether a run can be the job's at all: the same text, and every key known."""
    return run.text == _text(job) and keys().keys() <= _flat(run.recipe).keys()


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _text(job: Job) -> str:
    return f"{job.prepared.fingerprint}/{job.prepared.held_out_fingerprint}"


def _is_gone(job: Job) -> bool:
    """Text from memory or stdin, which no later process can read."""
    return job.is_from_memory or job.given.data.source in (STDIN, [STDIN])


def _shown(source: str | list[str]) -> str:
    names = [source] if isinstance(source, str) else source
    if names in ([], [""]):
        return "memory"
    return "stdin" if names == [STDIN] else " ".join(names)


def _word(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
