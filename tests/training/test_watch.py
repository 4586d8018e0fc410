"""A run in which something can't learn ends with its name, by transformers' own Trainer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.func import functional_call
from transformers import Trainer, TrainingArguments

from adapterkit.errors import CheckFailed
from adapterkit.model import trainable
from adapterkit.model.base import locate
from adapterkit.model.device import choose
from adapterkit.recipe.schema import Recipe
from adapterkit.scoring.loss import PackedLoss
from adapterkit.training.watch import SKIPS, Watch

LENGTH = 24
FIRST_B = "model.transformer.h.0.attn.c_attn.lora_B.default.weight"
LAST_A = "model.transformer.h.1.attn.c_proj.lora_A.default.weight"


class Cut(nn.Module):
    """A loss that does not see one of its tensors' gradients, as a slip in a forward pass would have it."""

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.inner, self.name = inner, name

    def forward(self, **batch: Tensor) -> Any:
        cut = dict(self.inner.named_parameters())[self.name].detach()
        return functional_call(self.inner, {self.name: cut}, kwargs=batch)


def _module(base: Path, method: str = "lora", **train: Any) -> PackedLoss:
    torch.manual_seed(3)
    recipe = Recipe.model_validate(
        {"method": method, "lora": {"r": 4, "alpha": 8.0, "dropout": 0.0, "targets": "attn"}, "train": train}
    )
    model = trainable.load_model(locate(str(base)), choose("cpu"), recipe)
    if method == "lora":
        model = trainable.attach_lora(model, recipe).get_base_model()
    return PackedLoss(model)


def _rows(n: int = 64) -> list[dict[str, Tensor]]:
    ids = torch.randint(0, 300, (n, LENGTH), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row, "position_ids": torch.arange(LENGTH)} for row in ids]


def _train(module: nn.Module, watch: Watch, folder: Path, steps: int = 5, **changes: Any) -> int:
    """Steps taken by a real Trainer."""
    settings: dict[str, Any] = {"learning_rate": 1e-3, "warmup_steps": 0, "max_steps": steps} | changes
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        logging_strategy="no",
        **settings,
    )
    trainer = Trainer(model=module, args=arguments, train_dataset=_rows(), callbacks=[watch])
    trainer.train()
    return int(trainer.state.global_step)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_sound_run_is_left_alone(method: str, fast: bool, tiny_base: Path, tmp_path: Path) -> None:
    module = PackedLoss(_module(tiny_base, method).model, fast=fast)
    watch = Watch(module)
    assert _train(module, watch, tmp_path) == 5
    assert watch.done


@pytest.mark.parametrize(
    ("method", "name"),
    [("lora", FIRST_B), ("full", "model.transformer.h.1.mlp.c_fc.bias"), ("full", "model.transformer.wpe.weight")],
)  # fmt: skip
def test_a_tensor_cut_off_from_the_loss_is_named(
    method: str, name: str, tiny_base: Path, tmp_path: Path
) -> None:
    module = Cut(_module(tiny_base, method), name)
    with pytest.raises(
        CheckFailed, match=f"gives no gradient to inner.{name}; nothing would be learned there"
    ):
        _train(module, Watch(module), tmp_path)


