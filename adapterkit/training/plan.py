"""Everything that is decided before the first step: text, base, every ``auto``.

recipe -> base -> text -> rows -> a Job; trains nothing and writes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from adapterkit import files
from adapterkit.cache import text_folder
from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.sources import Documents
from adapterkit.errors import NameTaken, RecipeError, Unsupported
from adapterkit.generation.fit import check_base
from adapterkit.model import base as bases
from adapterkit.model import quantize
from adapterkit.model.base import Base
from adapterkit.model.device import Device, choose
from adapterkit.model.matching import match
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe import load as recipes
from adapterkit.recipe.schema import Recipe
from adapterkit.refs import check_name, suggest_name
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from adapterkit.training.events import Listener, Read, Said, ignore
from adapterkit.training.resolve import resolve, row_length
from adapterkit.training.start import onward

SAME_TEXT = 0.1  # share of common documents from which two texts are versions of one
PROMPTS = 6_000  # characters, all together: a manifest holds them
MARKS = 2000  # documents of a text that are remembered, to know it again
# Keys of ``train`` that change how fast, where and how safely something is learned, but not what.
FREE = ("device", "batch_size", "log_steps", "save_steps", "report_to", "fast", "gradient_checkpointing")


@dataclass
class Job:
    """Everything decided before the first step."""

    name: str
    note: str
    recipe: Recipe  # resolved
    given: Recipe  # as it was asked for
    origins: Mapping[str, str]
    prepared: Prepared
    base: Base
    device: Device
    tokenizer: Tokenizer
    registry: Registry
    tell: Listener
    may_stop: bool  # epochs were auto
    folder: Path | None = None  # of the recipe file; relative sources are looked up there
    is_from_memory: bool = False
    start: Version | None = None  # whose weights it begins with
    is_forced: bool = False  # which were made on another base
    ends_at: int | None = None  # the step after which it was ended by --finish

    @property
    def made_from(self) -> str:
        """What the result depends on: resolved recipe, text and base, not the place or the speed."""
        told = self.recipe.model_dump(mode="json")
        for key in FREE:
            told["train"].pop(key)
        told["train"] |= {"may_stop": self.may_stop}
        if self.start is not None:
            told["start"] = self.start.digest
        if self.ends_at is not None:
            told["train"] |= {"ends_at": self.ends_at}
        told["data"].pop("source")
        told["data"].pop("validation")  # what is tested on counts, wherever it comes from
        told.pop("base")
        return files.sha256_bytes(
            files.canonical_json(
                [
                    told,
                    self.prepared.fingerprint,
                    self.prepared.held_out_fingerprint,
                    asdict(self.base.fingerprints),
                ]
            )
        )


def plan(
    loaded: recipes.Loaded,
    *,
    name: str | None,
    note: str = "",
    registry: Registry | Path | str | None = None,
    tell: Listener = ignore,
    memory: Documents | None = None,
    start: Version | None = None,
    force_base: bool = False,
) -> Job:
    """Read text and base, decide every ``auto``; trains nothing, writes nothing.

    Args:
        start: a version whose weights it begins with; base, method and shape are then its.
        force_base: take it also when it was made on another base of the same sizes.
    """
    loaded = onward(loaded, start) if start is not None else loaded
    recipe = loaded.recipe
    chosen = check_name(name) if name is not None else check_name(suggest_name(loaded.name))
    store = registry if isinstance(registry, Registry) else Registry(registry)
    if len(json.dumps(recipe.sample.prompts)) > PROMPTS:
        raise RecipeError(
            f"'sample.prompts' are longer than {PROMPTS:,} characters together.",
            hint="fewer or shorter prompts",
        )
    device = _device(recipe)
    base = bases.locate(recipe.base, loaded.folder, on_download=lambda line: tell(Said(line)))
    is_forced = start is not None and check_base(start, base, force=force_base)
    if start is not None and is_forced:
        tell(Said(f"{start.ref} was made on another base; training begins with it because of --force-base."))
    if recipe.method == "lora":
        match(base.dims, recipe.lora)  # refuses unknown targets before the text is read
    bits = quantize.decide(recipe, base, device)
    tokenizer = Tokenizer(base.folder)
    prepared = prepare(
        recipe.data,
        tokenizer,
        row_length(recipe, base),
        loaded.folder,
        memory,
        cache=text_folder(),
        progress=lambda documents, characters: tell(Read(documents, characters)),
    )
    job = Job(
        name=chosen,
        note=note,
        recipe=_with_bits(resolve(recipe, prepared, base, device), bits.choice),
        given=recipe,
        start=start,
        is_forced=is_forced,
        origins=loaded.origins,
        prepared=prepared,
        base=base,
        device=device,
        tokenizer=tokenizer,
        registry=store,
        tell=tell,
        may_stop=recipe.train.epochs == "auto",
        folder=loaded.folder,
        is_from_memory=memory is not None,
    )
    for line in (*prepared.said, bits.said) if bits.said else prepared.said:
        tell(Said(line))
    if name is None and loaded.folder is None:
        _refuse_other_text(job)
    return job


def _device(recipe: Recipe) -> Device:
    """Where one process trains.

    Raises:
        Unsupported: several processes, or another GPU than the first.
    """
    device = choose(recipe.train.device, recipe.train.precision, training=True)
    if os.environ.get("WORLD_SIZE", "1") != "1":  # set by torchrun and accelerate launch
        raise Unsupported(
            f"training by {os.environ['WORLD_SIZE']} processes at once is not there yet.",
            hint="start it as one process: adapterkit train ...",
        )
    if device.place.index:
        raise Unsupported(
            f"training runs on the first GPU that it sees, not on {device.place}.",
            hint=f"CUDA_VISIBLE_DEVICES={device.place.index} and --device cuda",
        )
    return device


def with_recipe(job: Job, recipe: Recipe) -> Job:
    """The job by another resolved recipe, such as that of a run which goes on."""
    now = job.recipe.train
    is_same = (recipe.train.device, recipe.train.precision) == (now.device, now.precision)
    device = job.device if is_same else choose(recipe.train.device, recipe.train.precision, training=True)
    return replace(job, recipe=recipe, device=device)


def _with_bits(recipe: Recipe, choice: str) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"quantize": choice})})


def find_same(job: Job) -> Version | None:
    """The version that the same recipe, text and base made before."""
    made = job.made_from
    same = [v for v in job.registry.versions(job.name) if v.facts.made_from == made]
    return same[-1] if same else None


def document_marks(job: Job) -> list[str]:
    """Hashes of the documents, the lowest of them when there are many: enough to know a text again."""
    return [f"{m:016x}" for m in np.unique(job.prepared.documents.marks)[:MARKS]]


def _refuse_other_text(job: Job) -> None:
    """A name that comes from a path must not mix two texts, such as two projects' data.txt."""
    versions = job.registry.versions(job.name)
    if not versions:
        return
    path = versions[-1].path / "private" / "marks.json"
    if not path.exists():
        return
    before, now = set(json.loads(path.read_text())), set(document_marks(job))
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
