"""8- and 4-bit matrices for a GPU, on a CPU beside bitsandbytes and transformers. What CUDA adds is in ``test_gpu``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BitsAndBytesConfig, GPT2LMHeadModel

from adapterkit.errors import Unsupported
from adapterkit.generation import load, weights
from adapterkit.generation.bits import Narrow, Wide8, narrow
from adapterkit.generation.gpt2 import GPT2, TARGETS
from adapterkit.generation.pages import PageBank
from adapterkit.model.base import Base, locate
from adapterkit.model.nf4 import Nf4, pack
from adapterkit.model.quiet import quiet_bitsandbytes

CPU = torch.device("cpu")
IDS = torch.randint(0, 8192, (3, 20), generator=torch.Generator().manual_seed(5))
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def embedded() -> Base:
    return locate("embedded")


@pytest.fixture(scope="module")
def stored(embedded: Base) -> dict[str, Tensor]:
    return load.read_tensors(embedded.weights)


def quantised(base: Base, bits: int, dtype: torch.dtype) -> Any:
    """transformers' model with bitsandbytes, as training loads it."""
    quiet_bitsandbytes()
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    told = (
        BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else BitsAndBytesConfig(load_in_4bit=True, **nf4)
    )
    return GPT2LMHeadModel.from_pretrained(base.folder, dtype=dtype, quantization_config=told, device_map={"": "cpu"}).eval()  # fmt: skip


def narrowed(base: Base, stored: dict[str, Tensor], bits: int, dtype: torch.dtype) -> GPT2:
    """Our model with every matrix in fewer bits; on CUDA it is made so."""
    model = GPT2(base.config, stored, CPU, dtype)
    for i, block in enumerate(model.blocks):
        for target in TARGETS:
            name = f"h.{i}.{target}"
            block.linear[target] = narrow(
                stored[f"{name}.weight"].T, stored[f"{name}.bias"], CPU, dtype, bits
            )  # type: ignore[assignment]
    return model


def matrix(n_out: int, n_in: int, dtype: torch.dtype, bits: int) -> tuple[Narrow, Tensor, Tensor]:
    """A random matrix in fewer bits, the original, and a bias."""
    draw = torch.Generator().manual_seed(n_out + n_in)
    weight = torch.randn(n_out, n_in, generator=draw) * torch.randn(n_out, 1, generator=draw).exp()
    bias = torch.randn(n_out, generator=draw)
    return narrow(weight, bias, CPU, dtype, bits), weight, bias


# --- beside transformers and bitsandbytes ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_4_bits_are_those_of_training(dtype: torch.dtype, embedded: Base) -> None:
    """Bit by bit what transformers loads with the same settings."""
    layer = quantised(embedded, 4, dtype).transformer.h[1].mlp.c_fc
    plain = GPT2LMHeadModel.from_pretrained(embedded.folder, dtype=dtype).transformer.h[1].mlp.c_fc
    ours, theirs = pack(plain.weight.detach().T, plain.bias.detach()), layer.weight.quant_state
    assert torch.equal(ours.packed, layer.weight.data)
    assert torch.equal(ours.scales, theirs.absmax)
    assert torch.equal(ours.largest, theirs.state2.absmax)
    assert torch.equal(ours.code, theirs.state2.code)
    assert ours.offset.item() == theirs.offset.item()


