"""``list`` and ``show``: what is there and how it was made. Never imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from adapterkit.cli.browser import open_reports
from adapterkit.cli.output import age, common, emit, gain, note, table
from adapterkit.errors import NotFound, UsageProblem
from adapterkit.files import human_size, shown
from adapterkit.refs import parse_ref
from adapterkit.registry import curve, runs
from adapterkit.registry.runs import Run
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

SORTS = ("name", "made", "size", "gain")


@click.command("list")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every version, not only the newest.")
@click.option("--sort", default="name", type=click.Choice(SORTS), help="Order.  [name]")
@common
def list_verb(
    names: tuple[str, ...], every: bool, sort: str, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """The adapters: newest version of each name."""
    store = Registry(registry)
    found = [_meant(store, text) for text in names or store.names()]
    versions = list(dict.fromkeys(v for each in found for v in each))
    rows = versions if every else list(dict.fromkeys(v for each in found for v in each[-1:]))
    rows = sorted(rows, key=lambda v: _key(v, sort), reverse=sort in ("made", "size"))
    problems = [e for n in _names(names) or store.names() for e in store.problems(n)]
    for problem in problems:
        note(f"{problem.message} {problem.hint}")
    left = [r for r in runs.unfinished(store.path) if not names or r.name in _names(names)]
    if as_json:
        told = [record(store, v) for v in rows]
        emit({"registry": str(store.path), "versions": told, "problems": [e.message for e in problems],
              "unfinished": [_run(r) for r in left]})  # fmt: skip
    elif quiet:
        for v in rows:
            click.echo(v.ref)
    elif not versions:
        yet = "that can be read" if problems else "yet"
        click.echo(f"No adapters in {shown(store.path)} {yet}. Train one: adapterkit train FOLDER-OR-FILE")
    else:
        _show_table(store, rows, versions, sort)
    if not as_json and not quiet:
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


def _names(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(parse_ref(t).name for t in texts))


def _meant(store: Registry, text: str) -> list[Version]:
    """Every version of a NAME, or the one of NAME@VERSION."""
    ref = parse_ref(text)
    if ref.version is not None:
        return [store[text]]
    found = store.versions(ref.name)
    if not found and not store.problems(ref.name):
        store[text]  # raises the error that names the nearest
    return found


def _show_table(store: Registry, rows: list[Version], versions: list[Version], sort: str) -> None:
    header = ["NAME", "VERSION", "NOTE", "BASE", "UNSEEN TEXT", "SIZE", "MADE", "ALIASES"]
    click.echo(table([header, *(_row(store, v) for v in rows)]))
    total = human_size(sum(v.size for v in versions))
    count = len({v.name for v in versions})
    more = " (--all)" if len(rows) < len(versions) else ""
    click.echo(
        f"{count} adapter{'s' * (count != 1)}, {len(versions)} version{'s' * (len(versions) != 1)}{more}, "
        f"{total} in {shown(store.path)}"
    )
    if sort == "gain":
        note(
            "Percentages compare an adapter with its base on its own text; they are not a ranking between names."
        )


def _key(v: Version, sort: str) -> Any:
    return {"name": (v.name, v.number), "made": v.created, "size": v.size, "gain": v.metrics.gain or 0.0}[
        sort
    ]


def _row(store: Registry, v: Version) -> list[str]:
    note_text = v.note if len(v.note) <= 24 else v.note[:23] + "…"
    kind = "" if v.kind == "lora" else " (full)"
    size = human_size(v.size)
    return [
        v.name,
        f"{v.number}  {v.digest[:8]}",
        note_text,
        v.base + kind,
        gain(v.metrics),
        size,
        age(v.created),
        _aliases(store, v),
    ]


def _aliases(store: Registry, v: Version) -> str:
    own = [a for a, n in store.aliases(v.name).items() if n == v.number]
    best = store.best(v.name).number
    several = len(store.versions(v.name)) > 1
    mark = ["best"] if several and best == v.number else [f"best is @{best}"] if several else []
    return " ".join(mark + own)


def record(store: Registry, v: Version) -> dict[str, Any]:
    """One version as JSON: the fields of ``list`` and the head of ``show``."""
    return {
        "ref": v.ref,
        "name": v.name,
        "version": v.number,
        "digest": v.digest,
        "kind": v.kind,
        "base": v.base,
        "note": v.note,
        "created": v.created.isoformat(),
        "size": v.size,
        "path": str(v.path),
        "metrics": asdict(v.metrics) | {"gain": v.metrics.improvement},
        "aliases": [a for a, n in store.aliases(v.name).items() if n == v.number],
        "is_best": store.best(v.name) == v,
    }


@click.command("show")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@click.option("--recipe", "as_recipe", is_flag=True, help="The resolved recipe, as a recipe file.")
@click.option("--open", "opens", is_flag=True, help="Open the training report in the browser.")
@common
def show_verb(
    refs: tuple[str, ...], as_recipe: bool, opens: bool, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """How a version was made and how good it is."""
    store = Registry(registry)
    versions = [store[ref] for ref in refs]
    if as_recipe:
        if len(versions) > 1:
            raise UsageProblem("--recipe prints one recipe.", hint=f"adapterkit show {refs[0]} --recipe")
        click.echo(recipe_file(versions[0]), nl=False)
        return
    if opens:
        open_reports([v.report() for v in versions], as_json, quiet)
        return
    if as_json:
        emit(
            {
                "versions": [
                    record(store, v) | {"manifest": v.manifest, "origins": _origins(v)} for v in versions
                ]
            }
        )
        return
    click.echo("\n\n".join(_page(store, v) for v in versions))


def recipe_file(v: Version) -> str:
    from adapterkit.recipe import yaml12

    return f"# {v.ref} {v.digest[:8]}, every value resolved\n{yaml12.dump(v.recipe.model_dump(mode='json'))}"


def _origins(v: Version) -> dict[str, str]:
    try:
        told: dict[str, str] = json.loads((v.path / "recipe.json").read_text())["origins"]
    except (OSError, ValueError, KeyError):
        raise NotFound(f"{v.ref} has no recipe.json.", hint=f"adapterkit list {v.name} --all") from None
    return told


def _page(store: Registry, v: Version) -> str:
    data, base, m = v.manifest["data"], v.manifest["base"], v.metrics
    lines = [f"{v.ref}  {v.digest}  {_aliases(store, v)}".rstrip()]
    facts = [
        ("note", v.note),
        ("kind", "LoRA adapter" if v.kind == "lora" else "full fine-tune"),
        ("made", f"{v.created:%Y-%m-%d %H:%M} UTC, {age(v.created)} ago" if age(v.created) != "now" else "just now"),
        ("base", f"{base['id']}  weights {base['weights'][:8]}" + (f"  revision {base['revision'][:8]}" if base["revision"] else "")),
        ("text", f"{_source(data['source'])}: {data['documents']:,} documents, {data['words']:,} words, "
                 f"{data['train_tokens']:,} tokens learned from"),
        ("", _of_text(v)),
        ("unseen text", f"{gain(m)}  on {m.tokens:,} tokens ({data['held_out']['count']} {data['held_out']['unit']})" if m.tokens else "not tested"),
        ("while learning", _curve(v)),
        ("ends by itself", f"{m.stops:.0%} of samples" if m.stops is not None else "not expected: long documents"),
        ("copied at most", f"{m.copied_words} words" if m.copied_words is not None else "unknown"),
        ("files", f"{human_size(v.size)} in {shown(v.path)}"),
    ]  # fmt: skip
    lines += [f"  {name:<15} {value}" for name, value in facts if value]
    origins = _origins(v)
    lines.append("  recipe          (origin of each value that is not a default or resolved from auto)")
    lines += [
        f"    {key:<22} {_value(v, key)!s:<16} {origin}"
        for key, origin in sorted(origins.items())
        if key != "data.source"
    ]
    for s in v.samples()[:2]:
        lines += ["", f"  {s.prompt}{s.text}".replace("\n", "\n  ")]
    return "\n".join(lines)


def _curve(v: Version) -> str:
    """The tests of the run as a line of bars; nothing when there were too few to see a shape."""
    told = curve.lines(v.history())
    if len(told.held_out) < 3 or told.best is None:
        return ""
    losses = [loss for _, loss in told.held_out]
    return (
        f"test loss {losses[0]:.2f} {curve.sparkline(losses)} {losses[-1]:.2f}, "
        f"best {told.best[1]:.2f} at step {told.best[0]:,} of {told.last_step:,}"
    )


def _of_text(v: Version) -> str:
    """What the report on the text has beyond the manifest; only the rows when the version came without it."""
    data = v.manifest["data"]
    rows = f"{data['rows']:,} rows, {100 * data['fill']:.1f} % full" if data.get("fill") else ""
    try:
        told = json.loads((v.path / "private" / "data.json").read_text(encoding="utf-8"))
        dropped = sum(told["tokens"]["dropped"].values())
        more = [
            f"{told['tokens']['context']:,} tokens only read" if told["tokens"]["context"] else "",
            f"{dropped:,} dropped" if dropped else "nothing dropped",
            f"a document has {told['lengths']['median']:,} tokens in the middle, {told['lengths']['longest']:,} at most",
        ]
    except (OSError, ValueError, KeyError):
        return rows
    return ", ".join(p for p in (rows, *more) if p)


def _source(source: Any) -> str:
    return source if isinstance(source, str) else f"{source[0]} and {len(source) - 1} more"


def _value(v: Version, key: str) -> Any:
    value: Any = v.manifest["recipe"]
    for part in key.split("."):
        value = value[part]
    return value
