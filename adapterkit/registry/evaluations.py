"""Scores taken after training, and which version of a name is best.

``<name>/evaluations.jsonl`` is append-only, a score a line; it takes the place
of nothing in a manifest. Two losses are compared only when they were measured
with one ``Yardstick``: the same targets, cut into rows of the same length, by
adapters of the same base. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.registry.version import Version
from adapterkit.registry.version import Yardstick as Yardstick

FILE = "evaluations.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """One score: the digest of the version, nats a token, and over how many tokens."""

    digest: str
    loss: float
    tokens: int
    precision: str
    by: Yardstick


def yardstick(v: Version) -> Yardstick | None:
    """Of the score in a version's manifest; None where nothing was held out."""
    return v.facts.by


def record(root: Path, name: str, taken: Evaluation) -> None:
    """Append a score, unless the very same one is there.

    Args:
        root: the registry's folder.
        name: of the adapter.
    """
    told = asdict(taken)
    told |= told.pop("by")
    path = root / name / FILE
    if any({k: v for k, v in line.items() if k != "at"} == told for line in files.read_lines(path)):
        return
    files.append_line(path, {"at": datetime.now(UTC).isoformat(timespec="seconds"), **told})


def loss_by(root: Path, v: Version, by: Yardstick) -> float | None:
    """A version's loss by this yardstick, at publication or later; None when it was never so measured."""
    return v.metrics.loss if yardstick(v) == by else _later(root / v.name / FILE, by).get(v.digest)


def best_of(root: Path, versions: Sequence[Version]) -> Version:
    """Lowest loss among those measured by the yardstick of the last; the newest of equals.

    Args:
        versions: of one name by number, at least one.
    """
    latest = versions[-1]
    by = yardstick(latest)
    if by is None or len(versions) == 1:
        return latest
    later = _later(root / latest.name / FILE, by)
    losses = [(v.metrics.loss if yardstick(v) == by else later.get(v.digest), v) for v in versions]
    measured = [(loss, v) for loss, v in losses if loss is not None]
    return min(measured, key=lambda pair: (pair[0], -pair[1].number))[1] if measured else latest


def _later(path: Path, by: Yardstick) -> dict[str, float]:
    """By digest the last loss that was measured so after publication."""
    return {
        str(line.get("digest")): float(line["loss"]) for line in files.read_lines(path) if _fits(line, by)
    }


def _fits(line: dict[str, Any], by: Yardstick) -> bool:
    """A line says on which text it was taken; what else it leaves out is as it should be."""
    wanted = asdict(by)
    told = "held_out" in line and isinstance(line.get("loss"), int | float)
    return told and all(line.get(key, value) == value for key, value in wanted.items())
