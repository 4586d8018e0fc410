"""PEFT's adapter_config.json, read key by key from a list of what is known.

A key decides nothing here unless it is named below: each has the values it may
have, and every other key must be empty. Names of modules are literal, never
patterns; nothing is imported or looked up because a config says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapterkit.errors import AdapterKitError, Damaged, Unsupported
from adapterkit.recipe.schema import TARGETS
from adapterkit.registry.plainjson import NotPlain, parse, spoken

CONFIG = "adapter_config.json"
MAX_CONFIG = 64 << 10  # bytes; PEFT writes about one thousand
MAX_RANK = 256
MAX_ALPHA = 1e6
KNOWN = frozenset(TARGETS["all"])
EMPTY: tuple[Any, ...] = (None, False, [], {}, "")


def _is_word(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 1000)


def _is_switch(value: Any) -> bool:
    return value is None or value is True or value is False


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


# Other ways to begin a LoRA (pissa, olora, loftq, corda) change the base, so the adapter fits no other copy of it.
PLAIN_BEGINNINGS = (None, True, False, "gaussian")
# Keys that say nothing about the weights, with what they may hold.
VALUES: dict[str, Callable[[Any], bool]] = {
    "base_model_name_or_path": _is_word,
    "revision": _is_word,
    "peft_version": _is_word,
    "lora_dropout": _is_share,
    "fan_in_fan_out": _is_switch,  # how a layer of the base is stored, which is known here
    "inference_mode": _is_switch,
    "auto_mapping": lambda value: value is None,  # a class PEFT would import
    "megatron_core": lambda value: value in (None, "megatron.core"),  # a module PEFT would import
    "qalora_group_size": lambda value: type(value) is int,
}
# With those that are checked by name below; any other must be empty.
HARMLESS = frozenset(VALUES) | {
    "peft_type",
    "task_type",
    "bias",
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
}
# What to do about a key that makes it no plain LoRA, and its code.
REFUSED = {
    "modules_to_save": ("modules-to-save", "it would replace parts of the base; train it without them"),
    "trainable_token_indices": ("modules-to-save", "it would change the base's words; train it without them"),
    "use_dora": ("dora", "train it without DoRA"),
    "rank_pattern": ("pattern", "one rank for all modules is served; merge it with PEFT"),
    "alpha_pattern": ("pattern", "one alpha for all modules is served; merge it with PEFT"),
    "layers_pattern": ("pattern", "patterns are not run; name the modules"),
}


@dataclass(frozen=True)
class Shape:
    """What a config says of the weights."""

    r: int
    scale: float  # what B @ A is multiplied by
    targets: tuple[str, ...]  # sorted


def read_shape(raw: bytes, label: str) -> Shape:
    """The shape that a config tells.

    Raises:
        Damaged: it can't be read, or a value is none; each cause has its own ``code``.
        Unsupported: a kind of adapter that is not served, each again with its own.
    """
    try:
        config = parse(raw)
        if not isinstance(config, dict):
            raise NotPlain("table", "it is no table")
        for key in ("peft_type", "task_type"):
            if key not in config:
                raise NotPlain("lacking", f"it has no {key}")
    except NotPlain as e:
        raise Damaged(
            f"{label}: its {CONFIG} can't be read: {e}.",
            hint=f"fetch {CONFIG} again",
            code=f"config-{e.code}",
        ) from None
    _check_kind(config, label)
    _check_keys(config, label)
    r, targets = _rank(config, label), _targets(config, label)
    return Shape(r, _scale(r, config, label), targets)


def lora_scale(r: int, alpha: float, rslora: bool) -> float:
    """What B @ A is multiplied by; rsLoRA (Kalajdzievski 2023) divides by the root of the rank."""
    return alpha / math.sqrt(r) if rslora else alpha / r


def _check_kind(config: dict[str, Any], label: str) -> None:
    kind = {k: config.get(k, "none") for k in ("peft_type", "task_type", "bias")}
    told = "{} for {} with bias {}".format(*(spoken(v) for v in kind.values()))
    for key, wanted in (("peft_type", "LORA"), ("task_type", "CAUSAL_LM"), ("bias", "none")):
        if kind[key] != wanted:
            raise Unsupported(
                f"{label} is {told}; only plain LoRA for text is served.",
                hint="train it again as peft_type LORA, task_type CAUSAL_LM, bias none",
                code=key.replace("_", "-"),
                details={key: spoken(kind[key])},
            )


def _check_keys(config: dict[str, Any], label: str) -> None:
    for key, value in config.items():
        if key in VALUES and not VALUES[key](value):
            is_code = key in ("auto_mapping", "megatron_core")
            why = "which names code to import; nothing is imported" if is_code else "which it can't be"
            raise Damaged(
                f"{label} has {key} {spoken(value)!r}, {why}.",
                hint=f"mend {key} in {CONFIG}",
                code="names-code" if is_code else "config-value",
                details={"key": key},
            )
    start = config.get("init_lora_weights")
    if start not in PLAIN_BEGINNINGS or type(start) in (int, float):  # 1 is equal to True
        raise Unsupported(
            f"{label} uses init_lora_weights {spoken(start)!r}, which is not plain LoRA: it was made on a changed base.",
            hint="convert it with PEFT: model.save_pretrained(FOLDER, path_initial_model_for_weight_conversion=...)",
            code="initialisation",
            details={"key": "init_lora_weights"},
        )
    other = sorted(
        k for k in config if k not in HARMLESS and k != "init_lora_weights" and config[k] not in EMPTY
    )
    if other:
        code, hint = REFUSED.get(other[0], ("config-key", "merge it with PEFT"))
        raise Unsupported(
            f"{label} uses {', '.join(spoken(k, 40) for k in other[:5])}, which is not plain LoRA.",
            hint=hint,
            code=code,
            details={"keys": [spoken(k, 40) for k in other[:20]]},
        )


def _rank(config: dict[str, Any], label: str) -> int:
    r = config.get("r")
    if type(r) is not int or not 1 <= r <= MAX_RANK:
        raise Unsupported(
            f"{label} has rank {spoken(r)}; 1 to {MAX_RANK} are served.",
            hint=f"train it again with a rank of at most {MAX_RANK}",
            code="rank",
            details={"most": MAX_RANK},
        )
    return r


def _scale(r: int, config: dict[str, Any], label: str) -> float:
    alpha, rslora = config.get("lora_alpha"), config.get("use_rslora")
    if type(alpha) not in (int, float) or not abs(alpha) <= MAX_ALPHA:  # type: ignore[arg-type]
        raise _no_value(label, "lora_alpha", alpha, f"no number up to {MAX_ALPHA:,.0f}", "alpha")
    if not _is_switch(rslora):
        raise _no_value(label, "use_rslora", rslora, "neither true nor false", "rslora")
    return lora_scale(r, float(alpha), bool(rslora))  # type: ignore[arg-type]


def _no_value(label: str, key: str, value: object, what: str, code: str) -> AdapterKitError:
    return Damaged(
        f"{label} has {key} {spoken(value)}, which is {what}.", hint=f"mend {key} in {CONFIG}", code=code
    )


def _targets(config: dict[str, Any], label: str) -> tuple[str, ...]:
    targets = config.get("target_modules")
    literal = isinstance(targets, list) and all(isinstance(t, str) and t in KNOWN for t in targets)
    if not literal or not targets or len(set(targets)) != len(targets):
        raise Unsupported(
            f"{label} targets {spoken(targets, 80)}; exact names are needed, each once: {', '.join(sorted(KNOWN))}.",
            hint="patterns are not run; name the modules in target_modules",
            code="target-modules",
        )
    return tuple(sorted(targets))
