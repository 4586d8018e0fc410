"""GPT-2's linear layers, frozen with a LoRA beside them, frozen, or trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def linear(x: Tensor, layer: nn.Module, training: bool) -> Tensor:
    """x (k, in) through a Conv1D, or through PEFT's LoRA around one, to (k, out).

    The arithmetic is in x's number format; trained weights stay float32.
    """
    inner: Any = layer
    if not hasattr(layer, "base_layer"):
        return torch.addmm(inner.bias.to(x.dtype), x, inner.weight.to(x.dtype))
    base = inner.base_layer
    (name,) = inner.active_adapters
    p = float(getattr(inner.lora_dropout[name], "p", 0.0)) if training else 0.0
    out: Tensor = _Lora.apply(  # type: ignore[no-untyped-call]
        x, base.weight.to(x.dtype), base.bias.to(x.dtype), inner.lora_A[name].weight, inner.lora_B[name].weight,
        float(inner.scaling[name]), p,
    )  # fmt: skip
    return out


class _Lora(torch.autograd.Function):
    """x W + b + s drop(x) A^T B^T with W and b frozen.

    Shapes: x (k, in), W (in, out), b (out), A (r, in), B (out, r).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, scale: float,
                p: float) -> Tensor:  # fmt: skip
        a16, b16 = a.to(x.dtype), (b * scale).to(x.dtype)
        seen, mask = torch.native_dropout(x, p, True) if p else (x, None)
        low = seen @ a16.t()
        out = torch.addmm(bias, x, weight)
        out.addmm_(low, b16.t())
        ctx.save_for_backward(seen, weight, a16, b16, low, mask)
        ctx.scale, ctx.p, ctx.kept = scale, p, a.dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seen, weight, a16, b16, low, mask = ctx.saved_tensors
        g_low = grad @ b16
        g_b = (grad.t() @ low).to(ctx.kept) * ctx.scale
        g_a = (g_low.t() @ seen).to(ctx.kept)
        g_x = None
        if ctx.needs_input_grad[0]:
            g_x = grad @ weight.t()
            if mask is None:
                g_x.addmm_(g_low, a16)
            else:
                g_x.add_((g_low @ a16).mul_(mask), alpha=1 / (1 - ctx.p))
        return g_x, None, None, g_a, g_b, None, None
