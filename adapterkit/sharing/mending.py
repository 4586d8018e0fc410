"""A damaged version made whole again from a shipped copy of it.

Nothing of a version is ever edited; this puts back, file by file and each by
one rename, the very bytes that its manifest tells of. What is whole stays as it
is, so a reader meets damaged files or mended ones, never half of one.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adapterkit import files
from adapterkit.errors import Damaged
from adapterkit.files import canonical_json, sha256_file
from adapterkit.registry.store import Registry
from adapterkit.registry.version import MANIFEST, Version
from adapterkit.sharing.shipment import Shipment

FLIPS = 8  # bytes that may differ in a manifest that is still taken for the same


def mend(registry: Registry, version: Version, made: Shipment) -> bool:
    """Put back the files of a version that are not those that were published.

    Args:
        made: the same version by its digest, compared with its manifest.

    Returns:
        Whether anything had to be put back.

    Raises:
        Damaged: there is still something in its folder that does not belong.
    """
    wrong = _wrong(version.path, made)
    if wrong:
        _put(registry, version.path, made, wrong)
    version.verify()
    return bool(wrong)


def mend_manifest(registry: Registry, made: Shipment) -> bool:
    """Put back a torn or flipped manifest, if what stands there is this very version otherwise.

    Returns:
        Whether it was; another version, or too little left to tell, is left alone.
    """
    folder = registry.path / made.name / str(made.number)
    if not folder.is_dir() or folder.is_symlink() or _wrong(folder, made):
        return False
    right = canonical_json(made.manifest)
    if not _is_torn(_found(folder / MANIFEST), right):
        return False
    staging = registry.path / files.STAGING
    with files.writing(registry.path):
        staging.mkdir(exist_ok=True)
        files.write_whole(folder / MANIFEST, right, 0o444, by=staging)
    return True


def _wrong(folder: Path, made: Shipment) -> list[str]:
    told = made.manifest["files"]
    return [
        n for n in sorted(told) if not _is_plain(folder / n) or sha256_file(folder / n) != told[n]["sha256"]
    ]


def _put(registry: Registry, folder: Path, made: Shipment, names: list[str]) -> None:
    with registry.staging() as staged, files.writing(registry.path):
        made.fill(staged)
        files.sync_tree(staged, file_mode=0o444)
        for name in names:
            if (folder / name).is_dir() and not (folder / name).is_symlink():
                raise Damaged(
                    f"{folder / name} is a folder where a file should be.", hint=f"rm -r {folder / name}"
                )
            os.replace(staged / name, folder / name)
        files.sync_folder(folder)


def _found(path: Path) -> bytes:
    return path.read_bytes() if _is_plain(path) else b""


def _is_torn(found: bytes, right: bytes) -> bool:
    """The beginning of the right bytes, or nearly all of them."""
    if len(found) != len(right):
        return right.startswith(found)
    return sum(a != b for a, b in zip(found, right, strict=True)) <= FLIPS


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
