"""What a run has seen so far: points, tests, best weights, patience. It is saved and read back whole.

Loss, tokens and seconds are counted here and not by transformers' Trainer,
which begins anew when a run goes on; so the history of a run that was broken
off is that of one that was not, but for the seconds.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from adapterkit import files
from adapterkit.errors import DataError
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.version import Point, Sample
from adapterkit.training.events import Listener, Said, Sampled, Stepped, Tested, ignore
from adapterkit.training.resolve import PATIENCE
from adapterkit.training.stop import Stop

TOLD, BEST = "curve.json", "best.safetensors"


class Curve(TrainerCallback):  # type: ignore[misc]
    """Points of the curve, tests on the held-out text, the best weights, the stop.

    Args:
        module: whose parameters with ``requires_grad`` are trained.
        test: the held-out loss of the weights as they are; None where nothing is held out.
        glimpse: a short text by the weights as they are; None where that costs too much.
        may_stop: end when the held-out loss gets no better PATIENCE times.
        stop: asked by a signal.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        *,
        test: Callable[[], float] | None = None,
        glimpse: Callable[[], Sample | None] | None = None,
        tell: Listener = ignore,
        may_stop: bool = False,
        stop: Stop | None = None,
    ) -> None:
        self._module, self._recipe = module, recipe
        self._test, self._glimpse, self._tell = test, glimpse, tell
        self._may_stop, self._stop = may_stop, stop or Stop()
        self._begun = time.monotonic()
        self._away = 0.0  # seconds of this process that went into tests and samples
        self._nll, self._n = torch.zeros((), dtype=torch.float64), 0  # since the last point
        self._new = 0  # tokens since this process began
        self._before = 0.0  # seconds of the processes before
        self._misses = 0
        self._rate: float | None = None
        self.loss: float | None = None  # nats a token between the last two points
        self.tokens = 0  # learned from so far, each as often as it was
        self.is_over = False  # by patience, time or the last step
        self.points: list[Point] = []
        self.sampled: list[tuple[int, Sample]] = []
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.base_loss: float | None = None

    @property
    def seconds(self) -> float:
        """Of all processes of the run."""
        return self._before + time.monotonic() - self._begun

    def start(self) -> None:
        """The clock of this process begins now."""
        self._begun, self._new, self._away = time.monotonic(), 0, 0.0

    def count(self, nll: Tensor, n: int) -> None:
        """Learned from n more tokens with a summed loss; stays on the device, so that nothing waits for it."""
        self._nll = self._nll.to(nll.device) + nll.double()
        self._n, self._new, self.tokens = self._n + n, self._new + n, self.tokens + n

    # --- in training ---

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, train = state.global_step, self._recipe.train
        late = train.minutes is not None and self.seconds >= 60 * train.minutes
        ends = late or step == state.max_steps
        tests = self._test is not None and (ends or step % int(train.eval_steps) == 0)
        if tests or ends or step % int(train.log_steps) == 0:
            self._measure(step)
            control.should_log = True
        held_out, stops = self._score(state, ends) if tests else (None, False)
        if control.should_log:
            seconds = round(self.seconds, 2)
            self.points.append(Point(step, self.tokens, self.loss, held_out, self._rate, seconds))
        if late and step < state.max_steps:
            self._tell(
                Said(f"The {train.minutes:g} minutes are over after step {step:,}: the best so far is kept.")
            )
        self.is_over = ends or stops
        control.should_save = tests or ends or self._stop.asked or step % int(train.save_steps) == 0
        control.should_training_stop |= self.is_over or self._stop.asked

    def _measure(self, step: int) -> None:
        """The loss since the last point.

        Raises:
            DataError: it is not a number.
        """
        nll, self._nll, n, self._n = float(self._nll), torch.zeros((), dtype=torch.float64), self._n, 0
        self.loss = nll / n if n else self.loss
        if self.loss is not None and not math.isfinite(self.loss):
            raise self.not_a_number(step)
        speed = self._new / max(time.monotonic() - self._begun - self._away, 1e-9)
        self._tell(Stepped(step, self.loss, speed))

    def _score(self, state: Any, ends: bool) -> tuple[float, bool]:
        """Test and write a little, both without touching the random numbers: loss, and whether patience is over."""
        assert self._test is not None
        left = time.monotonic()
        cuda = {p.device for p in self._module.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=cuda):
            loss = self._test()
            sample = self._glimpse() if self._glimpse else None
        self._away += time.monotonic() - left
        step = state.global_step
        if not math.isfinite(loss):
            raise self.not_a_number(step)
        is_best = self.best is None or loss < self.best[0]
        if is_best:
            self.take(loss)
        self._misses = 0 if is_best else self._misses + 1
        stops = self._may_stop and self._misses >= PATIENCE and not ends
        scored = [(p.held_out, p.step) for p in self.points if p.held_out is not None]
        best = step if is_best else min(scored)[1]
        self._tell(Tested(step, float(state.epoch or 0), self.loss, loss, is_best, stops, best, self.seconds))
        if sample is not None:
            self.sampled.append((step, sample))
            self._tell(Sampled((sample,), step))
        return loss, stops

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self._rate = float(optimizer.param_groups[0]["lr"])  # of this step; the schedule goes on after it

    def take(self, loss: float) -> None:
        """The weights as they are now are the best so far."""
        self.best = (loss, weights(self._module))

    def release(self) -> None:
        """Let go of the model; what was seen stays."""
        self._module, self._test, self._glimpse = nn.Module(), None, None

    def not_a_number(self, step: int) -> DataError:
        return DataError(
            f"the loss is not a number at step {step:,}; nothing was published.",
            hint=f"a smaller rate: --learning-rate {float(self._recipe.train.learning_rate) / 4:g}, or --precision fp32",
            code="nan-loss",
            details={"step": step},
        )

    # --- saved and read back ---

    def save(self, folder: Path) -> None:
        told = {
            "loss": self.loss,
            "nll": float(self._nll),
            "n": self._n,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "misses": self._misses,
            "is_over": self.is_over,
            "points": [asdict(p) for p in self.points],
            "sampled": [[step, asdict(sample)] for step, sample in self.sampled],
            "best": self.best[0] if self.best else None,
            "base_loss": self.base_loss,
        }
        (folder / TOLD).write_bytes(files.canonical_json(told))
        if self.best:
            save_file(self.best[1], folder / BEST)

    def read(self, folder: Path) -> None:
        told = json.loads((folder / TOLD).read_bytes())
        self.loss, self.tokens, self.is_over = told["loss"], told["tokens"], told["is_over"]
        self._nll, self._n = torch.tensor(told["nll"], dtype=torch.float64), told["n"]
        self._before, self._misses, self.base_loss = told["seconds"], told["misses"], told["base_loss"]
        self.points = [Point(**p) for p in told["points"]]
        self.sampled = [(step, Sample(**sample)) for step, sample in told["sampled"]]
        self.best = (told["best"], load_file(folder / BEST)) if told["best"] is not None else None


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the trained tensors by name, in main memory."""
    trained = ((n, p) for n, p in module.named_parameters() if p.requires_grad)
    return {n: p.detach().to("cpu", copy=True).contiguous() for n, p in trained}
