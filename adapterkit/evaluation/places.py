"""Where a text lay when it was learned from, noted on this machine alone.

Manifests and recipes hold no paths, so an evaluation that needs the text again
looks it up here by the fingerprint of its held-out part. Without a note it
looks where a recipe would: in the working folder and beside the recipes.
Never imports torch.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path

from adapterkit.cache import cache_folder
from adapterkit.files import canonical_json, write_whole
from adapterkit.recipe.schema import DataSpec
from adapterkit.recipe.source import STDIN


def remember(held_out: str, spec: DataSpec, folder: Path | None) -> None:
    """Note where a text lies.

    Args:
        held_out: fingerprint of its held-out part.
        spec: the ``data`` part of the recipe, its source as it was given.
        folder: of the recipe file.
    """
    many = [spec.source] if isinstance(spec.source, str) else spec.source
    told = {"source": [_placed(s, folder) for s in many]}
    if isinstance(spec.validation, str):
        told["validation"] = [_placed(spec.validation, folder)]
    with suppress(OSError):  # a note that can't be written only means looking elsewhere
        path = _note(held_out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, canonical_json(told))


def candidates(held_out: str, spec: DataSpec) -> Iterator[tuple[DataSpec, Path | None]]:
    """The spec and folder to read with, likeliest first."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        told = json.loads(_note(held_out).read_bytes())
        source = [str(s) for s in told["source"]]
        change = {"source": source[0] if isinstance(spec.source, str) else source}
        if "validation" in told:
            change["validation"] = str(told["validation"][0])
        yield spec.model_copy(update=change), None
    packaged = Path(str(resources.files("adapterkit.configs")))
    for folder in (None, Path("configs"), packaged):
        yield spec, folder


def _placed(source: str, folder: Path | None) -> str:
    if source in ("", STDIN) or source.startswith("hub:"):
        return source
    for root in (folder, Path()):
        path = None if root is None else (root / Path(source).expanduser()).absolute()
        if path is not None and (path.exists() or next(glob.iglob(str(path), recursive=True), None)):
            return str(path)
    return source


def _note(held_out: str) -> Path:
    return cache_folder() / "places" / f"{held_out}.json"
