"""How many bits a base is given on a GPU: as many as fit, because fewer are slower there.

Unlike on a CPU nothing is measured, and what decides is the memory that is free
when the base is loaded: a share of it is left for caches, adapters and torch.
Everything here is arithmetic on numbers that are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping

from adapterkit.files import human_size
from adapterkit.model.base import Base
from adapterkit.model.device import NAMES

SHARE = 0.6  # of the free memory that a base may take
SCALE = 4  # bytes, one for each output of an 8-bit matrix
NF4 = 0.516  # bytes of a 4-bit number with its part of the scales
CHOICES = (0, 8, 4)  # from the fastest to the smallest


def weight_bytes(base: Base, precision: str, bits: int) -> int:
    """What the weights take: embeddings, which are the head too, norms and biases in a float format."""
    dims, each = base.dims, 4 if precision == "fp32" else 2
    matrices = dims.layers * (4 * dims.width**2 + 2 * dims.width * dims.inner)
    outputs = dims.layers * (5 * dims.width + dims.inner)  # as many biases
    tables = (int(base.config["vocab_size"]) + base.context) * dims.width
    others = (tables + outputs + (4 * dims.layers + 2) * dims.width) * each
    if bits == 8:
        return others + matrices + SCALE * outputs
    return others + (int(NF4 * matrices) if bits == 4 else matrices * each)


def bits_on_gpu(asked: str, sizes: Mapping[int, int], free: int | None) -> int:
    """0, 8 or 4 bits.

    Args:
        asked: auto, none, 8bit or 4bit.
        sizes: bytes of the base by bits.
        free: bytes of the GPU's memory that can be had; None where it isn't told.
    """
    if asked != "auto":
        return {"none": 0, "8bit": 8, "4bit": 4}[asked]
    if free is None:
        return 0
    return next((bits for bits in CHOICES if sizes[bits] <= SHARE * free), CHOICES[-1])


def say_on_gpu(bits: int, asked: str, sizes: Mapping[int, int], free: int | None, precision: str) -> str:
    """What was chosen and why, a sentence."""
    there = "" if free is None else f" of {human_size(free)} free"
    if not bits:
        return f"Weights as they are, {human_size(sizes[0])}{there}."
    small = f"Weights in {bits} bits, {human_size(sizes[bits])}{there}"
    why = f", {human_size(sizes[0])} would leave too little" if asked == "auto" else ""
    return f"{small}{why}; that saves memory and is slower than {NAMES[precision]}."
