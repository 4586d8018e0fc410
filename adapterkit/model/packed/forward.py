"""GPT-2 (Radford et al. 2019) from token ids to last hidden states, on transformers' own modules.

The same numbers as transformers' forward, with less work: only tokens that a
loss needs, attention in each piece's own block, the residual stream in float32
and the matrix products in the base's format, no dropout in a base.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapterkit.model.packed.attention import attend
from adapterkit.model.packed.layout import Layout
from adapterkit.model.packed.linear import linear

TANH = ("gelu_new", "gelu_pytorch_tanh")
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
LAYERS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def unfit(model: nn.Module) -> str | None:
    """Why this model needs transformers' forward, or None when ours computes the same."""
    config: Any = model.config
    if config.activation_function not in TANH:
        return f"its activation is {config.activation_function}"
    if (
        config.scale_attn_by_inverse_layer_idx
        or config.reorder_and_upcast_attn
        or not config.scale_attn_weights
    ):
        return "its attention is scaled in another way"
    if any(getattr(config, name) for name in DROPOUTS):
        return "dropout in the base was asked for"
    whole: Any = model
    if whole.transformer.gradient_checkpointing:
        return "gradient checkpointing was asked for"
    first = whole.transformer.h[0]
    for name in LAYERS:
        layer = first.get_submodule(name)
        inner = getattr(layer, "base_layer", layer)
        if type(inner).__name__ != "Conv1D":
            return f"its layers are {type(inner).__name__}"
    return None


def hidden(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor, where: Layout, dtype: torch.dtype | None = None
) -> Tensor:
    """Last hidden states of the kept tokens, before the final norm, (k, e) in float32.

    Args:
        model: transformers' GPT2LMHeadModel, with PEFT's LoRA layers in it or without.
        input_ids, position_ids: (b, t)
        dtype: of the matrix products; None takes that of the weights.
    """
    core: Any = model.transformer
    place, dtype = input_ids.device.type, dtype or core.wte.weight.dtype
    ids, positions = (x.flatten()[where.kept] for x in (input_ids, position_ids))
    with torch.autocast(place, enabled=False):
        x = F.embedding(ids, core.wte.weight).float() + F.embedding(positions, core.wpe.weight).float()
        for block in core.h:
            x = _block(x, block, where, dtype)
    return x


def norm(x: Tensor, layer: Any) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight.float(), layer.bias.float(), layer.eps)


def _block(x: Tensor, block: Any, where: Layout, dtype: torch.dtype) -> Tensor:
    training = block.training
    seen = norm(x, block.ln_1).to(dtype)
    mixed = attend(linear(seen, block.attn.c_attn, training), block.attn.num_heads, where)
    x = x + linear(mixed, block.attn.c_proj, training)
    inner = linear(norm(x, block.ln_2).to(dtype), block.mlp.c_fc, training)
    return x + linear(F.gelu(inner, approximate="tanh"), block.mlp.c_proj, training)
