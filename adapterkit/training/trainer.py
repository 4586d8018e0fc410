"""The optimizer steps, by transformers' Trainer, with our loss, our order of rows and our checkpoints."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import get_available_reporting_integrations
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback

from adapterkit.data.pack import Rows, stack
from adapterkit.errors import Unsupported
from adapterkit.model import trainable
from adapterkit.model.device import Device
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.version import Sample
from adapterkit.scoring.loss import PackedLoss, score
from adapterkit.training import checkpoint, room
from adapterkit.training.curve import Curve as Curve
from adapterkit.training.curve import weights
from adapterkit.training.events import Begun, Listener, Said
from adapterkit.training.resolve import Schedule, schedule
from adapterkit.training.stop import Stop
from adapterkit.training.watch import Watch

WEIGHTS = "weights.safetensors"


@dataclass
class Track:
    """What ``fit`` runs on."""

    recipe: Recipe  # resolved
    rows: Rows
    held_out: Rows  # may be empty
    device: Device
    filler: int  # a token id for padding, which is never a target
    name: str  # of the adapter, for messages
    folder: Path  # of the checkpoints
    may_stop: bool  # end when the held-out loss gets no better
    tell: Listener
    saved: Callable[[int], None]  # told the step of each checkpoint

    def test(self, module: PackedLoss) -> float:
        """Held-out loss of the weights as they are, nats a token."""
        return score(
            module, self.held_out, int(self.recipe.train.batch_size), self.filler, self.device.place
        ).mean

    @staticmethod
    def weights_of(folder: Path) -> dict[str, Tensor]:
        """Trained tensors of a checkpoint."""
        return load_file(folder / WEIGHTS)

    @property
    def schedule(self) -> Schedule:
        return schedule(self.recipe, len(self.rows))


class Order(Sampler[int]):
    """Rows of one pass, shuffled by seed and pass alone: a run that goes on needs no state of it."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows, self._seed, self._pass = rows, seed, 0

    def __len__(self) -> int:
        return self._rows

    def set_epoch(self, epoch: int) -> None:
        self._pass = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self._seed << 20) + self._pass)
        return iter(torch.randperm(self._rows, generator=generator).tolist())


class Steps(Trainer):  # type: ignore[misc]
    """Trainer over packed rows; the loss is the token sum divided by the tokens of the whole step."""

    def __init__(self, track: Track, curve: Curve, **given: Any) -> None:
        super().__init__(**given)
        self.model_accepts_loss_kwargs = True  # so that the step's token count reaches compute_loss
        self._track, self._curve = track, curve

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False,
                     num_items_in_batch: Tensor | int | None = None) -> Any:  # fmt: skip
        out = model(**inputs, num_items_in_batch=num_items_in_batch)
        self._curve.count(out["nll"], int(out["n"]))
        return (out["loss"], out) if return_outputs else out["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trackers are told of our own numbers, which know no break."""
        if "loss" in logs and self._curve.points:
            point = self._curve.points[-1]
            told = {"loss": point.loss, "learning_rate": point.learning_rate, "eval_loss": point.held_out}
            logs = logs | {key: value for key, value in told.items() if value is not None}
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return Order(len(self._track.rows), self._track.recipe.train.seed)

    # --- checkpoints, none of them written in place ---

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        state = weights(self.model)
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            raise self._curve.not_a_number(self.state.global_step)
        folder, step = self._track.folder, self.state.global_step
        try:
            aside = checkpoint.begin(folder, step)
            save_file(state, aside / WEIGHTS)
            self._curve.save(aside)
            self._save_optimizer_and_scheduler(str(aside))
            self._save_scaler(str(aside))
            self._save_rng_state(str(aside))
            self.state.save_to_json(str(aside / TRAINER_STATE_NAME))
            checkpoint.commit(aside)
            self._track.saved(step)
        except Exception as e:
            needed = room.checkpoint_bytes(sum(t.numel() for t in state.values()))
            is_full = _is_full(e, folder, needed)
            checkpoint.give_up(folder, step)
            if is_full:
                raise checkpoint.no_room(folder, self._track.name, needed) from e
            raise

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        trainable.restore(model or self.model, Track.weights_of(Path(resume_from_checkpoint)))

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int,
        resume_from_checkpoint: str | None, trial: Any,
    ) -> tuple[int, int]:  # fmt: skip
        """Passes done, and micro-batches done of the next one. Pieces may have another size than before."""
        super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, None, trial)
        if resume_from_checkpoint is None:
            return 0, 0
        saved = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
        for key in ("epoch", "global_step", "log_history", "total_flos", "num_input_tokens_seen"):
            setattr(self.state, key, getattr(saved, key))
        passes, steps = divmod(saved.global_step, num_update_steps_per_epoch)
        return passes, steps * self.args.gradient_accumulation_steps


