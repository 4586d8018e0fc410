"""What a PEFT config may say beside its sizes: everything that makes it no plain LoRA is refused by its name.

A key that is not known here must be empty, so that a method of tomorrow is
refused and not taken for a plain LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterkit.errors import Unsupported
from adapterkit.registry.plainjson import spoken

# Ways to begin that leave the base as it is; the others (pissa, olora, loftq, corda) fit no other copy of it.
BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
# Keys that are read below, or say nothing about weights that are there; any other must be empty.
READ = frozenset(
    [
        "peft_type",
        "task_type",
        "bias",
        "r",
        "lora_alpha",
        "use_rslora",
        "target_modules",
        "init_lora_weights",
        "base_model_name_or_path",
        "lora_dropout",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "auto_mapping",
        "fan_in_fan_out",
        "inference_mode",
        "revision",
        "peft_version",
        "megatron_core",
        "qalora_group_size",
        "merge_weights",
        "runtime_config",
        "ensure_weight_tying",
    ]
)
EMPTY: tuple[Any, ...] = (None, False, [], {}, "")
MERGE = "merge it with PEFT: PeftModel.from_pretrained(...).merge_and_unload()"
KINDS = {
    "PROMPT_TUNING": "prompt tuning",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning",
    "PREFIX_TUNING": "prefix tuning",
    "P_TUNING": "p-tuning",
    "IA3": "IA3",
    "ADALORA": "AdaLoRA",
    "ADAPTION_PROMPT": "an adaption prompt",
    "LOHA": "LoHa",
    "LOKR": "LoKr",
    "OFT": "OFT",
    "BOFT": "BOFT",
    "VERA": "VeRA",
    "LN_TUNING": "layer norm tuning",
}
TASKS = {
    "SEQ_CLS": "sorting texts into classes",
    "TOKEN_CLS": "labelling tokens",
    "SEQ_2_SEQ_LM": "models with an encoder",
    "QUESTION_ANS": "marking answers in a text",
    "FEATURE_EXTRACTION": "embedding texts",
}
NAMED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save (whole modules beside the LoRA)",
    "use_qalora": "QALoRA",
    "trainable_token_indices": "trainable tokens",
    "layer_replication": "layer replication",
    "target_parameters": "target_parameters",
    "lora_bias": "a bias in the LoRA",
    "alora_invocation_tokens": "aLoRA",
    "enable_lora": "enable_lora (LoRA on a part of c_attn)",
}


def check(told: Mapping[str, Any], label: str) -> None:
    """Refuse another method, task or addition.

    Raises:
        Unsupported: with what it is.
    """
    _check_kind(told, label)
    _check_task(told, label)
    _check_rest(told, label)


def _check_kind(told: Mapping[str, Any], label: str) -> None:
    kind, bias = told.get("peft_type"), told.get("bias", "none")
    if kind != "LORA":
        name = KINDS.get(str(kind), "not LoRA")
        raise Unsupported(
            f"{label} is {name} (peft_type {spoken(kind, 40)}); only LoRA is brought in.",
            hint="write with it in PEFT, or train a LoRA: adapterkit train SOURCE",
        )
    if bias not in ("none", None):
        raise Unsupported(
            f"{label} has trained biases too (bias {spoken(bias, 40)}), which is not plain LoRA.", hint=MERGE
        )


def _check_task(told: Mapping[str, Any], label: str) -> None:
    """A task that is not named may be this one: then the tensors have to fit, which no other task's do."""
    task, made_on = told.get("task_type"), told.get("auto_mapping") or {}
    if task not in (None, "CAUSAL_LM"):
        raise Unsupported(
            f"{label} was trained for {TASKS.get(str(task), 'another task')} (task_type {spoken(task, 40)}), "
            "not for writing text.",
            hint="train one that writes: adapterkit train SOURCE",
        )
    # what PEFT writes for want of a task; never imported here
    model = made_on.get("base_model_class") if isinstance(made_on, dict) else made_on
    if model not in (None, "GPT2LMHeadModel", "GPT2Model"):
        raise Unsupported(
            f"{label} was made on a {spoken(model)}, not on a GPT-2 that writes text.",
            hint="train one that writes: adapterkit train SOURCE",
        )


def _check_rest(told: Mapping[str, Any], label: str) -> None:
    """Every key with a value must be one that is understood."""
    begin = told.get("init_lora_weights", True)
    odd = [k for k, v in told.items() if k not in READ and v not in EMPTY]
    odd = [k for k in odd if k != "eva_config" or begin != "eva"]
    if not isinstance(begin, bool | str | None) or begin not in BEGINNINGS:
        raise Unsupported(
            f"{label} began as {spoken(begin, 40)!r}, which changes the base it fits.",
            hint="save it in PEFT with path_initial_model_for_weight_conversion, which makes it plain LoRA",
        )
    if odd:
        names = ", ".join(NAMED.get(k) or spoken(k, 60) for k in sorted(odd)[:5])
        raise Unsupported(
            f"{label} uses {names}, which is not plain LoRA.",
            hint=MERGE,
        )
