"""What is silenced still occurs, and nothing else is silenced."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from adapterkit.model.quiet import CHECKPOINTING, quiet_peft


def _attach(base: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    targets = ["attn.c_attn"]
    config: Any = LoraConfig(r=2, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM")
    get_peft_model(GPT2LMHeadModel.from_pretrained(base), config)


def test_peft_still_warns_of_its_own_use_of_an_old_name(tiny_base: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _attach(tiny_base)
    assert (CHECKPOINTING, FutureWarning) in [(str(w.message), w.category) for w in caught]


def test_attaching_is_quiet(tiny_base: Path) -> None:
    with quiet_peft():  # warnings are errors in these tests
        _attach(tiny_base)


def test_other_warnings_pass() -> None:
    with quiet_peft(), pytest.warns(FutureWarning, match="and more"):
        warnings.warn(CHECKPOINTING + " and more", FutureWarning, stacklevel=1)
