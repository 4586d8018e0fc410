"""Where the registry is: the flag, the environment, the nearest one upward, the home folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

from adapterkit.errors import Damaged, Unsupported, UsageProblem
from adapterkit.files import STAGING, canonical_json, sha256_bytes, shown, write_whole

MARKER = "registry.json"
SCHEMA = 1


def find(path: Path | str | None = None) -> Path:
    """The folder of the registry; it need not exist yet. Reading never creates it."""
    if path is not None:
        return Path(path).expanduser().resolve()
    if named := os.environ.get("ADAPTERKIT_REGISTRY"):
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "adapters" / MARKER).is_file():
            return folder / "adapters"
    return home()


def home() -> Path:
    return Path.home() / ".adapterkit" / "adapters"


def create(root: Path) -> None:
    """Make the folder and its marker, unless they are there."""
    root.mkdir(parents=True, exist_ok=True)
    if not (root / MARKER).exists():
        write(root)


def write(root: Path) -> None:
    """The marker, anew."""
    (root / STAGING).mkdir(exist_ok=True)
    write_whole(root / MARKER, marker(), by=root / STAGING)


def marker() -> bytes:
    body = {"schema": SCHEMA}
    return canonical_json({**body, "sha256": sha256_bytes(canonical_json(body))}) + b"\n"


def check(root: Path) -> None:
    """Refuse a registry written by a newer AdapterKit, a damaged marker, or what is no folder."""
    if root.exists() and not root.is_dir():
        raise UsageProblem(f"{shown(root)} is no folder, so it can't be a registry.", hint="--registry DIR")
    path = root / MARKER
    if not path.exists():
        return
    try:
        raw = path.read_bytes()
        body = json.loads(raw)
        whole = canonical_json(body) + b"\n" == raw
        whole &= body.pop("sha256") == sha256_bytes(canonical_json(body))
        schema = int(body["schema"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        whole, schema = False, 0
    if not whole:
        raise Damaged(
            f"{path} is damaged.", hint="adapterkit doctor --fix     (writes it again; it holds nothing else)"
        )
    if schema > SCHEMA:
        raise Unsupported(
            f"{root} was written by a newer AdapterKit (format {schema}, this one reads {SCHEMA}).",
            hint="pip install -U adapterkit",
        )
