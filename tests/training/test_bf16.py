"""bfloat16 with our forward learns what float32 by transformers and PEFT learns."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adapterkit.data.encode import IGNORE
from adapterkit.data.pack import stack
from adapterkit.data.prepare import Prepared, prepare
from adapterkit.model.base import locate
from adapterkit.model.device import choose
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.model.trainable import attach_lora, load_model
from adapterkit.recipe.schema import DataSpec, LoraSpec, Recipe
from adapterkit.scoring.loss import PackedLoss, score

STEPS, ROWS, LENGTH = 200, 2, 128


def learned(prepared: Prepared, precision: str, *, ours: bool) -> float:
    """Held-out loss in float32 arithmetic after STEPS steps of AdamW."""
    recipe = Recipe(base="embedded", lora=LoraSpec(alpha=16.0, dropout=0.0))
    base = locate("embedded")
    torch.manual_seed(3)
    wrapped = attach_lora(load_model(base, choose("cpu", precision), recipe), recipe).train()
    module = PackedLoss(wrapped.get_base_model())
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-3)
    order = np.random.default_rng(0).integers(0, len(prepared.train), (STEPS, ROWS))
    for some in order:
        batch = {k: torch.from_numpy(v) for k, v in stack([prepared.train[int(i)] for i in some], 0).items()}
        loss = module(**batch)["loss"] if ours else by_transformers(wrapped, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    wrapped.float()
    return score(
        PackedLoss(wrapped.get_base_model(), fast=False), prepared.held_out, 4, 0, torch.device("cpu")
    ).mean


def by_transformers(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    out = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[
        :, :-1
    ]
    return F.cross_entropy(out.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORE)


@pytest.mark.slow
def test_after_two_hundred_steps_the_held_out_loss_is_the_references() -> None:
    text = resources.files("adapterkit.configs") / "texts" / "shanty.txt"
    prepared = prepare(
        DataSpec(source=str(text), document="blank-line"), Tokenizer(locate("embedded").folder), LENGTH
    )
    reference = learned(prepared, "fp32", ours=False)
    assert learned(prepared, "fp32", ours=True) == pytest.approx(reference, rel=1e-3)
    assert learned(prepared, "bf16", ours=True) == pytest.approx(reference, rel=5e-3)
