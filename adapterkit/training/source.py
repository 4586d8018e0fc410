"""What ``train`` and ``describe`` are given in Python, as one loaded recipe. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterkit.data.sources import Documents
from adapterkit.errors import UsageProblem, nearest
from adapterkit.recipe import load as recipes
from adapterkit.recipe.given import load_sources
from adapterkit.recipe.keys import by_flag
from adapterkit.recipe.load import Loaded
from adapterkit.recipe.schema import Recipe
from adapterkit.refs import suggest_name
from adapterkit.training.events import Listener, Said

Source = str | Path | Documents | Sequence[str | Path] | Recipe


def understand(
    source: Source, keys: Mapping[str, Any], tell: Listener, *, verb: str, name: str = ""
) -> tuple[Loaded, Documents | None]:
    """The recipe, and the texts that take the place of its ``data.source``.

    Args:
        source: a file, folder, glob, Hub id, list of files, ``Documents``, a recipe's name or path, or a Recipe.
        keys: recipe keys as Python words, ``lora_r=16``.
        tell: told what the source was taken for.
        verb: named when a key is not known.
        name: of the adapter, for a Recipe.
    """
    flags = _flags(keys, verb)
    if isinstance(source, Recipe):
        return recipes.from_flags(_flat(source.model_dump(mode="python")) | flags, name=name), None
    if isinstance(source, Documents):
        return recipes.from_flags(flags, name=suggest_name(source.name)), source
    given = [str(source)] if isinstance(source, str | Path) else [str(s) for s in source]
    return load_sources(given, flags, lambda text: tell(Said(text)))[0], None


def _flags(keys: Mapping[str, Any], verb: str) -> dict[str, Any]:
    """Python keywords to recipe keys: ``lora_r`` is ``--lora-r`` is ``lora.r``."""
    known = {flag.removeprefix("--").replace("-", "_"): key.path for flag, key in by_flag().items()}
    for word in keys:
        if word not in known:
            close = nearest(word, known)
            raise UsageProblem(
                f"{verb}() has no key {word!r}.",
                hint=f"did you mean {close}?" if close else "see the recipe's keys",
            )
    return {known[word]: value for word, value in keys.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
