"""Packed losses against documents run alone, and the probe that proves isolation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import GPT2LMHeadModel

from adapterkit.data.encode import IGNORE
from adapterkit.data.pack import Rows, pack, stack
from adapterkit.data.pieces import Pieces
from adapterkit.data.text import Document
from adapterkit.errors import CheckFailed
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.scoring.loss import PackedLoss, probe_isolation, score
from tests.data.words import ANY_TEXT, whole
from tests.make import make_base

CPU = torch.device("cpu")
FILLER = 7
Load = Callable[..., Any]
WAYS = [(method, attention, mode) for method in ("full", "lora") for attention in ("ours", "sdpa", "eager") for mode in ("train", "eval")]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small base with 128 positions, so that documents of all lengths fit a row."""
    return make_base(tmp_path_factory.mktemp("base") / "long", seed=1, positions=128)


@pytest.fixture(scope="module")
def load(base: Path) -> Load:
    """A model without dropout: all of it, or PEFT's wrapper around it with random A and B; each is loaded once."""

    @cache
    def make(method: str = "full", attention: str = "ours", mode: str = "eval") -> Any:
        model = GPT2LMHeadModel.from_pretrained(base, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        model.ours = attention == "ours"  # else transformers' forward with that attention
        if attention != "ours":
            model.set_attn_implementation(attention)
        if method == "lora":
            model = get_peft_model(
                model,
                LoraConfig(
                    r=4,
                    lora_alpha=8,
                    lora_dropout=0.0,
                    target_modules=["attn.c_attn", "mlp.c_fc"],
                    fan_in_fan_out=True,
                    task_type="CAUSAL_LM",
                ),
            )
            torch.manual_seed(3)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_" in name:
                        parameter.normal_(0, 0.05)
        return model.train(mode == "train")

    return make


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Tokenizer:
    return Tokenizer(base)


def _documents(texts: list[list[tuple[str, bool]]]) -> list[Document]:
    return [Document("a.txt", i, "").rebuilt(t) for i, t in enumerate(texts)]


TEXTS = [
    [("The lamp was lit and the tide came in over the stones.", True)],
    [("Why did the baker burn it?\n", False), ("Because the bread was late.", True)],
    [("Rain.", True)],
    [("User: Hi\nAssistant:", False), (" Hello.\nUser:", True), (" Bye\n", False), ("Naïve 🙂 bye.", True)],
    [("A grey cat sat on the wall", True)],
    [("", True)],
]


@pytest.fixture(scope="module")
def pieces(tokenizer: Tokenizer) -> Pieces:
    return whole(_documents(TEXTS), tokenizer)


def packed(model: Any) -> PackedLoss:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return PackedLoss(inner, fast=inner.ours)


def alone(model: Any, pieces: Pieces, k: int) -> Tensor:
    """transformers' own loss of one piece, which it averages, times its targets."""
    ids = torch.from_numpy(pieces.tokens(k).astype(np.int64))[None]
    labels = ids.masked_fill(~torch.from_numpy(pieces.learned(k))[None], IGNORE)
    loss: Tensor = model(input_ids=ids, labels=labels, use_cache=False).loss * int(pieces.targets[k])
    return loss


def batch_of(rows: Rows) -> dict[str, Tensor]:
    return {k: torch.from_numpy(v) for k, v in stack(list(rows), FILLER).items()}


# --- packed and alone ---


@pytest.mark.parametrize(("method", "attention", "mode"), WAYS)
@pytest.mark.parametrize("packing", ["isolated", "none"])
def test_every_row_has_the_losses_of_its_documents_alone(
    method: str, attention: str, mode: str, packing: str, load: Load, pieces: Pieces
) -> None:
    """By plain transformers and PEFT; documents, pairs and a chat, some of them in padded rows."""
    model = load(method, attention, mode)
    rows = pack(pieces, 100, FILLER, mode=packing)
    for i, row in enumerate(rows):
        got = packed(model)(**{k: torch.from_numpy(v) for k, v in stack([row], FILLER).items()})
        wanted = sum(alone(model, rows.pieces, k).item() for k in rows.members(i))
        assert got["nll"].item() / row.targets == pytest.approx(wanted / row.targets, abs=1e-5)
    whole_batch = packed(model)(**batch_of(rows))
    total = sum(alone(model, pieces, k).item() for k in range(len(pieces)))
    assert int(whole_batch["n"]) == int(pieces.targets.sum())
    assert whole_batch["loss"].item() == pytest.approx(total / int(whole_batch["n"]), abs=1e-5)


@pytest.mark.parametrize(("method", "attention", "mode"), WAYS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(
        st.lists(st.tuples(ANY_TEXT, st.sampled_from([True, True, False])), min_size=1, max_size=3), min_size=1, max_size=8
    ),
    length=st.integers(16, 128),
)  # fmt: skip
def test_random_documents_lose_as_much_packed_as_alone(
    method: str, attention: str, mode: str, texts: list[list[tuple[str, bool]]], length: int, load: Load, tokenizer: Tokenizer
) -> None:  # fmt: skip
    """Those longer than a row go on in the next, and are compared stretch by stretch."""
    model = load(method, attention, mode)
    rows = pack(whole(_documents(texts), tokenizer), length, FILLER)
    got = packed(model)(**batch_of(rows))
    total = sum(alone(model, rows.pieces, k).item() for k in range(len(rows.pieces)))
    assert int(got["n"]) == rows.targets
    assert got["nll"].item() / rows.targets == pytest.approx(total / rows.targets, abs=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("attention", ["ours", "sdpa", "eager"])
def test_packed_gradients_are_those_of_the_documents_alone(
    method: str, attention: str, load: Load, pieces: Pieces
) -> None:
    model = load(method, attention, "train")
    parameters = [p for p in model.parameters() if p.requires_grad]
    together = packed(model)(**batch_of(pack(pieces, 100, FILLER)))["loss"]
    one_by_one = torch.stack([alone(model, pieces, k) for k in range(len(pieces))]).sum() / int(
        pieces.targets.sum()
    )
    for ours, theirs in zip(
        torch.autograd.grad(together, parameters), torch.autograd.grad(one_by_one, parameters), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("attention", ["ours", "sdpa", "eager"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_concat_gives_the_losses_of_the_row_as_one_text(
    attention: str, mode: str, load: Load, pieces: Pieces
) -> None:
    model = load("full", attention, mode)
    rows = pack(pieces, 128, FILLER, mode="concat")
    total = 0.0
    for row in rows:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
        labels = torch.from_numpy(row.labels.astype(np.int64))[None]
        total += model(input_ids=ids, labels=labels, use_cache=False).loss.item() * row.targets
    assert packed(model)(**batch_of(rows))["nll"].item() / rows.targets == pytest.approx(total / rows.targets, abs=1e-5)  # fmt: skip


def test_concat_packing_gives_other_losses(load: Load, pieces: Pieces) -> None:
    module = packed(load())
    isolated, concat = (
        score(module, pack(pieces, 128, FILLER, mode=m), 2, FILLER, CPU).mean for m in ("isolated", "concat")
    )
    assert abs(isolated - concat) > 1e-3


# --- the score ---


@pytest.mark.parametrize("attention", ["ours", "sdpa", "eager"])
def test_the_score_is_that_of_the_documents_alone(attention: str, load: Load, pieces: Pieces) -> None:
    model = load("full", attention)
    got = score(packed(model), pack(pieces, 100, FILLER), 2, FILLER, CPU)
    with torch.inference_mode():
        total = sum(alone(model, pieces, k).item() for k in range(len(pieces)))
    assert (got.n, got.nll / got.n) == (int(pieces.targets.sum()), pytest.approx(total / got.n, abs=1e-5))


def test_the_score_does_not_depend_on_batch_size(load: Load, pieces: Pieces) -> None:
    rows, module = pack(pieces, 64, FILLER), packed(load())
    one, four = (score(module, rows, b, FILLER, CPU).mean for b in (1, 4))
    assert one == pytest.approx(four, abs=1e-5)


def test_the_score_does_not_depend_on_the_filler(load: Load, pieces: Pieces) -> None:
    rows, module = pack(pieces, 64, FILLER), packed(load())
    one, other = (score(module, rows, 4, filler, CPU).mean for filler in (0, 300))
    assert one == pytest.approx(other, abs=1e-6)


def test_scoring_leaves_the_model_in_training(load: Load, pieces: Pieces) -> None:
    module = packed(load(mode="train"))
    score(module, pack(pieces, 64, FILLER), 2, FILLER, CPU)
    assert module.model.training


def test_the_loss_divides_by_the_tokens_of_the_whole_step(load: Load, pieces: Pieces) -> None:
    batch, module = batch_of(pack(pieces, 64, FILLER)), packed(load())
    own = module(**batch)
    assert float(module(**batch, num_items_in_batch=10)["loss"].detach()) == pytest.approx(
        float(own["nll"]) / 10, rel=1e-6
    )


# --- the probe ---


@pytest.mark.parametrize("attention", ["ours", "sdpa", "eager"])
def test_the_probe_passes_without_a_cache(attention: str, load: Load) -> None:
    assert probe_isolation(packed(load(attention=attention)), 390, 64, CPU) == 0.0


def test_the_probe_fails_with_a_cache(load: Load) -> None:
    class Cached(PackedLoss):
        def hidden(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
            out = self.model.transformer(input_ids=input_ids, position_ids=position_ids, use_cache=True)  # type: ignore[operator, union-attr]
            return out.last_hidden_state  # type: ignore[no-any-return]

    with pytest.raises(CheckFailed, match="packed documents see each other"):
        probe_isolation(Cached(load(attention="sdpa")), 390, 64, CPU)
