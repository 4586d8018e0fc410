"""``verify`` and ``gc``: is everything as it was published, and what may go."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from adapterkit.cli import named, prepared
from adapterkit.cli.output import common, counted, emit, note
from adapterkit.errors import AdapterKitError
from adapterkit.files import human_size
from adapterkit.registry import check
from adapterkit.registry.check import Problem
from adapterkit.registry.collect import GcReport, Leftover
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

LONG = 200 << 20  # bytes from which hashing takes long enough for a bar


@click.command("verify")
@click.argument("refs", nargs=-1, metavar="[REF...]")
@common
def verify_verb(refs: tuple[str, ...], registry: str | None, as_json: bool, quiet: bool) -> int:
    """Every byte against the manifests.

    Exit code 3 when anything is not as it was published.
    """
    store = Registry(registry)
    versions = named.versions(store, refs, "verify") if refs else with_files(store)
    found = problems(store, versions, quiet or as_json, whole=not refs)
    size = sum(v.size for v in versions)
    if as_json:
        emit({"registry": str(store.path), "verified": len(versions), "bytes": size,
              "problems": [as_dict(p) for p in found]})  # fmt: skip
    else:
        for problem in found:
            click.echo(line(problem))
        if not found and not quiet:
            click.echo(
                f"{counted(len(versions), 'version')}, {human_size(size)}: every byte is as it was published."
            )
    return 3 if found else 0


def with_files(store: Registry) -> list[Version]:
    """All versions but those whose files gc has taken, the deleted ones too."""
    return [v for v in store.versions(deleted=True) if not v.is_collected]


def problems(store: Registry, versions: Sequence[Version], quiet: bool, *, whole: bool) -> list[Problem]:
    """What is wrong with some versions; with ``whole`` also with what can't be read and with aliases."""
    found: list[Problem] = []
    if whole:
        for shelf in store.shelves():
            told = [(f"{shelf.name}@{number}", e) for number, e in shelf.damaged.items()]
            found += [Problem(ref, e.message, e.hint, e.code) for ref, e in told]
        found += [p for p in check.faults(store) if p.code not in ("staging", "mode")]
    with _counted(versions, quiet) as each:
        for v in each:
            try:
                v.verify()
            except AdapterKitError as e:
                found.append(Problem(v.ref, e.message, e.hint, e.code, v.path))
            except OSError as e:  # another account's modes, or the disk
                what = f"{v.ref} can't be read: {e.strerror} ({e.filename})."
                found.append(Problem(v.ref, what, "adapterkit doctor --fix", "unreadable", v.path))
    return found


@contextmanager
def _counted(versions: Sequence[Version], quiet: bool) -> Iterator[Iterator[Version]]:
    """The versions, with a bar of their bytes where a person watches and it takes long."""
    if quiet or not sys.stderr.isatty() or sum(v.size for v in versions) < LONG:
        yield iter(versions)
        return
    total = sum(v.size for v in versions)
    with click.progressbar(length=total, file=sys.stderr, label="checking", fill_char="━") as bar:
        yield _each(versions, bar)


def _each(versions: Sequence[Version], bar: Any) -> Iterator[Version]:
    for v in versions:
        yield v
        bar.update(v.size)


def line(problem: Problem) -> str:
    """What is wrong, and the command."""
    return f"{problem.what} {problem.hint}".rstrip()


def as_dict(problem: Problem) -> dict[str, Any]:
    """``ref what hint code path can_be_mended``."""
    return {
        "ref": problem.ref,
        "what": problem.what,
        "hint": problem.hint,
        "code": problem.code,
        "path": None if problem.path is None else str(problem.path),
        "can_be_mended": problem.mend is not None,
    }


# --- gc -----------------------------------------------------------------------


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--now", is_flag=True, help="Also versions deleted within the last 7 days, and fresh leftovers."
)
@click.option("--runs", is_flag=True, help="Also unfinished training runs.")
@click.option("--text", is_flag=True, help="Also every prepared copy of a text; train makes them again.")
@common
def gc_verb(
    dry_run: bool, now: bool, runs: bool, text: bool, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """Remove leftovers: torn writes, and versions deleted more than 7 days ago."""
    store = Registry(registry)
    report = store.gc(dry_run=dry_run, now=now, runs=runs)
    copies = prepared.copies() if text else []
    if not dry_run:
        copies = prepared.remove(copies)
    freed = report.bytes + sum(c.bytes for c in copies)
    more = {} if quiet and not as_json else _more(store, report, dry_run, now, runs, text)
    if as_json:
        emit({"registry": str(store.path), "dry_run": dry_run, "bytes": freed, "removed": [_record(x) for x in report.removed],
              "texts": {"count": len(copies), "bytes": sum(c.bytes for c in copies)},
              "kept": list(report.kept), "more": more})  # fmt: skip
        return
    if quiet:
        click.echo(freed)
        return
    _tell(report, copies, freed)
    for flag, size in more.items():
        note(f"{human_size(size)} more would go with adapterkit gc {flag}")


def _tell(report: GcReport, copies: Sequence[prepared.Copy], freed: int) -> None:
    verb = "would remove" if report.is_dry_run else "removed"
    for left in report.removed:
        click.echo(f"{verb} {left.what}, {human_size(left.bytes)}")
    if copies:
        size = human_size(sum(c.bytes for c in copies))
        word = "copy" if len(copies) == 1 else "copies"
        click.echo(f"{verb} {len(copies)} prepared {word} of a text, {size}")
    for why in report.kept:
        click.echo(f"kept {why}")
    if report.removed or copies:
        click.echo(f"{human_size(freed)} {'would be freed' if report.is_dry_run else 'freed'}")
    else:
        click.echo("Nothing to remove.")


def _more(
    store: Registry, report: GcReport, dry_run: bool, now: bool, runs: bool, text: bool
) -> dict[str, int]:
    """By flag the bytes that it would free beyond what went."""
    gone = {left.path for left in report.removed} if dry_run else set()
    every = [x for x in store.gc(dry_run=True, now=True, runs=True).removed if x.path not in gone]
    found = {
        "--now": sum(x.bytes for x in every if x.kind != "run" and not now),
        "--runs": sum(x.bytes for x in every if x.kind == "run" and not runs),
        "--text": 0 if text else sum(c.bytes for c in prepared.copies()),
    }
    return {flag: size for flag, size in found.items() if size}


def _record(left: Leftover) -> dict[str, Any]:
    return {"kind": left.kind, "what": left.what, "path": str(left.path), "bytes": left.bytes}
