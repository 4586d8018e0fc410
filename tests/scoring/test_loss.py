"""Packed losses against documents run alone, and the probe that proves isolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from adapterkit.data.encode import Piece
from adapterkit.data.pack import pack, stack
from adapterkit.errors import CheckFailed
from adapterkit.scoring.loss import PackedLoss, probe_isolation, score

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_base: Path) -> Any:
    return GPT2LMHeadModel.from_pretrained(tiny_base).eval()


@pytest.fixture
def pieces() -> list[Piece]:
    rng = np.random.default_rng(0)
    return [
        Piece(rng.integers(0, 390, n).astype(np.int32), i) for i, n in enumerate((20, 31, 7, 11, 5, 40, 3))
    ]


def alone(model: Any, piece: Piece) -> float:
    """transformers' own loss of one document, first label -100, times its targets."""
    ids = torch.from_numpy(piece.tokens.astype(np.int64))[None]
    with torch.inference_mode():
        logits = model(ids).logits[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_give_the_losses_of_their_documents_alone(
    attention: str, model: Any, pieces: list[Piece]
) -> None:
    model.set_attn_implementation(attention)
    rows = pack(pieces, 64)
    got = score(PackedLoss(model), rows, 2, filler=0, device=CPU)
    assert got.n == sum(p.targets for p in pieces)
    assert got.nll / got.n == pytest.approx(sum(alone(model, p) for p in pieces) / got.n, abs=1e-5)


def test_the_score_does_not_depend_on_batch_size(model: Any, pieces: list[Piece]) -> None:
    rows = pack(pieces, 64)
    one, four = (score(PackedLoss(model), rows, b, filler=0, device=CPU).mean for b in (1, 4))
    assert one == pytest.approx(four, abs=1e-5)


def test_concat_packing_gives_other_losses(model: Any, pieces: list[Piece]) -> None:
    isolated, concat = (
        score(PackedLoss(model), pack(pieces, 64, m), 2, 0, CPU).mean for m in ("isolated", "concat")
    )
    assert abs(isolated - concat) > 1e-3


def test_the_probe_passes_without_a_cache(model: Any) -> None:
    assert probe_isolation(PackedLoss(model), 390, 64, CPU) == 0.0


def test_the_probe_fails_with_a_cache(model: Any) -> None:
    class Cached(PackedLoss):
        def hidden(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
            out = self.model.transformer(input_ids=input_ids, position_ids=position_ids, use_cache=True)  # type: ignore[operator, union-attr]
            return out.last_hidden_state  # type: ignore[no-any-return]

    with pytest.raises(CheckFailed, match="packed documents see each other"):
        probe_isolation(Cached(model), 390, 64, CPU)


def test_the_loss_divides_by_the_tokens_of_the_whole_step(model: Any, pieces: list[Piece]) -> None:
    batch = {k: torch.from_numpy(v) for k, v in stack(pack(pieces, 64), 0).items()}
    module = PackedLoss(model)
    own = module(**batch)
    assert float(module(**batch, num_items_in_batch=10)["loss"].detach()) == pytest.approx(
        float(own["nll"]) / 10, rel=1e-6
    )
