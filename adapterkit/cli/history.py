"""``log`` and ``diff``: what happened to adapters, and how two versions were made differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from adapterkit.cli import named
from adapterkit.cli.differences import as_dict, compared, measured
from adapterkit.cli.output import common, emit, table
from adapterkit.files import shown
from adapterkit.refs import Ref
from adapterkit.registry.journal import Entry
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "published": lambda more: f"published{_noted(more)}",
    "imported": lambda more: f"imported{_noted(more)}",
    "note": lambda more: f"note{_noted(more)}" if more.get("note") else "note taken away",
    "alias": lambda more: f"alias {more.get('alias')} set to it",
    "alias-removed": lambda more: f"alias {more.get('alias')} removed",
    "renamed": lambda more: f"renamed, was {more.get('from')}",
    "collected": lambda more: "files removed by gc",
    "pushed": lambda more: f"pushed to {more.get('to')}{', public' if more.get('public') else ''}",
}


@click.command("log")
@click.argument("name", required=False, metavar="[NAME]")
@common
def log_verb(name: str | None, registry: str | None, as_json: bool, quiet: bool) -> None:
    """What happened, when; the newest last."""
    store = Registry(registry)
    wanted = named.refuse_mix(name, "log") if name else None
    entries = store.log(wanted.name if wanted else None)
    if wanted:
        entries = _of(store, wanted, entries)
    if as_json:
        emit({"registry": str(store.path), "entries": [_record(e) for e in entries]})
        return
    if not entries:
        click.echo(f"Nothing has happened in {shown(store.path)} yet.", err=quiet)
        return
    click.echo(table([[f"{e.at.astimezone():%Y-%m-%d %H:%M}", _ref(e), _words(e)] for e in entries]))


def _of(store: Registry, wanted: Ref, entries: list[Entry]) -> list[Entry]:
    """Those of a name, or of one version, be it deleted; an unknown one is refused."""
    which = wanted.version
    if which is None:
        if not entries and wanted.name not in store.names():
            store[wanted.name]  # raises, naming the nearest
        return entries
    told = [e for e in entries if str(e.version) == which]
    if told:
        return told
    number = store[str(wanted)].number
    return [e for e in entries if e.version == number]


def _record(e: Entry) -> dict[str, Any]:
    """``at name version ref what``, and ``more``: what belongs to the kind of event, as ``alias`` or ``note``."""
    return {
        "at": e.at.isoformat(),
        "name": e.name,
        "version": e.version,
        "ref": _ref(e),
        "what": e.what,
        "more": e.more,
    }


def _ref(e: Entry) -> str:
    return e.name if e.version is None else f"{e.name}@{e.version}"


def _words(e: Entry) -> str:
    return WORDS[e.what](e.more) if e.what in WORDS else e.what


def _noted(more: dict[str, Any]) -> str:
    return f': "{more["note"]}"' if more.get("note") else ""


@click.command("diff")
@click.argument("left", metavar="REF")
@click.argument("right", metavar="REF")
@common
def diff_verb(left: str, right: str, registry: str | None, as_json: bool, quiet: bool) -> None:
    """How two versions were made differently, and what came of it."""
    store = Registry(registry)
    a, b = (named.version(store, ref, "diff") for ref in (left, right))
    made, scores = compared(a, b), measured(a, b)
    if as_json:
        emit(as_dict(a, b, made, scores))
        return
    if not made:
        click.echo(f"{a.ref} and {b.ref} were made in the same way.")
    rows = [*made, *([] if quiet else scores)]
    if rows:
        click.echo(table([["", _title(a), _title(b)], *(row.cells for row in rows)]))


def _title(v: Version) -> str:
    return f'{v.ref} "{v.note}"' if v.note else v.ref
