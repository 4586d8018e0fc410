"""An adapter argument as the versions it means, and the base they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapterkit.errors import Unsupported
from adapterkit.generation.fit import check_base
from adapterkit.generation.generator import Adapter
from adapterkit.model import base as bases
from adapterkit.model.base import Base
from adapterkit.refs import Part, from_mapping, parse_adapter
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version


@dataclass(frozen=True)
class Chosen:
    """What is scored: nothing (the base), one version, or a weighted sum of several."""

    text: str  # "noir@3=0.7,shanty@1=0.3", "noir@3" or "base"
    parts: tuple[tuple[Version, float], ...]

    @property
    def version(self) -> Version | None:
        """The one version at full strength, to which a score belongs; None for a base, a blend, a strength."""
        return self.parts[0][0] if len(self.parts) == 1 and self.parts[0][1] == 1.0 else None


def choose(registry: Registry, adapter: Adapter) -> Chosen:
    """Resolve an adapter in any form it is written in.

    Raises:
        NotFound: a name or version that is not there.
        UsageProblem: several parts without weights.
        Unsupported: a full fine-tune in a blend or with a strength.
    """
    if isinstance(adapter, Version):
        return Chosen(adapter.ref, ((adapter, 1.0),))
    if isinstance(adapter, Path):
        raise Unsupported(
            f"{adapter} is a file; what is scored is a version.", hint=f"adapterkit import {adapter}"
        )
    parts: tuple[Part, ...] = ()
    if adapter is not None:
        parts = parse_adapter(adapter) if isinstance(adapter, str) else from_mapping(adapter)
    versions = [registry[str(p.ref)] for p in parts]
    named = zip(versions, parts, strict=True)
    text = ",".join(v.ref if p.weight is None else f"{v.ref}={p.weight:g}" for v, p in named)
    chosen = Chosen(text or "base", tuple((v, p.strength) for v, p in zip(versions, parts, strict=True)))
    full = next((v for v in versions if v.kind == "full"), None)
    if full is not None and chosen.version is None:
        raise Unsupported(
            f"{full.ref} is a full fine-tune; it is scored alone, not in a blend.",
            hint=f"adapterkit evaluate {full.ref}",
        )
    return chosen


class Bases:
    """Finds the base of what is chosen, each once.

    Args:
        wanted: a base for all of it; None takes each version's own.
        say: told before a base is fetched from the Hub, and of each adapter that is forced.
        force_base: take adapters of another base of the same sizes too.
    """

    def __init__(
        self, registry: Registry, wanted: str | None, say: Callable[[str], None], *, force_base: bool = False
    ) -> None:
        self._registry, self._wanted, self._say, self._force = registry, wanted, say, force_base
        self._found: dict[str, Base] = {}

    def of(self, chosen: Chosen, others: list[Chosen]) -> Base:
        """The base under an adapter; for ``base`` alone that of the others, or of the version made last.

        Raises:
            BaseMismatch: the base that was asked for is another one.
        """
        versions = [v for v, _ in chosen.parts]
        around = versions or [v for c in others for v, _ in c.parts]
        if not around:
            around = sorted(self._registry.versions(), key=lambda v: v.created)[-1:]
        base = self._locate(self._wanted or (_place(around[0]) if around else "gpt2"))
        for version in versions:
            if check_base(version, base, force=self._force):
                self._say(
                    f"{version.ref} was not made on {base.id}; it is scored there because of --force-base."
                )
        return base

    def _locate(self, name: str) -> Base:
        if name not in self._found:
            self._found[name] = bases.locate(name, on_download=self._say)
        return self._found[name]


def _place(version: Version) -> str:
    """Where the base of a version lies on this machine, if it was used here, else its id."""
    return bases.recall(version.manifest["base"]["weights"]) or version.base
