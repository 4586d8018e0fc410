"""One training run from recipe to published version, and what was broken off to its end.

plan -> the run's folder -> steps -> scores -> samples -> staging -> version
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapterkit.data.sources import Documents
from adapterkit.evaluation.against import compare_with_best
from adapterkit.recipe import load as recipes
from adapterkit.recipe.schema import Recipe
from adapterkit.registry import place, runs
from adapterkit.registry.runs import Run
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from adapterkit.training import checkpoint, unfinished
from adapterkit.training.build import build, with_batch_size
from adapterkit.training.events import Finished, Listener, Said, ignore
from adapterkit.training.learn import Learning, base_line, refuse_without_room
from adapterkit.training.plan import Job, find_same, plan
from adapterkit.training.publish import publish
from adapterkit.training.resolve import schedule
from adapterkit.training.source import understand
from adapterkit.training.start import Start, named
from adapterkit.training.stop import interrupted
from adapterkit.training.trainer import check_trackers


def train(
    source: str | Path | Documents | Sequence[str | Path] | Recipe,
    *,
    name: str | None = None,
    note: str = "",
    start_from: Start = None,
    registry: Registry | Path | str | None = None,
    resume: bool = True,
    force_base: bool = False,
    on_event: Listener | None = None,
    **keys: Any,
) -> Version:
    """Learn a style from text and publish it as a version.

    Args:
        source: a file, folder, glob, Hub id, list of files, ``Documents``, a recipe's
            name or path, or a Recipe. Never the text itself.
        name: of the adapter; the source's name when left out.
        note: kept with the version.
        start_from: a ref or version whose weights it begins with; base, method and the
            LoRA's shape are then that version's.
        registry: a Registry, its folder, or None for the usual search.
        resume: go on with the same run where it was broken off, and answer with the
            version when it was trained before; False begins anew in both cases.
        force_base: begin also with weights that were made on another base of the same sizes.
        on_event: told what happens, see ``adapterkit.training.events``.
        keys: recipe keys as flags: ``lora_r=16, epochs=3, base="embedded"``.

    Returns:
        The new version, or the one that exists for the same recipe, text and base.

    Raises:
        AdapterKitError: with what to do about it; nothing is published then.
    """
    loaded, memory = understand(source, keys, on_event or ignore, verb="train", name=name or "")
    return run(
        loaded, name=name, note=note, start_from=start_from, registry=registry, resume=resume,
        on_event=on_event, memory=memory, force_base=force_base,
    )  # fmt: skip


def run(
    loaded: recipes.Loaded,
    *,
    name: str | None = None,
    note: str = "",
    start_from: Start = None,
    registry: Registry | Path | str | None = None,
    resume: bool = True,
    on_event: Listener | None = None,
    memory: Documents | None = None,
    force_base: bool = False,
) -> Version:
    """``train`` for a loaded recipe."""
    begun = time.monotonic()
    tell = on_event or ignore
    store = registry if isinstance(registry, Registry) else Registry(registry)
    start = named(start_from, store)
    job = plan(loaded, name=name, note=note, registry=store, tell=tell, memory=memory, start=start,
               force_base=force_base)  # fmt: skip
    version, existed = _begin(job) if not resume else _go_on(job)
    tell(Finished(version, existed=existed, seconds=time.monotonic() - begun))
    return version


def go_on(
    which: str | None = None,
    *,
    registry: Registry | Path | str | None = None,
    on_event: Listener | None = None,
) -> Version:
    """Take up an unfinished run by the recipe it was begun with, the newest without a name.

    Raises:
        NotFound: there is none.
        DataError: its text has changed since.
    """
    begun = time.monotonic()
    job, found = _stored(which, registry, on_event or ignore)
    version, existed = _answer(job, found) or (_learn(job, found), False)
    job.tell(Finished(version, existed=existed, seconds=time.monotonic() - begun))
    return version


def finish(
    which: str | None = None,
    *,
    registry: Registry | Path | str | None = None,
    on_event: Listener | None = None,
) -> Version:
    """Publish the best weights that an unfinished run has found so far, and end it.

    Raises:
        NotFound: there is no run, or it has no checkpoint yet.
        DataError: its text has changed since.
    """
    begun = time.monotonic()
    job, found = _stored(which, registry, on_event or ignore)
    version, existed = _answer(job, found) or (_learn(job, found, ends=True), False)
    job.tell(Finished(version, existed=existed, seconds=time.monotonic() - begun))
    return version


def again(job: Job) -> Version:
    """Train a planned job although its version is there; the same content is that version."""
    job, found = unfinished.match(job)
    return _learn(job, found)


# --- which run ------------------------------------------------------------------


def _go_on(job: Job) -> tuple[Version, bool]:
    """The version that is there, or that of the unfinished run, or of a new one; and whether it was there."""
    job, found = unfinished.match(job)
    if answer := _answer(job, found):
        return answer
    if found is None:
        others = runs.unfinished(job.registry.path, job.name)
        if others:
            job.tell(Said(unfinished.difference(job, others[0])))
        return _learn(job, None), False
    if found.step:
        job.tell(Said(f"{_where(job, found)} (same result as without the break). Start over: --fresh"))
    return _learn(job, found), False


def _begin(job: Job) -> tuple[Version, bool]:
    """A new run, whatever is there."""
    _, found = unfinished.match(job)
    if found is not None:
        with found.held():
            found.drop()
    return _learn(job, None, is_fresh=True), False


def _answer(job: Job, found: Run | None) -> tuple[Version, bool] | None:
    """The version that makes training needless; one of before a fresh run was begun does not."""
    same = find_same(job)
    if same is None or (found is not None and same.number <= found.after):
        return None
    if found is not None:  # killed between publishing and tidying up
        compare_with_best(job.registry, same, job.prepared, job.base, job.device.place.type)
        found.drop()
    if job.note and job.note != same.note:
        same = job.registry.note(same.ref, job.note)
    return same, True


def _stored(which: str | None, registry: Registry | Path | str | None, tell: Listener) -> tuple[Job, Run]:
    """An unfinished run with its own recipe."""
    store = registry if isinstance(registry, Registry) else Registry(registry)
    found = runs.find(store.path, which)
    loaded = unfinished.loaded(found)
    start = store[found.start] if found.start else None
    job = plan(loaded, name=found.name, note=found.note, registry=store, tell=tell, start=start,
               force_base=found.is_forced)  # fmt: skip
    job, same = unfinished.match(job)
    if same is None or same.id != found.id:
        raise unfinished.other_text(found)
    if found.step:
        tell(Said(_where(job, same) + "."))
    return job, same


def _where(job: Job, found: Run) -> str:
    """``Going on with the run of 14:02, step 112, pass 2``."""
    in_pass = schedule(job.recipe, len(job.prepared.train)).in_pass
    return (
        f"Going on with the run of {found.begun_here}, step {found.step:,}, pass {-(-found.step // in_pass)}"
    )


# --- its end --------------------------------------------------------------------


def _learn(job: Job, found: Run | None, *, is_fresh: bool = False, ends: bool = False) -> Version:
    """Train, publish, tidy up. Until it is published nothing of it is in the registry.

    Args:
        found: the run that goes on; None begins one.
        is_fresh: the new run makes a version although the same one is there.
        ends: publish the best so far instead of going on.
    """
    check_trackers(job.recipe.train.report_to)
    if found is None:
        refuse_without_room(job)
    job.tell(Said(base_line(job)))
    is_new = False
    built = build(job)
    if found is None:  # stored only when all is decided: whoever takes it up again decides nothing
        job = with_batch_size(job, built) if job.given.train.batch_size == "auto" else job
        place.create(job.registry.path)
        found, is_new = unfinished.begin(job, is_fresh=is_fresh), True
    job.note = job.note or found.note
    found.path.mkdir(parents=True, exist_ok=True)
    with found.held():
        found = found.write() if is_new else found
        learning = Learning(job, built, found)
        try:
            with job.registry.staging() as folder:
                curve = learning.end(folder) if ends else learning.run(folder)
                del built
                version = publish(learning.job, folder, curve, found.is_fresh)
        except KeyboardInterrupt:
            if not checkpoint.steps(found.path):
                raise
            raise interrupted(learning.stored) from None
        compare_with_best(job.registry, version, job.prepared, job.base, job.device.place.type)
        learning.stored.drop()
    return version
