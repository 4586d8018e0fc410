"""Safetensors files read and written with care, without a tensor library.

Layout (https://github.com/huggingface/safetensors)::

    8 bytes   length n of the header, little endian
    n bytes   JSON: {name: {"dtype", "shape", "data_offsets"}, "__metadata__": {}}
    rest      the tensors, back to back

The header is checked with caps before anything else looks at the file. The
writer is canonical: sorted names, so the same tensors give the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from adapterkit.errors import Damaged
from adapterkit.files import canonical_json

MAX_HEADER = 1 << 20
MAX_TENSORS = 4096
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


def read_header(path: Path) -> Header:
    """The checked header of a file.

    Raises:
        Damaged: anything about it is not as the format says, or over a cap.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise _bad(path, f"its header says {length} bytes")
        raw = file.read(length)
    try:
        if raw[:1] != b"{":
            raise ValueError("not an object")
        table = json.loads(raw.decode("utf-8"))
        metadata = table.pop("__metadata__", {})
        if not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("metadata that is not text")
        entries = {name: _entry(spec) for name, spec in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise _bad(path, f"its header can't be read ({type(e).__name__})") from None
    if len(entries) > MAX_TENSORS:
        raise _bad(path, f"it lists {len(entries):,} tensors, over {MAX_TENSORS:,}")
    _check_layout(path, entries, size - 8 - length)
    return Header(entries, metadata, 8 + length)


def _entry(spec: dict[str, Any]) -> Entry:
    shape = tuple(spec["shape"])
    begin, end = spec["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("not a size")
    return Entry(str(spec["dtype"]), shape, begin, end)


def _check_layout(path: Path, entries: Mapping[str, Entry], data: int) -> None:
    at = 0
    for name, e in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if not NAME.fullmatch(name):
            raise _bad(path, f"{name[:40]!r} is no name for a tensor")
        if e.dtype not in SIZES or e.begin != at or e.end - e.begin != math.prod(e.shape) * SIZES[e.dtype]:
            raise _bad(path, f"tensor {name!r} does not lie where its type and shape say")
        at = e.end
    if at != data:
        raise _bad(path, f"it holds {data:,} bytes of tensors where its header says {at:,}")


def _bad(path: Path, why: str) -> Damaged:
    return Damaged(
        f"{path.name} is not a whole safetensors file: {why}.", hint=f"fetch or copy {path.name} again"
    )


def read_bytes(file: BinaryIO, header: Header, name: str) -> bytes:
    entry = header.entries[name]
    file.seek(header.data_start + entry.begin)
    return file.read(entry.end - entry.begin)


def not_finite(dtype: str, data: bytes) -> int:
    """How many numbers are inf or nan, told from their exponent bits (numpy has no bfloat16)."""
    if dtype not in EXPONENTS:
        return 0
    kind, mask = EXPONENTS[dtype]
    bits = np.frombuffer(data, dtype=kind)
    return int(((bits & mask) == mask).sum())


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
        os.fsync(file.fileno())
