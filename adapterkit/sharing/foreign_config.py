"""The adapter_config.json of a LoRA trained elsewhere: read key by key, nothing in it is run.

PEFT reads target modules and rank patterns as regular expressions. Here they
are literal names, or the simple forms that PEFT itself writes; what is neither
is refused, because an expression from a stranger can hang.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterkit.errors import Damaged, Unsupported
from adapterkit.registry import lora_config, strict
from adapterkit.registry.plainjson import NotPlain, parse, spoken
from adapterkit.sharing import foreign_kinds
from adapterkit.sharing.shipment import again, inside

MAX_PATTERNS = 4096
LITERAL = re.compile(r"[A-Za-z0-9_.]{1,200}")


@dataclass(frozen=True)
class Pattern:
    """A key of rank_pattern or alpha_pattern: the end of a module's name, or all of it."""

    text: str
    is_whole: bool

    def fits(self, module: str) -> bool:
        return module == self.text or (not self.is_whole and module.endswith(f".{self.text}"))


@dataclass(frozen=True)
class ForeignConfig:
    """What a config says about a LoRA, without what AdapterKit does not need."""

    r: int
    alpha: float
    is_rslora: bool
    dropout: float
    targets: tuple[str, ...] | None  # None is all-linear
    excluded: tuple[str, ...]
    layers: tuple[int, ...] | None  # None is every layer
    ranks: tuple[tuple[Pattern, int], ...]
    alphas: tuple[tuple[Pattern, float], ...]
    base: str | None  # as the config names it
    peft: str | None  # version that wrote it

    def targets_of(self, module: str, layer: int) -> bool:
        """Whether PEFT would put a LoRA on a module, such as transformer.h.0.attn.c_attn."""
        if any(_ends(module, name) for name in self.excluded):
            return False
        if self.targets is not None and module in self.targets:
            return True
        named = self.targets is None or any(_ends(module, name) for name in self.targets)
        return named and (self.layers is None or layer in self.layers)

    def rank_of(self, module: str) -> int:
        return next((rank for p, rank in self.ranks if p.fits(module)), self.r)

    def scale_of(self, module: str, r: int) -> float:
        alpha = next((alpha for p, alpha in self.alphas if p.fits(module)), self.alpha)
        return lora_config.lora_scale(r, alpha, self.is_rslora)


def read(folder: Path, label: str) -> ForeignConfig:
    """The config of a PEFT folder.

    Raises:
        Damaged: it can't be read, or a value is none it can have.
        Unsupported: another method or task, by its name.
    """
    told = _read(folder, label)
    foreign_kinds.check(told, label)
    return ForeignConfig(
        r=_rank(told.get("r", 8), label),
        alpha=_alpha(told.get("lora_alpha", 8), label),
        is_rslora=_flag(told, "use_rslora", label),
        dropout=_dropout(told.get("lora_dropout")),
        targets=_targets(told.get("target_modules"), label),
        excluded=_names(told.get("exclude_modules") or [], "exclude_modules", label),
        layers=_layers(told, label),
        ranks=_patterns(told, "rank_pattern", label, _rank),
        alphas=_patterns(told, "alpha_pattern", label, _alpha),
        base=_text(told.get("base_model_name_or_path"), label),
        peft=str(told["peft_version"])[:40] if told.get("peft_version") else None,
    )


def _read(folder: Path, label: str) -> dict[str, Any]:
    path = inside(folder, strict.CONFIG, label)
    try:
        if path.stat().st_size > lora_config.MAX_CONFIG:
            raise NotPlain("length", "it is too long")
        told = parse(path.read_bytes())
        if not isinstance(told, dict):
            raise NotPlain("table", "it is no table")
    except NotPlain as e:
        raise Damaged(f"{label}: its {strict.CONFIG} can't be read: {e}.", hint=again(label)) from None
    return told


