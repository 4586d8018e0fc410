"""Reading a LoRA adapter's files with suspicion, before anything is built from them.

Each file is opened once; what is read is what is hashed and what is parsed. The
config is read key by key, the file must hold exactly the expected tensors in the
expected shapes, all finite. Nothing here changes a base or runs code. No tensor
library. The ways in: ``read_version`` for what is in a registry, ``read_lora``
for a folder from elsewhere or one that was just written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapterkit.errors import AdapterKitError, Damaged, Unsupported
from adapterkit.registry import gpt2, opening, tensorfile
from adapterkit.registry.lora_config import CONFIG as CONFIG
from adapterkit.registry.lora_config import HARMLESS as HARMLESS
from adapterkit.registry.lora_config import KNOWN as KNOWN
from adapterkit.registry.lora_config import MAX_ALPHA as MAX_ALPHA
from adapterkit.registry.lora_config import MAX_CONFIG, read_shape
from adapterkit.registry.lora_config import MAX_RANK as MAX_RANK
from adapterkit.registry.lora_config import PLAIN_BEGINNINGS as PLAIN_BEGINNINGS
from adapterkit.registry.lora_config import lora_scale as lora_scale
from adapterkit.registry.version import Version

WEIGHTS = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "pytorch_model.bin")
SIZES_DIFFER = ("missing-tensors", "extra-tensors", "other-tensors", "wrong-shape")  # codes


@dataclass(frozen=True)
class Dims:
    """Sizes of a GPT-2 that an adapter must fit."""

    layers: int
    width: int
    inner: int

    def in_out(self, target: str) -> tuple[int, int]:
        return {
            "attn.c_attn": (self.width, 3 * self.width),
            "attn.c_proj": (self.width, self.width),
            "mlp.c_fc": (self.width, self.inner),
            "mlp.c_proj": (self.inner, self.width),
        }[target]


@dataclass(frozen=True)
class LoraFiles:
    """A checked adapter: the update of layer i's target is scale * B @ A."""

    r: int
    scale: float
    targets: tuple[str, ...]
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, bytes


def read_version(version: Version, dims: Dims) -> LoraFiles:
    """A published adapter, every file of it checked against its manifest, if it fits a base of these sizes.

    Raises:
        Damaged: a file is not the one that was published, or see ``read_lora``.
        Unsupported: see ``read_lora``.
    """
    opening.check_folder(version)
    version.verify(but=(CONFIG, WEIGHTS))
    return _read(version.path, dims, version.ref, partial(opening.check_sum, version))


def read_lora(folder: Path, dims: Dims, label: str) -> LoraFiles:
    """The adapter in a folder, if it fits a base of these sizes exactly.

    Raises:
        Damaged: files missing, torn, links, not finite, of another base.
        Unsupported: an adapter of a kind that is not served here.
    """
    if not (folder / WEIGHTS).exists() and any((folder / name).exists() for name in PICKLES):
        raise _pickle(label)
    return _read(folder, dims, label, lambda name, sha256: None)


def fits(version: Version, dims: Dims) -> bool:
    """Whether a published adapter has the shapes for a base of these sizes; its weights are not read.

    Raises:
        Damaged, Unsupported: it would fit no base.
    """
    opening.check_folder(version)
    with opening.opened(version.path, CONFIG, version.ref, limit=MAX_CONFIG) as file:
        shape = read_shape(file.read(), version.ref)
    with opening.opened(version.path, WEIGHTS, version.ref) as file:
        header = tensorfile.header_of(file, os.fstat(file.fileno()).st_size, f"{WEIGHTS} of {version.ref}")
    try:
        _compare(expected_shapes(dims, shape.targets, shape.r), header, version.ref)
    except AdapterKitError as e:
        if e.code in SIZES_DIFFER:
            return False
        raise
    return True


def tensor_name(layer: int, target: str, side: str) -> str:
    """PEFT's name of one tensor; side is A (r, in) or B (out, r)."""
    return f"base_model.model.transformer.h.{layer}.{target}.lora_{side}.weight"


def expected_shapes(dims: Dims, targets: tuple[str, ...], r: int) -> dict[str, tuple[int, int]]:
    shapes = {}
    for layer in range(dims.layers):
        for target in targets:
            n_in, n_out = dims.in_out(target)
            shapes[tensor_name(layer, target, "A")] = (r, n_in)
            shapes[tensor_name(layer, target, "B")] = (n_out, r)
    return shapes


def _read(folder: Path, dims: Dims, label: str, check: Callable[[str, str], None]) -> LoraFiles:
    """The adapter in a folder; ``check`` is given the name and sha256 of each file that was read."""
    with opening.opened(folder, CONFIG, label, limit=MAX_CONFIG) as file:
        config = opening.Hashed(file)
        raw = config.read(MAX_CONFIG)
        check(CONFIG, config.finish())
    shape = read_shape(raw, label)
    with opening.opened(folder, WEIGHTS, label) as file:
        weights = opening.Hashed(file)
        header = tensorfile.header_of(weights, os.fstat(file.fileno()).st_size, f"{WEIGHTS} of {label}")
        # Before a tensor is read: no more is kept than an adapter of this shape has.
        _compare(expected_shapes(dims, shape.targets, shape.r), header, label)
        tensors = {name: _tensor(weights, name, e, label) for name, e in header.in_order()}
        check(WEIGHTS, weights.finish())
    return LoraFiles(shape.r, shape.scale, shape.targets, tensors)


def _tensor(
    weights: opening.Hashed, name: str, entry: tensorfile.Entry, label: str
) -> tuple[str, tuple[int, ...], bytes]:
    data = weights.read(entry.end - entry.begin)
    if len(data) != entry.end - entry.begin:
        raise Damaged(
            f"{label}: {WEIGHTS} became shorter while it was read.", hint="copy it again", code="truncated"
        )
    if bad := tensorfile.not_finite(entry.dtype, data):
        raise Damaged(
            f"{label} holds {bad} numbers that are not finite in {name}.",
            hint="train it again",
            code="not-finite",
            details={"tensor": name, "count": bad},
        )
    return entry.dtype, entry.shape, data


def _compare(expected: dict[str, tuple[int, int]], header: tensorfile.Header, label: str) -> None:
    found = {name: e.shape for name, e in header.entries.items()}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        told = [f"lacks {len(missing)} tensors such as {missing[0]}"] if missing else []
        told += [f"has {len(extra)} that do not belong, such as {extra[0]}"] if extra else []
        code = "other-tensors" if missing and extra else "missing-tensors" if missing else "extra-tensors"
        raise _unfit(label, f"it {' and '.join(told)}", code)
    for name, shape in expected.items():
        if found[name] != shape:
            raise _unfit(label, f"{name} is {found[name]}, expected {shape}", "wrong-shape")
    if odd := {e.dtype for e in header.entries.values()} - set(gpt2.STORED):
        raise Unsupported(
            f"{label} stores {', '.join(sorted(odd))}; F32, F16 and BF16 are read.",
            hint="save it again in float32",
            code="dtype",
            details={"dtypes": sorted(odd)},
        )


def _unfit(label: str, why: str, code: str) -> Damaged:
    return Damaged(
        f"{label} does not fit this base: {why}.", hint="use the base it was trained on", code=code
    )


def _pickle(label: str) -> Damaged:
    return Damaged(
        f"{label} has no {WEIGHTS}, only a pickle, which can run code, so it is not opened.",
        hint="pickled .bin files are not opened; convert them where you trust them: "
        "PeftModel.from_pretrained(base, FOLDER).save_pretrained(FOLDER)",
        code="pickle",
    )
