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
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from adapterkit.cache import cache_folder
from adapterkit.errors import Damaged, NotFound, Unsupported
from adapterkit.files import canonical_json, sha256_bytes, write_whole
from adapterkit.registry import tensorfile
from adapterkit.registry.strict import Dims

# Keys that decide what the model computes, with transformers' defaults.
ARCHITECTURE: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "tie_word_embeddings": True,
}


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

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json with the architecture's defaults filled in."""
        try:
            told = json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError) as e:
            raise NotFound(
                f"{self.folder} is not a model: its config.json can't be read.", hint="--base FOLDER"
            ) from e
        if told.get("model_type") != "gpt2":
            raise Unsupported(
                f"the base {self.id!r} is a {told.get('model_type')!r} model; AdapterKit is for GPT-2.",
                hint="--base gpt2, gpt2-medium, distilgpt2, a folder with a GPT-2, or embedded",
            )
        if told.get("tie_word_embeddings") is False:
            raise Unsupported(
                f"the base {self.id!r} has a head of its own; GPT-2 shares it with its embeddings.",
                hint="use a plain GPT-2",
            )
        return {**ARCHITECTURE, **told}

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
            weights=_cached_weights(self.weights),
            config=sha256_bytes(canonical_json(architecture)),
            tokenizer=tokenizer_fingerprint(self.folder),
        )


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


def canonical_name(name: str) -> str | None:
    """A stored tensor's name without its prefix; None for mask buffers and the tied head."""
    name = name.removeprefix("transformer.")
    if name == "lm_head.weight" or name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    return name


def weights_fingerprint(path: Path) -> str:
    """sha256 over (name, shape, dtype, bytes) of the stored tensors in order of name."""
    header = tensorfile.read_header(path)
    digest = hashlib.sha256()
    named = sorted((short, name) for name in header.entries if (short := canonical_name(name)))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for short, name in named:
            entry = header.entries[name]
            digest.update(canonical_json([short, entry.shape, entry.dtype]))
            view = memoryview(data)[header.data_start + entry.begin : header.data_start + entry.end]
            digest.update(view)
            view.release()
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


def _cached_weights(path: Path) -> str:
    real = path.resolve()
    stat = real.stat()
    key = [str(real), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    store = cache_folder() / "fingerprints" / f"{sha256_bytes(canonical_json(key))[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(store.read_bytes())
        if told["key"] == key:
            return str(told["sha256"])
    digest = weights_fingerprint(real)
    with suppress(OSError):  # a cache that can't be written only costs time
        os.makedirs(store.parent, exist_ok=True)
        write_whole(store, canonical_json({"key": key, "sha256": digest}))
    return digest