def _rank(value: object, label: str) -> int:
    if type(value) is not int or not 1 <= value <= lora_config.MAX_RANK:
        raise Unsupported(
            f"{label} has rank {spoken(value, 40)}; 1 to {lora_config.MAX_RANK} are served.",
            hint="train it again with a smaller rank",
        )
    return value


def _alpha(value: object, label: str) -> float:
    if type(value) not in (int, float) or not abs(value) <= lora_config.MAX_ALPHA:  # type: ignore[arg-type]
        raise Damaged(
            f"{label} has lora_alpha {spoken(value, 40)}, which is no number it can have.",
            hint=f"mend it in {strict.CONFIG}",
        )
    return float(value)  # type: ignore[arg-type]


def _flag(told: Mapping[str, Any], key: str, label: str) -> bool:
    value = told.get(key)
    if value not in (None, True, False):
        raise Damaged(
            f"{label} has {key} {spoken(value, 40)!r}, which is neither true nor false.",
            hint=f"mend it in {strict.CONFIG}",
        )
    return bool(value)


def _dropout(value: object) -> float:
    """Only told on: it plays no part once training is over."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 1 else 0.0


def _text(value: object, label: str) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= 500):
        return value or None
    raise Damaged(f"{label} names a base of {spoken(value, 40)!r}.", hint=f"mend it in {strict.CONFIG}")


def _targets(value: object, label: str) -> tuple[str, ...] | None:
    if value == "all-linear":
        return None
    if isinstance(value, str):
        raise Unsupported(
            f"{label} targets the pattern {value[:60]!r}; patterns are not run.",
            hint='list the modules in adapter_config.json: "target_modules": ["c_attn"]',
        )
    names = _names(value or [], "target_modules", label)
    if not names:
        raise Damaged(f"{label} names no target modules.", hint=f"mend it in {strict.CONFIG}")
    return names


def _names(value: object, key: str, label: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and LITERAL.fullmatch(v) for v in value):
        raise Unsupported(
            f"{label} has {key} {spoken(value, 60)!r}; a list of literal names is needed, patterns are not run.",
            hint=f'for example "{key}": ["c_attn"]',
        )
    return tuple(value)


def _layers(told: Mapping[str, Any], label: str) -> tuple[int, ...] | None:
    value, named = told.get("layers_to_transform"), told.get("layers_pattern")
    if value in (None, []):
        return None
    if named not in (None, [], "", "h", ["h"]):
        raise Unsupported(
            f"{label} has layers_pattern {spoken(named, 40)!r}; GPT-2's layers are 'h'.",
            hint=f"mend it in {strict.CONFIG}",
        )
    layers = value if isinstance(value, list) else [value]
    if not all(type(n) is int and 0 <= n <= 1000 for n in layers):
        raise Damaged(
            f"{label} has layers_to_transform {spoken(value, 40)}.", hint=f"mend it in {strict.CONFIG}"
        )
    return tuple(layers)


def _patterns(told: Mapping[str, Any], key: str, label: str, check: Any) -> tuple[tuple[Pattern, Any], ...]:
    value = told.get(key) or {}
    if not isinstance(value, dict) or len(value) > MAX_PATTERNS:
        raise Damaged(f"{label} has {key} {spoken(value, 40)}.", hint=f"mend it in {strict.CONFIG}")
    return tuple((_pattern(k, key, label), check(v, label)) for k, v in value.items())


def _pattern(text: str, key: str, label: str) -> Pattern:
    """A key as a literal: anchors and escaped dots are taken off, anything else of an expression is refused."""
    plain = text.removeprefix("^").removesuffix("$").replace("\\.", ".")
    for begin in (".*.", "(.*.)?"):
        plain = plain.removeprefix(begin)
    if not LITERAL.fullmatch(plain):
        raise Unsupported(
            f"{label} has the pattern {text[:60]!r} in {key}; patterns are not run.",
            hint=f"write the modules' names there, such as h.0.attn.c_attn, in {strict.CONFIG}",
        )
    return Pattern(
        plain, is_whole=text.startswith("^") and plain == text[1:].removesuffix("$").replace("\\.", ".")
    )


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")
