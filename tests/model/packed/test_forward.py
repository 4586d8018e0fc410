"""Our forward against transformers with PEFT, the independent reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from adapterkit.data.encode import IGNORE
from adapterkit.model.packed.forward import unfit
from adapterkit.scoring.loss import PackedLoss

ALL = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
V = 211


def model_of(layers: int = 3, **config: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    told = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} | config
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=V, n_positions=128, n_embd=48, n_layer=layers, n_head=4, **told)
    )


def lora_of(targets: list[str], layers: list[int] | None = None, **config: Any) -> Any:
    told = LoraConfig(r=4, lora_alpha=8, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM",
                      layers_to_transform=layers, **config)  # fmt: skip
    wrapped = get_peft_model(model_of(), told)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return wrapped


def batch() -> dict[str, Tensor]:
    """Two rows: documents of 50, 20 and 30 tokens, the second only read; and one of 100 with a read beginning."""
    torch.manual_seed(1)
    ids = torch.randint(0, V, (2, 100))
    positions = torch.cat([torch.arange(50), torch.arange(20), torch.arange(30), torch.arange(100)]).view(
        2, 100
    )
    labels = ids.masked_fill(positions == 0, IGNORE)
    labels[0, 50:70] = IGNORE
    labels[1, :40] = IGNORE
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def reference(model: Any, b: dict[str, Tensor]) -> Tensor:
    """Mean loss by transformers alone: whole logits, torch's cross entropy."""
    logits = model(input_ids=b["input_ids"], position_ids=b["position_ids"], use_cache=False).logits
    loss: Tensor = F.cross_entropy(
        logits[:, :-1].reshape(-1, V), b["labels"][:, 1:].reshape(-1), ignore_index=IGNORE
    )
    return loss


def gradients(loss: Tensor, model: Any) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("targets", [ALL[:2], ALL[2:], ALL, ["mlp.c_fc"]])
@pytest.mark.parametrize("rslora", [False, True])
def test_loss_and_every_lora_gradient_are_the_references(targets: list[str], rslora: bool) -> None:
    wrapped = lora_of(targets, use_rslora=rslora).train()
    b = batch()
    module = PackedLoss(wrapped.get_base_model())
    assert module.slow_because is None
    wanted = reference(wrapped, b)
    other = gradients(wanted, wrapped)
    out = module(**b)
    assert out["loss"].item() == pytest.approx(wanted.item(), abs=1e-5)
    assert int(out["n"]) == int((b["labels"][:, 1:] != IGNORE).sum())
    for name, mine in gradients(out["loss"], wrapped).items():
        assert (mine - other[name]).abs().max() <= 1e-5 * other[name].abs().max(), name
        assert mine.dtype == torch.float32


def test_every_gradient_of_a_full_fine_tune_is_the_references() -> None:
    model = model_of().train()
    b = batch()
    other = gradients(reference(model, b), model)
    mine = gradients(PackedLoss(model)(**b)["loss"], model)
    assert mine.keys() == other.keys()
    for name in other:
        assert (mine[name] - other[name]).abs().max() <= 1e-5 * other[name].abs().max(), name


def test_one_row_at_a_time_is_all_at_once() -> None:
    """Pieces of a step, each divided by the tokens of the whole step."""
    wrapped = lora_of(ALL).train()
    b = batch()
    module = PackedLoss(wrapped.get_base_model())
    n = int((b["labels"][:, 1:] != IGNORE).sum())
    at_once = gradients(module(**b, num_items_in_batch=n)["loss"], wrapped)
    wrapped.zero_grad()
    for i in range(2):
        module(**{k: v[i : i + 1] for k, v in b.items()}, num_items_in_batch=n)["loss"].backward()
    for name, p in wrapped.named_parameters():
        if p.requires_grad:
            assert (p.grad - at_once[name]).abs().max() <= 1e-5 * at_once[name].abs().max(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(dtype: torch.dtype) -> None:
    """The base in 16 bits, the LoRA in float32; on CUDA fp16 is what auto takes."""
    wrapped = lora_of(ALL).train()
    b = batch()
    wanted = PackedLoss(wrapped.get_base_model())(**b)["loss"]
    other = gradients(wanted, wrapped)
    wrapped.to(dtype)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    got = PackedLoss(wrapped.get_base_model())(**b)["loss"]
    scaled = {n: g / 1024 for n, g in gradients(got * 1024, wrapped).items()}  # as a scaler does
    step = torch.finfo(dtype).eps
    assert got.item() == pytest.approx(wanted.item(), rel=step)
    for name in other:
        assert (scaled[name] - other[name]).norm() <= 6 * step * other[name].norm(), name


def test_nothing_is_computed_backwards_below_the_lowest_trained_layer() -> None:
    """Counted in a profile: the same LoRA in the top layer alone, and in all three."""

    def products(layers: list[int]) -> int:
        wrapped = lora_of(["mlp.c_proj"], layers).train()
        loss = PackedLoss(wrapped.get_base_model())(**batch())["loss"]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            loss.backward()
        return sum(e.count for e in seen.key_averages() if e.key in ("aten::mm", "aten::bmm", "aten::addmm"))

    top, middle, every = products([2]), products([1, 2]), products([0, 1, 2])
    # in the lowest layer with a LoRA in its last matrix: its low rank's own three products and no more
    assert top == 3
    assert middle - top == every - middle > 10


def test_a_batch_with_nothing_to_learn_has_no_loss() -> None:
    b = batch()
    b["labels"] = torch.full_like(b["labels"], IGNORE)
    out = PackedLoss(lora_of(ALL).get_base_model())(**b)
    assert (float(out["nll"]), int(out["n"])) == (0.0, 0)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"activation_function": "relu"}, "activation"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scaled"),
        ({"attn_pdrop": 0.1}, "dropout"),
    ],
)
def test_what_ours_does_not_compute_is_left_to_transformers(config: dict[str, Any], why: str) -> None:
    model = model_of(**config).eval()
    assert why in (unfit(model) or "")
    b = batch()
    assert PackedLoss(model)(**b)["loss"].item() == pytest.approx(reference(model, b).item(), abs=1e-5)


@pytest.mark.parametrize(
    "config", [{"n_inner": 64}, {"layer_norm_epsilon": 1e-3}, {"activation_function": "gelu_pytorch_tanh"}]
)
def test_other_shapes_of_the_family_are_computed(config: dict[str, Any]) -> None:
    model = model_of(**config)
    assert unfit(model) is None
    b = batch()
    assert PackedLoss(model)(**b)["loss"].item() == pytest.approx(reference(model, b).item(), abs=1e-5)


def test_gradient_checkpointing_takes_transformers() -> None:
    model = model_of()
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert "checkpointing" in (unfit(model) or "")
