"""A base made ready to learn: transformers' GPT-2 with LoRA through PEFT, or all weights.

The one owner of peft and bitsandbytes. Trained weights are always float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapterkit.errors import RecipeError
from adapterkit.model import quantize
from adapterkit.model.base import Base
from adapterkit.model.device import Device
from adapterkit.model.matching import check_names
from adapterkit.model.quiet import quiet_bitsandbytes, quiet_peft, quiet_transformers
from adapterkit.recipe.schema import Recipe, target_modules
from adapterkit.registry import tensorfile
from adapterkit.registry.strict import CONFIG, WEIGHTS, LoraFiles, lora_scale

quiet_bitsandbytes()  # peft and transformers import it from here on

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def load_model(base: Base, device: Device, recipe: Recipe) -> nn.Module:
    """transformers' GPT2LMHeadModel on its device, without dropout unless asked.

    The base of a LoRA is in the device's format or, with ``train.quantize``
    (resolved before), in 8 or 4 bits; a full fine-tune is float32.

    Raises:
        Unsupported: 4-bit on a CPU, or no bitsandbytes.
    """
    from transformers import GPT2LMHeadModel

    is_quantized = recipe.train.quantize in quantize.BYTES
    options: dict[str, Any] = {"dtype": device.dtype if recipe.method == "lora" else torch.float32}
    if is_quantized:
        options |= quantize.load_options(recipe.train.quantize, device)
    drop = recipe.train.base_dropout
    options |= {"resid_pdrop": drop, "embd_pdrop": drop, "attn_pdrop": drop, "attn_implementation": "sdpa"}
    with quiet_transformers():
        model = GPT2LMHeadModel.from_pretrained(
            base.folder, use_safetensors=True, local_files_only=True, **options
        )
    # With a pad token in its config transformers warns at every batch whose first token is the start.
    model.config.pad_token_id = None
    if recipe.method == "full":
        _checkpoint(model, recipe)
    return model if is_quantized else model.to(device.place)  # type: ignore[no-any-return]


def attach_lora(model: nn.Module, recipe: Recipe) -> Any:
    """The model with a fresh LoRA on exactly the recipe's targets, wrapped by PEFT.

    Raises:
        RecipeError: a target that matches nothing, or modules of several kinds.
    """
    from peft import LoraConfig, get_peft_model

    names = check_targets(model, target_modules(recipe.lora.targets))
    is_quantized = bool(getattr(model, "is_quantized", False))
    if is_quantized:
        model = quantize.prepare(model)
    config = LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,  # resolved before
        lora_dropout=recipe.lora.dropout,
        use_rslora=recipe.lora.rslora,
        target_modules=list(names),
        # GPT-2's Conv1D stores (in, out); quantised, transformers has turned it into a linear layer
        fan_in_fan_out=not is_quantized,
        task_type="CAUSAL_LM",
    )
    with quiet_peft():
        wrapped = get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    _checkpoint(wrapped.get_base_model(), recipe)
    return wrapped


def check_targets(model: nn.Module, names: list[str]) -> tuple[str, ...]:
    """The names, if each matches the same module in every layer, and nothing else."""
    modules = [n for n, m in model.named_modules() if n.startswith("transformer.h.") and hasattr(m, "weight")]
    return check_names(names, {n.split(".", 3)[3] for n in modules})


def lora_of(wrapped: Any) -> LoraFiles:
    """The LoRA as it is now, float32, in the form that ``strict.read_lora`` gives."""
    from peft import get_peft_model_state_dict

    config = wrapped.peft_config["default"]
    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    tensors = {name: raw(tensor.float()) for name, tensor in state.items()}
    targets = tuple(sorted(config.target_modules))
    return LoraFiles(config.r, lora_scale(config.r, config.lora_alpha, config.use_rslora), targets, tensors)


def put_lora(wrapped: Any, lora: LoraFiles) -> None:
    """Set every A and B of a wrapped model to those of an adapter.

    Raises:
        RecipeError: rank, targets, scale or a shape differ; nothing is changed then.
    """
    before = lora_of(wrapped)
    ours = {"rank": before.r, "targets": before.targets, "scale": before.scale}
    theirs = {"rank": lora.r, "targets": tuple(sorted(lora.targets)), "scale": lora.scale}
    for what, value in ours.items():
        if value != theirs[what]:
            raise RecipeError(
                f"the adapter has {what} {_listed(theirs[what])}, the recipe asks for {_listed(value)}.",
                hint="leave lora.r, lora.alpha, lora.rslora and lora.targets as the adapter has them",
            )
    shapes = {name: shape for name, (_, shape, _) in lora.tensors.items()}
    if shapes != {name: shape for name, (_, shape, _) in before.tensors.items()}:
        raise RecipeError(
            "the adapter's tensors do not fit this base.", hint="use the base it was trained on"
        )
    parameters = dict(wrapped.named_parameters())
    with torch.no_grad():
        for name, (dtype, shape, data) in lora.tensors.items():
            values = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[dtype]).reshape(shape)
            parameters[name.replace(".weight", ".default.weight")].copy_(values)


def _listed(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else f"{value:g}"


def _checkpoint(model: Any, recipe: Recipe) -> None:
    """Recompute activations if asked; without reentry frozen embeddings need no gradient for it."""
    if recipe.train.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()


def save_lora(wrapped: Any, folder: Path, base_id: str) -> None:
    """adapter_config.json and adapter_model.safetensors in PEFT's format, canonical and float32."""
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
        "use_rslora": config.use_rslora,
    }
    (folder / CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    tensorfile.write(folder / WEIGHTS, lora_of(wrapped).tensors, {"format": "pt"})


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
