"""A version in half the bytes: fp16 weights, under a name and digest of their own.

No number ever means two things, so ``NAME@N`` in fp16 is ``NAME-half@N``. All
of it follows from the files that ship: the same version gives the same half on
every computer, also where its private files never were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterkit.errors import Unsupported
from adapterkit.files import sha256_bytes
from adapterkit.registry import card
from adapterkit.registry.store import content
from adapterkit.registry.version import seal
from adapterkit.sharing import numbers, pieces
from adapterkit.sharing.pieces import PLAIN, Piece
from adapterkit.sharing.shipment import Shipment

SUFFIX = "-half"
LONGEST = 64  # characters of a name
DIGITS = 3  # of a difference: more would depend on the order in which a machine adds
LARGEST = 65504  # of fp16

Floats = NDArray[np.float64]


def halved(made: Shipment) -> Shipment:
    """The same version with its weights in fp16.

    Raises:
        Unsupported: it is in 16 bits already, or holds a number that fp16 can't.
    """
    if not any(p.dtype == "F32" for p in made.weights.values()):
        raise Unsupported(
            f"{made.ref} is stored in 16 bits already.", hint=f"pack it as it is: adapterkit pack {made.ref}"
        )
    weights = {name: _cast(name, piece, made.ref) for name, piece in made.weights.items()}
    name = made.name[: LONGEST - len(SUFFIX)] + SUFFIX
    body = made.manifest | {
        "name": name,
        "made_from": None,  # training would have made the original
        "lineage": {"how": "half", "parents": [made.digest]},
        "half": {"of": made.ref, **_difference(made.weights, weights)},
    }
    size, sha = pieces.measure(weights, PLAIN)
    readme = card.again(body, made.texts.get("README.md", b"").decode("utf-8", "replace")).encode()
    texts = {**made.texts, "README.md": readme}
    changed = {
        made.weights_name: {"size": size, "sha256": sha},
        "README.md": {"size": len(readme), "sha256": sha256_bytes(readme)},
    }
    body["files"] = {**made.manifest["files"], **changed}
    body["content"] = content(body["kind"], body["base"], sha)
    return replace(
        made, name=name, manifest=seal(body), texts=texts, weights=weights, label=f"{name}@{made.number}"
    )


def _cast(name: str, piece: Piece, ref: str) -> Piece:
    values = numbers.floats(piece.dtype, piece.read())
    if values.size and float(np.abs(values).max()) > LARGEST:
        raise Unsupported(
            f"{ref} holds a number over {LARGEST:,} in {name}, which fp16 can't hold.",
            hint=f"pack it as it is: adapterkit pack {ref}",
        )
    return pieces.of_tensor("F16", piece.shape, values.astype("<f2").tobytes())


# --- how much is lost ---------------------------------------------------------


def _difference(before: Mapping[str, Piece], after: Mapping[str, Piece]) -> dict[str, Any]:
    """Relative change in Frobenius norm: of all modules together, and the largest of one.

    Of a LoRA's module it is the change of B @ A, whose scale cancels out; of a
    full fine-tune's tensor its own.
    """
    norms = [_change(b, a) for b, a in _pairs(before, after)]
    changed, whole = math.sqrt(sum(c for c, _ in norms)), math.sqrt(sum(w for _, w in norms))
    largest = max((math.sqrt(c / w) for c, w in norms if w), default=0.0)
    return {"difference": _rounded(changed / whole if whole else 0.0), "largest": _rounded(largest)}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS - 1}e}")


def _pairs(
    before: Mapping[str, Piece], after: Mapping[str, Piece]
) -> Iterator[tuple[tuple[Floats, ...], tuple[Floats, ...]]]:
    """Tensors of each module before and after: (A, B), or (W,)."""
    for name in sorted(before):
        if name.endswith(".lora_B.weight"):
            continue
        names = [name]
        if name.endswith(".lora_A.weight"):
            names.append(name.replace(".lora_A.", ".lora_B."))
        yield tuple(_matrix(before[n]) for n in names), tuple(_matrix(after[n]) for n in names)


def _matrix(piece: Piece) -> Floats:
    return numbers.floats(piece.dtype, piece.read()).astype(np.float64).reshape(piece.shape)


def _change(before: tuple[Floats, ...], after: tuple[Floats, ...]) -> tuple[float, float]:
    """Squared norms of the change and of what was there.

    B'A' - BA is written [B' - B, B] [A'; A' - A], in which nothing cancels out.
    """
    if len(before) == 1:
        return float(((after[0] - before[0]) ** 2).sum()), float((before[0] ** 2).sum())
    (a, b), (a2, b2) = before, after
    change = _squared(np.hstack([b2 - b, b]), np.vstack([a2, a2 - a]))
    return change, _squared(b, a)


def _squared(left: Floats, right: Floats) -> float:
    """Squared norm of a product of thin matrices, without the product: tr(L'L RR')."""
    return float(((left.T @ left) * (right @ right.T).T).sum())
