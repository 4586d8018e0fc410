"""Which device and number format: by capability and by what was measured on this machine."""

from __future__ import annotations

import os

import pytest
import torch

from adapterkit.errors import Unsupported
from adapterkit.model import measure
from adapterkit.model.device import choose, index_of

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a machine without CUDA answers")


@pytest.fixture
def threads() -> int:
    return torch.get_num_threads()


def test_text_is_written_in_fp32_on_a_cpu_however_fast_bf16_is(threads: int) -> None:
    measure.remember(5.0, threads)
    assert choose("cpu").precision == "fp32"


@pytest.mark.parametrize(("speedup", "precision"), [(1.9, "bf16"), (1.2, "bf16"), (1.19, "fp32"), (0.1, "fp32")])  # fmt: skip
def test_training_on_a_cpu_takes_bf16_where_it_was_measured_to_be_faster(
    speedup: float, precision: str, threads: int
) -> None:
    measure.remember(speedup, threads)
    assert choose("cpu", training=True).precision == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_format_asked_for_is_taken_and_nothing_is_measured(precision: str, threads: int) -> None:
    measure.remember(5.0 if precision == "fp32" else 0.1, threads)
    device = choose("cpu", precision, training=True)
    assert device.precision == precision
    assert "slower" not in device.said


@no_gpu
def test_the_line_says_what_was_measured(threads: int) -> None:
    measure.remember(1.9, threads)
    cores = os.cpu_count()
    used = (
        f"{cores} cores" if threads == cores else f"{threads} thread{'s' * (threads != 1)} of {cores} cores"
    )
    assert choose(training=True).said == (
        f"Device: cpu, {used}, bfloat16 (fp32 was 1.9x slower here). No CUDA GPU."
    )


@no_gpu
def test_the_line_of_fp32_is_short() -> None:
    assert choose("cpu").said.endswith("cores, float32. No CUDA GPU.")


def test_fp16_needs_cuda() -> None:
    with pytest.raises(Unsupported, match="fp16 needs CUDA, this is cpu"):
        choose("cpu", "fp16")


@no_gpu
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(Unsupported, match="there is no CUDA GPU here"):
        choose("cuda:1")


@pytest.mark.parametrize("name", ["tpu", "cuda:first", "cuda:", "cuda:-1", "cpu:0", "cudas"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(Unsupported, match=f"device '{name}' is not known"):
        choose(name)


@pytest.mark.parametrize(("number", "index"), [("", 1), ("0", 0), ("2", 2)])
def test_a_gpu_is_always_a_number(number: str, index: int) -> None:
    """Each thread has a current GPU of its own, and the engine's is another than its caller's."""
    assert index_of(number, 3, 1) == index


@pytest.mark.parametrize(("count", "there"), [(1, "only cuda:0"), (4, "cuda:0 to cuda:3")])
def test_a_gpu_beyond_those_there_is_refused(count: int, there: str) -> None:
    with pytest.raises(Unsupported, match=f"there is no cuda:7 here; there is {there}"):
        index_of("7", count, 0)


@pytest.mark.gpu
def test_a_gpu_computes_in_fp16_unless_asked() -> None:
    assert choose(training=True).precision == "fp16"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_the_gpu_that_was_chosen_has_a_number(name: str) -> None:
    assert choose(name).place == torch.device("cuda", 0)
    with pytest.raises(Unsupported, match="there is no cuda:99 here"):
        choose("cuda:99")


@pytest.mark.gpu
def test_bf16_on_a_gpu_goes_by_what_it_can() -> None:
    if torch.cuda.is_bf16_supported(including_emulation=False):
        assert choose("cuda", "bf16").dtype is torch.bfloat16
    else:
        with pytest.raises(Unsupported, match=torch.cuda.get_device_name()):
            choose("cuda", "bf16")
