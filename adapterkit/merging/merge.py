"""One adapter put into its base: a plain transformers folder, compared with the live adapter before it appears.

In order, so that a model is never in memory twice: the live adapter's logits on
fixed rows go into a file; the engine is freed; each tensor is read, merged in
float64 from the original weights and written in float32; a process of its own
opens what was written and compares; only then the folder takes its name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from adapterkit.errors import UsageProblem
from adapterkit.generation.fit import check_base
from adapterkit.generation.load import as_tensor
from adapterkit.merging import stored, target, verify
from adapterkit.merging.account import Job, export, manifest, merged_card
from adapterkit.merging.single import one
from adapterkit.merging.verify import Differences
from adapterkit.model import base as bases
from adapterkit.model.base import Base
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.refs import check_name
from adapterkit.registry import gpt2
from adapterkit.registry.full import CONFIG, WEIGHTS
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import LoraFiles, read_version, tensor_name
from adapterkit.registry.version import Version

EXPORT = "export.json"
REFERENCE = "reference.f32"  # there until it was compared with
SUFFIX = "-merged"
LONGEST = 64  # characters of a name
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Written:
    """What was written, and how far it is from what it was made from."""

    path: Path
    differences: Differences
    version: Version | None = None  # that it is kept as

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())


def merge(
    ref: str | Version,
    *,
    to: Path | str,
    register: bool = False,
    name: str | None = None,
    registry: Registry | Path | str | None = None,
    base: str | Path | None = None,
    force_base: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Written:
    """Put one adapter into its base.

    Args:
        ref: the version.
        to: the new folder; nothing is there before it was verified.
        register: keep it as a version of its own too, a full fine-tune with the adapter as its parent.
        name: of that version; None is the adapter's with ``-merged``.
        registry: a Registry, its folder, or None for the usual search.
        base: where the base is, when it is not where the version says.
        force_base: merge into another base of the same sizes too; this is recorded.
        say: told of a download and of a base that is forced.

    Raises:
        CheckFailed: the merged model differs by too much, with the numbers; nothing is kept.
        UsageProblem: several adapters, or the base; ``blend`` mixes.
        Unsupported: a full fine-tune, or a folder that is not empty.
        NotFound, BaseMismatch, Damaged, OutOfSpace.
    """
    store = registry if isinstance(registry, Registry) else Registry(registry)
    version = one(store, ref)
    if name is not None and not register:
        raise UsageProblem("a name is for a version that is kept.", hint=f"--register --name {name}")
    kept_as = check_name(name or version.name[: LONGEST - len(SUFFIX)] + SUFFIX)
    place = target.checked(to)
    job = _job(version, None if base is None else str(base), force_base, say)
    with target.whole_folder(place) as folder:
        differences = _fill(job, folder, kept_as)
        kept = _keep(store, job, folder, kept_as) if register else None
    return Written(place, differences, kept)


def _job(version: Version, wanted: str | None, force: bool, say: Callable[[str], None]) -> Job:
    place = wanted or bases.recall(version.manifest["base"]["weights"]) or version.base
    base = bases.locate(place, on_download=say)
    is_forced = check_base(version, base, force=force)
    if is_forced:
        say(f"{version.ref} was not made on {base.id}; it is merged into it because of --force-base.")
    base.check()
    return Job(version, base, read_version(version, base.dims), is_forced)


# --- the folder ---------------------------------------------------------------


def _fill(job: Job, folder: Path, name: str) -> Differences:
    """Everything of the merged folder, verified."""
    reference = verify.take(job.base, job.files, folder / REFERENCE)
    stored.give_back()
    _write_config(job.base, folder)
    sha256 = _write_weights(job, folder / WEIGHTS)
    stored.give_back()  # to the child, which needs as much
    differences, tools = verify.verify(folder, reference, sha256=sha256)
    reference.path.unlink()
    told = export(job, differences, sha256, tools, reference)
    (folder / EXPORT).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(merged_card(job, name, differences), encoding="utf-8")
    return differences


def _write_config(base: Base, folder: Path) -> None:
    config = {**json.loads((base.folder / CONFIG).read_text()), "dtype": "float32"}
    for key in ("torch_dtype", "_name_or_path"):  # the old name of dtype, and perhaps a path of this machine
        config.pop(key, None)
    config["architectures"] = ["GPT2LMHeadModel"]
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in (*TOKENIZER, GENERATION):
        if (base.folder / name).is_file():
            (folder / name).write_bytes((base.folder / name).read_bytes())
    if not (folder / GENERATION).is_file():
        end = Tokenizer(base.folder).end
        told = {"bos_token_id": end, "eos_token_id": end}
        (folder / GENERATION).write_text(json.dumps(told, indent=2) + "\n")


def _write_weights(job: Job, path: Path) -> str:
    """All tensors in float32, those with an update merged; sha256 of the file."""
    base = stored.Stored(job.base.weights)

    def get(name: str) -> Tensor:
        weight, update = base[name], updates.get(name)
        return weight if update is None else merged(weight, job.files, *update)

    updates = {f"h.{i}.{t}.weight": (i, t) for i in range(job.base.dims.layers) for t in job.files.targets}
    return stored.write(path, gpt2.shapes(job.base.config), get)


def merged(weight: Tensor, files: LoraFiles, layer: int, kind: str) -> Tensor:
    """A weight with an adapter's update, computed in float64 and rounded once, to float32.

    Args:
        weight: (in, out), as GPT-2 stores it, in any float format.
    """

    def side(which: str) -> Tensor:
        dtype, shape, data = files.tensors[tensor_name(layer, kind, which)]
        return as_tensor(dtype, shape, bytearray(data)).double()

    delta = files.scale * (side("B") @ side("A"))  # (out, in)
    return (weight.double() + delta.T).float()


def _keep(store: Registry, job: Job, folder: Path, name: str) -> Version:
    """A copy of the folder as a version."""
    with store.staging() as staging:
        for path in sorted(folder.iterdir()):
            shutil.copyfile(path, staging / path.name)
        return store.publish(staging, manifest(job, name))
