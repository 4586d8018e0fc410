"""Building an engine from the files of a base."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from adapterkit.generation.engine import Engine
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import PageBank
from adapterkit.model.base import Base, canonical_name
from adapterkit.model.device import Device
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry import tensorfile


def engine(base: Base, device: Device) -> Engine:
    """Weights, tokenizer and an empty bank for a base."""
    tensors = read_tensors(base.weights)
    model = GPT2(base.config, tensors, device.place, device.dtype)
    return Engine(model, Tokenizer(base.folder), PageBank(base.dims, device.place, device.dtype))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a GPT-2 file by canonical name, after its header was checked."""
    tensorfile.read_header(path)
    stored = load_file(path)
    return {short: tensor for name, tensor in stored.items() if (short := canonical_name(name))}
