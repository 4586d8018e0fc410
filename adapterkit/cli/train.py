"""``train``: understand SOURCE, run, and show what a person wants to know; or take up what was broken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

from adapterkit.cli import recipe_flags
from adapterkit.cli.output import common, emit, force_base_option
from adapterkit.cli.recipe_flags import recipe_options
from adapterkit.cli.train_screen import Screen as Screen
from adapterkit.cli.train_screen import record, show
from adapterkit.errors import AdapterKitError, UsageProblem
from adapterkit.recipe.given import load_named, load_sources
from adapterkit.recipe.load import Loaded
from adapterkit.refs import check_name
from adapterkit.registry import runs
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

# Flags shown by --help; the others by --help-all.
SHOWN = frozenset(
    [
        "base",
        "method",
        "data.document",
        "data.validation",
        "data.text",
        "lora.r",
        "lora.targets",
        "train.epochs",
        "train.minutes",
        "train.learning_rate",
        "train.device",
        "train.precision",
        "train.seed",
    ]
)


@click.command("train")
@click.argument("source", nargs=-1)
@click.option("--recipe", metavar="NAME", help="A recipe by name; SOURCE then replaces its text.")
@click.option("--name", help="Name of the adapter.  [the source's name]")
@click.option("-m", "--note", default="", help="A few words kept with the version.")
@click.option("--from", "start", metavar="REF", help="Begin with the weights of an adapter.")
@force_base_option
@click.option(
    "--plan", "only_plan", is_flag=True, help="Time, memory and disk, from three real steps; trains nothing."
)
@click.option(
    "--repeat", metavar="REF", help="Train a version again, and say whether the result is identical."
)
@click.option("--fresh", is_flag=True, help="Begin anew, also when the same was trained before.")
@click.option("--resume", is_flag=True, help="Go on with the newest unfinished run, or with the one named.")
@click.option("--finish", is_flag=True, help="Publish the best so far of an unfinished run, and end it.")
@recipe_options(SHOWN)
@common
def train_verb(
    source: tuple[str, ...], recipe: str | None, name: str | None, note: str, start: str | None, force_base: bool, only_plan: bool,
    repeat: str | None, fresh: bool, resume: bool, finish: bool,
    sets: tuple[str, ...], registry: str | None, as_json: bool, quiet: bool, **values: Any,
) -> int:  # fmt: skip
    """Learn a style from text, or follow a recipe.

    SOURCE is a file, a folder, a glob, - for stdin, a dataset on the Hub
    (owner/name), a recipe (FILE.yaml), or a recipe's name such as wikitext.
    With --resume and --finish it is the name of an unfinished run, or nothing.
    """
    flags = recipe_flags.given(values, sets, source)
    store = Registry(registry)
    screen = Screen(quiet or as_json)
    if force_base and start is None:
        raise UsageProblem(
            "--force-base is for --from: nothing else brings a base along.", hint="leave it out"
        )
    if resume or finish:
        _refuse_more(resume, finish, source, bool(flags or recipe or name or note or fresh))
        which = runs.find(store.path, source[0] if source else None).id
        from adapterkit.training import run as training

        take_up = training.finish if finish else training.go_on
        return _each(
            [lambda: take_up(which, registry=store, on_event=screen.tell)], store, screen, as_json, quiet
        )
    if repeat:
        return _repeat(
            repeat,
            source,
            bool(flags or recipe or name or start or fresh or only_plan),
            note,
            store,
            screen,
            as_json,
            quiet,
        )
    if not source and not recipe:
        raise UsageProblem("nothing to learn from was named.", hint="adapterkit train FOLDER-OR-FILE")
    if recipe:
        loaded = [load_named(recipe, source, flags, screen.say)]
    else:
        loaded = load_sources(source, flags, screen.say)
    if name and len(loaded) > 1:
        raise UsageProblem("--name with several recipes.", hint="leave --name out, or train them one by one")
    if name is not None:
        check_name(name)
    if start is not None and "=" not in start and "," not in start:
        store[start]  # an unknown one is told before torch loads
    if only_plan:
        return _plan(loaded, name, start, force_base, store, screen, as_json)
    from adapterkit.training import run as training  # torch loads here, after every slip that needs no torch

    learn = partial(
        training.run,
        name=name,
        note=note,
        start_from=start,
        registry=store,
        resume=not fresh,
        force_base=force_base,
        on_event=screen.tell,
    )
    return _each([partial(learn, one) for one in loaded], store, screen, as_json, quiet)


def _plan(
    loaded: Sequence[Loaded],
    name: str | None,
    start: str | None,
    force_base: bool,
    store: Registry,
    screen: Screen,
    as_json: bool,
) -> int:
    """What each run would take."""
    from adapterkit.training.estimate import estimate

    plans = [
        estimate(one, name=name, start_from=start, registry=store, tell=screen.tell, force_base=force_base)
        for one in loaded
    ]
    if as_json:
        emit(plans[0].as_dict() if len(plans) == 1 else {"plans": [p.as_dict() for p in plans]})
    else:
        click.echo("\n\n".join(map(str, plans)))
    return 0


def _repeat(
    ref: str, source: tuple[str, ...], has_more: bool, note: str, store: Registry, screen: Screen, as_json: bool,
    quiet: bool,
) -> int:  # fmt: skip
    """A version again, by its own recipe."""
    if has_more:
        raise UsageProblem(
            "--repeat takes the version's own recipe, and no other flag.",
            hint=f"adapterkit train --repeat {ref}",
        )
    if len(source) > 1:
        raise UsageProblem("--repeat takes one text.", hint=f"adapterkit train {source[0]} --repeat {ref}")
    store[ref]  # an unknown one is told before torch loads
    from adapterkit.training.repeat import repeat

    text = source[0] if source else None
    return _each(
        [partial(repeat, ref, text, note=note, registry=store, on_event=screen.tell)],
        store,
        screen,
        as_json,
        quiet,
    )


def _refuse_more(resume: bool, finish: bool, source: tuple[str, ...], has_more: bool) -> None:
    """A run that is taken up has its recipe already."""
    flag = "--resume" if resume else "--finish"
    if resume and finish:
        raise UsageProblem("--resume and --finish together.", hint="one of them")
    if has_more:
        raise UsageProblem(
            f"{flag} takes the recipe that the run was begun with, and no other flag.",
            hint=f"adapterkit train {' '.join([flag, *source])}",
        )
    if len(source) > 1:
        raise UsageProblem(f"{flag} takes one run.", hint=f"adapterkit train {flag} {source[0]}")


def _each(
    works: Sequence[Callable[[], Version]], store: Registry, screen: Screen, as_json: bool, quiet: bool
) -> int:
    """Do one after the other. One that fails is told of, the others are still done, and the exit code is its."""
    made: list[dict[str, Any]] = []
    failed: list[AdapterKitError] = []
    for work in works:
        try:
            version = work()
        except AdapterKitError as e:
            screen.close()
            if len(works) == 1 or e.exit_code == 130:  # alone, or the person stopped it all
                raise
            failed.append(e)
            if not as_json:
                screen.fail(e)
            continue
        made.append(record(version, screen.existed))
        if not as_json:
            show(version, store, quiet)
    if as_json:
        errors = [
            {"code": e.code, "message": e.message, "hint": e.hint, "details": e.details} for e in failed
        ]
        emit(made[0] if len(works) == 1 else {"versions": made, "errors": errors})
    return failed[0].exit_code if failed else 0
