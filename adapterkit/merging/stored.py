"""A model's tensors one at a time: read from a file when they are asked for, written as they are made.

A merge must not hold a base twice. So nothing is mapped into memory and nothing
is kept here: what is held is what the caller holds.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from adapterkit.errors import Damaged
from adapterkit.files import canonical_json, sync_file
from adapterkit.generation.load import as_tensor
from adapterkit.registry import tensorfile
from adapterkit.registry.gpt2 import canonical_name


class Stored(dict[str, Tensor]):
    """Tensors of a GPT-2's file by canonical name, each read anew when it is asked for.

    A dict that stays empty, so that it fits wherever tensors by name are wanted.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._header = path, tensorfile.read_header(path)
        self._names = {short: name for name in self._header.entries if (short := canonical_name(name))}

    def __missing__(self, name: str) -> Tensor:
        entry = self._header.entries[self._names[name]]
        data = bytearray(entry.end - entry.begin)
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._header.data_start + entry.begin)
            view, at = memoryview(data), 0
            while at < len(data) and (count := file.readinto(view[at:])):
                at += count
        if at != len(data):
            raise Damaged(
                f"{self._path.name} became shorter while it was read.", hint="copy it again", code="truncated"
            )
        return as_tensor(entry.dtype, entry.shape, data)


def write(path: Path, shapes: Mapping[str, tuple[int, ...]], get: Callable[[str], Tensor]) -> str:
    """Write a model in float32, in the layout of ``tensorfile.write``, with one tensor in memory at a time.

    Args:
        shapes: of every tensor, by name.
        get: the tensor of a name, in any float format.

    Returns:
        sha256 of the file as it was meant to be.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in chain([_header(shapes)], _parts(shapes, get)):
            file.write(part)
            digest.update(part)
        file.flush()
        sync_file(file.fileno())
    return digest.hexdigest()


def give_back() -> None:
    """Return freed memory to the system, which glibc keeps for itself; elsewhere nothing is to be done."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(shapes):
        size = 4 * math.prod(shapes[name])
        table[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [at, at + size]}
        at += size
    header = canonical_json(table)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _parts(
    shapes: Mapping[str, tuple[int, ...]], get: Callable[[str], Tensor]
) -> Iterator[bytes | memoryview]:
    for name in sorted(shapes):
        tensor = get(name).to(torch.float32).contiguous()
        assert tuple(tensor.shape) == shapes[name], name
        yield memoryview(tensor.numpy()).cast("B")  # type: ignore[arg-type]
