"""The first minute: the start screen and ``init``; ``demo`` and ``doctor`` have modules of their own."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

import adapterkit
from adapterkit.cli.output import common, emit
from adapterkit.errors import UsageProblem
from adapterkit.files import shown
from adapterkit.recipe.keys import Key, keys
from adapterkit.refs import check_name
from adapterkit.registry import place, runs
from adapterkit.registry.store import Registry


def start_screen() -> None:
    """What ``adapterkit`` alone shows."""
    click.echo(f"AdapterKit {adapterkit.__version__}   one GPT-2, many small styles")
    for command, told in (
        ("adapterkit demo", "a minute, no download"),
        ("adapterkit train FOLDER-OR-FILE", "learn a style from your text (.txt .md .csv .jsonl ...)"),
        ("adapterkit chat NAME", "write with it"),
    ):
        click.echo(f"  {command:<34} {told}")
    store = Registry()
    count = sum(bool(shelf.alive) for shelf in store.shelves())
    if count:
        left = runs.unfinished(store.path)
        told = (
            f", {len(left)} unfinished ({left[0].name}, {left[0].share:.0%}: adapterkit train --resume)"
            if left
            else ""
        )
        click.echo(f"Here: {count} adapter{'s' * (count != 1)} in {shown(store.path)}: adapterkit list{told}")
    click.echo("All commands: adapterkit --help")


@click.command("init")
@click.argument("folder", required=False, metavar="[DIR]")
@click.option("--recipe", metavar="NAME", help="Write configs/NAME.yaml with every key commented.")
@common
def init_verb(
    folder: str | None, recipe: str | None, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """Make a project here, or a recipe with every key commented."""
    root = Path(folder or ".")
    wanted = [root / "adapters" / place.MARKER, root / "configs", root / ".gitignore"]
    there = [] if recipe else [p for p in wanted if p.exists()]
    if recipe:
        made = [_write_recipe(root, recipe)]
    else:
        _make_project(root)
        made = [p for p in wanted if p not in there]
    if as_json:
        emit({"made": [str(p) for p in made]})
        return
    for path in made:
        click.echo(f"made {path}")
    for path in there:
        click.echo(f"there already: {path}")


def _make_project(root: Path) -> None:
    place.create(root / "adapters")
    (root / "configs").mkdir(exist_ok=True)
    if not (root / ".gitignore").exists():
        (root / ".gitignore").write_text("adapters/*\n!adapters/registry.json\n")


def _write_recipe(root: Path, name: str) -> Path:
    folder = "" if root == Path() else f" {shlex.quote(str(root))}"
    typed = f"adapterkit init{folder} --recipe"
    check_name(name, typed=typed)  # it names a file, and the adapter that is made by it
    path = root / "configs" / f"{name}.yaml"
    if path.exists():
        raise UsageProblem(f"{path} is there already.", hint=f"{typed} {name}-2")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(commented_recipe(name), encoding="utf-8")
    return path


def commented_recipe(name: str) -> str:
    """Every key of the schema with its default, help and limits."""
    lines = [
        f"# {name}: every key with its default. Uncomment what you change.",
        "# adapterkit train " + f"configs/{name}.yaml",
    ]
    group = ""
    for key in keys().values():
        head, _, last = key.path.rpartition(".")
        if head != group:
            group = head
            lines += ["", f"# {head}:"] if head else [""]
        lines += [
            f"#{'   ' if head else ' '}# {key.help} ({key.allowed})",
            f"#{'   ' if head else ' '}{last}: {_spelled(key)}",
        ]
    return "\n".join(lines) + "\n"


def _spelled(key: Key) -> str:
    if key.default is None:
        return "null"
    if isinstance(key.default, str):
        return key.default if key.default and key.default not in ("none",) else f'"{key.default}"'
    return str(key.default)
