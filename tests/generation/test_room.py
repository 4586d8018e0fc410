"""What a GPU of any size is given, by numbers alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from adapterkit.errors import Unsupported
from adapterkit.generation import formats, load
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.room import CHOICES, bits_on_gpu, say_on_gpu, weight_bytes
from adapterkit.model.base import Base, locate
from adapterkit.model.device import Device

SIZES = {0: 600, 8: 360, 4: 240}
T4 = Device(torch.device("cuda:0"), "fp16", "Device: cuda:0, Tesla T4, float16.")


@pytest.fixture
def xl(tmp_path: Path) -> Base:
    """GPT-2 XL by its sizes; the file is not looked at."""
    sizes = '{"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "n_head": 25}'
    (tmp_path / "config.json").write_text(sizes)
    return Base("gpt2-xl", tmp_path)


@pytest.mark.parametrize(
    ("free", "bits"), [(None, 0), (10_000, 0), (1000, 0), (999, 8), (600, 8), (599, 4), (400, 4), (1, 4)]
)
def test_auto_takes_away_only_what_it_must(free: int | None, bits: int) -> None:
    assert bits_on_gpu("auto", SIZES, free) == bits


@pytest.mark.parametrize(("asked", "bits"), [("none", 0), ("8bit", 8), ("4bit", 4)])
@pytest.mark.parametrize("free", [None, 1, 10_000])
def test_what_is_asked_for_is_done_whatever_is_free(asked: str, bits: int, free: int | None) -> None:
    assert bits_on_gpu(asked, SIZES, free) == bits


@pytest.mark.parametrize(("gigabytes", "bits"), [(15.8, 0), (5.4, 0), (4.5, 8), (2.4, 4)])
def test_gpt2_xl_on_gpus_of_these_sizes(gigabytes: float, bits: int, xl: Base) -> None:
    assert formats.on_gpu(xl, T4, "auto", int(gigabytes * 1e9)).bits == bits


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_estimate_is_what_a_base_takes(precision: str) -> None:
    base = locate("embedded")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = GPT2(base.config, load.read_tensors(base.weights), torch.device("cpu"), dtype)
    tables = [t.nbytes for name, t in model.named_tensors() if name == "wte.0"]
    twice = tables[0] * any(
        name == "head.0" for name, _ in model.named_tensors()
    )  # a CPU may keep the head beside it
    assert weight_bytes(base, precision, 0) == pytest.approx(model.bytes - twice, rel=0.002)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fewer_bits_take_less(precision: str, xl: Base) -> None:
    whole, eight, four = (weight_bytes(xl, precision, bits) for bits in CHOICES)
    assert whole > eight > four > 0


# --- the line that says so ---


def test_the_line_of_auto_says_why(xl: Base) -> None:
    assert formats.on_gpu(xl, T4, "auto", 15_800_000_000).said == (
        "Device: cuda:0, Tesla T4, float16. Weights as they are, 3.1 GB of 15.8 GB free."
    )
    assert formats.on_gpu(xl, T4, "auto", 4_500_000_000).said == (
        "Device: cuda:0, Tesla T4, float16. Weights in 8 bits, 1.6 GB of 4.5 GB free, 3.1 GB would leave too little; "
        "that saves memory and is slower than float16."
    )


def test_the_line_of_a_wish_says_what_it_costs() -> None:
    assert say_on_gpu(4, "4bit", {0: 3_000_000, 8: 0, 4: 1_000_000}, None, "bf16") == (
        "Weights in 4 bits, 1.0 MB; that saves memory and is slower than bfloat16."
    )


@pytest.mark.parametrize(("asked", "free"), [("4bit", 10**12), ("auto", 1)])
def test_4_bits_without_bitsandbytes_are_refused_before_a_base_is_loaded(
    asked: str, free: int, xl: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(Unsupported, match="4-bit needs bitsandbytes"):
        formats.on_gpu(xl, T4, asked, free)
    assert formats.on_gpu(xl, T4, "8bit", free).bits == 8
