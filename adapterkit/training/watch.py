"""Does everything that should learn learn? Looked at in the first steps, then never again.

A layer that is cut off from the loss trains without a word and leaves an
adapter that does nothing. So at the first optimizer step every ``lora_B`` (of a
full fine-tune every tensor) must have a gradient, and after three steps every
trained tensor must have other bytes than before. Steps that fp16's scaler
skipped and steps of a warm-up with next to no learning rate do not count.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from adapterkit.errors import CheckFailed

STEPS = 3  # lora_A moves from the second on: B is 0 in the first
SKIPS = 50  # halvings of fp16's first scale of 65,536, after which it would be no number to speak of
LEAST = 0.05  # of the peak rate; a step at the begin of a long warm-up may be less than float32 can tell
REPORT = "report this with your versions: adapterkit doctor"


class Watch(TrainerCallback):  # type: ignore[misc]
    """Ends a run that can't learn, with the name of the tensor.

    Args:
        module: whose parameters with ``requires_grad`` are trained.
        done: nothing is checked, as the run that goes on from a checkpoint was before.

    Raises, while training:
        CheckFailed: no gradient, one that is not finite, or a tensor that stays the same.
    """

    def __init__(self, module: nn.Module, done: bool = False) -> None:
        self._module, self.done = module, done
        self._before: dict[str, bytes] = {}
        self._steps = self._skips = 0
        self._saw_gradients = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.done:
            self._before = {name: _digest(p) for name, p in self._trained().items()}

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """After the weights were changed, before the gradients are cleared and the rate goes on."""
        if self.done:
            return
        if getattr(optimizer, "step_was_skipped", False):
            self._skipped()
            return
        if not self._saw_gradients:
            self._check_gradients()
            self._saw_gradients = True
        if any(
            group["lr"] >= LEAST * args.learning_rate and group["lr"] > 0 for group in optimizer.param_groups
        ):
            self._steps += 1
        if self._steps >= STEPS:
            self._check_changes()
            self.done = True
            self._before.clear()

    def _trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self._module.named_parameters() if p.requires_grad}

    def _check_gradients(self) -> None:
        trained = self._trained()
        # lora_A has no gradient yet: it is multiplied by B, which begins as 0
        first = {n: p for n, p in trained.items() if "lora_B" in n} or trained
        missing = [n for n, p in first.items() if p.grad is None or not bool(p.grad.any())]
        odd = [n for n, p in first.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
        if odd:
            raise CheckFailed(
                f"the first gradient of {_named(odd)} is not finite; nothing was learned.",
                hint="--precision fp32; if that does not help, " + REPORT,
                code="gradient",
                details={"tensors": odd},
            )
        if missing:
            raise CheckFailed(
                f"the loss gives no gradient to {_named(missing)}; nothing would be learned there.",
                hint=REPORT,
                code="gradient",
                details={"tensors": missing},
            )

    def _check_changes(self) -> None:
        same = [n for n, p in self._trained().items() if _digest(p) == self._before[n]]
        if same:
            raise CheckFailed(
                f"the first {STEPS} steps did not change {_named(same)} by a single bit; it does not learn.",
                hint=f"a higher --learning-rate; else {REPORT}",
                code="unchanged",
                details={"tensors": same},
            )

    def _skipped(self) -> None:
        self._skips += 1
        if self._skips >= SKIPS and not self._saw_gradients:
            raise CheckFailed(
                f"the first {SKIPS} steps all overflowed in fp16 and were skipped; nothing was learned.",
                hint="--precision bf16 or fp32",
                code="gradient",
            )


def _digest(tensor: Tensor) -> bytes:
    """Of a tensor's bytes: tells any change, in place of a copy of every weight of a full fine-tune."""
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).digest()


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more
