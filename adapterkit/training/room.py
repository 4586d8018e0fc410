"""Whether a run has room: disk for its checkpoints, memory for a step. Asked before anything is begun."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapterkit import files
from adapterkit.errors import OutOfMemory, OutOfSpace
from adapterkit.model.base import Base
from adapterkit.model.device import Device
from adapterkit.model.quantize import base_bytes, free_memory
from adapterkit.recipe.schema import Recipe, target_modules

CHECKPOINTS = 3  # two that are kept, one that is written
SMALL = 4 << 20  # report, samples, curve, trainer's state
STATE = 16  # bytes of a trained number in memory: itself, gradient, two moments of AdamW
NUMBERS_A_TOKEN = 34  # activations of a layer for its backward, in widths


def checkpoint_bytes(trained: int) -> int:
    """Of a checkpoint: weights, best weights and AdamW's two moments, float32."""
    return 16 * trained + SMALL


def trained_numbers(recipe: Recipe, base: Base) -> int:
    """How many numbers are trained."""
    if recipe.method == "full":
        return base_bytes(base, "fp32", "none") // 4
    sides = (base.dims.in_out(target) for target in target_modules(recipe.lora.targets))
    return base.dims.layers * recipe.lora.r * sum(a + b for a, b in sides)


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder lies on, or will lie on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_disk(recipe: Recipe, base: Base, root: Path, name: str) -> None:
    """Refuse a run whose checkpoints or version would not fit.

    Raises:
        OutOfSpace: with what is needed and free.
    """
    trained = trained_numbers(recipe, base)
    needed, free = CHECKPOINTS * checkpoint_bytes(trained) + 4 * trained + SMALL, free_bytes(root)
    if free < needed:
        raise OutOfSpace(
            f"training {name!r} needs {files.human_size(needed)} on the disk of {files.shown(root)}, "
            f"{files.human_size(free)} are free. Nothing was begun.",
            hint="free some space, or --registry DIR on another disk",
            details={"needed": needed, "free": free},
        )


def check_memory(recipe: Recipe, base: Base, device: Device, rows: int) -> None:
    """Refuse a run whose smallest piece can't fit. A plain estimate that errs to the low side.

    Args:
        rows: of the smallest piece that may be taken.

    Raises:
        OutOfMemory: with what is needed and free.
    """
    free = free_memory(device.place)
    needed = _memory(recipe, base, device, rows)
    if free is not None and free < needed:
        raise OutOfMemory(
            f"training needs about {files.human_size(needed)} of memory on {device.place}, "
            f"{files.human_size(free)} are free. Nothing was begun.",
            hint="close other programs, or a smaller piece: --batch-size 1 --max-length 256",
            details={"needed": needed, "free": free},
        )


def _memory(recipe: Recipe, base: Base, device: Device, rows: int) -> int:
    train, dims = recipe.train, base.dims
    precision = "fp32" if recipe.method == "full" else device.precision
    held = base_bytes(base, precision, train.quantize if recipe.method == "lora" else "none")
    tokens = rows * int(train.max_length)
    layers = 1 if train.gradient_checkpointing else dims.layers
    each = 4 if device.precision == "fp32" else 2
    trained = trained_numbers(recipe, base) * (STATE if recipe.method == "lora" else STATE - 4)
    return held + trained + tokens * layers * NUMBERS_A_TOKEN * dims.width * each // 2
