"""The best version so far, scored on a new version's held-out text, so that ``best`` compares like with like."""

from __future__ import annotations

from adapterkit.data.prepare import Prepared
from adapterkit.errors import AdapterKitError
from adapterkit.evaluation.score import Progress, Scorer
from adapterkit.model.base import Base
from adapterkit.registry import evaluations
from adapterkit.registry.evaluations import Evaluation
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import read_version
from adapterkit.registry.version import Version
from adapterkit.scoring.loss import Loss


def compare_with_best(
    registry: Registry,
    version: Version,
    prepared: Prepared,
    base: Base,
    device: str = "auto",
    *,
    progress: Progress | None = None,
) -> Version | None:
    """Score the best version before ``version`` on the new one's held-out text, unless that was done.

    Args:
        version: just published.
        prepared: the text it was trained and tested on.
        base: what it was trained from.
        device: auto, cpu, cuda, cuda:N.
        progress: told of rows done.

    Returns:
        The version that ``version`` can now be compared with: ``registry.best`` knows
        both scores. None when there is none: no test, another base, damaged files.
    """
    by = evaluations.yardstick(version)
    if by is None or not len(prepared.held_out):
        return None
    best = _best_before(registry, version)
    if best is None or evaluations.loss_by(registry.path, best, by) is not None:
        return best
    try:
        loss = _loss(best, prepared, base, device, progress)
    except AdapterKitError:  # the new version stands whatever became of an old one
        return None
    taken = Evaluation(best.digest, loss.mean, loss.n, "fp32", by)
    evaluations.record(registry.path, best.name, taken)
    return best


def _best_before(registry: Registry, version: Version) -> Version | None:
    """The best of the others with the same base and tokenizer."""
    told = version.manifest["base"]
    others = [
        v
        for v in registry.versions(version.name)
        if v != version and all(v.manifest["base"][k] == told[k] for k in ("weights", "config", "tokenizer"))
    ]
    return evaluations.best_of(registry.path, others) if others else None


def _loss(best: Version, prepared: Prepared, base: Base, device: str, progress: Progress | None) -> Loss:
    if best.kind == "full":
        return Scorer.of_full(best, base, device).loss(prepared.held_out, progress=progress)
    files = read_version(best, base.dims)
    return Scorer(base, device).loss(prepared.held_out, [(files, 1.0)], progress=progress)
