"""``doctor``: versions, device, disk by place, and what is wrong; ``--fix`` mends what needs no person."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import adapterkit
from adapterkit.cli import upkeep
from adapterkit.cli.output import common, counted, emit, table
from adapterkit.errors import AdapterKitError
from adapterkit.files import existing, human_size, shown, writing
from adapterkit.registry import check, place
from adapterkit.registry.check import Problem
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
# What --fix did, by the code of the problem.
DONE = {"staging": "removed", "lost-alias": "alias removed", "mode": "modes set as published"}


@dataclass(frozen=True)
class Place:
    """A part of the disk that is ours."""

    name: str
    path: Path
    bytes: int
    frees: str  # the command that frees it; empty where nothing needs to

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "free": _free(self.path),
            "frees": self.frees or None,
        }


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Mend what can be mended: torn writes, lost aliases, modes.")
@common
def doctor_verb(fix: bool, registry: str | None, as_json: bool, quiet: bool) -> int:
    """Versions, device and why, folders, disk by place, problems."""
    root = place.find(registry)
    versions = {p: _version(p) for p in PACKAGES}
    found = _problems(root, versions)
    mended: list[Problem] = []
    failed: list[tuple[Problem, AdapterKitError]] = []
    if fix:
        mended, failed = _mend(root, found)
        found = _problems(root, versions) if mended else found
    code = 3 if found else 0
    if quiet and not as_json:
        click.echo("".join(f"{upkeep.line(p)}\n" for p in found), nl=False)
        return code
    device, places = _device(), _places(root)
    if as_json:
        emit({"adapterkit": adapterkit.__version__, "python": platform.python_version(), "packages": versions,
              "device": device, "places": {p.name: p.as_dict() for p in places},
              "problems": [upkeep.as_dict(p) for p in found], "mended": [upkeep.as_dict(p) for p in mended],
              "failed": [upkeep.as_dict(p) | {"error": e.message} for p, e in failed]})  # fmt: skip
        return code
    click.echo(
        f"AdapterKit {adapterkit.__version__} on Python {platform.python_version()}, {platform.platform()}"
    )
    click.echo("  " + ", ".join(f"{p} {v or 'missing'}" for p, v in versions.items()))
    click.echo(f"\n{device}\n\n{_table(places)}\n")
    for problem in mended:
        click.echo(f"mended: {problem.what} ({_done(problem)})")
    for problem, error in failed:
        click.echo(f"could not be mended: {problem.what} ({error.message} {error.hint})")
    click.echo(_listed(found) if found else "No problems.")
    return code


# --- problems -----------------------------------------------------------------


def _problems(root: Path, versions: dict[str, str | None]) -> list[Problem]:
    found = [
        Problem(p, f"{p} is not installed:", f"pip install {p}", "package")
        for p, v in versions.items()
        if v is None and p != "bitsandbytes"
    ]
    if marker := check.marker(root):
        found.append(marker)
    store = _opened(root)
    if store is None:  # nothing more can be seen before the marker is mended
        return found
    found += upkeep.problems(store, upkeep.with_files(store), True, whole=True)
    found += [p for p in check.faults(store) if p.code in ("staging", "mode")]
    return list({(p.ref, p.what): p for p in found}.values())


def _opened(root: Path) -> Registry | None:
    with suppress(AdapterKitError):  # told by check.marker
        return Registry(root)
    return None


def _mend(
    root: Path, found: Sequence[Problem]
) -> tuple[list[Problem], list[tuple[Problem, AdapterKitError]]]:
    """Mend one after the other, and once more what was hidden behind a damaged marker."""
    mended: list[Problem] = []
    failed: list[tuple[Problem, AdapterKitError]] = []
    was_hidden = _opened(root) is None
    for problem in [p for p in found if p.mend]:
        try:
            with writing(root), suppress(FileNotFoundError):  # somebody else was faster
                (problem.mend or _nothing)()
            mended.append(problem)
        except AdapterKitError as e:
            failed.append((problem, e))
    if was_hidden and mended and _opened(root) is not None:
        more, unmended = _mend(root, _problems(root, {}))
        return [*mended, *more], [*failed, *unmended]
    return mended, failed


def _nothing() -> None: ...


def _done(problem: Problem) -> str:
    is_marker = problem.path is not None and problem.path.name == place.MARKER
    return "written anew" if is_marker else DONE.get(problem.code, "damaged alias removed")


def _listed(found: Sequence[Problem]) -> str:
    fixable = sum(p.mend is not None for p in found)
    lines = [counted(len(found), "problem"), *(f"  {upkeep.line(p)}" for p in found)]
    if fixable:
        lines.append(f"{fixable} can be mended: adapterkit doctor --fix")
    return "\n".join(lines)


# --- facts --------------------------------------------------------------------


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


# --- places -------------------------------------------------------------------


def _places(root: Path) -> list[Place]:
    """Every part of the disk that AdapterKit fills, and the command that frees it."""
    from adapterkit.cache import cache_folder, text_folder

    cache, text = cache_folder(), text_folder()
    hub = _hub()
    hidden = _deleted(root)
    staged, runs = _bytes(root / ".staging"), _bytes(root / ".runs")
    prepared = _bytes(text) if text else 0
    facts = _bytes(cache) - (prepared if text and text.is_relative_to(cache) else 0)
    return [
        Place("registry", root, _bytes(root) - hidden - staged - runs, "adapterkit delete REF"),
        Place("deleted", root, hidden, "adapterkit gc --now"),
        Place("runs", root / ".runs", runs, "adapterkit gc --runs"),
        Place("staging", root / ".staging", staged, "adapterkit gc"),
        Place("text", text or cache / "text", prepared, "adapterkit gc --text"),
        Place("cache", cache, facts, f"rm -r {cache}"),
        Place("hub", hub, _bytes(hub), "hf cache rm model/REPO     (hf cache ls lists them)"),
    ]


def _hub() -> Path:
    """Where huggingface_hub keeps what it downloads; told without importing it."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def _deleted(root: Path) -> int:
    store = _opened(root)
    every = store.versions(deleted=True) if store else []
    hidden = [v for v in every if v.deleted and not v.is_collected]
    return sum(_bytes(v.path) for v in hidden)


def _table(places: Sequence[Place]) -> str:
    rows = [["Places", "", "", "freed by"]]
    rows += [[f"  {p.name}", human_size(p.bytes), shown(p.path), p.frees if p.bytes else ""] for p in places]
    disks = {_disk(p.path): p.path for p in reversed(places)}
    free = ", ".join(f"{human_size(_free(p))} free on the disk of {shown(p)}" for p in disks.values())
    return f"{table(rows)}\n  {free}"


def _disk(folder: Path) -> int:
    return existing(folder).stat().st_dev


def _bytes(folder: Path) -> int:
    """Of the files below a folder, each counted once; a link counts as itself."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else []:
        with suppress(OSError):  # gone meanwhile
            info = path.lstat()
            total += info.st_size if not path.is_dir() or path.is_symlink() else 0
    return total


def _free(folder: Path) -> int:
    return shutil.disk_usage(existing(folder)).free
