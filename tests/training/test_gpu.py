"""What needs CUDA: ``make test-gpu``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import adapterkit as ak
from adapterkit.errors import Unsupported
from adapterkit.registry.store import Registry
from tests.make import make_base

gpu = pytest.mark.gpu
QUICK = {"epochs": 3, "max_length": 64, "tokens_per_step": 512, "learning_rate": 0.01, "max_new_tokens": 12}


@gpu
@pytest.mark.parametrize("quantize", ["none", "8bit"])
def test_lora_learns_on_cuda_in_half_precision(
    quantize: str, registry: Registry, text_file: Path, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base", seed=0, width=64)
    version = ak.train(
        text_file, registry=registry, base=str(base), device="cuda", quantize=quantize, **QUICK
    )
    assert version.manifest["recipe"]["train"]["precision"] == "fp16"
    assert version.metrics.gain is not None
    assert version.metrics.gain < -0.3


@gpu
def test_the_cuda_generator_agrees_with_the_cpu(registry: Registry, text_file: Path, tiny_base: Path) -> None:
    version = ak.train(text_file, registry=registry, base=str(tiny_base), device="cpu", **QUICK)
    ids = torch.randint(0, 300, (1, 20))
    logits = []
    for device in ("cpu", "cuda"):
        writer = ak.Generator(tiny_base, registry=registry, device=device, precision="fp32").writer(version)
        logits.append(
            writer.engine.model.logits(ids.to(device), writer.engine.bank.route([writer.parts])).cpu()
        )
    assert torch.allclose(*logits, atol=1e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a machine without CUDA answers")
@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"device": "cuda"}, "there is no CUDA GPU here"),
        ({"precision": "fp16"}, "fp16 needs CUDA"),
        ({"quantize": "8bit"}, "8-bit needs CUDA"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
    ],
)
def test_what_needs_cuda_says_so_without_it(keys: dict[str, str], told: str, registry: Registry, text_file: Path, tiny_base: Path) -> None:  # fmt: skip
    with pytest.raises(Unsupported, match=told):
        ak.train(text_file, registry=registry, base=str(tiny_base), **QUICK | keys)
    assert registry.versions() == []


@gpu
@pytest.mark.parametrize(("quantize", "most"), [("none", 0.0), ("8bit", 1e-2)])
def test_packed_documents_do_not_see_each_other_on_cuda(quantize: str, most: float, tmp_path: Path) -> None:
    from adapterkit.model import trainable
    from adapterkit.model.base import locate
    from adapterkit.model.device import choose
    from adapterkit.recipe.schema import Recipe
    from adapterkit.scoring.loss import PackedLoss, probe_isolation

    base, device = locate(str(make_base(tmp_path / "base", seed=0, width=64))), choose("cuda")
    recipe = Recipe.model_validate({"train": {"quantize": quantize}})
    module = PackedLoss(trainable.load_model(base, device, recipe))
    moved = probe_isolation(module, base.config["vocab_size"], 64, device.place, exact=quantize == "none")
    assert moved <= most
