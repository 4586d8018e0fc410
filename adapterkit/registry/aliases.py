"""Movable names for versions: ``<name>/aliases/<alias>``, one sealed file each, replaced by rename.

No shared file, so two writers never lose each other's aliases.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from adapterkit import files
from adapterkit.errors import AdapterKitError, Damaged, UsageProblem
from adapterkit.refs import ALIAS, RESERVED, looks_like_digest

FOLDER = "aliases"
MAX_SIZE = 4096


@dataclass(frozen=True)
class Target:
    """What an alias was set for."""

    version: int
    digest: str


def check(alias: str) -> str:
    """The alias itself, if it can be one.

    Raises:
        UsageProblem: a reserved word, not a name, or one that reads as a digest.
    """
    if ALIAS.fullmatch(alias) and alias not in RESERVED and not looks_like_digest(alias):
        return alias
    why = "is kept by AdapterKit" if alias in RESERVED else "can't be an alias"
    if looks_like_digest(alias):
        why = "would be read as a digest"
    raise UsageProblem(
        f"{alias!r} {why}. An alias is a letter, then letters in lower case, digits, - and _, at most 32.",
        hint="adapterkit alias NAME@3 prod",
    )


def write(root: Path, name: str, alias: str, target: Target) -> None:
    """Set or move an alias, in one rename from the staging folder."""
    folder, staging = root / name / FOLDER, root / ".staging"
    folder.mkdir(exist_ok=True)
    staging.mkdir(exist_ok=True)
    body = {"version": target.version, "digest": target.digest}
    sealed = {**body, "sha256": files.sha256_bytes(files.canonical_json(body))}
    files.write_whole(folder / alias, files.canonical_json(sealed), by=staging)


def remove(root: Path, name: str, alias: str) -> None:
    path = root / name / FOLDER / alias
    path.unlink()
    files.sync_folder(path.parent)


def exists(root: Path, name: str, alias: str) -> bool:
    return bool(ALIAS.fullmatch(alias)) and os.path.lexists(root / name / FOLDER / alias)


def read(root: Path, name: str, alias: str) -> Target:
    """What an alias means.

    Raises:
        Damaged: it is not as it was written.
    """
    path = root / name / FOLDER / alias
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_SIZE:
            raise ValueError("not an alias")
        raw = path.read_bytes()
        told = json.loads(raw)
        whole = files.canonical_json(told) == raw
        seal = told.pop("sha256")
        if whole and seal == files.sha256_bytes(files.canonical_json(told)):
            return Target(int(told["version"]), str(told["digest"]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass
    raise Damaged(
        f"the alias {alias!r} of {name} is damaged.",
        hint=f"rm {path}",
        details={"name": name, "alias": alias, "path": str(path)},
    )


def read_all(root: Path, name: str) -> tuple[dict[str, Target], dict[str, AdapterKitError]]:
    """Every alias of a name, and the errors of those that can't be read."""
    found: dict[str, Target] = {}
    damaged: dict[str, AdapterKitError] = {}
    folder = root / name / FOLDER
    for alias in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if alias.startswith("."):
            continue
        try:
            found[alias] = read(root, name, alias)
        except Damaged as e:
            damaged[alias] = e
    return found, damaged
