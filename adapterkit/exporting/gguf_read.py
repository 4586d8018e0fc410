"""GGUF files read back with care, without the package that wrote them.

Layout (version 3, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)::

    "GGUF", version, how many tensors, how many fields
    fields    name, type, value
    tensors   name, dimensions (the fastest first), type, place
    data      each tensor at a multiple of 32 bytes

Nothing is allocated for what the file says before it was compared with its size.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapterkit.errors import AdapterKitError, Damaged
from adapterkit.exporting.gguf import gguf_name, is_transposed
from adapterkit.registry.gpt2 import shapes

ALIGNMENT = 32
STRING, ARRAY = 8, 9  # of the types of fields
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# GGML type -> its name, numbers in a block, bytes of a block
TYPES = {0: ("f32", 1, 4), 1: ("f16", 1, 2), 8: ("q8_0", 32, 34)}
MAX_NAME = 1 << 16  # bytes
MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class Stored:
    """One tensor of a file."""

    kind: str
    shape: tuple[int, ...]  # (rows, columns)
    data: np.ndarray[Any, np.dtype[np.uint8]]

    def decode(self) -> Tensor:
        """In float32."""
        if self.kind == "q8_0":  # a float16 scale and 32 int8 a block
            blocks = self.data.reshape(-1, 34)
            scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
            numbers = blocks[:, 2:].copy().view(np.int8) * scales
        else:
            numbers = self.data.view(np.float32 if self.kind == "f32" else np.float16).astype(np.float32)
        return torch.from_numpy(numbers.reshape(self.shape))


@dataclass(frozen=True)
class Contents:
    fields: dict[str, Any]
    tensors: dict[str, Stored]


def read(path: Path) -> Contents:
    """All of a file; tensors stay on the disk until they are decoded.

    Raises:
        Damaged: anything about it is not as the format says (code ``gguf``).
    """
    try:
        with path.open("rb") as file:
            whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        return _Cursor(whole).contents()
    except (ValueError, struct.error, UnicodeDecodeError) as e:
        raise Damaged(
            f"{path.name} is not a whole GGUF file: {e}.", hint="export it again", code="gguf"
        ) from None


def model_tensors(contents: Contents, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A model's tensors by canonical name and in GPT-2's order, float32.

    Raises:
        Damaged: not exactly the tensors and sizes of this config (code ``gguf``).
    """
    sizes = shapes(config)
    named = {gguf_name(name): name for name in sizes}
    if odd := sorted(named.keys() ^ contents.tensors.keys()):
        raise _unfit(f"{odd[0]} is missing or does not belong")
    told = {
        "gpt2.block_count": config["n_layer"],
        "gpt2.context_length": config["n_positions"],
        "gpt2.embedding_length": config["n_embd"],
        "gpt2.feed_forward_length": sizes["h.0.mlp.c_fc.bias"][0],
        "gpt2.attention.head_count": config["n_head"],
        "gpt2.attention.layer_norm_epsilon": float(np.float32(config["layer_norm_epsilon"])),
    }
    for key, value in told.items():
        if contents.fields.get(key) != value:
            raise _unfit(f"{key} is {contents.fields.get(key)!r}, not {value!r}")
    made = {}
    for stored, name in named.items():
        tensor = contents.tensors[stored].decode()
        made[name] = tensor.T if is_transposed(name) else tensor
        if tuple(made[name].shape) != sizes[name]:
            raise _unfit(f"{stored} is {tuple(tensor.shape)}")
    return made


def _unfit(why: str) -> AdapterKitError:
    return Damaged(f"the GGUF file is not this base's: {why}.", hint="export it again", code="gguf")


class _Cursor:
    """A place in a file that never leaves it."""

    def __init__(self, whole: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self._whole, self._at = whole, 0

    def contents(self) -> Contents:
        if self._take(4) != b"GGUF" or self._number("I") != 3:
            raise ValueError("it does not begin as one of version 3")
        tensors, fields = self._count(24), self._count(12)
        told = {}
        for _ in range(fields):
            name = self._string(MAX_NAME)
            if name in told:
                raise ValueError(f"the field {name!r} is there twice")
            told[name] = self._value(self._number("I"))
        infos = [self._info() for _ in range(tensors)]
        data = -(-self._at // ALIGNMENT) * ALIGNMENT
        return Contents(told, self._tensors(infos, data))

    def _tensors(self, infos: list[tuple[str, tuple[int, ...], int, int]], data: int) -> dict[str, Stored]:
        """Back to back, as they are listed, to the end of the file."""
        found: dict[str, Stored] = {}
        at = 0
        for name, shape, kind, place in infos:
            if kind not in TYPES or name in found:
                raise ValueError(f"the tensor {name!r} is of type {kind}, or there twice")
            word, block, size = TYPES[kind]
            if place != at or shape[-1] % block:
                raise ValueError(f"the tensor {name!r} does not lie where its type and shape say")
            length = math.prod(shape) // block * size
            if data + at + length > len(self._whole):
                raise ValueError(f"it ends within the tensor {name!r}")
            found[name] = Stored(word, shape, self._whole[data + at : data + at + length])
            at += -(-length // ALIGNMENT) * ALIGNMENT
        if data + at != len(self._whole):
            raise ValueError(f"it has {len(self._whole):,} bytes where its tensors need {data + at:,}")
        return found

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, count = self._string(MAX_NAME), self._number("I")
        if not 1 <= count <= MAX_DIMENSIONS:
            raise ValueError(f"the tensor {name!r} has {count} dimensions")
        shape = tuple(self._number("Q") for _ in range(count))[::-1]
        if not 0 < math.prod(shape) <= len(self._whole):
            raise ValueError(f"the tensor {name!r} has the shape {shape}")
        return name, shape, self._number("I"), self._number("Q")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string(len(self._whole))
        if kind == ARRAY:
            inner = self._number("I")
            if inner == STRING:
                return [self._string(MAX_NAME) for _ in range(self._count(8))]
            if inner not in SCALARS:
                raise ValueError(f"a list of type {inner}")
            code = SCALARS[inner]
            count = self._count(struct.calcsize(f"<{code}"))
            return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize(f"<{code}"))))
        if kind not in SCALARS:
            raise ValueError(f"a field of type {kind}")
        return self._number(SCALARS[kind])

    def _count(self, least: int) -> int:
        """How many things follow, each of so many bytes at least."""
        count = int(self._number("Q"))
        if count * least > len(self._whole) - self._at:
            raise ValueError(f"it says that {count:,} things follow, more than it has room for")
        return count

    def _string(self, most: int) -> str:
        length = int(self._number("Q"))
        if length > most:
            raise ValueError(f"a text of {length:,} bytes")
        return self._take(length).decode()

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _take(self, count: int) -> bytes:
        if count > len(self._whole) - self._at:
            raise ValueError("it ends too early")
        self._at += count
        return self._whole[self._at - count : self._at].tobytes()
