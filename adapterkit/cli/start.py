"""The first minute: the start screen, ``doctor``, ``init``; ``demo`` has a module of its own."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import adapterkit
from adapterkit.cli.demo import demo_verb as demo_verb
from adapterkit.cli.output import common, emit
from adapterkit.errors import UsageProblem
from adapterkit.files import human_size, shown
from adapterkit.recipe.keys import Key, keys
from adapterkit.refs import check_name
from adapterkit.registry import place, runs
from adapterkit.registry.store import Registry

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "accelerate",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
)


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
    count = sum(1 for n in store.names() if store.versions(n))
    if count:
        left = runs.unfinished(store.path)
        told = (
            f", {len(left)} unfinished ({left[0].name}, {left[0].share:.0%}: adapterkit train --resume)"
            if left
            else ""
        )
        click.echo(f"Here: {count} adapter{'s' * (count != 1)} in {shown(store.path)}: adapterkit list{told}")
    click.echo("All commands: adapterkit --help")


@click.command("doctor")
@common
def doctor_verb(registry: str | None, as_json: bool, quiet: bool) -> int:
    """Versions, device and why, folders, disk by place, problems."""
    store = Registry(registry)
    versions = {p: _version(p) for p in PACKAGES}
    device = _device()
    places = _places(store)
    problems = _problems(store, versions)
    if as_json:
        emit({"adapterkit": adapterkit.__version__, "python": platform.python_version(), "packages": versions,
              "device": device, "places": places, "problems": problems})  # fmt: skip
        return 3 if problems else 0
    click.echo(
        f"AdapterKit {adapterkit.__version__} on Python {platform.python_version()}, {platform.platform()}"
    )
    click.echo("  " + ", ".join(f"{p} {v or 'missing'}" for p, v in versions.items()))
    click.echo(f"\n{device}\n\nPlaces")
    for name, told in places.items():
        click.echo(
            f"  {name:<10} {shown(Path(told['path']))}   {human_size(told['bytes'])}, {human_size(told['free'])} free"
        )
    if not problems:
        click.echo("\nNo problems.")
        return 0
    click.echo(f"\n{len(problems)} problem{'s' * (len(problems) != 1)}")
    for problem in problems:
        click.echo(f"  {problem}")
    return 3


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device() -> str:
    if _version("torch") is None:
        return "Device: unknown, torch is missing."
    from adapterkit.model.device import choose

    return choose().said


def _places(store: Registry) -> dict[str, dict[str, Any]]:
    from adapterkit.cache import cache_folder

    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    named = {"registry": store.path, "cache": cache_folder(), "hub": hub}
    return {name: {"path": str(p), "bytes": _bytes(p), "free": _free(p)} for name, p in named.items()}


def _bytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _problems(store: Registry, versions: dict[str, str | None]) -> list[str]:
    found = [
        f"{p} is not installed: pip install {p}"
        for p, v in versions.items()
        if v is None and p != "bitsandbytes"
    ]
    staging = store.path / ".staging"
    if staging.is_dir() and (left := list(staging.iterdir())):
        found.append(
            f"{len(left)} unfinished write{'s' * (len(left) != 1)} in {shown(staging)}: rm -r {staging}"
        )
    found += [f"{e.message} {e.hint}" for e in store.problems()]
    for version in store.versions():
        try:
            version.verify()
        except adapterkit.Damaged as e:
            found.append(f"{e.message} {e.hint}")
    return found


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
