"""That nothing is made on the CPU and used on a GPU, shown without one: by torch's fake CUDA tensors and its meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from adapterkit.generation import load
from adapterkit.generation.bits import Wide8
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import PageBank
from adapterkit.model.base import Base
from adapterkit.model.nf4 import Nf4, require
from adapterkit.registry.strict import read_lora
from tests.make import make_peft_adapter

CUDA, META = torch.device("cuda", 0), torch.device("meta")
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_8_bit_product_stays_on_the_gpu_and_never_waits_for_it(dtype: torch.dtype) -> None:
    with FakeTensorMode():
        weight = torch.empty(96, 64, dtype=torch.int8, device=CUDA)
        matrix = Wide8(weight, torch.empty(96, dtype=dtype, device=CUDA), torch.empty(96, device=CUDA))
        y = matrix(torch.empty(5, 64, dtype=dtype, device=CUDA))
    assert (y.device, y.dtype, y.shape) == (CUDA, dtype, (5, 96))


@pytest.mark.parametrize("n_in", [64, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_4_bit_product_stays_on_the_gpu_and_never_waits_for_it(dtype: torch.dtype, n_in: int) -> None:
    require(4)
    blocks = 96 * n_in // 64
    with FakeTensorMode():
        packed, scales = (torch.empty(n, dtype=torch.uint8, device=CUDA) for n in (96 * n_in // 2, blocks))
        code, largest, offset = (torch.empty(n, device=CUDA) for n in (256, 1, 1))
        matrix = Nf4(packed.unsqueeze(1), torch.empty(96, dtype=dtype, device=CUDA), scales, code, largest, offset)  # fmt: skip
        y = matrix(torch.empty(5, n_in, dtype=dtype, device=CUDA))
    assert (y.device, y.dtype, y.shape) == (CUDA, dtype, (5, 96))


def test_the_two_above_would_have_seen_a_fault() -> None:
    with FakeTensorMode():
        here, there = torch.empty(5), torch.empty(5, device=CUDA)
        with pytest.raises(RuntimeError, match="two devices"):
            here + there
        with pytest.raises(DataDependentOutputException):
            there.sum().item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", [("base", "small", "both"), ("small", "small"), ("base", "base")])
def test_the_model_and_its_routes_stay_on_their_device(kinds: tuple[str, ...], dtype: torch.dtype, tiny_base: Path, tmp_path: Path) -> None:  # fmt: skip
    base = Base("tiny", tiny_base)
    model = GPT2(base.config, load.read_tensors(base.weights), META, dtype)
    bank = PageBank(base.dims, META, dtype)
    folders = [make_peft_adapter(tmp_path / str(r), tiny_base, seed=r, r=r, targets=["attn.c_attn", "mlp.c_proj"]) for r in (4, 20)]  # fmt: skip
    small, wide = (bank.load(read_lora(folder, base.dims, "a")) for folder in folders)
    ways = {"base": (), "small": ((small, 1.0),), "both": ((small, 0.3), (wide, 0.7))}
    route = bank.route([ways[kind] for kind in kinds])
    logits = model.logits(torch.zeros(len(kinds), 7, dtype=torch.long, device=META), route)
    assert (logits.device, logits.dtype) == (META, torch.float32)
    assert {t.device for _, t in model.named_tensors()} == {META}
