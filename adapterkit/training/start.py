"""Going on from an adapter's weights: ``train SOURCE --from REF``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapterkit.errors import RecipeError, UsageProblem
from adapterkit.model import base as bases
from adapterkit.recipe.load import Loaded
from adapterkit.recipe.schema import target_modules
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

Start = str | Version | None
SHAPE = ("r", "alpha", "targets", "rslora")  # of a LoRA, which its weights have and a recipe can't change


def named(start: Start | Mapping[str, float], registry: Registry) -> Version | None:
    """The version to begin with.

    Raises:
        NotFound: no such version.
        UsageProblem: a mix, which has no weights of its own.
    """
    if start is None or isinstance(start, Version):
        return start
    if not isinstance(start, str) or "=" in start or "," in start:
        raise UsageProblem(
            "training can begin with one adapter, not with a mix.",
            hint="make the mix an adapter first: adapterkit blend a=0.5,b=0.5 --name c",
        )
    return registry[start]


def onward(loaded: Loaded, start: Version) -> Loaded:
    """The recipe with the base, the method and the LoRA's shape of the version that training begins with.

    Raises:
        RecipeError: it was asked for another method or shape.
    """
    recipe, told = loaded.recipe, start.recipe
    base = bases.recall(start.manifest["base"]["weights"]) or start.base
    changes: dict[str, Any] = {"method": _kept(loaded, start, "method", recipe.method, start.kind)}
    if "base" not in loaded.origins:
        changes["base"] = base
    if start.kind == "lora":
        shape = {
            key: _kept(loaded, start, f"lora.{key}", getattr(recipe.lora, key), getattr(told.lora, key))
            for key in SHAPE
        }
        changes["lora"] = recipe.lora.model_copy(update=shape)
    return replace(loaded, recipe=recipe.model_copy(update=changes))


def _kept(loaded: Loaded, start: Version, key: str, given: Any, there: Any) -> Any:
    """What the version has, unless something else was asked for."""
    same = (
        target_modules(given) == target_modules(there) if key == "lora.targets" else given in (there, "auto")
    )
    if key in loaded.origins and not same:
        raise RecipeError(
            f"{start.ref} has {key} {_word(there)}, so training can't go on from it with {_word(given)}.",
            hint=f"leave {key} out, or --from too",
        )
    return there


def _word(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
