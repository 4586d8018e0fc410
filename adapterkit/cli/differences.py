"""Two versions side by side: recipe, text and base as far as they differ, and the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapterkit.cli.output import signed
from adapterkit.cli.page import MADE, UNKNOWN, flat
from adapterkit.registry.version import Version

BLEND = {"weights": "weights", "method": "blended by", "density": "density", "seed": "seed"}
DATA = {"documents": "documents", "words": "words", "train_tokens": "tokens learned from"}
PRINTS = ("weights", "config", "tokenizer")


class Unknown:
    """A value that an import came without; JSON tells it as null."""

    def __str__(self) -> str:
        return UNKNOWN


MISSING = Unknown()


def _spelled(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Row:
    """One thing of both versions."""

    part: str  # recipe, lineage, data, base, metrics
    key: str  # as a person reads it, or the recipe's
    left: Any
    right: Any
    spell: Callable[[Any], str] = _spelled

    @property
    def cells(self) -> list[str]:
        sides = (self.left, self.right)
        return [self.key, *(str(side) if side is MISSING else self.spell(side) for side in sides)]


# What is measured: how a person reads it, and how it is spelled.
SCORES: dict[str, Callable[[Any], str]] = {
    "perplexity": lambda x: f"{x:.1f}",
    "gain": lambda x: signed(-x),
    "unseen text": lambda x: str(x)[:8],
    "ends by itself": lambda x: f"{x:.0%}",
    "copied at most": lambda x: f"{x} words",
}


def compared(a: Version, b: Version) -> list[Row]:
    """What differs about how they were made."""
    return [row for row in [*_how(a, b), *_recipe(a, b), *_data(a, b), *_base(a, b)] if row.left != row.right]


def measured(a: Version, b: Version) -> list[Row]:
    """Their scores, as far as either has them."""
    left, right = _scores(a), _scores(b)
    known = [key for key in SCORES if not left[key] is right[key] is MISSING]
    return [Row("metrics", key, left[key], right[key], SCORES[key]) for key in known]


def as_dict(a: Version, b: Version, made: list[Row], scores: list[Row]) -> dict[str, Any]:
    """``diff --json``: ``left right same``, and of recipe, lineage, data, base and metrics rows of ``key left right``."""
    told: dict[str, Any] = {
        "left": {"ref": a.ref, "digest": a.digest, "note": a.note},
        "right": {"ref": b.ref, "digest": b.digest, "note": b.note},
        "same": not made,
    }
    for part in ("recipe", "lineage", "data", "base", "metrics"):
        rows = [row for row in [*made, *scores] if row.part == part]
        told[part] = [{"key": r.key, "left": _plain(r.left), "right": _plain(r.right)} for r in rows]
    return told


def _plain(value: Any) -> Any:
    return None if value is MISSING else value


def _how(a: Version, b: Version) -> list[Row]:
    """Kind, what was done, and with what it began."""
    made = [
        (v.kind, MADE.get(v.lineage.how, v.lineage.how), [d[:8] for d in v.lineage.parents]) for v in (a, b)
    ]
    keys = ("method", "made by", "made from")
    left, right = (v.manifest["lineage"] for v in (a, b))
    return [
        *(
            Row("recipe" if k == "method" else "lineage", k, x, y)
            for k, x, y in zip(keys, *made, strict=True)
        ),
        *(Row("lineage", told, left.get(k, MISSING), right.get(k, MISSING)) for k, told in BLEND.items()),
    ]


def _recipe(a: Version, b: Version) -> list[Row]:
    left, right = (flat(v.manifest.get("recipe") or {}) for v in (a, b))
    keys = [k for k in {**left, **right} if k not in ("method", "base")]
    return [Row("recipe", key, left.get(key, MISSING), right.get(key, MISSING)) for key in keys]


def _data(a: Version, b: Version) -> list[Row]:
    left, right = (v.manifest.get("data") or {} for v in (a, b))
    rows = [Row("data", told, left.get(key, MISSING), right.get(key, MISSING)) for key, told in DATA.items()]
    prints = [str(d["fingerprint"])[:8] if d.get("fingerprint") else MISSING for d in (left, right)]
    return [Row("data", "text", prints[0], prints[1]), *rows]


def _base(a: Version, b: Version) -> list[Row]:
    """One row where they were made on bases that are not the same to the byte."""
    left, right = (v.manifest["base"] for v in (a, b))
    differs = [k for k in PRINTS if left.get(k) != right.get(k)]
    if not differs:
        return []
    told = [f"{base['id']} ({differs[0]} {str(base.get(differs[0]))[:8]})" for base in (left, right)]
    return [Row("base", "base", told[0], told[1])]


def _scores(v: Version) -> dict[str, Any]:
    m = v.metrics
    told = (m.perplexity, m.improvement, m.held_out, m.stops, m.copied_words)
    return {key: MISSING if x is None else x for key, x in zip(SCORES, told, strict=True)}
