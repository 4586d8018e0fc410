"""An adapter's update of each module as two thin float64 factors, read without its base.

Letters of shapes: r rank, i numbers in, o numbers out. The update of a module is
``b @ a``, (o, i), with the adapter's scale folded into b. All sizes are told by
the adapters' own tensors. No tensor library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapterkit.registry import opening, tensorfile
from adapterkit.registry.strict import WEIGHTS, Dims, LoraFiles, tensor_name
from adapterkit.registry.version import Version
from adapterkit.sharing.numbers import floats

Floats = NDArray[np.float64]
TENSOR = re.compile(r"base_model\.model\.transformer\.h\.(\d{1,3})\.([\w.]+)\.lora_([AB])\.weight")
# Which dimension of which tensor tells a size: target, side, place in its shape.
WIDTHS = (("attn.c_attn", "A", 1), ("attn.c_proj", "A", 1), ("mlp.c_fc", "A", 1), ("mlp.c_proj", "B", 0))
INNERS = (("mlp.c_fc", "B", 0), ("mlp.c_proj", "A", 1))


@dataclass(frozen=True)
class Thin:
    """The product b @ a, never multiplied out."""

    a: Floats  # (r, i)
    b: Floats  # (o, r)

    @property
    def r(self) -> int:
        return len(self.a)


def dims_of(versions: Sequence[Version]) -> Dims:
    """Sizes of the one base of these adapters, from the shapes that their files tell.

    A size that no adapter's modules have does not matter; it is the usual one.

    Raises:
        Damaged: a file whose header can't be read.
    """
    layers, sizes = 1, dict[tuple[str, str, int], int]()
    for version in versions:
        for name, entry in _header(version).entries.items():
            if (found := TENSOR.fullmatch(name)) and len(entry.shape) == 2:
                layers = max(layers, int(found[1]) + 1)
                sizes |= {(found[2], found[3], place): n for place, n in enumerate(entry.shape)}
    width = next((sizes[key] for key in WIDTHS if key in sizes), 1)
    return Dims(layers, width, next((sizes[key] for key in INNERS if key in sizes), 4 * width))


def thin(files: LoraFiles, layer: int, target: str) -> Thin | None:
    """The update of one module in float64; None where the adapter has none."""
    if target not in files.targets:
        return None
    a, b = (_matrix(files, tensor_name(layer, target, side)) for side in "AB")
    return Thin(a, b * files.scale)


def _matrix(files: LoraFiles, name: str) -> Floats:
    dtype, shape, data = files.tensors[name]
    return floats(dtype, data).astype(np.float64).reshape(shape)


def _header(version: Version) -> tensorfile.Header:
    opening.check_folder(version)
    with opening.opened(version.path, WEIGHTS, version.ref) as file:
        return tensorfile.header_of(file, os.fstat(file.fileno()).st_size, f"{WEIGHTS} of {version.ref}")
