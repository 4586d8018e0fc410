"""Finding the base: ``embedded``, a folder, or a Hub id, with its fingerprints.

Fingerprints are sha256 over canonical content, taken from the files before any
cast: weights (name, shape, dtype, bytes of each tensor), config (architecture
keys), tokenizer (vocabulary, merges, added tokens). The weights' one is kept in
the cache folder by path, inode, size and times. Never imports torch.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from adapterkit.cache import cache_folder
from adapterkit.errors import Damaged, NotFound, Unsupported
from adapterkit.files import canonical_json, sha256_bytes, write_whole
from adapterkit.registry import gpt2, tensorfile
from adapterkit.registry.gpt2 import ARCHITECTURE
from adapterkit.registry.gpt2 import canonical_name as canonical_name
from adapterkit.registry.strict import Dims


@dataclass(frozen=True)
class Fingerprints:
    weights: str
    config: str
    tokenizer: str


@dataclass(frozen=True)
class Base:
    """A GPT-2 on this disk.

    ``id`` is a Hub id, ``embedded`` or a folder's name, never a local path.
    """

    id: str
    folder: Path
    revision: str | None = None
    # The config where it was read and checked before, as that of a published full fine-tune is.
    checked: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json with the architecture's defaults filled in."""
        if self.checked is not None:
            return self.checked
        try:
            raw = (self.folder / "config.json").read_bytes()
        except OSError as e:
            raise NotFound(
                f"{self.folder} is not a model: its config.json can't be read.", hint="--base FOLDER"
            ) from e
        return gpt2.read_config(raw, self.id)

    @property
    def dims(self) -> Dims:
        c = self.config
        return Dims(c["n_layer"], c["n_embd"], c["n_inner"] or 4 * c["n_embd"])

    @property
    def context(self) -> int:
        """Positions the model has: the most tokens it can see."""
        return int(self.config["n_positions"])

    @cached_property
    def weights(self) -> Path:
        path = self.folder / "model.safetensors"
        if path.is_file():
            return path
        raise Unsupported(
            f"the base {self.id!r} has no model.safetensors.",
            hint="save it again with transformers: model.save_pretrained(FOLDER); pickled .bin files are not opened",
        )

    @cached_property
    def fingerprints(self) -> Fingerprints:
        architecture = {k: self.config[k] for k in ARCHITECTURE}
        return Fingerprints(
            weights=_cached_weights(self.weights, self.id),
            config=sha256_bytes(canonical_json(architecture)),
            tokenizer=tokenizer_fingerprint(self.folder),
        )

    def check(self) -> None:
        """Refuse weights that are not exactly those of the config, or hold a number that is not finite.

        Costs nothing on the second start: names and shapes are read from the header,
        and that all is finite is kept with the fingerprint.

        Raises:
            Damaged, Unsupported: what is wrong with them, and where to get others.
        """
        gpt2.check_tensors(self.config, tensorfile.read_header(self.weights), self.id)
        _cached_weights(self.weights, self.id)


def locate(base: str, folder: Path | None = None, on_download: Callable[[str], None] | None = None, *,
           weights: bool = True) -> Base:  # fmt: skip
    """The base a recipe or flag names.

    Args:
        base: embedded, a folder, or a Hub id.
        folder: of the recipe; a relative folder is looked up there too.
        on_download: told before a base is fetched from the Hub.
        weights: False for the config and the tokenizer alone.
    """
    if base == "embedded":
        return Base("embedded", Path(str(resources.files("adapterkit.model.embedded"))))
    for path in (Path(base).expanduser(), (folder or Path()) / base):
        if (path / "config.json").is_file():
            return Base(path.resolve().name, path.resolve())
    if base[:1] in (".", "/", "~") or base.endswith("/") or base.count("/") > 1:
        raise NotFound(
            f"there is no model in {base!r} (no config.json).", hint="--base FOLDER, a Hub id, or embedded"
        )
    from adapterkit.model.hub import fetch  # huggingface_hub loads only for a Hub id

    path, revision = fetch(base, on_download, weights=weights)
    return Base(base, path, revision)


def remember(base: Base) -> None:
    """Note where a base in a folder lies on this machine, as manifests hold no paths."""
    if base.id == "embedded" or base.revision is not None:
        return
    with suppress(OSError):
        store = cache_folder() / "bases" / base.fingerprints.weights
        store.parent.mkdir(parents=True, exist_ok=True)
        write_whole(store, str(base.folder).encode())


def recall(weights: str) -> str | None:
    """The folder of a base with these weights, if it was used here and is still there."""
    store = cache_folder() / "bases" / weights
    if not store.is_file():
        return None
    folder = Path(store.read_text())
    return str(folder) if (folder / "config.json").is_file() else None


# --- fingerprints -------------------------------------------------------------


def weights_fingerprint(path: Path, label: str = "") -> str:
    """sha256 over (name, shape, dtype, bytes) of the stored tensors in order of name.

    Args:
        label: whose weights they are, for messages.

    Raises:
        Damaged: a number is not finite, or the file is torn.
    """
    header = tensorfile.read_header(path)
    digest = hashlib.sha256()
    named = sorted((short, name) for name in header.entries if (short := canonical_name(name)))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for short, name in named:
            entry = header.entries[name]
            digest.update(canonical_json([short, entry.shape, entry.dtype]))
            view = memoryview(data)[header.data_start + entry.begin : header.data_start + entry.end]
            digest.update(view)
            bad = tensorfile.not_finite(entry.dtype, view)
            view.release()
            if bad:
                raise gpt2.not_finite_error(label or path.name, short, bad)
    return digest.hexdigest()


def tokenizer_fingerprint(folder: Path) -> str:
    """sha256 over vocabulary, merges and added tokens, the same for either file form."""
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
            vocab = dict(told["model"]["vocab"]) | {
                t["content"]: t["id"] for t in told.get("added_tokens", [])
            }
            merges = [m if isinstance(m, str) else " ".join(m) for m in told["model"]["merges"]]
        else:
            vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            merges = [m for m in lines if m and not m.startswith("#version")]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Damaged(
            f"the tokenizer in {folder} can't be read ({type(e).__name__}).", hint="fetch the base again"
        ) from e
    return sha256_bytes(canonical_json([sorted(vocab.items()), merges]))


def _cached_weights(path: Path, label: str) -> str:
    real = path.resolve()
    stat = real.stat()
    # "finite": what is kept was found to be so; a fingerprint of before that was looked at is taken again
    key = ["finite", str(real), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    store = cache_folder() / "fingerprints" / f"{sha256_bytes(canonical_json(key))[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(store.read_bytes())
        if told["key"] == key:
            return str(told["sha256"])
    digest = weights_fingerprint(real, label)
    with suppress(OSError):  # a cache that can't be written only costs time
        os.makedirs(store.parent, exist_ok=True)
        write_whole(store, canonical_json({"key": key, "sha256": digest}))
    return digest
