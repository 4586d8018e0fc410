"""Reading a full fine-tune with suspicion: a GPT-2 of its own, streamed tensor by tensor.

What a LoRA's files go through, for files of half a gigabyte: one pass over one
handle checks the header, exact names and shapes, finite numbers and the sha256,
and no more than one tensor is held here. No tensor library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapterkit.errors import BaseMismatch, Damaged
from adapterkit.registry import gpt2, opening, tensorfile
from adapterkit.registry.version import Version

WEIGHTS, CONFIG = "model.safetensors", "config.json"
Tensor = tuple[str, str, tuple[int, ...], bytearray]  # canonical name, dtype, shape, little-endian bytes


def read_config(version: Version) -> dict[str, Any]:
    """The architecture of a full fine-tune, after every file of it was checked against its manifest.

    Raises:
        Damaged: a file is not the one that was published, or a size is none.
        Unsupported: it is no plain GPT-2.
    """
    opening.check_folder(version)
    version.verify()
    with opening.opened(version.path, CONFIG, version.ref, limit=gpt2.MAX_CONFIG) as file:
        config = opening.Hashed(file)
        raw = config.read(gpt2.MAX_CONFIG)
        opening.check_sum(version, CONFIG, config.finish())
    return gpt2.read_config(raw, version.ref)


def check_architecture(version: Version, config: dict[str, Any], base: str) -> None:
    """Refuse a full fine-tune that computes otherwise than a base, whose sizes or constants are others.

    Raises:
        BaseMismatch: a key differs.
        Damaged, Unsupported: see ``read_config``.
    """
    own = read_config(version)
    for key in gpt2.ARCHITECTURE:
        if own[key] != config[key]:
            raise BaseMismatch(
                f"{version.ref} has {key} {own[key]}; {base} has {config[key]}.",
                hint=f"use the base it was trained on: --base {version.base}",
                details={"ref": version.ref, "differs": key},
            )


def read_tensors(version: Version, config: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors of a full fine-tune; they are good for use when the last one was given without an error.

    Args:
        config: of the GPT-2 whose sizes they must have.

    Raises:
        Damaged: torn, of other names or shapes, not finite, or not the file that was published.
        Unsupported: a type of number that is not read.
    """
    opening.check_folder(version)
    with opening.opened(version.path, WEIGHTS, version.ref) as file:
        weights = opening.Hashed(file)
        yield from _tensors(weights, os.fstat(file.fileno()).st_size, config, version.ref)
        opening.check_sum(version, WEIGHTS, weights.finish())


def read_folder(folder: Path, config: dict[str, Any], label: str) -> Iterator[Tensor]:
    """The same for a folder that was just written and has no manifest yet.

    Raises:
        Damaged, Unsupported: see ``read_tensors``.
    """
    with opening.opened(folder, WEIGHTS, label) as file:
        yield from _tensors(opening.Hashed(file), os.fstat(file.fileno()).st_size, config, label)


def _tensors(weights: opening.Hashed, size: int, config: dict[str, Any], label: str) -> Iterator[Tensor]:
    header = tensorfile.header_of(weights, size, f"{WEIGHTS} of {label}")
    gpt2.check_tensors(config, header, label)
    for name, entry in header.in_order():
        data = bytearray(entry.end - entry.begin)
        if weights.into(data) != len(data):
            raise Damaged(
                f"{label}: {WEIGHTS} became shorter while it was read.",
                hint="copy it again",
                code="truncated",
            )
        if short := gpt2.canonical_name(name):
            if bad := tensorfile.not_finite(entry.dtype, data):
                raise gpt2.not_finite_error(label, short, bad)
            yield short, entry.dtype, entry.shape, data
