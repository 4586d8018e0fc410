"""How a person names what writes: names, versions, aliases, blends.

::

    ADAPTER := base | PART [, PART]...
    PART    := NAME[@VERSION][=WEIGHT]     noir  noir@3  noir@best  noir@9f2c1a7b  noir=0.6

The same text is valid on the command line, in Python and in ``/use``. Only
text here: whether a version exists is the registry's business.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from adapterkit.errors import NotFound, UsageProblem

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
DIGEST = re.compile(r"[0-9a-f]{7,64}")
RESERVED = frozenset({"base", "latest", "best", "embedded"})
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))})


@dataclass(frozen=True)
class Ref:
    """``name``, and which of its versions: a number, an alias, a digest prefix or None for the latest."""

    name: str
    version: str | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Part:
    """One adapter of a blend with its weight; weight None means it was not written (1)."""

    ref: Ref
    weight: float | None = None

    @property
    def strength(self) -> float:
        return 1.0 if self.weight is None else self.weight


def is_name(text: str) -> bool:
    return bool(NAME.fullmatch(text)) and text not in RESERVED and text not in DEVICES


def check_name(text: str) -> str:
    """The name itself, or an error that says which names are allowed and suggests one."""
    if is_name(text):
        return text
    why = "reserved" if text in RESERVED | DEVICES else "not a name for an adapter"
    raise UsageProblem(
        f"{text!r} is {why}. Names are lower-case letters, digits, - and _, at most 64, beginning with a letter or digit.",
        hint=f"--name {suggest_name(text)}",
    )


def suggest_name(text: str) -> str:
    """The nearest allowed name: ``My Stories!`` becomes ``my-stories``."""
    name = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")[:64]
    return name if is_name(name) else f"{name or 'my'}-texts"


def parse_ref(text: str) -> Ref:
    """``wikitext``, ``wikitext@3``, ``wikitext@best``, ``wikitext@9f2c1a7b``."""
    name, at, version = text.strip().partition("@")
    if not NAME.fullmatch(name) or (at and not re.fullmatch(r"[0-9]+|[a-z0-9_-]+", version)):
        raise NotFound(
            f"{text!r} is not a version of an adapter; that is written NAME, NAME@3, NAME@best or NAME@9f2c1a7b.",
            hint="adapterkit list",
        )
    return Ref(name, version or None)


def parse_adapter(text: str) -> tuple[Part, ...]:
    """Parts of a blend; the empty tuple is plain GPT-2 (``base``).

    Raises:
        UsageProblem: several parts without weights, a weight that is no number.
    """
    if text.strip() == "base":
        return ()
    parts = tuple(_parse_part(p) for p in text.split(","))
    if len(parts) > 1 and any(p.weight is None for p in parts):
        names = [str(p.ref) for p in parts]
        share = ",".join(f"{n}={1 / len(names):.2g}" for n in names)
        raise UsageProblem(
            f"{text!r} names {len(parts)} adapters without weights.",
            hint=f'a mix is written "{share}"; side by side: adapterkit compare {" ".join(names)}',
        )
    return parts


def _parse_part(text: str) -> Part:
    left, equals, right = text.strip().partition("=")
    if not equals:
        return Part(parse_ref(left))
    try:
        weight = float(right)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageProblem(f"{right!r} in {text.strip()!r} is not a weight.", hint=f"for example {left}=0.6")
    return Part(parse_ref(left), weight)


def from_mapping(parts: Mapping[str, float]) -> tuple[Part, ...]:
    """The dict form of a blend, ``{"noir": 0.7, "shanty": 0.3}``."""
    return tuple(Part(parse_ref(k), float(v)) for k, v in parts.items())


def looks_like_digest(version: str) -> bool:
    return bool(DIGEST.fullmatch(version))
