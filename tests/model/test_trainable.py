"""A base made ready to learn: LoRA that PEFT reads back, weights put in, full fine-tunes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapterkit.errors import RecipeError
from adapterkit.model import trainable
from adapterkit.model.base import Base, locate
from adapterkit.model.device import Device, choose
from adapterkit.model.quiet import quiet_peft
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.strict import read_lora
from tests.make import make_peft_adapter

IDS = torch.arange(40)[None] * 7 % 300
SHAPES: list[dict[str, Any]] = [
    {"targets": "attn"},
    {"targets": "mlp", "r": 8, "alpha": 4.0},
    {"targets": "all", "r": 9, "rslora": True},
    {"targets": ["mlp.c_proj", "attn.c_attn"], "r": 2, "alpha": 1.5, "rslora": True},
]


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return locate(str(tiny_base))


def _recipe(lora: dict[str, Any], **train: Any) -> Recipe:
    return Recipe.model_validate({"lora": {"r": 4, "alpha": 8.0, "dropout": 0.0, **lora}, "train": train})


def _wrapped(base: Base, recipe: Recipe, device: Device | None = None) -> Any:
    return trainable.attach_lora(trainable.load_model(base, device or choose("cpu"), recipe), recipe)


def _fill(wrapped: Any, seed: int = 1) -> Any:
    """A and B drawn at random, so that nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) / 20)
    return wrapped.eval()


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return out


def _by_peft(base: Base, folder: Path) -> nn.Module:
    """The plain base with the saved adapter, loaded by transformers and PEFT alone."""
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    with quiet_peft():
        return PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base.folder), folder).eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("lora", SHAPES)
def test_peft_reads_what_is_saved_and_computes_the_same(
    lora: dict[str, Any], base: Base, tmp_path: Path
) -> None:
    wrapped = _fill(_wrapped(base, _recipe(lora)))
    trainable.save_lora(wrapped, tmp_path, "tiny")
    ours = _logits(wrapped)
    assert torch.equal(ours, _logits(_by_peft(base, tmp_path)))
    assert not torch.allclose(ours, _logits(wrapped.unload()), atol=1e-2)


@pytest.mark.parametrize("lora", SHAPES)
def test_the_scale_is_the_one_peft_multiplies_by(lora: dict[str, Any], base: Base, tmp_path: Path) -> None:
    wrapped = _wrapped(base, _recipe(lora))
    trainable.save_lora(wrapped, tmp_path, "tiny")
    scales = {m.scaling["default"] for m in wrapped.modules() if hasattr(m, "lora_A")}
    assert scales == {read_lora(tmp_path, base.dims, "tiny").scale}


def test_only_the_lora_is_trained_and_in_float32(base: Base) -> None:
    wrapped = _wrapped(base, _recipe({}), choose("cpu", "bf16"))
    trained = {n: p.dtype for n, p in wrapped.named_parameters() if p.requires_grad}
    assert all("lora_" in n for n in trained)
    assert set(trained.values()) == {torch.float32}
    assert wrapped.get_base_model().transformer.wte.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_weight_of_a_full_fine_tune_is_trained_in_float32(precision: str, base: Base) -> None:
    model = trainable.load_model(base, choose("cpu", precision), Recipe(method="full"))
    assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(True, torch.float32)}


# --- weights put in ---


def test_an_adapter_made_by_peft_is_put_in_exactly(base: Base, tmp_path: Path) -> None:
    targets = ["attn.c_attn", "attn.c_proj"]
    folder = make_peft_adapter(tmp_path / "a", base.folder, seed=3, targets=targets)
    wrapped = _wrapped(base, _recipe({"targets": targets}))
    trainable.put_lora(wrapped, read_lora(folder, base.dims, "a"))
    assert torch.equal(_logits(wrapped.eval()), _logits(_by_peft(base, folder)))


def test_what_is_taken_out_can_be_put_back(base: Base) -> None:
    wrapped = _fill(_wrapped(base, _recipe({"targets": "all"})))
    kept, before = trainable.lora_of(wrapped), _logits(wrapped)
    _fill(wrapped, seed=2)
    assert not torch.equal(_logits(wrapped), before)
    trainable.put_lora(wrapped, kept)
    assert torch.equal(_logits(wrapped), before)


def test_half_precision_is_put_in_as_float32(base: Base) -> None:
    wrapped = _fill(_wrapped(base, _recipe({})))
    kept = trainable.lora_of(wrapped)
    name, (_, shape, data) = next(iter(kept.tensors.items()))
    half = torch.frombuffer(bytearray(data), dtype=torch.float32).to(torch.bfloat16)
    trainable.put_lora(
        wrapped, replace(kept, tensors={**kept.tensors, name: trainable.raw(half.reshape(shape))})
    )
    put = dict(wrapped.named_parameters())[name.replace(".weight", ".default.weight")]
    assert put.dtype is torch.float32
    assert torch.equal(put.flatten(), half.float())


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"r": 8}, "the adapter has rank 8, the recipe asks for 4"),
        ({"alpha": 4.0}, "the adapter has scale 1, the recipe asks for 2"),
        ({"rslora": True}, "the adapter has scale 4, the recipe asks for 2"),
        ({"targets": "attn"}, "targets attn.c_attn, attn.c_proj, the recipe asks for mlp.c_fc, mlp.c_proj"),
    ],
)
def test_an_adapter_of_another_shape_is_not_put_in(lora: dict[str, Any], told: str, base: Base) -> None:
    other = trainable.lora_of(_wrapped(base, _recipe(lora)))
    with pytest.raises(RecipeError, match=told):
        trainable.put_lora(_wrapped(base, _recipe({})), other)


def test_a_tensor_of_another_shape_is_not_put_in_and_nothing_changes(base: Base) -> None:
    wrapped = _fill(_wrapped(base, _recipe({})))
    kept, before = trainable.lora_of(_fill(_wrapped(base, _recipe({})), seed=2)), _logits(wrapped)
    cut = dict(list(kept.tensors.items())[1:])
    with pytest.raises(RecipeError, match="do not fit this base"):
        trainable.put_lora(wrapped, replace(kept, tensors=cut))
    assert torch.equal(_logits(wrapped), before)


# --- gradient checkpointing ---


@pytest.mark.parametrize("method", ["lora", "full"])
def test_checkpointing_gives_the_same_gradients(method: str, base: Base) -> None:
    found = []
    for asked in (False, True):
        recipe = _recipe({}, gradient_checkpointing=asked).model_copy(update={"method": method})
        model = trainable.load_model(base, choose("cpu"), recipe)
        if method == "lora":
            wrapped = trainable.attach_lora(model, recipe)
            model = _fill(wrapped).get_base_model()
        model.train()
        assert model.is_activation_checkpointing is asked
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][n], found[1][n], rtol=1e-4, atol=1e-6) for n in found[0])


def test_checkpointing_computes_the_layers_twice_and_leaves_the_embeddings_alone(base: Base) -> None:
    calls = []
    for asked in (False, True):
        model = _wrapped(base, _recipe({}, gradient_checkpointing=asked)).get_base_model().train()
        count: list[int] = []
        model.transformer.h[0].ln_1.register_forward_hook(lambda *_, count=count: count.append(1))
        embedded: list[torch.Tensor] = []
        model.transformer.wte.register_forward_hook(lambda *a, seen=embedded: seen.append(a[2]))
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        calls.append(len(count))
        assert not embedded[0].requires_grad
    assert calls == [1, 2]
