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


def check_name(text: str, *, typed: str = "--name") -> str:
    """The name itself, or an error that says which names are allowed and suggests one.

    Args:
        text: the name.
        typed: what stands before a name on the command line, for the hint.
    """
    if is_name(text):
        return text
    why = "reserved" if text in RESERVED | DEVICES else "not a name for an adapter"
    raise UsageProblem(
        f"{text!r} is {why}. Names are lower-case letters, digits, - and _, at most 64, beginning with a letter or digit.",
        hint=f"{typed} {suggest_name(text)}",
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
        UsageProblem: several parts without weights, a weight that is no number,
            the base as a part.
    """
    if text.strip() == "base":
        return ()
    parts = _without_base(tuple(_parse_part(p) for p in text.split(",")))
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
    return Part(parse_ref(left), _weight(right, left) if equals else None)


def _weight(given: str | float, name: str) -> float:
    try:
        weight = float(given)
    except (ValueError, TypeError, OverflowError):
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageProblem(
            f"{str(given)!r} in {f'{name}={given}'!r} is not a weight.", hint=f"for example {name}=0.6"
        )
    return weight


def _without_base(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts, none of which may be the base: every adapter is added to it already."""
    others = [p for p in parts if p.ref.name != "base"]
    if len(others) == len(parts):
        return parts
    blend = ",".join(str(p.ref) if p.weight is None else f"{p.ref}={p.weight:g}" for p in others)
    side = " ".join(str(p.ref) for p in others)
    raise UsageProblem(
        "'base' is plain GPT-2, to which every adapter is added: it has no versions and takes no weight.",
        hint=f"leave it out: {blend}; side by side: adapterkit compare base {side}"
        if others
        else "write it alone: base",
    )


def from_mapping(parts: Mapping[str, float]) -> tuple[Part, ...]:
    """The dict form of a blend, ``{"noir": 0.7, "shanty": 0.3}``."""
    return _without_base(tuple(Part(parse_ref(k), _weight(v, k)) for k, v in parts.items()))


def looks_like_digest(version: str) -> bool:
    return bool(DIGEST.fullmatch(version))
