"""``data``: what would be learned from a text, before an hour is spent on it. Never imports torch."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from adapterkit.cli import data_screen, recipe_flags
from adapterkit.cli.output import common, emit
from adapterkit.cli.recipe_flags import recipe_options
from adapterkit.cli.train import Screen
from adapterkit.errors import DataError, UsageProblem
from adapterkit.recipe.given import load_named, load_sources
from adapterkit.recipe.keys import keys

SHOWN = frozenset(["base", "train.max_length", *(path for path in keys() if path.startswith("data."))])


@click.command("data")
@click.argument("source", nargs=-1)
@click.option("--show", type=click.IntRange(0, 1000), default=3, metavar="N", help="How many documents.  [3]")
@click.option("--tokens", is_flag=True, help="Draw a packed row: ids, labels, positions, who sees whom.")
@click.option("--recipe", metavar="NAME", help="A recipe by name; SOURCE then replaces its text.")
@recipe_options(SHOWN)
@common
def data_verb(
    source: tuple[str, ...], show: int, tokens: bool, recipe: str | None, sets: tuple[str, ...],
    registry: str | None, as_json: bool, quiet: bool, **values: Any,
) -> None:  # fmt: skip
    """What would be learned from a text; trains nothing.

    SOURCE is what train takes: a file, a folder, a glob, - for stdin, a dataset
    on the Hub (owner/name), or a recipe. Flags of train are understood too.
    """
    flags = recipe_flags.given(values, sets, source)
    if not source and not recipe:
        raise UsageProblem("no text was named.", hint="adapterkit data FOLDER-OR-FILE")
    screen = Screen(quiet or as_json)
    loaded = load_named(recipe, source, flags, screen.say) if recipe else _one(source, flags, screen)
    from adapterkit.data.picture import picture
    from adapterkit.training.describe import look

    found = look(loaded, tell=screen.tell)
    report = found.report(show)
    drawn = picture(found.prepared.train, found.tokenizer) if tokens else None
    if as_json:
        row = {"row": drawn.as_dict() if drawn else None} if tokens else {}
        emit(report.as_dict() | {"base": found.base} | row)
        return
    click.echo("\n".join(data_screen.page(report, found.base, styled=sys.stdout.isatty())))
    if drawn:
        click.echo("\n" + "\n".join(drawn.lines()))
    click.echo("\n" + _next(source, recipe, flags, found.refusal))


def _one(source: tuple[str, ...], flags: dict[str, Any], screen: Screen) -> Any:
    loaded = load_sources(source, flags, screen.say)
    if len(loaded) > 1:
        raise UsageProblem("several recipes.", hint=f"one at a time: adapterkit data {source[0]}")
    return loaded[0]


def _next(
    source: tuple[str, ...], recipe: str | None, flags: dict[str, Any], refusal: DataError | None
) -> str:
    words = [*map(shlex.quote, source), *(["--recipe", shlex.quote(recipe)] if recipe else [])]
    if refusal is None or refusal.code != "too-little-text":
        return " ".join(["next  adapterkit train", *words, *recipe_flags.typed(flags)])
    untested = recipe_flags.typed(flags | {"data.validation": "none"})
    return (
        " ".join(["next  adapterkit train", *words, *untested])
        + "     (untested; it may copy you word for word)"
    )
