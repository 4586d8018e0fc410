"""A base made ready to learn: transformers' GPT-2 with LoRA through PEFT, or all weights.

The one owner of peft and bitsandbytes. Trained weights are always float32.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapterkit.errors import RecipeError, Unsupported, nearest
from adapterkit.model.base import Base
from adapterkit.model.device import Device
from adapterkit.model.quiet import quiet_bitsandbytes, quiet_peft, quiet_transformers
from adapterkit.recipe.schema import Recipe, target_modules
from adapterkit.registry import tensorfile
from adapterkit.registry.strict import CONFIG, WEIGHTS

quiet_bitsandbytes()  # peft and transformers import it from here on

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def load_model(base: Base, device: Device, recipe: Recipe) -> nn.Module:
    """transformers' GPT2LMHeadModel on its device, without dropout unless asked.

    The base of a LoRA is in the device's format; a full fine-tune is float32.

    Raises:
        Unsupported: 8-bit without CUDA.
    """
    from transformers import GPT2LMHeadModel

    options: dict[str, Any] = {"dtype": device.dtype if recipe.method == "lora" else torch.float32}
    if recipe.train.quantize == "8bit":
        options |= _eight_bits(device)
    drop = recipe.train.base_dropout
    options |= {"resid_pdrop": drop, "embd_pdrop": drop, "attn_pdrop": drop, "attn_implementation": "sdpa"}
    with quiet_transformers():
        model = GPT2LMHeadModel.from_pretrained(
            base.folder, use_safetensors=True, local_files_only=True, **options
        )
    # With a pad token in its config transformers warns at every batch whose first token is the start.
    model.config.pad_token_id = None
    return model if recipe.train.quantize == "8bit" else model.to(device.place)  # type: ignore[no-any-return]


def _eight_bits(device: Device) -> dict[str, Any]:
    if device.place.type != "cuda":
        raise Unsupported(
            f"8-bit needs CUDA, this is {device.place.type}; and at 124M it saves 85 MB and costs speed.",
            hint="leave --quantize out",
        )
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": {"": device.place}}


def attach_lora(model: nn.Module, recipe: Recipe) -> Any:
    """The model with a fresh LoRA on exactly the recipe's targets, wrapped by PEFT.

    Raises:
        RecipeError: a target that matches nothing, or modules of several kinds.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    names = target_modules(recipe.lora.targets)
    check_targets(model, names)
    if recipe.train.quantize == "8bit":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,  # resolved before
        lora_dropout=recipe.lora.dropout,
        target_modules=names,
        # GPT-2's Conv1D stores (in, out); in 8 bits transformers has turned it into a linear layer
        fan_in_fan_out=recipe.train.quantize == "none",
        task_type="CAUSAL_LM",
    )
    with quiet_peft():
        wrapped = get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return wrapped


def check_targets(model: nn.Module, names: list[str]) -> None:
    """Every name must match the same module in each layer, and nothing else."""
    modules = [n for n, m in model.named_modules() if n.startswith("transformer.h.") and hasattr(m, "weight")]
    kinds = Counter(n.split(".", 3)[3] for n in modules)
    linear = sorted(k for k in kinds if k.split(".")[-1].startswith("c_"))
    for name in names:
        hits = [k for k in kinds if k == name or k.endswith("." + name)]
        if len(hits) == 1 and hits[0] == name and name in linear:
            continue
        close = nearest(name, linear)
        what = f"matches {', '.join(hits)}" if len(hits) > 1 else "matches no module of this base exactly"
        raise RecipeError(
            f"'lora.targets' {name!r} {what}; there are {', '.join(linear)}.",
            hint=f"--lora-targets attn, mlp or all{f', or {close}' if close else ''}",
        )


def save_lora(wrapped: Any, folder: Path, base_id: str) -> None:
    """adapter_config.json and adapter_model.safetensors in PEFT's format, canonical and float32."""
    from peft import get_peft_model_state_dict

    config = wrapped.peft_config["default"]
    told = {
        "base_model_name_or_path": base_id,
        "bias": "none",
        "fan_in_fan_out": True,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "peft_type": "LORA",
        "r": config.r,
        "target_modules": sorted(config.target_modules),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }
    (folder / CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    tensors = {name: raw(tensor.float()) for name, tensor in state.items()}
    tensorfile.write(folder / WEIGHTS, tensors, {"format": "pt"})


def save_full(model: Any, folder: Path, base: Base) -> None:
    """A complete transformers folder: config, weights under canonical names, tokenizer."""
    config = {**json.loads((base.folder / "config.json").read_text()), "dtype": "float32"}
    config["architectures"] = ["GPT2LMHeadModel"]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    state = {
        n.removeprefix("transformer."): t for n, t in model.state_dict().items() if n != "lm_head.weight"
    }
    tensors = {name: raw(tensor.float()) for name, tensor in state.items()}
    tensorfile.write(folder / "model.safetensors", tensors, {"format": "pt"})
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "vocab.json",
        "merges.txt",
    ):
        if (base.folder / name).is_file():
            (folder / name).write_bytes((base.folder / name).read_bytes())


def raw(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """A tensor as (dtype, shape, little-endian bytes)."""
    flat = tensor.detach().cpu().contiguous()
    return (
        DTYPES[flat.dtype],
        tuple(flat.shape),
        flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"",
    )


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Trained tensors by name, copied."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def restore(model: nn.Module, state: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(state[name])
