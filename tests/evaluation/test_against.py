"""The best version so far is scored on the new one's text, so that ``best`` moves by a fair comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

import adapterkit as ak
from adapterkit.data.pieces import Pieces
from adapterkit.evaluation.against import compare_with_best
from adapterkit.registry import evaluations
from adapterkit.registry.store import Registry
from adapterkit.training.plan import plan
from adapterkit.training.source import understand
from tests.evaluation.conftest import QUICK, write_text
from tests.make import make_base


@pytest.fixture
def later(here: Registry, tiny_base: Path) -> Any:
    """Train tales@3 on more text and compare it: (what was scored, the new version)."""

    def run(**keys: Any) -> tuple[ak.Version | None, ak.Version]:
        write_text(Path("tales.txt"), count=140)
        told = {"base": str(tiny_base), **QUICK, **keys}
        version = ak.train(Path("tales.txt"), name="tales", registry=here, **told)
        loaded, _ = understand(Path("tales.txt"), told, lambda e: None, verb="train")
        job = plan(loaded, name="tales", registry=here)
        assert job.prepared.held_out_fingerprint == version.metrics.held_out
        return compare_with_best(here, version, job.prepared, job.base, "cpu"), version

    return run


def test_best_moves_only_after_both_were_scored_on_the_same_text(here: Registry, later: Any) -> None:
    before = here.best("tales")
    scored, version = later(learning_rate=1e-6)
    assert scored == before
    assert here["tales"] == version
    assert here.best("tales") == before
    by = evaluations.yardstick(version)
    assert by is not None
    loss = evaluations.loss_by(here.path, before, by)
    assert loss is not None
    assert loss < (version.metrics.loss or 0)


def test_a_better_one_becomes_the_best(here: Registry, later: Any) -> None:
    scored, version = later(epochs=12)
    assert scored is not None
    assert here.best("tales") == version


def test_the_score_is_pefts_own(here: Registry, later: Any, tiny_base: Path) -> None:
    """Of the documents one by one, without a row longer than the base sees."""
    scored, version = later()
    pieces = _held_out(here, tiny_base)
    model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), scored.path).eval()
    nll, n = 0.0, 0
    with torch.inference_mode():
        for k in range(len(pieces)):
            ids = torch.from_numpy(pieces.tokens(k).astype("int64"))[None]
            nll += model(input_ids=ids, labels=ids, use_cache=False).loss.item() * (ids.shape[1] - 1)
            n += ids.shape[1] - 1
    by = evaluations.yardstick(version)
    assert by is not None
    assert evaluations.loss_by(here.path, scored, by) == pytest.approx(nll / n, abs=1e-5)


def _held_out(registry: Registry, base: Path) -> Pieces:
    loaded, _ = understand(Path("tales.txt"), {"base": str(base), **QUICK}, lambda e: None, verb="train")
    return plan(loaded, name="tales", registry=registry).prepared.held_out.pieces


def test_one_that_was_scored_already_is_not_scored_again(here: Registry, later: Any) -> None:
    scored, _ = later()
    assert (later()[0], count(here)) == (scored, 1)


def count(registry: Registry) -> int:
    return len((registry.path / "tales" / "evaluations.jsonl").read_text().splitlines())


def test_another_base_is_not_compared(here: Registry, later: Any, tmp_path: Path) -> None:
    scored, version = later(base=str(make_base(tmp_path / "other", seed=3)))
    assert scored is None
    assert here.best("tales") == version


def test_damaged_versions_do_not_stop_a_run(here: Registry, later: Any) -> None:
    for v in here.versions("tales"):
        path = v.path / "adapter_config.json"
        path.chmod(0o644)
        path.write_text(json.dumps({"peft_type": "LORA"}))
    assert later()[0] is None


def test_without_a_test_nothing_is_compared(here: Registry, later: Any) -> None:
    assert later(validation="none")[0] is None


def test_the_first_version_has_nothing_to_be_compared_with(here: Registry, tiny_base: Path) -> None:
    told = {"base": str(tiny_base), **QUICK}
    version = ak.train(Path("songs.txt"), name="first", registry=here, **told)
    loaded, _ = understand(Path("songs.txt"), told, lambda e: None, verb="train")
    job = plan(loaded, name="first", registry=here)
    assert compare_with_best(here, version, job.prepared, job.base, "cpu") is None
