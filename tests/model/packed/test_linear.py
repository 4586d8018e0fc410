"""The LoRA layer against finite differences and PEFT."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D

from adapterkit.model.packed.linear import _Lora, linear


def peft_layer(*, rslora: bool = False, dropout: float = 0.0) -> Linear:
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=rslora, lora_dropout=dropout, fan_in_fan_out=True)
    layer = Linear(Conv1D(12, 7), "default", config=config, r=4, lora_alpha=6, lora_dropout=dropout,
                   fan_in_fan_out=True, use_rslora=rslora)  # fmt: skip
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    torch.nn.init.normal_(layer.base_layer.bias)
    return layer


@pytest.mark.parametrize("rslora", [False, True])
def test_values_and_gradients_are_pefts(rslora: bool) -> None:
    ours = peft_layer(rslora=rslora)
    theirs = copy.deepcopy(ours)
    x = torch.randn(5, 7, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    back = torch.randn(5, 12)
    a, b = linear(x, ours, True), theirs(y)
    assert torch.allclose(a, b, atol=1e-5)
    a.backward(back)
    b.backward(back)
    assert torch.allclose(x.grad, y.grad, atol=1e-5)  # type: ignore[arg-type]
    for side in ("lora_A", "lora_B"):
        mine, other = (getattr(m, side)["default"].weight.grad for m in (ours, theirs))
        assert torch.allclose(mine, other, atol=1e-5)
        assert mine.abs().max() > 0


def test_gradients_under_dropout_are_those_of_the_mask_that_was_drawn() -> None:
    torch.manual_seed(0)
    x, w, bias = torch.randn(6, 7), torch.randn(7, 5), torch.randn(5)
    a, b = torch.randn(3, 7), torch.randn(5, 3)
    x, a, b = (t.double().requires_grad_() for t in (x, a, b))

    def run(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(4)  # the same mask at every call
        out: torch.Tensor = _Lora.apply(x, w.double(), bias.double(), a, b, 0.5, 0.4)  # type: ignore[no-untyped-call]
        return out

    assert torch.autograd.gradcheck(run, (x, a, b))


def test_dropout_falls_on_the_update_alone_and_keeps_its_mean() -> None:
    layer = peft_layer(dropout=0.5)
    x = torch.randn(1, 7).expand(20_000, 7)
    with torch.no_grad():
        plain, still, moved = layer.base_layer(x), linear(x, layer, False), linear(x, layer, True)
    assert torch.allclose((moved - plain).mean(0), (still - plain)[0], atol=0.1)
    assert (moved - still).abs().max() > 0.1


def test_a_layer_below_the_lowest_trained_one_gets_no_gradient() -> None:
    layer = peft_layer()
    x = torch.randn(5, 7)  # as embeddings and frozen layers give it
    out = linear(x, layer, True)
    out.sum().backward()
    assert layer.lora_A["default"].weight.grad is not None
    assert x.grad is None