def test_8_bits_are_those_of_the_cpu_and_all_but_those_of_training(embedded: Base, stored: dict[str, Tensor]) -> None:  # fmt: skip
    weight, bias = stored["h.1.mlp.c_fc.weight"].T, stored["h.1.mlp.c_fc.bias"]
    ours, (_, table) = narrow(weight, bias, CPU, torch.float16, 8), weights.prepare8(weight, bias)
    assert isinstance(ours, Wide8)
    assert torch.equal(ours.weight, table.weight)
    assert table.scale is not None
    assert torch.equal(ours.scale, table.scale)
    theirs = quantised(embedded, 8, torch.float32).transformer.h[1].mlp.c_fc.weight
    apart = (ours.weight.int() - theirs.data.int()).abs()  # bitsandbytes rounds to float16 first
    assert apart.max() <= 1
    assert apart.float().mean() < 1e-3
    assert torch.allclose(ours.scale * 127, theirs.SCB, rtol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_near_those_of_transformers_with_the_same_bits(bits: int, dtype: torch.dtype, embedded: Base, stored: dict[str, Tensor]) -> None:  # fmt: skip
    """Whose 8 bits round activations too, and whose 4 bits may be computed in bfloat16 on a CPU; 4 bits move them by 0.16."""
    ours = narrowed(embedded, stored, bits, dtype).logits(IDS, PageBank(embedded.dims, CPU, dtype).route([()] * 3))  # fmt: skip
    with torch.inference_mode():
        theirs = quantised(embedded, bits, dtype)(IDS).logits.float()
    whole = (theirs - theirs.mean(-1, keepdim=True)).norm()
    assert (ours - theirs).norm() / whole < 0.03


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("n_out", "n_in"), [(192, 64), (64, 128), (96, 40)])
def test_products_equal_those_of_the_widened_weights(n_out: int, n_in: int, bits: int, dtype: torch.dtype) -> None:  # fmt: skip
    """Also where a row is no whole number of blocks (40)."""
    ours, _, bias = matrix(n_out, n_in, dtype, bits)
    wide = ours.wide(dtype) if isinstance(ours, Wide8) else ours.wide((n_out, n_in), dtype)
    x = torch.randn(5, n_in, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = x.double() @ wide.double().T + bias.to(dtype).double()
    error = (ours(x).double() - exact).norm() / exact.norm()
    assert ours(x).dtype == dtype
    assert error < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_8_bits_widen_to_is_rounded_once(dtype: torch.dtype) -> None:
    ours, weight, _ = matrix(96, 64, dtype, 8)
    assert isinstance(ours, Wide8)
    step = weight.abs().amax(1, keepdim=True) / weights.LEVELS
    assert ((ours.wide(torch.float32) - weight).abs() <= 0.501 * step).all()
    exact = ours.weight.double() * ours.scale.double()[:, None]
    assert ((ours.wide(dtype).double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs()).all()


def test_4_bits_widen_to_what_bitsandbytes_says() -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = torch.randn(96, 40, generator=torch.Generator().manual_seed(2))
    ours = pack(weight, torch.zeros(96))
    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(ours.wide((96, 40), torch.float32), dequantize_4bit(packed, state))


# --- what comes in and what it takes ---


def test_large_activations_do_not_overflow_float16_in_8_bits() -> None:
    """GPT-2 has some of several thousand; 127 times as much is beyond float16."""
    ours = narrow(torch.full((64, 64), 0.01), None, CPU, torch.float16, 8)
    x = torch.zeros(1, 64, dtype=torch.float16)
    x[0, 0] = 3000
    assert torch.allclose(ours(x).float(), torch.full((1, 64), 30.0), rtol=1e-2)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_that_is_not_finite_leaves_its_neighbours_alone(bits: int) -> None:
    ours, _, _ = matrix(128, 64, torch.float32, bits)
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(3))
    healthy = ours(x)
    x[2, 7] = float("nan")
    broken = ours(x)
    assert torch.equal(broken[[0, 1, 3]], healthy[[0, 1, 3]])
    assert not torch.isfinite(broken[2]).any()


@pytest.mark.parametrize(("bits", "each"), [(8, 1.0), (4, 0.53)])
def test_memory_is_all_counted(bits: int, each: float, embedded: Base, stored: dict[str, Tensor]) -> None:
    plain = GPT2(embedded.config, stored, CPU, torch.float16)
    rough = narrowed(embedded, stored, bits, torch.float16)
    dims = embedded.dims
    matrices = dims.layers * 12 * dims.width**2
    saved = plain.bytes - rough.bytes
    assert saved == pytest.approx(matrices * (2 - each), rel=0.02)


def test_every_part_is_a_tensor_with_bytes_to_digest() -> None:
    for bits in (8, 4):
        parts = matrix(64, 64, torch.float16, bits)[0]
        assert all(part.flatten().view(torch.uint8).numel() == part.nbytes for part in parts)
        assert all(part.ndim for part in parts)


def test_4_bits_without_bitsandbytes_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(Unsupported, match="4-bit needs bitsandbytes, which is not installed") as told:
        narrow(torch.ones(64, 64), None, CPU, torch.float16, 4)
    assert "adapterkit[quantize]" in told.value.hint
    assert isinstance(narrow(torch.ones(64, 64), None, CPU, torch.float16, 8), Wide8)  # which needs none


def test_products_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are errors in the tests; here also the log."""
    with caplog.at_level(logging.WARNING):
        for n_in in (40, 64):
            ours = matrix(64, n_in, torch.bfloat16, 4)[0]
            assert isinstance(ours, Nf4)
            ours(torch.ones(2, n_in, dtype=torch.bfloat16))
    assert caplog.records == []