def test_a_gradient_of_zeros_is_none(tiny_base: Path, tmp_path: Path) -> None:
    module = _module(tiny_base)
    dict(module.named_parameters())[FIRST_B].register_hook(torch.zeros_like)
    with pytest.raises(CheckFailed, match=f"gives no gradient to {FIRST_B}; "):
        _train(module, Watch(module), tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_told(bad: float, tiny_base: Path, tmp_path: Path) -> None:
    module = _module(tiny_base)
    dict(module.named_parameters())[FIRST_B].register_hook(lambda g: g * bad)
    with pytest.raises(CheckFailed, match="is not finite") as caught:
        _train(module, Watch(module), tmp_path)
    assert FIRST_B in caught.value.details["tensors"]


def test_a_tensor_that_stays_the_same_is_named_after_three_steps(tiny_base: Path, tmp_path: Path) -> None:
    module = _module(tiny_base)
    dict(module.named_parameters())[LAST_A].register_hook(torch.zeros_like)
    with pytest.raises(
        CheckFailed, match=f"the first 3 steps did not change {LAST_A} by a single bit"
    ) as caught:
        _train(module, Watch(module), tmp_path)
    assert caught.value.details["tensors"] == [LAST_A]


def test_a_change_of_one_entry_is_a_change(tiny_base: Path, tmp_path: Path) -> None:
    def one_entry(gradient: Tensor) -> Tensor:
        only = torch.zeros_like(gradient)
        only[0, 0] = 1.0
        return only

    module = _module(tiny_base)
    dict(module.named_parameters())[LAST_A].register_hook(one_entry)
    watch = Watch(module)
    _train(module, watch, tmp_path)
    assert watch.done


def test_a_rate_that_is_too_small_to_move_a_weight_is_told(tiny_base: Path, tmp_path: Path) -> None:
    """Below half a unit in the last place the optimizer's update rounds to nothing."""
    module = _module(tiny_base, "full")
    with pytest.raises(
        CheckFailed, match=r"did not change model\.transformer.* and [0-9]+ more by a single bit"
    ):
        _train(module, Watch(module), tmp_path, learning_rate=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_shorter_than_three_steps_only_shows_its_gradients(
    steps: int, tiny_base: Path, tmp_path: Path
) -> None:
    module = _module(tiny_base)
    dict(module.named_parameters())[LAST_A].register_hook(torch.zeros_like)
    watch = Watch(module)
    assert _train(module, watch, tmp_path, steps=steps) == steps
    assert not watch.done


def test_steps_with_a_rate_of_zero_do_not_count(tiny_base: Path, tmp_path: Path) -> None:
    """With warm-up the first step's rate is 0, so nothing has moved twice after three."""
    module = _module(tiny_base)
    watch = Watch(module)
    assert _train(module, watch, tmp_path, steps=3, warmup_steps=1) == 3
    assert not watch.done
    module = _module(tiny_base)
    watch = Watch(module)
    _train(module, watch, tmp_path, steps=4, warmup_steps=1)
    assert watch.done


def test_a_run_that_goes_on_is_not_looked_at_again(tiny_base: Path, tmp_path: Path) -> None:
    module = _module(tiny_base)
    dict(module.named_parameters())[FIRST_B].register_hook(torch.zeros_like)
    assert _train(module, Watch(module, done=True), tmp_path) == 5


def test_text_that_leaves_rows_of_the_embeddings_untouched_is_fine(tiny_base: Path, tmp_path: Path) -> None:
    module = _module(tiny_base, "full")
    before = dict(module.named_parameters())["model.transformer.wpe.weight"].detach().clone()
    _train(module, Watch(module), tmp_path, weight_decay=0.0)
    after = dict(module.named_parameters())["model.transformer.wpe.weight"].detach()
    assert torch.equal(after[LENGTH:], before[LENGTH:])


# --- fp16's scaler, for real on this CPU ---


def _scaled_steps(module: PackedLoss, watch: Watch, scale: float, most: int) -> list[bool]:
    """Which of the steps a scaler that begins at ``scale`` skips."""
    Accelerator(cpu=True)  # sets the state that its optimizer asks for
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    inner = torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), lr=1e-3)
    optimizer = AcceleratedOptimizer(inner, scaler=scaler)
    batch = {k: torch.stack([row[k] for row in _rows(8)]) for k in ("input_ids", "labels", "position_ids")}
    watch.on_train_begin(None, None, None)
    skipped = []
    for _ in range(most):
        scaler.scale(module(**batch)["loss"]).backward()
        optimizer.step()
        watch.on_optimizer_step(SimpleNamespace(learning_rate=1e-2), None, None, optimizer=optimizer)
        skipped.append(bool(optimizer.step_was_skipped))
        optimizer.zero_grad()
    return skipped


def test_steps_that_the_scaler_skips_do_not_count(tiny_base: Path) -> None:
    module = _module(tiny_base)
    dict(module.named_parameters())[FIRST_B].register_hook(lambda g: g * 1e4)  # too much for the first scale
    watch = Watch(module)
    skipped = _scaled_steps(module, watch, 2.0**127, 3)
    assert skipped[0]
    assert not watch.done
    skipped += _scaled_steps(module, watch := Watch(module), 2.0**127, 30)
    assert skipped.count(False) >= 3
    assert watch.done


def test_a_run_whose_every_step_overflows_ends(tiny_base: Path) -> None:
    module = _module(tiny_base)
    dict(module.named_parameters())[FIRST_B].register_hook(lambda g: g * float("inf"))
    with pytest.raises(CheckFailed, match=f"the first {SKIPS} steps all overflowed in fp16"):
        _scaled_steps(module, Watch(module), 2.0**16, SKIPS)
