"""``alias``, ``note``, ``rename``, ``delete``, ``restore``: what may change about versions, and how it is undone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click

from adapterkit.cli import named
from adapterkit.cli.output import common, counted, emit, note
from adapterkit.errors import UsageProblem
from adapterkit.refs import Ref
from adapterkit.registry import keeping, runs
from adapterkit.registry.keeping import UNDO_DAYS
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version


@click.command("alias")
@click.argument("words", nargs=-1, required=True, metavar="REF ALIAS | NAME")
@click.option("--remove", is_flag=True, help="Take NAME@ALIAS away; several allowed.")
@common
def alias_verb(
    words: tuple[str, ...], remove: bool, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """A movable name for a version, such as noir@prod.

    REF ALIAS sets or moves it; a NAME alone shows those it has.
    """
    store = Registry(registry)
    if remove:
        _remove(store, words, as_json, quiet)
    elif len(words) == 1:
        _show_aliases(store, words[0], as_json)
    elif len(words) == 2:
        _set(store, *words, as_json, quiet)
    else:
        raise UsageProblem("alias sets one alias at a time.", hint=f"adapterkit alias {words[0]} {words[1]}")


def _set(store: Registry, ref: str, alias: str, as_json: bool, quiet: bool) -> None:
    wanted = named.version(store, ref, "alias", alias)
    before = store.aliases(wanted.name).get(alias)
    v = store.alias(wanted.ref, alias)
    full = f"{v.name}@{alias}"
    if as_json:
        emit({"alias": full, "ref": v.ref, "before": None if before is None else f"{v.name}@{before}"})
    elif quiet:
        click.echo(full)
    elif before == v.number:
        click.echo(f"{full} is {v.ref} already")
    elif before is None:
        click.echo(f"{full} is {v.ref}     undo: adapterkit alias --remove {full}")
    else:
        undo = f"adapterkit alias {v.name}@{before} {alias}"
        click.echo(f"{full} is {v.ref} now, it was {v.name}@{before}     undo: {undo}")


def _remove(store: Registry, words: Sequence[str], as_json: bool, quiet: bool) -> None:
    wanted = [_parted(store, word) for word in words]  # all, before any is taken away
    before = {name: store.aliases(name) for name, _ in wanted}
    for name, alias in dict.fromkeys(wanted):
        store.unalias(name, alias)
    if as_json:
        emit({"removed": [f"{name}@{alias}" for name, alias in wanted]})
        return
    for name, alias in dict.fromkeys(wanted):
        number = before[name].get(alias)
        undo = f"     undo: adapterkit alias {name}@{number} {alias}" if number else ""
        click.echo(f"{name}@{alias}" if quiet else f"{name}@{alias} was removed{undo}")


def _parted(store: Registry, word: str) -> tuple[str, str]:
    ref = named.refuse_mix(word, "alias --remove")
    if ref.version is None:
        own = list(store.aliases(ref.name))
        raise UsageProblem(
            f"{word!r} names no alias.",
            hint=f"adapterkit alias --remove {ref.name}@{own[0]}" if own else f"adapterkit alias {ref.name}",
        )
    from adapterkit.registry import aliases, missing

    if not aliases.exists(store.path, ref.name, ref.version):
        if ref.name not in store.names():
            store[ref.name]  # raises, naming the nearest
        raise missing.alias(store, ref.name, ref.version)
    return ref.name, ref.version


def _show_aliases(store: Registry, word: str, as_json: bool) -> None:
    name = word.partition("@")[0]
    named.refuse_mix(word, "alias")
    shelf = store.shelf(name)
    if not shelf.every and not shelf.problems:
        store[word]  # raises, naming the nearest
    own = {alias: target.version for alias, target in shelf.aliases.items()}
    computed: dict[str, int | None] = {"latest": shelf.alive[-1].number if shelf.alive else None}
    computed["best"] = shelf.best.number if shelf.best else None
    if as_json:
        emit({"name": name, "aliases": own, "computed": computed})
        return
    for alias, number in [*own.items(), *computed.items()]:
        if number is not None:
            click.echo(f"{name}@{alias} is {name}@{number}{'' if alias in own else ' (computed)'}")


@click.command("note")
@click.argument("ref")
@click.argument("words", nargs=-1, metavar="TEXT")
@common
def note_verb(ref: str, words: tuple[str, ...], registry: str | None, as_json: bool, quiet: bool) -> None:
    """A few words kept with a version.

    An empty TEXT ("") takes them away.
    """
    store = Registry(registry)
    v = named.version(store, ref, "note", shlex.join(words))
    if not words:
        raise UsageProblem(
            "no text for the note.", hint=f'adapterkit note {ref} "first try"     ("" takes it away)'
        )
    text = " ".join(words)
    store.note(v.ref, text)
    if as_json:
        emit({"ref": v.ref, "note": text, "before": v.note})
    elif quiet:
        click.echo(v.ref)
    else:
        undo = f"     undo: adapterkit note {v.ref} {shlex.quote(v.note)}"
        click.echo(f"{v.ref}: {text or 'no note now'}{undo if v.note != text else ''}")


@click.command("rename")
@click.argument("name")
@click.argument("new")
@common
def rename_verb(name: str, new: str, registry: str | None, as_json: bool, quiet: bool) -> None:
    """Call an adapter otherwise.

    Versions, aliases, scores and log stay with it.
    """
    store = Registry(registry)
    old = named.name(name, "rename", new)
    left = runs.unfinished(store.path, old)
    versions = store.rename(old, new)
    own = list(store.aliases(new))
    if as_json:
        emit({"name": new, "before": old, "versions": [v.ref for v in versions], "aliases": own,
              "unfinished": [run.id for run in left]})  # fmt: skip
        return
    if quiet:
        click.echo(new)
        return
    told = [counted(len(versions), "version"), *([f"its aliases {', '.join(own)}"] if own else []), "its log"]
    click.echo(
        f"{old} is {new} now, with {', '.join(told[:-1])} and {told[-1]}     undo: adapterkit rename {new} {old}"
    )
    if left:
        note(
            f"{counted(len(left), 'unfinished run')} will still publish as {old}: adapterkit train --resume {left[0].id}"
        )


@click.command("delete")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@click.option("--force", is_flag=True, help="Also when an alias means it; the alias goes too.")
@common
def delete_verb(refs: tuple[str, ...], force: bool, registry: str | None, as_json: bool, quiet: bool) -> None:
    """Hide versions; restore undoes it within 7 days.

    Their numbers are never used again. A NAME alone means its newest version.
    """
    store = Registry(registry)
    for text in refs:
        named.refuse_mix(text, "delete")
    wanted = list(dict.fromkeys(keeping.named(store, text) for text in refs))  # all, before any
    lost = {ref: [a for a, n in store.aliases(ref.name).items() if str(n) == ref.version] for ref in wanted}
    digests = {v.ref: v.digest for name in {ref.name for ref in wanted} for v in store.versions(name)}
    # one that an alias is in the way of is refused before any other is hidden
    for ref in sorted(wanted, key=lambda ref: not lost[ref]):
        store.delete(str(ref), force=force)
    if as_json:
        told = [
            {"ref": str(ref), "digest": digests.get(str(ref)), "aliases_removed": lost[ref]} for ref in wanted
        ]
        emit({"deleted": told, "undo_days": UNDO_DAYS})
    elif quiet:
        click.echo("\n".join(map(str, wanted)))
    else:
        for ref in wanted:
            click.echo(_deleted(ref, lost[ref]))
        for name in dict.fromkeys(ref.name for ref in wanted):
            click.echo(_means(store, name))


def _deleted(ref: Ref, lost: list[str]) -> str:
    back = "".join(f" && adapterkit alias {ref} {alias}" for alias in lost)
    gone = f", and {' and '.join(f'{ref.name}@{a}' for a in lost)}" if lost else ""
    return f"deleted {ref}{gone}     undo within {UNDO_DAYS} days: adapterkit restore {ref}{back}"


def _means(store: Registry, name: str) -> str:
    left = store.shelf(name).alive
    return f"'{name}' now means {left[-1].ref}" if left else f"'{name}' has no version left"


@click.command("restore")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@common
def restore_verb(refs: tuple[str, ...], registry: str | None, as_json: bool, quiet: bool) -> None:
    """Undo delete.

    A NAME alone means the version of it that was deleted last.
    """
    store = Registry(registry)
    wanted = [keeping.deleted(store, named.refuse_mix(ref, "restore")) for ref in refs]  # all, before any
    made: list[Version] = [store.restore(ref) for ref in dict.fromkeys(map(str, wanted))]
    if as_json:
        emit({"restored": [_restored(v) for v in made]})
        return
    for v in made:
        click.echo(v.ref if quiet else f"restored {v.ref}     undo: adapterkit delete {v.ref}")
    for name in dict.fromkeys(v.name for v in made if not quiet):
        click.echo(_means(store, name))


def _restored(v: Version) -> dict[str, Any]:
    return {"ref": v.ref, "digest": v.digest, "path": str(v.path)}
