"""The optimizer steps, by transformers' Trainer, with our loss and our stop rule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from adapterkit.data.pack import Rows, stack
from adapterkit.errors import DataError
from adapterkit.model import trainable
from adapterkit.model.device import Device
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.version import Point
from adapterkit.scoring.loss import PackedLoss, score
from adapterkit.training.events import Begun, Listener, Stepped, Tested
from adapterkit.training.resolve import rows_per_step

PATIENCE = 3  # tests without a better one before epochs: auto stops


class Steps(Trainer):  # type: ignore[misc]
    """Trainer over packed rows; the loss is the token sum divided by the tokens of the whole step."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False,
                     num_items_in_batch: Tensor | int | None = None) -> Any:  # fmt: skip
        out = model(**inputs, num_items_in_batch=num_items_in_batch)
        return (out["loss"], out) if return_outputs else out["loss"]


class Curve(TrainerCallback):  # type: ignore[misc]
    """Points of the curve, tests on the held-out text, the best weights, the stop."""

    def __init__(
        self,
        module: PackedLoss,
        test: Callable[[], float] | None,
        recipe: Recipe,
        tokens: int,
        tell: Listener,
        may_stop: bool,
    ) -> None:
        self._module, self._test, self._recipe = module, test, recipe
        self._tokens, self._tell, self._may_stop = tokens, tell, may_stop
        self._begun = time.monotonic()
        self._loss: float | None = None
        self._rate: float | None = None
        self._misses = 0
        self.points: list[Point] = []
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.base_loss: float | None = None

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        self._loss, self._rate = float(logs["loss"]), float(logs["learning_rate"])
        if not math.isfinite(self._loss):
            raise DataError(
                f"the loss is not a number at step {state.global_step}; nothing was published.",
                hint=f"a smaller rate: --learning-rate {float(self._recipe.train.learning_rate) / 4:g}, or --precision fp32",
                code="nan-loss",
            )
        elapsed = time.monotonic() - self._begun
        self._tell(Stepped(state.global_step, self._loss, self._seen(state) / elapsed))
        self._point(state, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = (
            state.global_step % int(self._recipe.train.eval_steps) == 0
            or state.global_step == state.max_steps
        )
        if self._test is None or not due:
            return
        loss = self._test()
        is_best = self.best is None or loss < self.best[0]
        if is_best:
            self.best = (loss, trainable.trainable(self._module))
        self._misses = 0 if is_best else self._misses + 1
        stops = self._may_stop and self._misses >= PATIENCE and state.global_step < state.max_steps
        control.should_training_stop |= stops
        self._tell(Tested(state.global_step, float(state.epoch or 0), self._loss, loss, is_best, stops))
        self._point(state, loss)

    def _point(self, state: Any, held_out: float | None) -> None:
        seconds = round(time.monotonic() - self._begun, 2)
        self.points.append(
            Point(state.global_step, self._seen(state), self._loss, held_out, self._rate, seconds)
        )

    def _seen(self, state: Any) -> int:
        return round(float(state.epoch or 0) * self._tokens)


def fit(
    module: PackedLoss,
    recipe: Recipe,
    rows: Rows,
    held_out: Rows,
    *,
    device: Device,
    filler: int,
    scratch: Path,
    may_stop: bool,
    tell: Listener,
) -> Curve:
    """Train the module in place and leave the best weights in it.

    Args:
        recipe: resolved.
        rows, held_out: packed; held_out may be empty.
        filler: a token id for padding, which is never a target.
        may_stop: end when the held-out loss gets no better PATIENCE times.
    """
    train = recipe.train
    per_step = rows_per_step(int(train.tokens_per_step), int(train.max_length), len(rows))
    in_pass = max(1, math.ceil(len(rows) / per_step))
    steps = max(1, round(in_pass * float(train.epochs)))

    def test() -> float:
        return score(module, held_out, int(train.batch_size), filler, device.place).mean

    base_loss = test() if held_out else None
    curve = Curve(module, test if held_out else None, recipe, rows.targets, tell, may_stop)
    curve.base_loss = base_loss
    trainer = Steps(
        model=module,
        args=_arguments(recipe, device, steps, per_step, scratch),
        train_dataset=rows,
        data_collator=lambda batch: {k: torch.from_numpy(v) for k, v in stack(batch, filler).items()},
        callbacks=[curve],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.model_accepts_loss_kwargs = True  # so that the step's token count reaches compute_loss
    tell(Begun(steps, in_pass, base_loss))
    trainer.train()
    if curve.best is not None:
        trainable.restore(module, curve.best[1])
    module.eval()
    return curve


def _arguments(recipe: Recipe, device: Device, steps: int, per_step: int, scratch: Path) -> TrainingArguments:
    train = recipe.train
    on_cpu = device.place.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=int(train.batch_size),
        gradient_accumulation_steps=max(1, per_step // int(train.batch_size)),
        learning_rate=float(train.learning_rate),
        lr_scheduler_type=train.scheduler,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.grad_clip,
        logging_steps=int(train.log_steps),
        seed=train.seed,
        data_seed=train.seed,
        fp16=device.precision == "fp16",
        bf16=device.precision == "bf16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        optim="adamw_torch_fused",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
    )
    if arguments.n_gpu > 1:  # Trainer would wrap in DataParallel, which multiplies the rows of a step
        arguments._n_gpu = 1
    return arguments
