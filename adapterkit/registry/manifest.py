"""The manifest of a version: canonical JSON with its own digest, written last and never edited."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from adapterkit.errors import Damaged, Unsupported
from adapterkit.files import canonical_json, sha256_bytes
from adapterkit.refs import is_name
from adapterkit.registry import shape

SCHEMA = 1
MAX_MANIFEST = 16 << 10
MANIFEST = "manifest.json"
PRIVATE = "private"
# Markers, the only things ever added to a version: hidden, and hidden with its files taken by gc.
DELETED, COLLECTED = "deleted", "collected"


def read_manifest(folder: Path, digest: str = "") -> dict[str, Any]:
    """The manifest in a folder, checked against its own digest and the one expected.

    Raises:
        Damaged, Unsupported: as ``read``.
    """
    path = folder / MANIFEST
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("not a file")
        if info.st_size > MAX_MANIFEST:
            raise ValueError("too long")
        return parse_manifest(path.read_bytes(), str(path), digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise unreadable(folder, e) from e


def parse_manifest(raw: bytes, where: str, digest: str = "") -> dict[str, Any]:
    """A manifest from its bytes, if they are the canonical ones with a digest that fits.

    Args:
        where: whose it is, for messages.
        digest: that it must have; any when empty.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: it is not whole.
        Unsupported: it was written by a newer AdapterKit.
    """
    manifest: dict[str, Any] = json.loads(raw)
    if (
        not isinstance(manifest, dict)
        or canonical_json(seal(manifest)) != raw
        or digest not in ("", manifest["digest"])
    ):
        raise ValueError("changed")
    if manifest["min_reader"] > SCHEMA:
        raise Unsupported(
            f"{where} was written by a newer AdapterKit (format {manifest['schema']}, this one reads {SCHEMA}).",
            hint="pip install -U adapterkit",
            code="newer",
        )
    shape.check(manifest)
    if not is_name(manifest["name"]) or not all(map(is_inside, manifest["files"])):
        raise ValueError("a name that is not allowed")
    return manifest


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with its own digest."""
    body = {k: v for k, v in manifest.items() if k != "digest"}
    return {**body, "digest": sha256_bytes(canonical_json(body))}


def is_inside(name: str) -> bool:
    """Whether a manifest's name of a file stays in the version's folder, outside what is not digested."""
    parts = name.split("/")
    plain = all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", part) for part in parts)
    return plain and parts[0] not in (PRIVATE, MANIFEST, DELETED, COLLECTED)


def unreadable(folder: Path, e: Exception) -> Damaged:
    where = f"{folder.parent.name}@{folder.name}"
    return Damaged(
        f"{where} is damaged: its manifest can't be read ({type(e).__name__}: {e}).",
        hint=f"adapterkit import {folder.parent.name}-{folder.name}.adapter.safetensors, or train it again "
        f"from its text: adapterkit train SOURCE --name {folder.parent.name} --fresh, or: adapterkit delete {where}",
        details={"ref": where},
    )
