"""A LoRA from a full fine-tune: the best update of a rank for each matrix, and what no LoRA can hold.

Of each of GPT-2's four matrices in a layer the change W - W0 is decomposed
(SVD); its largest parts are the adapter (Eckart and Young 1936: no other update
of that rank is nearer). Biases, norms and embeddings have no place in a LoRA:
what changed there is told by its size. Letters: i numbers in, o numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from adapterkit.errors import BaseMismatch, NotFound, Unsupported, UsageProblem
from adapterkit.generation.fit import check_base
from adapterkit.generation.gpt2 import TARGETS
from adapterkit.generation.load import as_tensor
from adapterkit.merging import extracted
from adapterkit.merging.extracted import Asked, Extracted, Left, Module
from adapterkit.merging.stored import Stored
from adapterkit.model import base as bases
from adapterkit.model.base import Base
from adapterkit.refs import check_name
from adapterkit.registry import full, gpt2
from adapterkit.registry.lora_config import MAX_RANK
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

RANK = 16  # when neither a rank nor an energy is asked for
SMALL = 512  # a side up to which float64 costs nothing


@dataclass(frozen=True)
class Source:
    """The full fine-tune: a version, or a transformers folder."""

    label: str
    version: Version | None
    folder: Base | None

    def tensors(self, base: Base) -> Iterator[tuple[str, Tensor]]:
        """All weights, one after the other; of a version they are good when the last one came."""
        if self.version is not None:
            for name, dtype, shape, data in full.read_tensors(self.version, base.config):
                yield name, as_tensor(dtype, shape, data)
        elif self.folder is not None:
            stored = Stored(self.folder.weights)
            yield from ((name, stored[name]) for name in gpt2.shapes(base.config))


@dataclass
class _Found:
    """What changed."""

    modules: list[Module] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


def extract(
    model: str | Path | Version,
    *,
    name: str,
    base: str | Path | None = None,
    rank: int | None = None,
    energy: float | None = None,
    registry: Registry | Path | str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Version:
    """Publish the LoRA nearest to a full fine-tune.

    Args:
        model: a version, or a transformers folder with a GPT-2.
        name: of the adapter.
        base: what the model was trained from; None is what its version says.
        rank: of the adapter. With neither this nor ``energy`` it is 16.
        energy: the share of the squared change that is kept, from which the rank follows.
        registry: a Registry, its folder, or None for the usual search.
        say: told of a download, and why perplexity was not measured.

    Raises:
        UsageProblem: both a rank and an energy, or one that is none.
        Unsupported: an adapter already, nothing to extract, or a rank over 256.
        NotFound, BaseMismatch, Damaged, OutOfSpace.
    """
    asked = Asked(name, rank, energy)
    return extract_of(model, asked, base=base, registry=registry, say=say).version


def extract_of(
    model: str | Path | Version,
    asked: Asked,
    *,
    base: str | Path | None = None,
    registry: Registry | Path | str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Extracted:
    """The same, with what was measured."""
    store = registry if isinstance(registry, Registry) else Registry(registry)
    asked = _checked(asked)
    source = _source(store, model)
    own = _base(source, None if base is None else str(base), say)
    found = _changes(source, own, asked.rank or MAX_RANK)
    if not any(m.size for m in found.modules):
        raise Unsupported(
            f"{source.label} has the matrices of {own.id}: there is nothing that a LoRA could hold.",
            hint="compare it with the base it was trained from: --base BASE",
            code="no-change",
        )
    r = asked.rank or _rank(found.modules, asked.energy)
    return extracted.publish(store, source.version, source.label, own, asked, r, found.modules, found.left, say)  # fmt: skip


# --- what is asked for --------------------------------------------------------


def _checked(asked: Asked) -> Asked:
    check_name(asked.name)
    if asked.rank is not None and asked.energy is not None:
        raise UsageProblem("the rank follows from the energy; give one of them.", hint="--rank 16")
    if asked.rank is not None and not 1 <= asked.rank <= MAX_RANK:
        raise UsageProblem(f"{asked.rank} is no rank; 1 to {MAX_RANK} are served.", hint="--rank 16")
    if asked.energy is not None and not 0 < asked.energy <= 1:
        raise UsageProblem(f"{asked.energy:g} is no share of the change.", hint="--energy 0.99")
    if asked.rank is None and asked.energy is None:
        return Asked(asked.name, RANK, None)
    return asked


def _source(store: Registry, model: str | Path | Version) -> Source:
    if isinstance(model, str | Path) and (Path(model).expanduser() / "config.json").is_file():
        return Source(Path(model).expanduser().resolve().name, None, bases.locate(str(model)))
    if isinstance(model, Path) or (isinstance(model, str) and ("/" in model or model[:1] in (".", "~"))):
        raise NotFound(f"there is no model in {str(model)!r} (no config.json).", hint="adapterkit list")
    version = store[model] if isinstance(model, str) else model
    if version.kind != "full":
        raise Unsupported(
            f"{version.ref} is a LoRA adapter already.",
            hint=f"for a smaller rank: adapterkit blend {version.ref}=1 --rank 4 --name {version.name}-4",
            code="lora",
        )
    return Source(version.ref, version, None)


def _base(source: Source, wanted: str | None, say: Callable[[str], None]) -> Base:
    """The base under it, if it has the same architecture and tokenizer.

    Raises:
        UsageProblem: a folder, of which nobody says what it was trained from.
        BaseMismatch: another architecture, tokenizer, or base than the version's own.
    """
    if source.version is not None:
        place = bases.recall(source.version.manifest["base"]["weights"]) or source.version.base
        base = bases.locate(wanted or place, on_download=say)
        check_base(source.version, base)
        full.check_architecture(source.version, base.config, base.id)
        base.check()
        return base
    if wanted is None or source.folder is None:
        raise UsageProblem(
            f"what was {source.label} trained from?", hint="--base gpt2, a folder, or embedded"
        )
    base, folder = bases.locate(wanted, on_download=say), source.folder
    base.check()
    folder.check()
    for key in gpt2.ARCHITECTURE:
        if folder.config[key] != base.config[key]:
            raise _mismatch(source, base, f"it has {key} {folder.config[key]}, the base {base.config[key]}")
    if folder.fingerprints.tokenizer != base.fingerprints.tokenizer:
        raise _mismatch(source, base, "its tokenizer is another")
    return base


def _mismatch(source: Source, base: Base, why: str) -> BaseMismatch:
    return BaseMismatch(
        f"{source.label} was not trained from {base.id}: {why}.", hint="use the base it was trained from: --base BASE"
    )  # fmt: skip


# --- what changed -------------------------------------------------------------


def _changes(source: Source, base: Base, most: int) -> _Found:
    """The change of every tensor; of a matrix no more parts are held than may be kept."""
    before, found = Stored(base.weights), _Found()
    for name, tensor in source.tensors(base):
        old = before[name]
        place = name.split(".", 2)
        target = place[2].removesuffix(".weight") if name.startswith("h.") else ""
        if target in TARGETS:
            found.modules.append(_decomposed(int(place[1]), target, tensor.double() - old.double(), most))
        elif norm := _norm(tensor.float() - old.float()):
            found.left.append(Left(name, norm, _norm(old)))
    return found


def _norm(tensor: Tensor) -> float:
    """Summed in float64, without a copy of the tensor in it."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _decomposed(layer: int, target: str, change: Tensor, most: int) -> Module:
    """The change of a matrix, stored (i, o), as u diag(s) v."""
    u, s, v = torch.linalg.svd(change if max(change.shape) <= SMALL else change.float(), full_matrices=False)
    # copied: a view would hold all of u and v
    return Module(layer, target, _copied(u[:, :most]), s.double(), _copied(v[:most]))


def _copied(part: Tensor) -> Tensor:
    return part.to(torch.float32, copy=True)


def _rank(modules: list[Module], energy: float | None) -> int:
    """The smallest rank that keeps a share of the squared change of all matrices together.

    Raises:
        Unsupported: it is over what is served.
    """
    squares = [m.s.square() for m in modules]
    whole = sum(float(x.sum()) for x in squares)
    longest = max(map(len, squares))
    kept = torch.zeros(longest, dtype=torch.float64)
    for x in squares:
        kept[: len(x)] += x
    share = kept.cumsum(0) / whole
    wanted = min(energy or 1.0, float(share[-1]) - 1e-12)  # all of it, but for rounding
    r = int((share >= wanted).nonzero()[0]) + 1
    if r > MAX_RANK:
        most = float(share[MAX_RANK - 1])
        raise Unsupported(
            f"to keep {energy:.4g} of the change takes rank {r}; {MAX_RANK} are served, which keep {most:.4f}.",
            hint=f"--energy {math.floor(most * 1000) / 1000:g}, or --rank {MAX_RANK}",
            code="rank",
        )
    return r
