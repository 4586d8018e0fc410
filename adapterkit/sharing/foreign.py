"""A PEFT folder that was trained elsewhere, as a version of ours.

What such a folder lacks (its text, its scores) is marked unknown in the
manifest. It does not say which bytes its base had, only what it was called: a
base of another name needs ``force_base``, and that is recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import adapterkit
from adapterkit.errors import BaseMismatch, NameTaken, UsageProblem
from adapterkit.files import sha256_file
from adapterkit.model.base import Base, locate, remember
from adapterkit.model.hub import ALIASES
from adapterkit.recipe.schema import Recipe
from adapterkit.refs import check_name, suggest_name
from adapterkit.registry import card, strict, tensorfile
from adapterkit.registry.plainjson import spoken
from adapterkit.registry.store import Registry, content
from adapterkit.registry.version import Metrics, Version
from adapterkit.sharing import foreign_config, pieces
from adapterkit.sharing.foreign_config import ForeignConfig
from adapterkit.sharing.foreign_tensors import Translated, translate
from adapterkit.sharing.shipment import inside

HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(?:/[A-Za-z0-9_][\w.-]{0,95})?")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """Where a folder comes from, as a manifest may tell it: never a path of this computer."""

    label: str  # what messages call it
    name: str  # its last part, which suggests the adapter's name
    repo: str | None = None
    revision: str | None = None
    source: str = ""  # as the person wrote it, for hints


@dataclass(frozen=True)
class Asked:
    """What the person says about it."""

    name: str | None = None
    base: str | None = None
    is_forced: bool = False
    note: str = ""
    say: Say | None = None

    def tell(self, text: str) -> None:
        if self.say is not None:
            self.say(text)


def receive(registry: Registry, folder: Path, origin: Origin, asked: Asked) -> Version:
    """Translate, check and publish.

    Raises:
        BaseMismatch: made for a base of another name than the one given.
        Damaged, Unsupported: not a whole plain LoRA of a GPT-2 of the base's sizes.
        NameTaken: the folder's name is that of another adapter here.
    """
    name = check_name(asked.name) if asked.name else suggest_name(origin.name)
    config = foreign_config.read(folder, origin.label)
    weights = inside(folder, strict.WEIGHTS, origin.label)
    found = pieces.of_header(weights, tensorfile.read_header(weights))
    base = _base(config.base, origin, asked)
    made = translate(found, config, base.dims, origin.label)
    for told in _told(made):
        asked.tell(told)
    manifest = _manifest(name, base, config, made, origin, sha256_file(weights))
    with registry.staging() as staged:
        _fill(staged, base, config, made, manifest)
        strict.read_lora(staged, base.dims, origin.label)
        if asked.name is None:
            _refuse_other(registry, name, manifest, sha256_file(staged / strict.WEIGHTS), origin)
        version = registry.publish(staged, manifest, note=asked.note)
    remember(base)  # so that a base in a folder is found again by whoever writes with this
    return version


# --- the base -----------------------------------------------------------------


def _base(named: str | None, origin: Origin, asked: Asked) -> Base:
    """The base given, else the one the config names, if that is a name and no place."""
    wanted = asked.base or called(named)
    if wanted is None:
        told = f"names its base as a folder, {spoken(named, 80)!r}" if named else "does not name its base"
        raise UsageProblem(
            f"{origin.label} {told}; say which base it is for.",
            hint=f"adapterkit import {origin.source} --base gpt2     (or --base FOLDER, where that base lies here)",
        )
    base = locate(wanted, on_download=asked.say)
    if not asked.is_forced and not _is_named(named, base):
        raise BaseMismatch(
            f"{origin.label} was made for {spoken(named, 80)}; this base is {base.id}.",
            hint=f"adapterkit import {origin.source} --base {called(named) or 'BASE'}, "
            f"or, if you know that they are the same: --base {asked.base} --force-base",
            details={"named": named, "base": base.id},
        )
    return base


def _is_named(named: str | None, base: Base) -> bool:
    """Whether a base has the name that a config gives, if it gives any."""
    return not named or _spelled(named) == (called(base.id) or base.id)


def _spelled(named: str) -> str:
    """A base's name without the place where it lay."""
    return called(named) or re.split(r"[\\/]", named.rstrip("\\/"))[-1]


