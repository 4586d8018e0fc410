"""Scores against plain transformers and PEFT, and a base that is the same after any adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

from adapterkit.data.pack import Rows, pack
from adapterkit.data.pieces import Pieces
from adapterkit.data.text import Document
from adapterkit.errors import Damaged, DataError
from adapterkit.evaluation.score import Scorer, fp32_losses
from adapterkit.model.base import Base, locate
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import LoraFiles, read_lora
from tests.conftest import SENTENCES
from tests.data.words import whole


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return locate(str(tiny_base))


@pytest.fixture
def tokenizer(tiny_base: Path) -> Tokenizer:
    return Tokenizer(tiny_base)


@pytest.fixture
def pieces(tokenizer: Tokenizer) -> Pieces:
    """Documents shorter than a row, some of them empty or a word."""
    texts = [*SENTENCES, "", "Rain", SENTENCES[0][:20]]
    return whole([Document("a.txt", i, t) for i, t in enumerate(texts)], tokenizer)


def rows_of(pieces: Pieces, tokenizer: Tokenizer, mode: str = "isolated") -> Rows:
    return pack(pieces, 64, tokenizer.end, mode=mode)


def one_by_one(model: Any, pieces: Pieces) -> float:
    """Nats a token by transformers' own loss, a document at a time."""
    nll, n = 0.0, 0
    with torch.inference_mode():
        for k in range(len(pieces)):
            ids = torch.from_numpy(pieces.tokens(k).astype("int64"))[None]
            count = ids.shape[1] - 1
            nll += model(input_ids=ids, labels=ids, use_cache=False).loss.item() * count
            n += count
    return nll / n


def lora(registry: Registry, ref: str, base: Base) -> LoraFiles:
    return read_lora(registry[ref].path, base.dims, ref)


def test_the_base_has_transformers_own_loss(base: Base, pieces: Pieces, tokenizer: Tokenizer) -> None:
    wanted = one_by_one(GPT2LMHeadModel.from_pretrained(base.folder).eval(), pieces)
    assert Scorer(base, "cpu").loss(rows_of(pieces, tokenizer)).mean == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("ref", ["tales@1", "tales@2"])
def test_an_adapter_has_pefts_own_loss(
    ref: str, here: Registry, base: Base, pieces: Pieces, tokenizer: Tokenizer
) -> None:
    model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base.folder), here[ref].path).eval()
    got = Scorer(base, "cpu").loss(rows_of(pieces, tokenizer), [(lora(here, ref, base), 1.0)])
    assert got.mean == pytest.approx(one_by_one(model, pieces), abs=1e-5)


def test_a_blend_has_the_loss_of_the_weighted_sum(
    here: Registry, base: Base, pieces: Pieces, tokenizer: Tokenizer
) -> None:
    """The sum is made by PEFT, which merges one adapter after the other at its weight."""
    model: Any = GPT2LMHeadModel.from_pretrained(base.folder)
    shares = {"tales@1": 0.7, "songs@1": -0.4, "tales@2": 0.2}
    for ref, weight in shares.items():
        wrapped = PeftModel.from_pretrained(model, here[ref].path)
        for module in wrapped.modules():
            if hasattr(module, "lora_A"):
                module.scaling["default"] *= weight
        model = wrapped.merge_and_unload()
    parts = [(lora(here, ref, base), weight) for ref, weight in shares.items()]
    got = Scorer(base, "cpu").loss(rows_of(pieces, tokenizer), parts)
    assert got.mean == pytest.approx(one_by_one(model.eval(), pieces), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("mode", ["isolated", "none"])
def test_neither_packing_nor_batch_changes_a_loss(
    mode: str, batch_size: int, here: Registry, base: Base, pieces: Pieces, tokenizer: Tokenizer
) -> None:
    scorer, parts = Scorer(base, "cpu"), [(lora(here, "tales@1", base), 1.0)]
    reference = scorer.loss(rows_of(pieces, tokenizer), parts, batch_size=1)
    got = scorer.loss(rows_of(pieces, tokenizer, mode), parts, batch_size=batch_size)
    assert (got.n, got.mean) == (reference.n, pytest.approx(reference.mean, abs=1e-5))


def test_the_base_is_the_same_to_the_bit_after_adapters(
    here: Registry, base: Base, pieces: Pieces, tokenizer: Tokenizer
) -> None:
    scorer, rows = Scorer(base, "cpu"), rows_of(pieces, tokenizer)
    before = {n: p.clone() for n, p in scorer._core.named_parameters()}
    first = scorer.loss(rows)
    changed = scorer.loss(rows, [(lora(here, "tales@2", base), 1e4)])
    assert changed.nll != first.nll
    assert scorer.loss(rows).nll == first.nll
    assert all(torch.equal(p, before[n]) for n, p in scorer._core.named_parameters())


def test_the_base_is_put_back_when_scoring_fails(
    here: Registry, base: Base, pieces: Pieces, tokenizer: Tokenizer
) -> None:
    scorer, rows = Scorer(base, "cpu"), rows_of(pieces, tokenizer)
    first = scorer.loss(rows)

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.loss(rows, [(lora(here, "tales@1", base), 1.0)], progress=stop)
    assert scorer.loss(rows).nll == first.nll


def test_progress_counts_rows(base: Base, pieces: Pieces, tokenizer: Tokenizer) -> None:
    told: list[tuple[int, int]] = []
    rows = rows_of(pieces, tokenizer, "none")
    Scorer(base, "cpu").loss(rows, batch_size=4, progress=lambda done, of: told.append((done, of)))
    assert told == [(min(i + 4, len(rows)), len(rows)) for i in range(0, len(rows), 4)]


def test_nothing_to_score_is_an_error(base: Base, pieces: Pieces, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="nothing to score"):
        Scorer(base, "cpu").loss(rows_of(pieces.take(pieces.targets < 0), tokenizer))


@pytest.mark.parametrize("ref", ["tales@1", "whole@1"])
def test_a_run_is_told_both_losses(
    ref: str, here: Registry, base: Base, pieces: Pieces, tokenizer: Tokenizer
) -> None:
    rows = rows_of(pieces, tokenizer)
    got = fp32_losses(base, here[ref].path, rows, device="cpu", batch_size=2)
    model: Any = GPT2LMHeadModel.from_pretrained(here[ref].path if ref == "whole@1" else base.folder)
    if ref != "whole@1":
        model = PeftModel.from_pretrained(model, here[ref].path)
    assert got.base.mean == pytest.approx(Scorer(base, "cpu").loss(rows).mean, abs=1e-6)
    assert got.adapter is not None
    assert got.adapter.mean == pytest.approx(one_by_one(model.eval(), pieces), abs=1e-5)


def test_a_base_alone_has_one_loss(base: Base, pieces: Pieces, tokenizer: Tokenizer) -> None:
    assert fp32_losses(base, None, rows_of(pieces, tokenizer), device="cpu").adapter is None


def test_files_that_are_no_adapter_are_refused(
    base: Base, pieces: Pieces, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Damaged, match="the new adapter"):
        fp32_losses(base, tmp_path, rows_of(pieces, tokenizer), device="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("ref", ["tales@1", "whole@1"])
def test_a_gpu_gives_the_loss_of_the_cpu(
    ref: str, here: Registry, base: Base, pieces: Pieces, tokenizer: Tokenizer
) -> None:
    rows = rows_of(pieces, tokenizer)
    cpu, gpu = (fp32_losses(base, here[ref].path, rows, device=d).adapter for d in ("cpu", "cuda"))
    assert cpu is not None
    assert gpu is not None
    assert gpu.mean == pytest.approx(cpu.mean, abs=1e-4)
