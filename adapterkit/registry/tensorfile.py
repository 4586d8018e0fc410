"""Safetensors files read and written with care, without a tensor library.

Layout (https://github.com/huggingface/safetensors)::

    8 bytes   length n of the header, little endian
    n bytes   JSON: {name: {"dtype", "shape", "data_offsets"}, "__metadata__": {}}
    rest      the tensors, back to back

The header is checked with caps before anything else looks at the file. The
writer is canonical: sorted names, so the same tensors give the same bytes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from adapterkit.errors import Damaged
from adapterkit.files import canonical_json, sync_file
from adapterkit.registry.plainjson import NotPlain, parse, spoken

MAX_HEADER = 1 << 20  # bytes
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
AT_ONCE = 1 << 18  # numbers looked at together, so that a large tensor needs no second copy
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,255}")
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# Bits of the exponent: all set means inf or nan (IEEE 754; bfloat16 is the upper half of float32).
EXPONENTS = {"F32": (np.uint32, 0x7F800000), "F16": (np.uint16, 0x7C00), "BF16": (np.uint16, 0x7F80)}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type and where its bytes are, counted from the data's begin."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    entries: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int

    def in_order(self) -> list[tuple[str, Entry]]:
        """The tensors as they lie in the file."""
        return sorted(self.entries.items(), key=lambda item: (item[1].begin, item[1].end))


class Reader(Protocol):
    """What a header is read from: a file, ``io.BytesIO``, or a file that is hashed on the way."""

    def read(self, size: int, /) -> bytes: ...


def read_header(path: Path, *, cap: int = MAX_HEADER) -> Header:
    """The checked header of a file.

    Args:
        cap: bytes the header may have.

    Raises:
        Damaged: anything about it is not as the format says, or over a cap; each
            cause has its own ``code``.
    """
    with path.open("rb") as file:
        return header_of(file, os.fstat(file.fileno()).st_size, path.name, cap=cap)


def header_of(file: Reader, size: int, name: str, *, cap: int = MAX_HEADER) -> Header:
    """The checked header at the begin of an open file, which is then read up to its data.

    Nothing is allocated for what the header says: it is compared with the size of the file.

    Args:
        size: of the whole file, in bytes.
        name: of the file, for messages.
        cap: bytes the header may have.

    Raises:
        Damaged: see ``read_header``.
    """
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= length <= min(cap, size - 8):
        raise _bad(name, f"its header says {length} bytes", "header-length")
    raw = file.read(length)
    if len(raw) != length:
        raise _bad(name, "it became shorter while it was read", "header-length")
    if raw[:1] != b"{":
        raise _bad(name, "its header is no table", "header")
    try:
        table = parse(raw)
    except NotPlain as e:
        raise _bad(name, f"its header can't be read: {e}", f"header-{e.code}") from None
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(name, "its header can't be read: metadata that is not text", "header-metadata")
    if len(table) > MAX_TENSORS:
        raise _bad(name, f"it lists {len(table):,} tensors, over {MAX_TENSORS:,}", "tensor-count")
    entries = {tensor: _entry(name, tensor, spec) for tensor, spec in table.items()}
    _check_layout(name, entries, size - 8 - length)
    return Header(entries, metadata, 8 + length)


def _entry(name: str, tensor: str, spec: object) -> Entry:
    if not NAME.fullmatch(tensor):
        raise _bad(name, f"{spoken(tensor, 40)!r} is no name for a tensor", "tensor-name")
    if not isinstance(spec, dict) or spec.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad(name, f"tensor {tensor!r} does not say its type, shape and place", "tensor-entry")
    dtype, shape, offsets = spec["dtype"], spec["shape"], spec["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise _bad(name, f"tensor {tensor!r} is of type {spoken(dtype)}, which is not read", "tensor-dtype")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise _bad(name, f"tensor {tensor!r} has the shape {spoken(shape)}", "tensor-shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _bad(name, f"tensor {tensor!r} has the place {spoken(offsets)}", "tensor-offsets")
    return Entry(dtype, tuple(shape), *offsets)


def _are_sizes(value: object) -> bool:
    """Whether it is a list of whole numbers, none below zero; true is no number."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_layout(name: str, entries: Mapping[str, Entry], data: int) -> None:
    at = 0
    for tensor, e in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if e.begin != at or e.end - e.begin != math.prod(e.shape) * SIZES[e.dtype]:
            raise _bad(name, f"tensor {tensor!r} does not lie where its type and shape say", "tensor-layout")
        at = e.end
    if at != data:
        code = "trailing-bytes" if data > at else "truncated"
        raise _bad(name, f"it holds {data:,} bytes of tensors where its header says {at:,}", code)


def _bad(name: str, why: str, code: str) -> Damaged:
    return Damaged(
        f"{name} is not a whole safetensors file: {why}.",
        hint=f"fetch or copy {name} again",
        code=code,
        details={"file": name},
    )


def read_bytes(file: BinaryIO, header: Header, name: str) -> bytes:
    entry = header.entries[name]
    file.seek(header.data_start + entry.begin)
    return file.read(entry.end - entry.begin)


def not_finite(dtype: str, data: bytes | bytearray | memoryview) -> int:
    """How many numbers are inf or nan, told from their exponent bits (numpy has no bfloat16)."""
    if dtype not in EXPONENTS:
        return 0
    kind, mask = EXPONENTS[dtype]
    bits = np.frombuffer(data, dtype=kind)
    parts = (bits[i : i + AT_ONCE] for i in range(0, len(bits), AT_ONCE))
    return sum(int(((part & mask) == mask).sum()) for part in parts)


def write(
    path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], metadata: Mapping[str, str]
) -> None:
    """Write name -> (dtype, shape, little-endian bytes), canonically."""
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    header = canonical_json(table)
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in sorted(tensors):
            file.write(tensors[name][2])
        file.flush()
        sync_file(file.fileno())
