"""What is silenced still occurs, and nothing else is silenced."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from adapterkit.model.quiet import CAST, CHECKPOINTING, KERNELS, quiet_peft


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


IMPORT = """
import logging, sys
told = []
logging.getLogger("bitsandbytes.backends.cpu.ops").addHandler(type("H", (logging.Handler,), {"emit": lambda s, r: told.append(r.msg)})())
if "quiet" in sys.argv:
    from adapterkit.model.quiet import quiet_bitsandbytes
    quiet_bitsandbytes()
import bitsandbytes
from bitsandbytes.functional import has_avx512bf16
print(has_avx512bf16(), *told, sep="|")
"""


def _told_by_bitsandbytes(*how: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", IMPORT, *how], capture_output=True, text=True, check=True)
    has_avx512bf16, *told = done.stdout.strip().split("|")
    if has_avx512bf16 != "True":
        pytest.skip("this CPU has no avx512_bf16")
    return told


def test_bitsandbytes_still_asks_for_kernels() -> None:
    assert _told_by_bitsandbytes() == [KERNELS]


def test_bitsandbytes_is_quiet_about_kernels() -> None:
    assert _told_by_bitsandbytes("quiet") == []


PRODUCT = """
import logging, sys, torch
told = []
logging.getLogger("bitsandbytes.autograd._functions").addHandler(type("H", (logging.Handler,), {"emit": lambda s, r: told.append(r.msg)})())
if "quiet" in sys.argv:
    from adapterkit.model.quiet import quiet_bitsandbytes
    quiet_bitsandbytes()
from bitsandbytes.nn import Linear8bitLt
layer = Linear8bitLt(64, 64, has_fp16_weights=False, threshold=6.0).to("cpu").eval()
layer(torch.ones(2, 64))
print(*told, sep="|")
"""


def _told_by_a_product(*how: str) -> str:
    done = subprocess.run([sys.executable, "-c", PRODUCT, *how], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_product_in_8_bits_still_tells_of_its_cast() -> None:
    assert CAST in _told_by_a_product().split("|")


def test_a_product_in_8_bits_is_quiet() -> None:
    assert _told_by_a_product("quiet") == ""
