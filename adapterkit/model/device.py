"""Which device computes, in which number format, and the line that says so."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from adapterkit.errors import Unsupported
from adapterkit.model import measure

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Device:
    place: torch.device
    precision: str  # fp32, bf16 or fp16, of the base's arithmetic
    said: str

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]


def choose(device: str = "auto", precision: str = "auto", *, training: bool = False) -> Device:
    """Resolve ``auto`` by capability, never by the moment's load.

    Args:
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32, bf16 or fp16.
        training: ``auto`` on a CPU may then be bf16, where that was measured to be
            faster; text is written in fp32 unless asked.

    Raises:
        Unsupported: a device that is not known or not there, fp16 on a CPU, bf16 on a GPU without it.
    """
    place = _place(device)
    on_cuda = place.type == "cuda"
    speedup = _speedup(precision) if training and not on_cuda else None
    chosen = precision
    if precision == "auto":
        chosen = "fp16" if on_cuda else "bf16" if (speedup or 0.0) >= measure.LEAST else "fp32"
    if chosen == "fp16" and not on_cuda:
        raise Unsupported("fp16 needs CUDA, this is cpu.", hint="--precision fp32 or bf16")
    if chosen == "bf16" and on_cuda:
        _refuse_without_bf16(place)
    return Device(place, chosen, _say(place, chosen, speedup))


def _place(device: str) -> torch.device:
    cuda = torch.cuda.is_available()
    name = ("cuda" if cuda else "cpu") if device == "auto" else device
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (":" in name and not (kind == "cuda" and number.isdecimal())):
        raise Unsupported(f"device {device!r} is not known; there are auto, cpu, cuda and cuda:N.")
    if kind == "cpu":
        return torch.device("cpu")
    if not cuda:
        raise Unsupported(
            "there is no CUDA GPU here, or this torch was built without CUDA.",
            hint="--device cpu; in a notebook: Runtime > Change runtime type > T4",
        )
    return torch.device(kind, index_of(number, torch.cuda.device_count(), torch.cuda.current_device()))


def index_of(number: str, count: int, current: int) -> int:
    """Which GPU ``cuda:number`` is; always a number, as each thread has a current GPU of its own.

    Args:
        number: what stands after the colon, "" for the current GPU of this thread.
        count: how many there are.

    Raises:
        Unsupported: there are fewer.
    """
    index = int(number) if number else current
    if index >= count:
        there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise Unsupported(f"there is no cuda:{index} here; there is {there}.", hint="--device cuda")
    return index


def _speedup(precision: str) -> float | None:
    """Of bf16 on this CPU; None where the format was asked for by name."""
    return measure.bf16_speedup(torch.get_num_threads()) if precision == "auto" else None


def _refuse_without_bf16(place: torch.device) -> None:
    with torch.cuda.device(place):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if not has_bf16:
        raise Unsupported(
            f"{torch.cuda.get_device_name(place)} does not compute in bf16.", hint="--precision fp16 or fp32"
        )


def _say(place: torch.device, precision: str, speedup: float | None) -> str:
    if place.type == "cuda":
        return f"Device: {place}, {torch.cuda.get_device_name(place)}, {NAMES[precision]}."
    threads, cores = torch.get_num_threads(), os.cpu_count()
    used = (
        f"{cores} cores" if threads == cores else f"{threads} thread{'s' * (threads != 1)} of {cores} cores"
    )
    measured = f" (fp32 was {speedup:.1f}x slower here)" if precision == "bf16" and speedup else ""
    why = "" if torch.cuda.is_available() else " No CUDA GPU."
    return f"Device: cpu, {used}, {NAMES[precision]}{measured}.{why}"
