"""What the files of a GPT-2 hold: the keys of its architecture, the names and shapes of its tensors.

Letters of shapes: v words, p positions, e width, f inner width. Weights are
stored (in, out), as GPT-2's Conv1D has them. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterkit.errors import AdapterKitError, Damaged, Unsupported
from adapterkit.registry.plainjson import NotPlain, parse, spoken
from adapterkit.registry.tensorfile import Header

# Keys that decide what the model computes, with transformers' defaults.
ARCHITECTURE: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "tie_word_embeddings": True,
}
SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
MAX_SIZE = 1 << 20  # of any of them
MAX_LAYERS = 512
MAX_CONFIG = 1 << 20  # bytes
STORED = ("F32", "F16", "BF16")  # types that weights may have


def read_config(raw: bytes, label: str) -> dict[str, Any]:
    """A config.json with the architecture's defaults filled in.

    Raises:
        Damaged: no table, or a size that is none.
        Unsupported: not a plain GPT-2.
    """
    try:
        told = parse(raw[: MAX_CONFIG + 1])
    except NotPlain as e:
        raise _config_error(label, f"its config.json can't be read: {e}", f"config-{e.code}") from None
    if not isinstance(told, dict):
        raise _config_error(label, "its config.json is no table", "config")
    if told.get("model_type") != "gpt2":
        raise Unsupported(
            f"the base {label!r} is a {spoken(told.get('model_type'))!r} model; AdapterKit is for GPT-2.",
            hint="--base gpt2, gpt2-medium, distilgpt2, a folder with a GPT-2, or embedded",
            code="model-type",
        )
    if told.get("tie_word_embeddings") is False:
        raise Unsupported(
            f"the base {label!r} has a head of its own; GPT-2 shares it with its embeddings.",
            hint="use a plain GPT-2",
            code="untied-head",
        )
    config = {**ARCHITECTURE, **told}
    _check_sizes(config, label)
    return config


def _check_sizes(config: Mapping[str, Any], label: str) -> None:
    inner = [] if config["n_inner"] is None else ["n_inner"]
    for key in (*SIZES, *inner):
        most = MAX_LAYERS if key == "n_layer" else MAX_SIZE
        if type(config[key]) is not int or not 1 <= config[key] <= most:
            raise _config_error(label, f"its config.json has {key} {spoken(config[key])}", "config-size")
    if config["n_embd"] % config["n_head"]:
        raise _config_error(
            label,
            f"its width {config['n_embd']} is no multiple of its {config['n_head']} heads",
            "config-size",
        )
    if type(config["layer_norm_epsilon"]) not in (int, float):
        raise _config_error(label, "its layer_norm_epsilon is no number", "config-size")


def canonical_name(name: str) -> str | None:
    """A stored tensor's name without its prefix; None for mask buffers and the tied head."""
    name = name.removeprefix("transformer.")
    if name == "lm_head.weight" or name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    return name


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a GPT-2 of these sizes, by canonical name."""
    e, f = config["n_embd"], config["n_inner"] or 4 * config["n_embd"]
    each: dict[str, tuple[int, ...]] = {}
    for norm in ("ln_1", "ln_2"):
        each |= {f"{norm}.weight": (e,), f"{norm}.bias": (e,)}
    for linear, n_in, n_out in (
        ("attn.c_attn", e, 3 * e),
        ("attn.c_proj", e, e),
        ("mlp.c_fc", e, f),
        ("mlp.c_proj", f, e),
    ):
        each |= {f"{linear}.weight": (n_in, n_out), f"{linear}.bias": (n_out,)}
    made: dict[str, tuple[int, ...]] = {
        "wte.weight": (config["vocab_size"], e),
        "wpe.weight": (config["n_positions"], e),
        "ln_f.weight": (e,),
        "ln_f.bias": (e,),
    }
    return made | {f"h.{i}.{name}": shape for i in range(config["n_layer"]) for name, shape in each.items()}


def check_tensors(config: Mapping[str, Any], header: Header, label: str) -> None:
    """Refuse a file that does not hold exactly the tensors of a GPT-2 of these sizes.

    Raises:
        Damaged: ``missing-tensors``, ``extra-tensors``, ``doubled-tensors`` or ``wrong-shape``.
        Unsupported: ``dtype``.
    """
    expected, found = shapes(config), {}
    for name, entry in header.entries.items():
        if (short := canonical_name(name)) is None:
            continue
        if short in found:
            raise _weights_error(label, f"they hold {short} twice", "doubled-tensors")
        found[short] = entry
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise _weights_error(
            label, f"they lack {len(missing)} tensors such as {missing[0]}", "missing-tensors"
        )
    if extra:
        raise _weights_error(
            label, f"they hold {len(extra)} that do not belong, such as {extra[0]}", "extra-tensors"
        )
    for name, entry in found.items():
        if entry.shape != expected[name]:
            why = f"{name} is {entry.shape}, expected {expected[name]}"
            raise _weights_error(label, why, "wrong-shape")
        if entry.dtype not in STORED:
            raise Unsupported(
                f"{label} stores {name} as {entry.dtype}; F32, F16 and BF16 are read.",
                hint="save it again with transformers in float32",
                code="dtype",
            )


def not_finite_error(label: str, name: str, count: int) -> AdapterKitError:
    """What to say of weights that hold inf or nan."""
    return _weights_error(label, f"{name} holds {count:,} numbers that are not finite", "not-finite")


def _weights_error(label: str, why: str, code: str) -> Damaged:
    return Damaged(
        f"the weights of {label} are not those of its config.json: {why}.",
        hint="fetch or save the model again, or use another: --base gpt2",
        code=code,
    )


def _config_error(label: str, why: str, code: str) -> Damaged:
    return Damaged(
        f"the model {label!r}: {why}.",
        hint="fetch or save the model again, or use another: --base gpt2",
        code=code,
    )
