"""Which modules a LoRA sits on, and how large it gets, from the sizes of a base alone.

Names are exact: a bare ``c_proj`` is two modules of GPT-2 and so refused.
Never imports torch, so a plan can say it before anything is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from adapterkit.errors import RecipeError, nearest
from adapterkit.files import canonical_json, human_size
from adapterkit.recipe.schema import TARGETS, LoraSpec, target_modules
from adapterkit.registry.strict import Dims, expected_shapes


@dataclass(frozen=True)
class Matched:
    """What ``lora.targets`` picks in a base: kinds of module, each once in every layer."""

    targets: tuple[str, ...]
    layers: int
    parameters: int
    file_bytes: int  # of adapter_model.safetensors, in float32

    @property
    def modules(self) -> int:
        return len(self.targets) * self.layers

    def __str__(self) -> str:
        million = f"{self.parameters / 1e6:.2f} M" if self.parameters >= 5000 else f"{self.parameters:,}"
        return (
            f"LoRA on {self.modules} modules ({', '.join(self.targets)} in {self.layers} layers), "
            f"{million} parameters, file {human_size(self.file_bytes)}"
        )


def match(dims: Dims, lora: LoraSpec) -> Matched:
    """The modules of a GPT-2 of these sizes.

    Raises:
        RecipeError: a name that is not exactly one module of each layer.
    """
    targets = check_names(target_modules(lora.targets), TARGETS["all"])
    shapes = expected_shapes(dims, targets, lora.r)
    return Matched(
        targets, dims.layers, sum(math.prod(shape) for shape in shapes.values()), _file_bytes(shapes)
    )


def check_names(names: Collection[str], kinds: Collection[str]) -> tuple[str, ...]:
    """The names, each once, if every one is exactly one of the kinds of module.

    Args:
        names: as ``lora.targets`` lists them.
        kinds: modules of a layer by their names in it, such as attn.c_attn.

    Raises:
        RecipeError: no name, one that matches nothing, or several.
    """
    linear = sorted(k for k in kinds if k.split(".")[-1].startswith("c_"))
    if not names:
        raise RecipeError(
            f"'lora.targets' is empty; there are {', '.join(linear)}.", hint="--lora-targets attn, mlp or all"
        )
    for name in names:
        if name in linear:
            continue
        hits = [k for k in linear if k.endswith("." + name)]
        close = nearest(name, linear)
        what = f"matches {', '.join(hits)}" if len(hits) > 1 else "matches no module of this base exactly"
        raise RecipeError(
            f"'lora.targets' {name!r} {what}; there are {', '.join(linear)}.",
            hint=f"--lora-targets attn, mlp or all{f', or {close}' if close else ''}",
        )
    return tuple(dict.fromkeys(names))


def _file_bytes(shapes: dict[str, tuple[int, int]]) -> int:
    """Length of the file that ``tensorfile.write`` makes of these tensors."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(shapes):
        size = 4 * math.prod(shapes[name])
        table[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [at, at + size]}
        at += size
    header = len(canonical_json(table))
    return 8 + header + -header % 8 + at
