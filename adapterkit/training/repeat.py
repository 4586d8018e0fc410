"""``train --repeat REF``: a version trained again from its own recipe, and whether it is identical."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from adapterkit.errors import AdapterKitError, DataError, Unsupported
from adapterkit.evaluation import places
from adapterkit.generation.fit import check_base
from adapterkit.model import base as bases
from adapterkit.recipe.load import Loaded
from adapterkit.recipe.schema import DataSpec
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from adapterkit.training import run
from adapterkit.training.events import Finished, Listener, Said, ignore
from adapterkit.training.plan import Job, plan
from adapterkit.training.publish import environment


def repeat(
    ref: str | Version,
    source: str | None = None,
    *,
    note: str = "",
    registry: Registry | Path | str | None = None,
    on_event: Listener | None = None,
) -> Version:
    """Train a version again after checking that its text and base are the same.

    Args:
        source: where its text lies now, when it is not where it was.

    Returns:
        The version itself when the new weights are the same bits, else a new version.

    Raises:
        DataError: the text is another one, or is not found.
        BaseMismatch: the base is another one.
        Unsupported: it was not made by training, or was ended by hand.
    """
    store = registry if isinstance(registry, Registry) else Registry(registry)
    version = ref if isinstance(ref, Version) else store[ref]
    tell, begun = on_event or ignore, time.monotonic()
    if version.lineage.how != "train":
        raise Unsupported(
            f"{version.ref} was made by {version.lineage.how}, not by training.",
            hint=f"adapterkit show {version.ref}",
        )
    job = _planned(version, source, note, store, tell)
    made = run.again(job)
    if made == version:
        tell(Said(f"Identical: the same bits as {version.ref}."))
    else:
        tell(Said(f"Not identical to {version.ref}: {_why(version, job)}. It is {made.ref} now."))
    tell(Finished(made, existed=False, seconds=time.monotonic() - begun))
    return made


def _planned(version: Version, source: str | None, note: str, store: Registry, tell: Listener) -> Job:
    """The job whose text, base and recipe are the version's."""
    parents = [v for v in store.versions(deleted=True) if v.digest in version.lineage.parents]
    found: Job | None = None
    for spec, folder in _places(version, source):
        base = bases.recall(version.manifest["base"]["weights"]) or version.base
        recipe = version.recipe.model_copy(update={"data": spec, "base": base})
        try:
            job = plan(Loaded(recipe, version.name, folder, {}), name=version.name, note=note, registry=store,
                       tell=tell, start=parents[0] if parents else None,
                       force_base=bool(version.manifest["lineage"].get("forced_base")))  # fmt: skip
        except DataError:
            continue
        found = found or job
        for may_stop in (False, True):  # the stored recipe has the passes, not whether they were auto
            exact = replace(job, may_stop=may_stop)
            if exact.made_from == version.manifest["made_from"]:
                return exact
    raise _other(version, found)


def _places(version: Version, source: str | None) -> Iterator[tuple[DataSpec, Path | None]]:
    spec = version.recipe.data
    if source is not None:
        yield spec.model_copy(update={"source": source}), None
    elif version.metrics.held_out is not None:
        yield from places.candidates(version.metrics.held_out, spec)
    else:
        yield spec, None


def _other(version: Version, job: Job | None) -> AdapterKitError:
    """Why nothing found is what the version was made from."""
    again = f"adapterkit train SOURCE --repeat {version.ref}"
    if job is None:
        return DataError(
            f"the text of {version.ref} is not here: {version.manifest['data']['source']}.",
            hint=f"name it: {again}",
        )
    try:
        check_base(version, job.base)
    except AdapterKitError as e:
        return e
    if job.prepared.fingerprint != version.manifest["data"]["fingerprint"]:
        return DataError(
            f"the text of {version.ref} has changed since it was trained.",
            hint=f"name the text as it was: {again}; or train on it as it is, without --repeat",
        )
    if job.prepared.held_out_fingerprint != version.metrics.held_out:
        return DataError(
            f"the text of {version.ref} is the same, but under this name other parts of it are held out.",
            hint=f"give it the name it had: {version.manifest['data']['source']}",
        )
    return Unsupported(
        f"{version.ref} can't be repeated: it was ended by --finish, or by an AdapterKit that decides otherwise.",
        hint=f"adapterkit show {version.ref} --recipe > again.yaml, then adapterkit train again.yaml",
    )


def _why(version: Version, job: Job) -> str:
    """What is different on this machine."""
    before, now = version.manifest["environment"], environment(job)
    other = [f"{k} {before[k]} then, {now[k]} now" for k in now if k in before and before[k] != now[k]]
    return ", ".join(other) or "this machine computes in another order"
