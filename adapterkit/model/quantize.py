"""The frozen base in 8 or 4 bits through bitsandbytes: whether, why, and how it is loaded.

In 8 bits the same code runs on a CPU, slowly. Embeddings, norms and biases stay
float32, as PEFT prepares a base for training on k bits.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapterkit.errors import RecipeError, Unsupported
from adapterkit.files import human_size
from adapterkit.model.base import Base
from adapterkit.model.device import Device
from adapterkit.recipe.schema import Recipe

BYTES = {"8bit": 1.0, "4bit": 0.53}  # of one weight of a block; nf4 with its doubly quantised scales
ROOM = 0.6  # share of the free memory that a base may take; activations and the rest need theirs
# On CUDA by bitsandbytes' issues 347, 465 and 490; on a CPU 1.1 times transformers' own step, 1.2 times ours (measured
# on two layers 768 wide, 512 tokens, AVX-512).
SLOWER = {"cuda": "takes 2 to 5 times as long", "cpu": "is slower"}


@dataclass(frozen=True)
class Quantization:
    choice: str  # none, 8bit or 4bit
    said: str  # a sentence why; empty where nobody asked and nothing is to be told


def decide(recipe: Recipe, base: Base, device: Device, free: int | None = None) -> Quantization:
    """``train.quantize`` resolved: ``auto`` takes bits away only where the base would not fit else.

    Args:
        free: bytes of memory that can be had; what the device says now when left out.

    Raises:
        RecipeError: a full fine-tune, whose weights are trained.
        Unsupported: 4-bit on a CPU, or no bitsandbytes.
    """
    wanted = recipe.train.quantize
    if recipe.method == "full" and wanted not in ("none", "auto"):
        raise RecipeError(
            f"'train.quantize' is {wanted} with method full; the weights of a full fine-tune are trained "
            f"and can't be {wanted[0]}-bit.",
            hint="leave --quantize out, or --method lora",
        )
    if wanted == "none" or recipe.method == "full":
        return Quantization("none", "")
    if wanted == "auto":
        return _needed(base, device, free if free is not None else free_memory(device.place))
    _check(wanted, device)
    return Quantization(wanted, f"Base in {wanted[0]} bits: {_price(base, device, wanted)}.")


def base_bytes(base: Base, precision: str, quantize: str) -> int:
    """What the weights of a base take in memory."""
    dims, each = base.dims, 4 if precision == "fp32" else 2
    blocks = dims.layers * (4 * dims.width**2 + 2 * dims.width * dims.inner)
    others = (int(base.config["vocab_size"]) + base.context) * dims.width
    if quantize == "none":
        return (blocks + others) * each
    return int(blocks * BYTES[quantize]) + 4 * others


def free_memory(place: torch.device) -> int | None:
    """Bytes that can still be had on a device, a container's limit counted; None where it isn't told."""
    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0])
    told = [_available(), _of_container()]
    known = [n for n in told if n is not None]
    return min(known) if known else None


def load_options(quantize: str, device: Device) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for a base in 8 or 4 bits.

    Raises:
        Unsupported: 4-bit on a CPU, or no bitsandbytes.
    """
    _check(quantize, device)
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=device.dtype,
        )
    return {"quantization_config": config, "device_map": {"": device.place}}


def prepare(model: nn.Module) -> nn.Module:
    """Freeze a quantised base and keep in float32 what is not quantised; no gradient checkpointing."""
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-any-return]


# --- the choice ---------------------------------------------------------------


def _check(quantize: str, device: Device) -> None:
    if quantize == "4bit" and device.place.type == "cpu":
        raise Unsupported(
            "4-bit needs CUDA, this is cpu: training in 4 bits breaks inside bitsandbytes there.",
            hint="leave --quantize out, or --quantize 8bit, which works here and is slow",
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise Unsupported(
            f"{quantize[0]}-bit needs bitsandbytes, which is not installed.",
            hint='pip install "adapterkit[quantize]"',
        ) from None


def _needed(base: Base, device: Device, free: int | None) -> Quantization:
    """The fewest bits taken away with which the base fits."""
    whole = base_bytes(base, device.precision, "none")
    if free is None or whole <= ROOM * free:
        fits = f" and fits in {human_size(free)}" if free is not None else ""
        price = _price(base, device, "8bit")
        return Quantization("none", f"Not quantised: the base takes {human_size(whole)}{fits} ({price}).")
    choices = ["8bit"] if device.place.type == "cpu" else ["8bit", "4bit"]
    fitting = [c for c in choices if base_bytes(base, device.precision, c) <= ROOM * free]
    choice = fitting[0] if fitting else choices[-1]
    _check(choice, device)
    small = base_bytes(base, device.precision, choice)
    return Quantization(
        choice,
        f"Base in {choice[0]} bits, {human_size(small)}: it would take {human_size(whole)} else, "
        f"and {human_size(free)} are free. It {SLOWER[device.place.type]}.",
    )


def _price(base: Base, device: Device, quantize: str) -> str:
    """``8-bit saves 255 MB and is slower``."""
    saved = base_bytes(base, device.precision, "none") - base_bytes(base, device.precision, quantize)
    gain = f"saves {human_size(saved)}" if saved > 0 else "saves nothing at this size"
    return f"{quantize[0]}-bit {gain} and {SLOWER[device.place.type]}"


def _available() -> int | None:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):  # no Linux: all that is there
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _of_container() -> int | None:
    """What a control group of Linux leaves, counting files it would give back; None without a limit."""
    root = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, KeyError):  # "max" is no number
        limit, used = (int((root / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat["inactive_file"]))
    return None
