"""Which device computes, in which number format, and the line that says so."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from adapterkit.errors import Unsupported

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    place: torch.device
    precision: str  # fp32, bf16 or fp16, of the base's arithmetic
    said: str

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]


def choose(device: str = "auto", precision: str = "auto") -> Device:
    """Resolve ``auto`` by capability, never by the moment's load.

    Raises:
        Unsupported: a device that is not there, or fp16 on a CPU.
    """
    cuda = torch.cuda.is_available()
    name = ("cuda" if cuda else "cpu") if device == "auto" else device
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise Unsupported(f"device {device!r} is not known; there are auto, cpu, cuda and cuda:N.")
    if name.startswith("cuda") and not cuda:
        raise Unsupported(
            "there is no CUDA GPU here, or this torch was built without CUDA.",
            hint="--device cpu; in a notebook: Runtime > Change runtime type > T4",
        )
    on_cuda = name.startswith("cuda")
    chosen = ("fp16" if on_cuda else "fp32") if precision == "auto" else precision
    if chosen == "fp16" and not on_cuda:
        raise Unsupported("fp16 needs CUDA, this is cpu.", hint="--precision fp32 or bf16")
    return Device(torch.device(name), chosen, _say(name, chosen, on_cuda))


def _say(name: str, precision: str, on_cuda: bool) -> str:
    if on_cuda:
        return f"Device: {name}, {torch.cuda.get_device_name(name)}, {precision}."
    cores = torch.get_num_threads()
    why = "" if torch.cuda.is_available() else " No CUDA GPU."
    return f"Device: cpu, {cores} threads of {os.cpu_count()} cores, {precision}.{why}"
