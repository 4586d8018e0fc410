"""Stored numbers as float32 and back, with numpy alone, which has no bfloat16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapterkit.errors import Unsupported

Floats32 = NDArray[np.float32]


def floats(dtype: str, data: bytes) -> Floats32:
    """The numbers of a tensor of F32, F16 or BF16, exactly."""
    if dtype == "F32":
        return np.frombuffer(data, dtype="<f4")
    if dtype == "F16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32)
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    raise Unsupported(f"tensors of {dtype} are not read; F32, F16 and BF16 are.")


def stored(values: Floats32) -> bytes:
    """As F32, little endian."""
    return values.astype("<f4").tobytes()
