"""An adapter that was really trained elsewhere, from the data folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from adapterkit.errors import BaseMismatch
from adapterkit.registry.store import Registry
from adapterkit.sharing.incoming import add

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def shape_of_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of the real size, random weights, and the real tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "random-gpt2"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        shutil.copy(_data() / "gpt2-tokenizer" / name, folder / name)
    return folder


def test_it_is_refused_for_another_base(registry: Registry, shape_of_gpt2: Path) -> None:
    with pytest.raises(BaseMismatch, match="was made for gpt2; this base is random-gpt2") as told:
        add(registry, _adapter(), base=str(shape_of_gpt2))
    assert "--force-base" in told.value.hint
    assert registry.names() == []


def test_with_force_it_computes_what_peft_computes(registry: Registry, shape_of_gpt2: Path) -> None:
    version = add(registry, _adapter(), base=str(shape_of_gpt2), force_base=True)
    assert version.ref == "gpt2-tigrinya@1"
    assert version.manifest["base"]["named"] == "gpt2"
    assert version.manifest["lora"] == {
        "r": 8,
        "alpha": 32.0,
        "targets": ["attn.c_attn", "attn.c_proj", "mlp.c_proj"],
    }
    theirs, ours = (_logits(shape_of_gpt2, folder) for folder in (_adapter(), version.path))
    assert (theirs - ours).abs().max() < 1e-6
    assert (theirs - _logits(shape_of_gpt2, None)).abs().max() > 1e-3


def _logits(base: Path, folder: Path | None) -> torch.Tensor:
    model = GPT2LMHeadModel.from_pretrained(base).eval()
    model = PeftModel.from_pretrained(model, folder).eval() if folder else model
    with torch.inference_mode():
        return model(input_ids=torch.arange(9)[None] * 1000).logits  # type: ignore[no-any-return]


def _data() -> Path:
    return Path(os.environ["ADAPTERKIT_DATA"])


def _adapter() -> Path:
    return _data() / "foreign-adapters" / "gpt2-tigrinya"
