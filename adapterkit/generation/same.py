"""Whether a transformers GPT-2 in memory is the base that its adapters were checked against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from adapterkit.errors import BaseMismatch, NotFound, UsageProblem
from adapterkit.model.base import Base, locate
from adapterkit.registry.gpt2 import ARCHITECTURE, canonical_name

SIZES = ("n_layer", "n_embd", "n_inner")  # that an adapter has too


def base_of(model: Any, base: str | None) -> Base:
    """The files a model came from.

    Args:
        base: Hub id, folder or ``embedded``; None is where transformers loaded it from.

    Raises:
        UsageProblem: it was not loaded from anywhere that is known.
        NotFound, Damaged, Unsupported: see ``adapterkit.model.base``.
    """
    name = base or model.name_or_path
    if not name:
        raise UsageProblem(
            "this model does not say which base it is.", hint='with_adapters(model, base="gpt2")'
        )
    try:
        return locate(str(name))
    except NotFound as e:
        raise NotFound(e.message, hint='with_adapters(model, base="FOLDER")') from e


def check_same(model: Any, base: Base, *, force: bool = False) -> None:
    """Refuse a model that is not its base: adapters made on one mean nothing on the other.

    Every weight is compared with the file's, rounded to the model's format;
    of a quantised model those that were left as they are.

    Args:
        force: compare only the sizes without which no adapter fits.

    Raises:
        BaseMismatch: sizes or weights differ.
    """
    config = ARCHITECTURE | model.config.to_dict()
    for key in SIZES if force else ARCHITECTURE:
        have, want = _size(config, key), _size(base.config, key)
        if have != want:
            raise _mismatch(base, f"{key} is {have!r}, not {want!r}", can_force=key not in SIZES)
    if force:
        return
    own = {short: t for name, t in model.state_dict().items() if (short := canonical_name(name))}
    with safe_open(base.weights, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            short = canonical_name(name)
            if short is not None and not _is_equal(own.get(short), file.get_tensor(name)):
                raise _mismatch(base, f"its {short} differs", can_force=True)


def _size(config: Mapping[str, Any], key: str) -> Any:
    return config[key] or 4 * config["n_embd"] if key == "n_inner" else config[key]


def _is_equal(own: Tensor | None, stored: Tensor) -> bool:
    if own is None:
        return False
    if not own.is_floating_point():
        return True  # quantised, which can't be told
    return torch.equal(own.detach().cpu(), stored.to(own.dtype))


def _mismatch(base: Base, why: str, *, can_force: bool) -> BaseMismatch:
    force = ", or force_base=True: on this model all the same" if can_force else ""
    return BaseMismatch(
        f"this model is not {base.id} ({base.fingerprints.weights[:8]}): {why}.",
        hint=f'name the base it is, with_adapters(model, base="FOLDER"){force}',
        details={"base": base.id, "can_force": can_force},
    )
