"""How things look: dim notes on stderr, tables, sizes, ages, JSON on stdout."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any

import click

from adapterkit.refs import parse_adapter
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version

SCHEMA = 1


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--registry``, ``--json``, ``-q`` and ``--help-all``, which every verb has."""
    command = click.option(
        "--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_help_all, help="Every flag."
    )(command)
    command = click.option("-q", "--quiet", is_flag=True, help="Say only the result.")(command)
    command = click.option("--json", "as_json", is_flag=True, help="The result as one JSON document.")(
        command
    )
    return click.option("--registry", metavar="DIR", help="The folder with the adapters.")(command)


def force_base_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--force-base``, of every verb that loads an adapter."""
    told = "Use it on another base of the same sizes too; what comes of it is anybody's guess."
    return click.option("--force-base", is_flag=True, help=told)(command)


def _help_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    full = copy(ctx.command)  # the command itself keeps its flags hidden for the next --help
    full.params = [_unhidden(p) for p in full.params]
    click.echo(full.get_help(ctx))
    ctx.exit()


def _unhidden(param: click.Parameter) -> click.Parameter:
    param = copy(param)
    if isinstance(param, click.Option):
        param.hidden = False
    return param


def note(text: str, quiet: bool = False) -> None:
    """A dim line on stderr."""
    if not quiet:
        click.echo(click.style(f"· {text}", dim=True), err=True)


def emit(value: dict[str, Any]) -> None:
    """One JSON document on stdout; on one line for a program, which takes ten thousand records at once."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(json.dumps({"schema": SCHEMA, **value}, ensure_ascii=False, indent=indent, default=str))


def counted(count: int, what: str) -> str:
    """``1 version``, ``12 versions``."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def table(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Columns as wide as their widest cell; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["   ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(indent + line for line in lines)


def width() -> int:
    return min(shutil.get_terminal_size((96, 24)).columns, 96)


def columns(texts: Sequence[str], indent: int = 2) -> str:
    """Texts side by side, wrapped to the terminal; one below the other when there is no room."""
    each = (width() - indent - 3 * (len(texts) - 1)) // len(texts)
    wrapped = [wrap(t, each) for t in texts]
    height = max(map(len, wrapped))
    rows = [[w[i] if i < len(w) else "" for w in wrapped] for i in range(height)]
    return "\n".join(" " * indent + "   ".join(f"{c:<{each}}" for c in row).rstrip() for row in rows)


def wrap(text: str, room: int) -> list[str]:
    """Lines of a text that keep its own line breaks."""
    return [line for part in text.split("\n") for line in (textwrap.wrap(part, room) or [""])]


def gain(metrics: Metrics) -> str:
    """``41.2 → 27.9  −32 %``: the pair and the gain always stand together."""
    if metrics.perplexity is None or metrics.base_perplexity is None or metrics.gain is None:
        return "not tested"
    return f"{metrics.base_perplexity:.1f} → {metrics.perplexity:.1f}  {signed(metrics.gain)}"


def signed(share: float) -> str:
    return f"{'−' if share < 0 else '+'}{abs(share) * 100:.0f} %"


def age(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit if count != 1 or unit != 'days' else 'day'}"
    return "now"


def newest(versions: Iterable[Version]) -> Version | None:
    """The one made last; of those made in one second the last that is given."""
    return max(reversed(list(versions)), key=lambda v: v.created, default=None)


def base_of(registry: Registry, adapters: Sequence[str], override: str | None) -> str:
    """The base that adapters were trained on; without any, that of the version made last; else gpt2."""
    if override:
        return override
    versions: list[Version] = [registry[str(p.ref)] for a in adapters for p in parse_adapter(a)]
    lora = [v for v in versions if v.kind == "lora"]
    if not versions:
        made = newest(v for v in registry.versions() if v.kind == "lora")
        lora = [made] if made else []
    if not lora:
        return versions[0].base if versions else "gpt2"
    from adapterkit.model.base import recall

    return recall(lora[0].manifest["base"]["weights"]) or lora[0].base
