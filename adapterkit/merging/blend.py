"""``blend``: several adapters of one base become one version, and how far it is from what was meant is measured.

``exact`` is their weighted sum, which a generator writes with too. With a rank
below the sum of ranks it is the nearest update of that rank. The other methods
go through whole updates, one module at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from adapterkit.errors import BaseMismatch, Unsupported, UsageProblem, nearest
from adapterkit.merging import blended, combine, methods
from adapterkit.merging.blended import Asked, Blended, Made, Parent
from adapterkit.merging.deltas import Thin, dims_of, thin
from adapterkit.merging.methods import EXACT, METHODS, Chosen
from adapterkit.refs import Part, check_name, from_mapping, parse_adapter
from adapterkit.registry.lora_config import MAX_RANK
from adapterkit.registry.plainjson import spoken
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import Dims, read_version
from adapterkit.registry.version import Version

MAX_WEIGHT = 1e6
PRINTS = ("config", "tokenizer", "weights")


def blend(
    parts: Mapping[str, float] | str,
    *,
    name: str,
    rank: int | None = None,
    method: str = EXACT,
    density: float | None = None,
    seed: int | None = None,
    note: str = "",
    registry: Registry | Path | str | None = None,
) -> Version:
    """Publish a blend of adapters as a version of ``name``, the next number if it is there.

    Args:
        parts: ``{"noir": 0.7, "shanty": 0.3}``, or the same as text.
        rank: at most this; None is what the sum needs.
        method: ``exact`` (also called ``linear``) is the weighted sum. ``ties``, ``dare-ties`` and
            ``magnitude`` choose numbers of the whole updates.
        density: share of numbers that these three keep; None is a half.
        seed: of what dare-ties drops; None is 0.

    Returns:
        The version; one that is there already when it has the same weights.

    Raises:
        UsageProblem: no parts, a weight or an argument that is none.
        NotFound, Damaged: as the registry says.
        BaseMismatch: they were not all trained on one base.
        Unsupported: a full fine-tune, or a rank over 256.
    """
    asked = Asked(name, rank, method, density, seed, note)
    return blend_of(parts, asked, registry).version


def blend_of(
    parts: Mapping[str, float] | str, asked: Asked, registry: Registry | Path | str | None = None
) -> Blended:
    """The same, with what was measured."""
    store = registry if isinstance(registry, Registry) else Registry(registry)
    asked = _checked(asked)
    named = parse_adapter(parts) if isinstance(parts, str) else from_mapping(parts)
    weights = _weights(store, named)
    _check_kinds(list(weights))
    dims = dims_of(list(weights))
    parents = [Parent(v, w, read_version(v, dims)) for v, w in weights.items()]
    targets = tuple(sorted({t for p in parents for t in p.files.targets}))
    r = _rank(parents, targets, dims, asked)
    made = Made(r, targets, dims, tuple(_modules(parents, targets, dims, r, asked)))
    return blended.publish(store, parents, made, asked)


# --- what was asked -----------------------------------------------------------


def _checked(asked: Asked) -> Asked:
    """Every argument as it is used and recorded."""
    check_name(asked.name)
    method = asked.method.lower().replace("_", "-")
    method = methods.SAME.get(method, method)
    known = (EXACT, *METHODS)
    if method not in known:
        close = nearest(method, known)
        raise UsageProblem(
            f"{asked.method!r} is no method; there are {', '.join(known)}.", hint=f"--method {close or EXACT}"
        )
    if asked.rank is not None and (type(asked.rank) is not int or not 1 <= asked.rank <= MAX_RANK):
        raise UsageProblem(f"{asked.rank!r} is no rank: 1 to {MAX_RANK} are served.", hint="--rank 16")
    if asked.density is not None and method == EXACT:
        raise UsageProblem(
            "density is of ties, dare-ties and magnitude; exact keeps all.", hint="--method ties"
        )
    if asked.seed is not None and method != "dare-ties":
        raise UsageProblem("only dare-ties draws, and takes a seed.", hint="--method dare-ties")
    return replace(asked, method=method, density=_density(asked, method), seed=_seed(asked, method))


def _density(asked: Asked, method: str) -> float | None:
    if method == EXACT:
        return None
    density = methods.DENSITY if asked.density is None else asked.density
    if type(density) not in (int, float) or not 0 < density <= 1:
        raise UsageProblem(
            f"{density!r} is no density: that is a share above 0, at most 1.", hint="--density 0.5"
        )
    return float(density)


def _seed(asked: Asked, method: str) -> int | None:
    if method != "dare-ties":
        return None
    seed = 0 if asked.seed is None else asked.seed
    if type(seed) is not int or not 0 <= seed < methods.MAX_SEED:
        raise UsageProblem(f"{seed!r} is no seed: that is a whole number from 0 on.", hint="--seed 0")
    return seed


def _weights(store: Registry, parts: Sequence[Part]) -> dict[Version, float]:
    """Each version once; weights of one that is named twice are added up."""
    if not parts:
        raise UsageProblem("a blend is made of adapters.", hint="adapterkit blend a=0.7,b=0.3 --name c")
    found: dict[Version, float] = {}
    for part in parts:
        version = store[str(part.ref)]
        found[version] = found.get(version, 0.0) + part.strength
    for version, weight in found.items():
        if weight == 0 or abs(weight) > MAX_WEIGHT:
            why = "adds nothing" if weight == 0 else f"is over {MAX_WEIGHT:,.0f}"
            raise UsageProblem(
                f"{version.ref} with a weight of {weight:g} {why}.",
                hint=f"leave {version.name} out, or for example {version.name}=0.5",
            )
    return found


def _check_kinds(versions: Sequence[Version]) -> None:
    """Refuse whole models, and adapters of more than one base."""
    for v in versions:
        if v.kind == "full":
            raise Unsupported(
                f"{v.ref} is a full fine-tune; a blend is made of LoRA adapters.",
                hint=f"make one of it: adapterkit extract {v.ref} --base {v.base} --name {v.name[:59]}-lora",
                details={"ref": v.ref},
            )
    first = versions[0]
    for other in versions[1:]:
        ours, theirs = first.manifest["base"], other.manifest["base"]
        differs = [k for k in PRINTS if ours[k] != theirs[k]]
        if differs:
            raise BaseMismatch(
                f"{other.ref} was trained on {spoken(theirs['id'])} ({theirs['weights'][:8]}), {first.ref} on "
                f"{spoken(ours['id'])} ({ours['weights'][:8]}), whose {differs[0]} differ{'s' * (differs[0] != 'weights')}.",
                hint="a blend is made of adapters of one base; adapterkit list shows which have which",
                details={"ref": other.ref, "base": theirs["id"], "differs": differs[0]},
            )


# --- the update ---------------------------------------------------------------


def _rank(parents: Sequence[Parent], targets: Sequence[str], dims: Dims, asked: Asked) -> int:
    """One rank for all modules, as the format has it; no larger than it can be of use."""
    needed = max(sum(p.files.r for p in parents if t in p.files.targets) for t in targets)
    useful = max(min(dims.in_out(t)) for t in targets)
    if asked.method == EXACT and asked.rank is None:
        if needed > MAX_RANK:
            raise Unsupported(
                f"the exact sum has rank {needed}; up to {MAX_RANK} is served.",
                hint=f"--rank {min(MAX_RANK, useful)} gives the nearest, and says what is lost",
                code="rank",
                details={"rank": needed, "most": MAX_RANK},
            )
        return needed
    return min(asked.rank or MAX_RANK, needed, useful)


def _modules(
    parents: Sequence[Parent], targets: Sequence[str], dims: Dims, r: int, asked: Asked
) -> Iterator[blended.Module]:
    for layer in range(dims.layers):
        for target in targets:
            there = [(p, t) for p in parents if (t := thin(p.files, layer, target)) is not None]
            module = f"h.{layer}.{target}"
            make = _summed if asked.method == EXACT else _chosen
            kept, lost, size = make(there, module, r, asked)
            yield blended.Module(layer, target, combine.padded(kept, r), lost, size)


There = Sequence[tuple[Parent, Thin]]


def _summed(there: There, module: str, r: int, _: Asked) -> tuple[Thin, float, float]:
    """The sum as it will be stored, the norm of its error, and that of the sum."""
    whole = combine.stacked([(t, p.weight) for p, t in there])
    kept = _stored(whole if whole.r <= r else combine.truncated(whole, r), module)
    return kept, combine.norm(combine.difference(kept, whole)), combine.norm(whole)


def _chosen(there: There, module: str, r: int, asked: Asked) -> tuple[Thin, float, float]:
    """The same of a method on whole updates."""
    assert asked.density is not None  # see _checked
    parts = [
        Chosen(t.b @ t.a, p.weight, methods.generator(asked.seed or 0, p.version.digest, module))
        for p, t in there
    ]
    whole = METHODS[asked.method](parts, asked.density)
    kept = _stored(combine.projected(whole, r), module)
    return kept, float(np.linalg.norm(whole - kept.b @ kept.a)), float(np.linalg.norm(whole))


def _stored(made: Thin, module: str) -> Thin:
    """Its factors rounded to float32, all of them finite."""
    kept = combine.rounded(made)
    if not (np.isfinite(kept.a).all() and np.isfinite(kept.b).all()):
        raise UsageProblem(
            f"with these weights {module} holds numbers that float32 can't.", hint="smaller weights"
        )
    return kept