def called(name: str | None) -> str | None:
    """A base's one name: ``openai-community/gpt2`` and ``/somewhere/gpt2`` are ``gpt2``; None for other places."""
    if not name:
        return None
    short = {full: alias for alias, full in ALIASES.items()}
    if name in short or name in ALIASES:
        return short.get(name, name)
    last = re.split(r"[\\/]", name.rstrip("\\/"))[-1]
    if last in ALIASES and not HUB_ID.fullmatch(name):
        return last
    return name if HUB_ID.fullmatch(name) else None


# --- the version --------------------------------------------------------------


def _fill(
    folder: Path, base: Base, config: ForeignConfig, made: Translated, manifest: dict[str, Any]
) -> None:
    told = {
        "base_model_name_or_path": base.id,
        "bias": "none",
        "fan_in_fan_out": True,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": made.alpha,
        "lora_dropout": config.dropout,
        "peft_type": "LORA",
        "r": made.r,
        "target_modules": list(made.targets),
        "task_type": "CAUSAL_LM",
        "use_rslora": made.is_rslora,
    }
    (folder / strict.CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    tensorfile.write(folder / strict.WEIGHTS, made.tensors, pieces.PLAIN)
    recipe = {"recipe": manifest["recipe"], "origins": {}, "environment": manifest["environment"]}
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card.card(manifest, ()), encoding="utf-8")


def _manifest(
    name: str, base: Base, config: ForeignConfig, made: Translated, origin: Origin, sha256: str
) -> dict[str, Any]:
    forced = {} if _is_named(config.base, base) else {"forced": True, "named": _spelled(config.base or "")}
    changed = {"filled": made.filled, "padded": made.padded, "folded": made.folded}
    return {
        "name": name,
        "kind": "lora",
        "base": {"id": base.id, "revision": base.revision, "layers": base.dims.layers}
        | asdict(base.fingerprints)
        | forced,
        "lora": {"r": made.r, "alpha": made.alpha, "targets": list(made.targets)},
        "data": None,
        "recipe": _recipe(base, config, made),
        "made_from": None,
        "environment": {"adapterkit": adapterkit.__version__}
        | ({"peft": config.peft} if config.peft else {}),
        "metrics": asdict(Metrics()),
        "lineage": {"how": "import", "parents": []},
        "imported": {"from": origin.repo or origin.name, "revision": origin.revision, "sha256": sha256}
        | {what: count for what, count in changed.items() if count},
    }


def _recipe(base: Base, config: ForeignConfig, made: Translated) -> dict[str, Any]:
    """As far as it is known; what is left out is unknown, not the default."""
    lora: dict[str, Any] = {"r": made.r, "dropout": config.dropout, "rslora": made.is_rslora}
    lora["targets"] = list(made.targets)
    told = {"base": base.id, "method": "lora", "lora": lora}
    with suppress(ValueError):  # nobody can train with an alpha of 0 or 5,000, but another tool may have
        with_alpha = {**told, "lora": {**lora, "alpha": made.alpha}}
        Recipe.model_validate(with_alpha)
        return with_alpha
    return told


def _refuse_other(
    registry: Registry, name: str, manifest: dict[str, Any], weights: str, origin: Origin
) -> None:
    """A folder's name is a suggestion: it does not become the newest version of an adapter that is there."""
    same = content("lora", manifest["base"], weights)
    there = registry.versions(name)
    if there and all(v.facts.content != same for v in there):
        raise NameTaken(
            f"{name!r} is another adapter here, with {len(there)} version{'s' * (len(there) > 1)}.",
            hint=f"adapterkit import {origin.source} --name {name[:57]}-2     (or --name {name}: its next version)",
            details={"name": name},
        )


def _told(made: Translated) -> list[str]:
    """What was changed on the way in, for the person."""
    told = []
    if made.filled:
        told.append(f"{made.filled} modules had no LoRA; they got one of zeros, which changes nothing.")
    if made.padded:
        told.append(f"{made.padded} modules of a smaller rank were padded with zeros to {made.r}.")
    if made.folded:
        told.append(f"{made.folded} modules with a scale of their own had it folded into B.")
    return told
