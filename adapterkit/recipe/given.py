"""The SOURCE... of one ``train`` command as loaded recipes.

Some texts make one recipe, recipes stay one each, and ``--recipe`` lends a
recipe to texts. Reads recipes, never the texts themselves, and never imports
torch, so that a slip is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterkit.errors import UsageProblem
from adapterkit.recipe import load
from adapterkit.recipe.load import Loaded
from adapterkit.recipe.source import STDIN, Resolved, resolve
from adapterkit.refs import suggest_name

Say = Callable[[str], None]


def load_sources(given: Sequence[str], flags: Mapping[str, Any], say: Say) -> list[Loaded]:
    """Understand SOURCE..., telling for each what it was taken for.

    Raises:
        UsageProblem: texts and recipes together.
    """
    understood = _understood(given, say)
    texts = [r for r in understood if r.kind != "recipe"]
    if texts and len(texts) < len(understood):
        raise UsageProblem(
            "texts and recipes together in one command.", hint="train them one after the other"
        )
    if not texts:
        return [load.from_file(Path(r.value), flags) for r in understood]
    told = {"data.source": _one_or_list([_source(r) for r in texts]), **flags}
    return [load.from_flags(told, name=suggest_name(texts[0].name))]


def load_named(name: str, given: Sequence[str], flags: Mapping[str, Any], say: Say) -> Loaded:
    """The recipe of a name; texts that are given take the place of its own.

    Raises:
        UsageProblem: what is given is a recipe too.
    """
    path = load.find(name)
    texts = _understood(given, say)
    if also := [r.value for r in texts if r.kind == "recipe"]:
        raise UsageProblem(
            f"{also[0]!r} and --recipe {name} are two recipes.", hint=f"adapterkit train --recipe {name}"
        )
    # absolute: what is typed is meant from the working folder, not from the recipe's
    as_typed = (r.kind == "hub" or r.value == STDIN for r in texts)
    sources = [
        _source(r) if stays else str(Path(r.value).absolute())
        for r, stays in zip(texts, as_typed, strict=True)
    ]
    told = {"data.source": _one_or_list(sources)} if sources else {}
    return load.from_file(path, {**flags, **told})


def _understood(given: Sequence[str], say: Say) -> list[Resolved]:
    understood = [resolve(text) for text in given]
    for each in understood:
        say(each.said)
    return understood


def _source(text: Resolved) -> str:
    """As ``data.source`` is written; ``hub:`` keeps an id from being taken for a path."""
    return f"hub:{text.value}" if text.kind == "hub" else text.value


def _one_or_list(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
