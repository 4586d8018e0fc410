"""An adapter made ready for its pages: scaled, cut into pages, checked, in the format that is computed in.

Only numpy, and no bank: this is done while others write, whose steps need
torch's threads, so it must neither wake those nor hold a lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapterkit.errors import Unsupported
from adapterkit.generation.route import RANKS
from adapterkit.registry.strict import Dims, LoraFiles, tensor_name

Raw = NDArray[Any]  # float32, or the bits of 16-bit floats as int16: numpy has no bfloat16
Place = tuple[str, str]  # target, A or B
# From here on a float32 is rounded to inf.
TOO_LARGE = {torch.float32: np.inf, torch.float16: 65520.0, torch.bfloat16: 3.3961775292304957e38}


@dataclass(frozen=True)
class Prepared:
    """What an adapter's pages will hold: ``raw[target, side]`` is (pages, layers, RANKS, n)."""

    pages: int
    raw: dict[Place, Raw]

    @property
    def targets(self) -> frozenset[str]:
        return frozenset(target for target, _ in self.raw)

    @property
    def bytes(self) -> int:
        return sum(raw.nbytes for raw in self.raw.values())


def bytes_of(r: int, targets: frozenset[str], dims: Dims, dtype: torch.dtype) -> int:
    """What an adapter's pages take."""
    numbers = sum(sum(dims.in_out(target)) for target in targets)
    return -(-r // RANKS) * RANKS * dims.layers * numbers * dtype.itemsize


def prepare(files: LoraFiles, dims: Dims, dtype: torch.dtype) -> Prepared:
    """The pages of an adapter for a base of these sizes.

    Raises:
        Unsupported: its numbers are too large for the format that is computed in.
    """
    raw: dict[Place, Raw] = {}
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is found below
        for target in files.targets:
            for side, n in zip("AB", dims.in_out(target), strict=True):
                whole = np.zeros((-(-files.r // RANKS), dims.layers, RANKS, n), np.float32)
                for layer in range(dims.layers):
                    _fill(whole[:, layer], files, tensor_name(layer, target, side), side)
                _check(whole, target, dtype)
                raw[target, side] = _rounded(whole, dtype)
    return Prepared(-(-files.r // RANKS), raw)


def raw_type(dtype: torch.dtype) -> torch.dtype:
    """As what numbers of a format are seen in ``Raw``."""
    return torch.float32 if dtype == torch.float32 else torch.int16


def _fill(pages: Raw, files: LoraFiles, name: str, side: str) -> None:
    """One layer's A (r, in) or alpha/r times its B^T (r, out), eight rows to a page."""
    values = _floats(*files.tensors[name])
    rows = values if side == "A" else values.T
    for i, page in enumerate(pages):
        some = rows[i * RANKS : (i + 1) * RANKS]
        if side == "A":
            page[: len(some)] = some
        else:
            np.multiply(some, np.float32(files.scale), out=page[: len(some)])


def _floats(dtype: str, shape: tuple[int, ...], data: bytes) -> Raw:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32, copy=False).reshape(shape)  # fmt: skip


def _check(whole: Raw, target: str, dtype: torch.dtype) -> None:
    """Finite in the file, but times alpha / r, or in float16, it may be no longer."""
    if _fits(whole, dtype):
        return
    layer = next(i for i in range(whole.shape[1]) if not _fits(whole[:, i], dtype))
    raise Unsupported(
        f"the numbers of layer {layer}'s {target} are too large for {str(dtype).removeprefix('torch.')}.",
        hint="--precision fp32, or train it again with a smaller lora.alpha",
        code="overflow",
        details={"layer": layer, "target": target},
    )


def _fits(numbers: Raw, dtype: torch.dtype) -> bool:
    limit = TOO_LARGE[dtype]
    return bool(numbers.max() < limit) and bool(numbers.min() > -limit)  # false for NaN


def _rounded(whole: Raw, dtype: torch.dtype) -> Raw:
    """The nearest numbers of a format, ties to even."""
    if dtype == torch.float32:
        return whole
    if dtype == torch.float16:
        return whole.astype(np.float16).view(np.int16)
    bits = whole.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)
