"""Reading a LoRA adapter's files with suspicion, before anything is built from them.

The config is read key by key from a whitelist, target modules are literal
names, the file must hold exactly the expected tensors in the expected shapes,
all finite. Nothing here changes a base or runs code. No tensor library.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterkit.errors import Damaged, Unsupported
from adapterkit.recipe.schema import TARGETS
from adapterkit.registry import tensorfile

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAX_RANK = 256
MAX_ALPHA = 1e6
# Other ways to begin a LoRA (pissa, olora, loftq, corda) change the base, so the adapter fits no other copy of it.
PLAIN_BEGINNINGS = (None, True, False, "gaussian")
KNOWN = frozenset(TARGETS["all"])
# Keys that say nothing about the weights, or are checked by name below; any other must be empty.
HARMLESS = frozenset(
    [
        "peft_type",
        "task_type",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "use_rslora",
        "fan_in_fan_out",
        "bias",
        "inference_mode",
        "base_model_name_or_path",
        "revision",
        "peft_version",
        "auto_mapping",
        "megatron_core",
        "qalora_group_size",
    ]
)


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


def lora_scale(r: int, alpha: float, rslora: bool) -> float:
    """What B @ A is multiplied by; rsLoRA (Kalajdzievski 2023) divides by the root of the rank."""
    return alpha / math.sqrt(r) if rslora else alpha / r


def read_lora(folder: Path, dims: Dims, label: str) -> LoraFiles:
    """The adapter in a folder, if it fits a base of these sizes exactly.

    Raises:
        Damaged: files missing, torn, not finite.
        Unsupported: an adapter of a kind that is not served here.
    """
    config = _config(folder, label)
    targets, r = tuple(sorted(config["target_modules"])), config["r"]
    path = folder / WEIGHTS
    if not path.is_file():
        raise Damaged(
            f"{label} has no {WEIGHTS}.",
            hint="pickled .bin files are not opened; convert them where you trust them",
        )
    header = tensorfile.read_header(path)
    _compare(expected_shapes(dims, targets, r), header, label)
    tensors = {}
    with path.open("rb") as file:
        for name, entry in header.entries.items():
            data = tensorfile.read_bytes(file, header, name)
            if bad := tensorfile.not_finite(entry.dtype, data):
                raise Damaged(
                    f"{label} holds {bad} numbers that are not finite in {name}.", hint="train it again"
                )
            tensors[name] = (entry.dtype, entry.shape, data)
    scale = lora_scale(r, float(config["lora_alpha"]), bool(config.get("use_rslora")))
    return LoraFiles(r, scale, targets, tensors)


def _config(folder: Path, label: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes()[: 1 << 20])
        kind = config["peft_type"], config["task_type"], config.get("bias", "none")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise Damaged(
            f"{label}: its {CONFIG} can't be read ({type(e).__name__}).", hint="fetch it again"
        ) from None
    if kind != ("LORA", "CAUSAL_LM", "none"):
        raise Unsupported(
            f"{label} is {kind[0]} for {kind[1]} with bias {kind[2]}; only plain LoRA for text is served."
        )
    full = [k for k, v in config.items() if k not in HARMLESS and v not in (None, False, [], {}, "")]
    full = [k for k in full if k != "init_lora_weights" or config[k] not in PLAIN_BEGINNINGS]
    if full:
        raise Unsupported(
            f"{label} uses {', '.join(sorted(full))}, which is not plain LoRA.", hint="merge it with PEFT"
        )
    r, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if type(r) is not int or not 1 <= r <= MAX_RANK:
        raise Unsupported(f"{label} has rank {r!r}; 1 to {MAX_RANK} are served.")
    if type(alpha) not in (int, float) or not abs(alpha) <= MAX_ALPHA:  # type: ignore[arg-type]
        raise Damaged(
            f"{label} has lora_alpha {alpha!r}, which is no number.", hint="mend it in adapter_config.json"
        )
    if config.get("use_rslora") not in (None, True, False):
        raise Damaged(
            f"{label} has use_rslora {config['use_rslora']!r}, which is neither true nor false.",
            hint="mend it in adapter_config.json",
        )
    if (
        not isinstance(targets, list)
        or not targets
        or not all(isinstance(t, str) and t in KNOWN for t in targets)
    ):
        raise Unsupported(
            f"{label} targets {str(targets)[:80]}; exact names are needed: {', '.join(sorted(KNOWN))}.",
            hint="patterns are not run",
        )
    return config


def _compare(expected: dict[str, tuple[int, int]], header: tensorfile.Header, label: str) -> None:
    found = {name: e.shape for name, e in header.entries.items()}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        told = [f"lacks {len(missing)} tensors such as {missing[0]}"] if missing else []
        told += [f"has {len(extra)} that do not belong, such as {extra[0]}"] if extra else []
        raise Damaged(
            f"{label} does not fit this base: it {' and '.join(told)}.", hint="use the base it was trained on"
        )
    wrong = [n for n in expected if found[n] != expected[n]]
    if wrong:
        raise Damaged(
            f"{label} does not fit this base: {wrong[0]} is {found[wrong[0]]}, expected {expected[wrong[0]]}.",
            hint="use the base it was trained on",
        )
    if odd := {e.dtype for e in header.entries.values()} - {"F32", "F16", "BF16"}:
        raise Unsupported(f"{label} stores {', '.join(sorted(odd))}; F32, F16 and BF16 are read.")
