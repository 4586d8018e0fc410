"""Everything that is decided before the first step: text, base, every ``auto``.

recipe -> base -> text -> rows -> a Job; trains nothing and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from adapterkit import files
from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.sources import Documents
from adapterkit.errors import NameTaken, RecipeError, Unsupported
from adapterkit.model import base as bases
from adapterkit.model.base import Base
from adapterkit.model.cache import text_folder
from adapterkit.model.device import Device, choose
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe import load as recipes
from adapterkit.recipe.schema import Recipe
from adapterkit.refs import check_name, suggest_name
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from adapterkit.training.events import Listener, Read, Said, ignore
from adapterkit.training.resolve import resolve, row_length

SAME_TEXT = 0.1  # share of common documents from which two texts are versions of one
MARKS = 2000  # documents of a text that are remembered, to know it again


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