def fit(
    module: PackedLoss, track: Track, *, stop: Stop, glimpse: Callable[[], Sample | None] | None = None
) -> Curve:
    """Train the module in place, from the newest checkpoint if there is one, and leave the best weights in it.

    Raises:
        DataError: the loss is not a number.
        OutOfSpace: no room for a checkpoint; the one before is whole.
    """
    curve, newest = begin(module, track, stop=stop, glimpse=glimpse)
    if not curve.is_over:
        trainer = Steps(
            track,
            curve,
            model=module,
            args=_arguments(track),
            train_dataset=track.rows,
            data_collator=lambda batch: {
                k: torch.from_numpy(v) for k, v in stack(batch, track.filler).items()
            },
            callbacks=[Watch(module, done=newest is not None), curve],
        )
        trainer.remove_callback(PrinterCallback)
        _keep_boards(trainer, Path("runs") / track.folder.name)
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if stop.asked and not curve.is_over:
        return curve
    settle(module, curve)
    return curve


def check_trackers(wanted: Sequence[str]) -> None:
    """Refuse a tracker that is not installed before anything is loaded.

    Raises:
        Unsupported: with those that are.
    """
    known = get_available_reporting_integrations()
    if missing := [name for name in wanted if name not in known]:
        raise Unsupported(
            f"'train.report_to' names {missing[0]!r}, which is not installed or not known; "
            f"there is {', '.join(known) or 'none'}.",
            hint=f"pip install {missing[0]}, or leave --report-to out",
        )


def _keep_boards(trainer: Trainer, folder: Path) -> None:
    """TensorBoard would write into the run's folder, which goes away with the run."""
    for callback in trainer.callback_handler.callbacks:
        if getattr(callback, "logging_dir", "") is None:
            callback.logging_dir = str(folder)


def begin(
    module: PackedLoss, track: Track, *, stop: Stop, glimpse: Callable[[], Sample | None] | None = None
) -> tuple[Curve, Path | None]:
    """The curve so far and the newest whole checkpoint; a new curve and None without any."""
    curve = Curve(
        module,
        track.recipe,
        test=(lambda: track.test(module)) if track.held_out else None,
        glimpse=glimpse,
        tell=track.tell,
        may_stop=track.may_stop,
        stop=stop,
    )
    newest = checkpoint.newest(track.folder, lambda line: track.tell(Said(line)))
    step = int(newest.name.rpartition("-")[2]) if newest else 0
    checkpoint.drop_after(track.folder, step)
    if newest:
        curve.read(newest)
    elif track.held_out:
        curve.base_loss = track.test(module)
    curve.start()
    track.tell(Begun(track.schedule.steps, track.schedule.in_pass, curve.base_loss, step))
    return curve, newest


def settle(module: PackedLoss, curve: Curve) -> None:
    """The best weights into the module; the last ones where nothing was tested."""
    if curve.best is not None:
        trainable.restore(module, curve.best[1])
    module.eval()


def _is_full(e: Exception, folder: Path, needed: int) -> bool:
    """Whether a full disk is behind an error; safetensors and torch tell of it by errors of their own."""
    if isinstance(e, OSError):
        return e.errno in (errno.ENOSPC, errno.EDQUOT)
    told = str(e).lower()
    return "no space left" in told or ("writ" in told and room.free_bytes(folder) < needed)


def _arguments(track: Track) -> TrainingArguments:
    train, device = track.recipe.train, track.device
    on_cpu = device.place.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(track.folder),
        max_steps=track.schedule.steps,
        per_device_train_batch_size=int(train.batch_size),
        gradient_accumulation_steps=max(1, track.schedule.per_step // int(train.batch_size)),
        learning_rate=float(train.learning_rate),
        lr_scheduler_type=train.scheduler,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.grad_clip,
        seed=train.seed,
        data_seed=train.seed,
        fp16=device.precision == "fp16",
        bf16=device.precision == "bf16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        # fused AdamW skips a step of fp16 by itself and tells nobody, so the schedule and Watch would count it
        optim="adamw_torch" if device.precision == "fp16" else "adamw_torch_fused",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        logging_strategy="no",  # the curve says when
        save_strategy="no",
        report_to=train.report_to or "none",
    )
    if arguments.n_gpu > 1:  # Trainer would wrap in DataParallel, which multiplies the rows of a step
        arguments._n_gpu = 1
    return arguments
