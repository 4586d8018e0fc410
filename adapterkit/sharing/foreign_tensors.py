"""The tensors of a LoRA trained elsewhere, as the tensors of ours.

Names are told by one literal form, with or without PEFT's prefix and the
adapter's name. One rank and one scale hold for a whole adapter here: smaller
ranks are padded with zeros, other scales are folded into B, layers without a
LoRA get one of zeros. What needs none of that keeps its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adapterkit.errors import Damaged, Unsupported
from adapterkit.registry import lora_config, strict, tensorfile
from adapterkit.registry.strict import Dims
from adapterkit.sharing import numbers
from adapterkit.sharing.foreign_config import ForeignConfig
from adapterkit.sharing.pieces import Piece
from adapterkit.sharing.shipment import again

NAME = re.compile(
    r"(?:base_model\.model\.)?(?:transformer\.)?h\.(\d{1,4})\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)"
    r"\.lora_([AB])(?:\.([A-Za-z0-9_-]{1,64}))?\.weight"
)
# What other methods store beside A and B, told apart to be refused by name.
OTHERS = {
    "lora_magnitude_vector": "DoRA",
    "lora_embedding": "a LoRA on the embeddings",
    "modules_to_save": "whole modules beside the LoRA (modules_to_save)",
    "score.": "a head for classes (SEQ_CLS)",
    "classifier.": "a head for classes (SEQ_CLS)",
    "lm_head.": "a LoRA on lm_head, which GPT-2 shares with its embeddings",
    "lora_E": "AdaLoRA",
    "ia3_": "IA3",
    "prompt_embeddings": "a prompt",
    ".bias": "biases",
    "lora_B_bias": "biases",
    "c_attn_": "another model than GPT-2",
}
SIZES = {"F32": 4, "F16": 2, "BF16": 2}
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


@dataclass(frozen=True)
class Module:
    """A and B of one module of one layer."""

    layer: int
    target: str
    a: Piece
    b: Piece

    @property
    def path(self) -> str:
        """As PEFT's patterns see it."""
        return f"transformer.h.{self.layer}.{self.target}"

    @property
    def r(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class Translated:
    """A LoRA with one rank and one scale.

    Attributes:
        alpha: with ``is_rslora``, what its scale is made of.
        filled: modules that had no LoRA and got one of zeros.
        padded, folded: modules whose rank or scale was another.
    """

    r: int
    alpha: float
    is_rslora: bool
    targets: tuple[str, ...]
    tensors: Tensors
    filled: int
    padded: int
    folded: int


def translate(found: Mapping[str, Piece], config: ForeignConfig, dims: Dims, label: str) -> Translated:
    """Ours from theirs.

    Raises:
        Damaged: a tensor is missing, of another shape than base and config say, or not finite.
        Unsupported: there are others than a LoRA's.
    """
    modules = _modules(found, label)
    _check_places(modules, config, dims, label)
    for module in modules:
        _check_module(module, config, dims, label)
    return _united(modules, config, dims)


def _modules(found: Mapping[str, Piece], label: str) -> list[Module]:
    sides: dict[tuple[int, str], dict[str, Piece]] = {}
    for name, piece in found.items():
        match = NAME.fullmatch(name)
        if match is None:
            what = next((told for key, told in OTHERS.items() if key in name), "a tensor of another kind")
            raise Unsupported(
                f"{label} holds {what}: {name[:80]}; only a plain LoRA on GPT-2's layers is brought in.",
                hint="merge it with PEFT, or train one here: adapterkit train SOURCE",
            )
        pair = sides.setdefault((int(match[1]), match[2]), {})
        if match[3] in pair:
            raise Damaged(f"{label} holds {name[:80]} twice, under two names.", hint=again(label))
        pair[match[3]] = piece
    if lone := next((f"h.{i}.{t}" for (i, t), pair in sorted(sides.items()) if len(pair) < 2), None):
        raise Damaged(f"{label} lacks A or B of {lone}.", hint=again(label))
    if not sides:
        raise Damaged(f"{label} holds no tensors.", hint=again(label))
    return [Module(i, t, pair["A"], pair["B"]) for (i, t), pair in sorted(sides.items())]


def _check_places(modules: list[Module], config: ForeignConfig, dims: Dims, label: str) -> None:
    """Exactly the modules that the config's targets mean in this base.

    A bare c_proj means attn.c_proj and mlp.c_proj; where only one of them is
    there at all, the other was never trained.
    """
    have = {(m.layer, m.target) for m in modules}
    wanted = {
        (layer, target)
        for layer in range(dims.layers)
        for target in sorted(lora_config.KNOWN)
        if config.targets_of(f"transformer.h.{layer}.{target}", layer)
    }
    there = {target for _, target in have}
    if "c_proj" in (config.targets or ()) and any(t.endswith("c_proj") for t in there):
        wanted = {(i, t) for i, t in wanted if not t.endswith("c_proj") or t in there}
    if high := sorted(i for i, _ in have if i >= dims.layers):
        raise Damaged(
            f"{label} does not fit this base: it has a layer {high[-1]}, the base has {dims.layers} layers.",
            hint="name the base it was trained on: --base BASE",
        )
    if missing := sorted(wanted - have):
        raise Damaged(
            f"{label} lacks {len(missing)} of the modules its config names, such as h.{missing[0][0]}.{missing[0][1]}.",
            hint=f"{again(label)}, or name the base it was trained on: --base BASE",
        )
    if extra := sorted(have - wanted):
        raise Damaged(
            f"{label} holds a LoRA on h.{extra[0][0]}.{extra[0][1]}, which its config does not target.",
            hint=again(label),
        )


def _check_module(module: Module, config: ForeignConfig, dims: Dims, label: str) -> None:
    n_in, n_out = dims.in_out(module.target)
    r = config.rank_of(module.path)
    if (module.a.shape, module.b.shape) != ((r, n_in), (n_out, r)):
        raise Damaged(
            f"{label} does not fit this base: {module.path} has A {module.a.shape} and B {module.b.shape}, "
            f"expected {(r, n_in)} and {(n_out, r)}.",
            hint="name the base it was trained on: --base BASE",
        )
    for side, piece in (("A", module.a), ("B", module.b)):
        if piece.dtype not in SIZES:
            raise Unsupported(f"{label} stores {piece.dtype}; F32, F16 and BF16 are read.")
        if bad := tensorfile.not_finite(piece.dtype, piece.read()):
            raise Damaged(
                f"{label} holds {bad} numbers that are not finite in {module.path}.lora_{side}.",
                hint="ask where it comes from for another copy",
            )


# --- one rank, one scale ------------------------------------------------------


def _united(modules: list[Module], config: ForeignConfig, dims: Dims) -> Translated:
    scales = [config.scale_of(m.path, m.r) for m in modules]
    r, targets = max(m.r for m in modules), tuple(sorted({m.target for m in modules}))
    common = _common(scales)
    is_plain = all(s == common for s in scales)
    # as the config has it, where that gives this scale at this rank; 1-1 with PEFT's own numbers
    keeps = is_plain and r == config.r and strict.lora_scale(r, config.alpha, config.is_rslora) == common
    tensors: Tensors = {}
    for module, scale in zip(modules, scales, strict=True):
        tensors |= _padded(module, r, 1.0 if scale == common else scale / common)
    filled = _fill(tensors, dims, targets, r)
    return Translated(
        r=r,
        alpha=config.alpha if keeps else common * r,
        is_rslora=config.is_rslora and keeps,
        targets=targets,
        tensors=tensors,
        filled=filled,
        padded=sum(m.r < r for m in modules),
        folded=sum(s != common for s in scales),
    )


def _common(scales: list[float]) -> float:
    """The scale that most modules have; 1 if that is 0, as nothing can be divided by it."""
    best = max(sorted(set(scales)), key=scales.count)
    return best or next((s for s in scales if s), 0.0) or 1.0


def _padded(module: Module, r: int, factor: float) -> Tensors:
    """A and B at rank r, B times a factor; bytes are kept where neither changes anything."""
    a, b, more = module.a, module.b, r - module.r
    n_out, size = b.shape[0], SIZES[b.dtype]
    kind, data = b.dtype, b.read()
    if factor != 1.0:
        kind, size = "F32", 4
        data = numbers.stored(numbers.floats(b.dtype, data) * np.float32(factor))
    if more:  # zeros are zero bytes in every type
        rows = np.frombuffer(data, np.uint8).reshape(n_out, module.r * size)
        data = np.pad(rows, ((0, 0), (0, more * size))).tobytes()
    tail = bytes(more * a.shape[1] * SIZES[a.dtype])
    return {
        strict.tensor_name(module.layer, module.target, "A"): (a.dtype, (r, a.shape[1]), a.read() + tail),
        strict.tensor_name(module.layer, module.target, "B"): (kind, (n_out, r), data),
    }


def _fill(tensors: Tensors, dims: Dims, targets: tuple[str, ...], r: int) -> int:
    """Zeros for the layers without a LoRA; how many modules that were."""
    filled = 0
    for name, shape in strict.expected_shapes(dims, targets, r).items():
        if name not in tensors:
            tensors[name] = ("F32", shape, bytes(4 * shape[0] * shape[1]))
            filled += 1
    return filled // 2
