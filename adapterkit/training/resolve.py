"""Every ``auto`` of a recipe, decided once and stored.

What is learned depends on the recipe and the text alone: the number format and
the batch size follow the machine, the tokens of a step and their order do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapterkit.data.prepare import Prepared
from adapterkit.errors import RecipeError
from adapterkit.model.base import Base
from adapterkit.recipe.schema import Recipe

if TYPE_CHECKING:
    from adapterkit.model.device import Device  # imports torch, which describe does without

PASSES, LEAST_STEPS = 20, 60  # of epochs: auto
PATIENCE = 3  # tests without a better one before epochs: auto stops
PASSES_UNTESTED = 5  # nothing would stop it from copying
RATES = {"lora": 2e-4, "full": 5e-5}
SAVED = {"cpu": 50_000, "cuda": 1_000_000}  # tokens learned between checkpoints: about a minute's work
FULL_SAVED = 10  # times that where every weight is saved
AT_ONCE = {"cpu": 1024, "cuda": 8192}  # tokens computed at once; on a CPU more is slower


def row_length(recipe: Recipe, base: Base) -> int:
    """Tokens in a row: what the base can see, or less when asked.

    Raises:
        RecipeError: more than the base has positions for.
    """
    if (recipe.data.pad_to or 0) > base.context:
        raise RecipeError(
            f"'data.pad_to' is {recipe.data.pad_to}; the base {base.id} sees {base.context}.",
            hint=f"--data-pad-to {base.context}",
        )
    if recipe.train.max_length == "auto":
        return min(base.context, 1024)
    if recipe.train.max_length > base.context:
        raise RecipeError(
            f"'train.max_length' is {recipe.train.max_length}; the base {base.id} sees {base.context}.",
            hint=f"--max-length {base.context}",
        )
    return recipe.train.max_length


def resolve(recipe: Recipe, prepared: Prepared, base: Base, device: Device) -> Recipe:
    """The recipe with every ``auto`` replaced."""
    train, length = recipe.train, row_length(recipe, base)
    per_step = (
        tokens_per_step(prepared.train_tokens) if train.tokens_per_step == "auto" else train.tokens_per_step
    )
    rows = rows_per_step(per_step, length, len(prepared.train))
    wanted = AT_ONCE[device.place.type] // length if train.batch_size == "auto" else train.batch_size
    in_pass = max(1, math.ceil(len(prepared.train) / rows))
    most = max(PASSES, math.ceil(LEAST_STEPS / in_pass)) if prepared.held_out else PASSES_UNTESTED
    epochs = most if train.epochs == "auto" else train.epochs
    steps = max(1, round(in_pass * epochs))
    changes = {
        "epochs": float(epochs),
        "tokens_per_step": per_step,
        "batch_size": largest_divisor(rows, max(1, wanted)),
        "max_length": length,
        "learning_rate": RATES[recipe.method] if train.learning_rate == "auto" else train.learning_rate,
        "log_steps": max(1, steps // 100) if train.log_steps == "auto" else train.log_steps,
        "eval_steps": in_pass if train.eval_steps == "auto" else train.eval_steps,
        "save_steps": _save_steps(recipe, device, min(per_step, prepared.train_tokens)),
        "precision": device.precision,
        "device": device.place.type,
    }
    alpha = 2.0 * recipe.lora.r if recipe.lora.alpha == "auto" else recipe.lora.alpha
    return recipe.model_copy(
        update={
            "train": train.model_copy(update=changes),
            "lora": recipe.lora.model_copy(update={"alpha": alpha}),
            "data": recipe.data.model_copy(update=_of_text(recipe, prepared)),
        }
    )


def _save_steps(recipe: Recipe, device: Device, tokens: int) -> int:
    """Steps between checkpoints, by the tokens of a step alone."""
    if recipe.train.save_steps != "auto":
        return recipe.train.save_steps
    every = SAVED[device.place.type] * (FULL_SAVED if recipe.method == "full" else 1)
    return max(1, round(every / max(tokens, 1)))


def _of_text(recipe: Recipe, prepared: Prepared) -> dict[str, str]:
    """What reading decided; files that are each cut in their own way must go on deciding for themselves."""
    if prepared.facts.mixed:
        return {"document": recipe.data.document}
    return {"document": prepared.how, **prepared.facts.resolved}


@dataclass(frozen=True)
class Schedule:
    """How a resolved recipe goes through so many rows."""

    per_step: int  # rows of an optimizer step
    in_pass: int  # steps of a pass
    steps: int  # at most


def schedule(recipe: Recipe, rows: int) -> Schedule:
    train = recipe.train
    per_step = rows_per_step(int(train.tokens_per_step), int(train.max_length), rows)
    in_pass = max(1, math.ceil(rows / per_step))
    return Schedule(per_step, in_pass, max(1, round(in_pass * float(train.epochs))))


def rows_per_step(tokens_per_step: int, length: int, rows: int) -> int:
    return min(rows, max(1, round(tokens_per_step / length)))


def largest_divisor(rows: int, limit: int) -> int:
    """The largest part of a step that divides it evenly, so that every piece counts the same."""
    return max(d for d in range(1, min(rows, limit) + 1) if rows % d == 0)


def tokens_per_step(tokens: int) -> int:
    """A hundredth of the text, as a power of two from 1,024 to 16,384."""
    return int(min(16_384, max(1_024, 2 ** round(math.log2(max(tokens, 1) / 100)))))
