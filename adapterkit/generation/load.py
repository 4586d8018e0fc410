"""Building an engine from the files of a base or of a full fine-tune."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from adapterkit.files import canonical_json
from adapterkit.generation.engine import Engine
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import DTYPES, PageBank
from adapterkit.model.base import Base
from adapterkit.model.device import Device
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry import full, tensorfile
from adapterkit.registry.gpt2 import canonical_name
from adapterkit.registry.version import Version


def engine(base: Base, device: Device, *, bits: int = 0) -> Engine:
    """Weights, tokenizer and an empty bank for a base; ``bits`` as in ``adapterkit.generation.gpt2``.

    Raises:
        Damaged, Unsupported: it holds other tensors than its config says, or numbers that are not finite.
    """
    base.check()
    return _engine(base, read_tensors(base.weights), device, bits)


def full_engine(version: Version, device: Device, *, bits: int = 0) -> Engine:
    """The same for a full fine-tune, every byte of it checked against its manifest.

    Raises:
        Damaged, Unsupported: see ``adapterkit.registry.full``.
    """
    config = full.read_config(version)
    tensors = {
        name: as_tensor(dtype, shape, data) for name, dtype, shape, data in full.read_tensors(version, config)
    }
    return _engine(Base(version.ref, version.path, checked=config), tensors, device, bits)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a GPT-2 file by canonical name, after its header was checked."""
    tensorfile.read_header(path)
    stored = load_file(path)
    return {short: tensor for name, tensor in stored.items() if (short := canonical_name(name))}


def put_full(model: Any, tensors: Iterable[full.Tensor]) -> None:
    """Set every weight of transformers' GPT2LMHeadModel to those of a full fine-tune of its sizes.

    Raises:
        Damaged, Unsupported: while they are read; the model is then of no use.
    """
    parameters = dict(model.transformer.named_parameters())
    with torch.no_grad():
        for name, dtype, shape, data in tensors:
            parameters[name].copy_(as_tensor(dtype, shape, data))


def as_tensor(dtype: str, shape: tuple[int, ...], data: bytearray) -> Tensor:
    """A tensor over bytes, which are not copied."""
    return torch.frombuffer(data, dtype=DTYPES[dtype]).view(shape)


def resident_digest(engine: Engine) -> str:
    """sha256 over the weights of a base as they are in memory: the same before and after any adapter."""
    digest = hashlib.sha256()
    for name, tensor in engine.model.named_tensors():
        plain = tensor.to_dense() if tensor.is_mkldnn else tensor  # a matrix lies in oneDNN's own order
        flat = plain.detach().cpu().contiguous()
        digest.update(canonical_json([name, list(flat.shape), str(flat.dtype)]))
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _engine(base: Base, tensors: dict[str, Tensor], device: Device, bits: int) -> Engine:
    model = GPT2(base.config, tensors, device.place, device.dtype, bits=bits)
    return Engine(model, Tokenizer(base.folder), PageBank(base.dims, device.place, device.dtype))
