"""``list`` and ``show``: what is there and how it was made. Never imports torch, and ``list`` reads no manifest."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from adapterkit.cli import named
from adapterkit.cli.output import age, common, counted, emit, gain, note, table
from adapterkit.cli.record import Marks, record
from adapterkit.errors import UsageProblem
from adapterkit.files import human_size, shown
from adapterkit.registry import runs
from adapterkit.registry.keeping import UNDO_DAYS, deleted_at
from adapterkit.registry.runs import Run
from adapterkit.registry.shelf import Shelf
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

SORTS = ("name", "made", "size", "gain")
DAY = 86400.0
Shelves = dict[str, Shelf]


@click.command("list")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "every", is_flag=True, help="Every version, not only the newest.")
@click.option("--deleted", is_flag=True, help="The deleted ones instead, and how long they can be restored.")
@click.option("--sort", default="name", type=click.Choice(SORTS), help="Order.  [name]")
@common
def list_verb(
    names: tuple[str, ...], every: bool, deleted: bool, sort: str, registry: str | None, as_json: bool, quiet: bool
) -> None:  # fmt: skip
    """The adapters: newest version of each name."""
    with _without_collector():
        _list(Registry(registry), names, every, deleted, sort, as_json, quiet)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A quarter of the time of a long list goes into looking for cycles, of which there are none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _list(
    store: Registry, names: Sequence[str], every: bool, deleted: bool, sort: str, as_json: bool, quiet: bool
) -> None:
    shelves, meant = _meant(store, names, deleted)
    marks = {name: Marks(shelf) for name, shelf in shelves.items()}
    problems = [e for shelf in shelves.values() for e in shelf.problems]
    versions = list({v.ref: v for each in meant for v in each}.values())
    rows = versions if every or deleted else list({v.ref: v for each in meant for v in each[-1:]}.values())
    rows = sorted(rows, key=lambda v: _key(v, sort), reverse=sort in ("made", "size"))
    left = [r for r in runs.unfinished(store.path) if not names or r.name in shelves]
    if as_json:
        told = [record(v, marks[v.name]) | (_until(v) if deleted else {}) for v in rows]
        emit({"registry": str(store.path), "versions": told, "problems": [e.message for e in problems],
              "unfinished": [_run(r) for r in left]})  # fmt: skip
        return
    for problem in problems:
        note(f"{problem.message} {problem.hint}")
    if quiet:
        click.echo("".join(f"{v.ref}\n" for v in rows), nl=False)
        return
    if deleted:
        click.echo(_deleted_table(rows) if rows else f"Nothing deleted in {shown(store.path)}.")
        return
    if versions:
        _show_table(store, rows, versions, marks, sort)
    else:
        yet = "that can be read" if problems else "yet"
        click.echo(f"No adapters in {shown(store.path)} {yet}. Train one: adapterkit train FOLDER-OR-FILE")
    for line in unfinished(left):
        click.echo(line)


def unfinished(left: Sequence[Run]) -> list[str]:
    """A line for each run that can go on, and the command that does it; the newest needs no name."""
    lines = []
    for i, run in enumerate(left):
        word = run.name if [r.name for r in left].count(run.name) == 1 else run.id
        since = age(datetime.fromisoformat(run.saved))
        state = (
            "in training now"
            if run.is_alive
            else f"stopped {'just now' if since == 'now' else since + ' ago'}"
        )
        told = f"unfinished: {run.name}, {100 * run.share:.0f} %, {state}"
        lines.append(f"{told:<54}adapterkit train --resume{f' {word}' if i else ''}".rstrip())
    return lines


def _run(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "step": run.step,
        "steps": run.steps,
        "begun": run.begun,
        "saved": run.saved,
    }


def _meant(store: Registry, names: Sequence[str], deleted: bool) -> tuple[Shelves, list[list[Version]]]:
    """The shelves that words name, and of each word every version of a NAME, or the one of NAME@VERSION."""
    if not names:
        shelves = {shelf.name: shelf for shelf in store.shelves()}
        return shelves, [_on(shelf, deleted) for shelf in shelves.values()]
    refs = {text: named.refuse_mix(text, "list") for text in names}
    shelves = {name: store.shelf(name) for name in dict.fromkeys(ref.name for ref in refs.values())}
    return shelves, [_of(store, text, shelves[ref.name], deleted) for text, ref in refs.items()]


def _of(store: Registry, text: str, shelf: Shelf, deleted: bool) -> list[Version]:
    _, _, version = text.strip().partition("@")
    if deleted and shelf.every:
        return [v for v in _on(shelf, deleted) if not version or str(v.number) == version]
    if version:
        return [store[text]]
    if not shelf.alive and not shelf.problems:
        store[text]  # raises the error that names the nearest
    return shelf.alive


def _on(shelf: Shelf, deleted: bool) -> list[Version]:
    return [v for v in shelf.every if v.deleted] if deleted else shelf.alive


def _show_table(
    store: Registry, rows: list[Version], versions: list[Version], marks: dict[str, Marks], sort: str
) -> None:
    header = ["NAME", "VERSION", "NOTE", "BASE", "UNSEEN TEXT", "SIZE", "MADE", "ALIASES"]
    click.echo(table([header, *(_row(v, marks[v.name]) for v in rows)]))
    total = human_size(sum(v.size for v in versions))
    count = len({v.name for v in versions})
    more = " (--all)" if len(rows) < len(versions) else ""
    click.echo(
        f"{counted(count, 'adapter')}, {counted(len(versions), 'version')}{more}, {total} in {shown(store.path)}"
    )
    if sort == "gain":
        note(
            "Percentages compare an adapter with its base on its own text; they are not a ranking between names."
        )


def _key(v: Version, sort: str) -> Any:
    if sort == "name":
        return v.name, v.number
    return {"made": v.created, "size": v.size}[sort] if sort != "gain" else v.metrics.gain or 0.0


def _row(v: Version, marks: Marks) -> list[str]:
    kind = "" if v.kind == "lora" else " (full)"
    return [
        v.name,
        f"{v.number}  {v.digest[:8]}",
        _short(v.note),
        v.base + kind,
        gain(v.metrics),
        human_size(v.size),
        age(v.created),
        marks.words(v),
    ]


def _short(text: str) -> str:
    text = " ".join(text.split()) if text else ""
    return text if len(text) <= 24 else text[:23] + "…"


# --- deleted ones -------------------------------------------------------------


def _deleted_table(rows: Sequence[Version]) -> str:
    header = ["NAME", "VERSION", "NOTE", "SIZE", "DELETED", "UNTIL", ""]
    return table([header, *(_deleted_row(v) for v in rows)])


def _deleted_row(v: Version) -> list[str]:
    told = _until(v)
    head = [v.name, f"{v.number}  {v.digest[:8]}", _short(v.note), human_size(v.size)]
    if told["deleted_at"] is None:
        return [*head, "", "", "gc has taken its files"]
    when = datetime.fromisoformat(told["deleted_at"])
    until = datetime.fromisoformat(told["restorable_until"])
    ended = until < datetime.now(UTC)
    since = age(when)
    return [
        *head,
        "just now" if since == "now" else f"{since} ago",
        "the next gc" if ended else f"{until.astimezone():%Y-%m-%d %H:%M}",
        f"adapterkit restore {v.ref}",
    ]


def _until(v: Version) -> dict[str, Any]:
    """When a version was hidden, and from when ``gc`` may take its files; None where it has."""
    at = math.inf if v.is_collected else deleted_at(v)
    if math.isinf(at):
        return {"is_collected": v.is_collected, "deleted_at": None, "restorable_until": None}
    until = at + UNDO_DAYS * DAY
    return {"is_collected": False, "deleted_at": _iso(at), "restorable_until": _iso(until)}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


# --- show ---------------------------------------------------------------------


@click.command("show")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@click.option("--recipe", "as_recipe", is_flag=True, help="The resolved recipe, as a recipe file.")
@click.option("--open", "opens", is_flag=True, help="Open the training report in the browser.")
@common
def show_verb(
    refs: tuple[str, ...], as_recipe: bool, opens: bool, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """How a version was made and how good it is."""
    from adapterkit.cli import page

    store = Registry(registry)
    versions = named.versions(store, refs, "show")
    if as_recipe:
        if len(versions) > 1:
            raise UsageProblem("--recipe prints one recipe.", hint=f"adapterkit show {refs[0]} --recipe")
        text = page.recipe_file(versions[0])  # refuses what has none
        if as_json:
            emit({"ref": versions[0].ref, "recipe": versions[0].manifest["recipe"]})
        else:
            click.echo(text, nl=False)
        return
    if opens:
        from adapterkit.cli.browser import open_reports

        open_reports([v.report() for v in versions], as_json, quiet)
        return
    marks = {name: Marks(store.shelf(name)) for name in {v.name for v in versions}}
    lineage = page.Lineages(store)
    if as_json:
        emit({"versions": [page.as_dict(v, marks[v.name], lineage) for v in versions]})
    elif quiet:
        click.echo("\n".join(v.ref for v in versions))
    else:
        click.echo("\n\n".join(page.page(v, marks[v.name], lineage) for v in versions))
