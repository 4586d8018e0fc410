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
@pytest.mark.parametrize(
    ("precision", "quantize"),
    [("auto", "none"), ("bf16", "none"), ("fp32", "none"), ("auto", "8bit"), ("bf16", "8bit"), ("auto", "4bit"),
     ("bf16", "4bit")],
)  # fmt: skip
def test_lora_learns_on_cuda(
    precision: str, quantize: str, registry: Registry, text_file: Path, tmp_path: Path
) -> None:
    _skip_without(precision)
    base = make_base(tmp_path / "base", seed=0, width=64)
    told = {"base": str(base), "device": "cuda", "precision": precision, "quantize": quantize}
    version = ak.train(text_file, registry=registry, **told, **QUICK)
    stored = version.manifest["recipe"]["train"]
    assert stored["precision"] == ("fp16" if precision == "auto" else precision)
    assert stored["quantize"] == quantize
    assert version.metrics.gain is not None
    assert version.metrics.gain < -0.3


@gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_full_fine_tune_learns_on_cuda_in_float32_weights(
    precision: str, registry: Registry, text_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    _skip_without(precision)
    base = make_base(tmp_path / "base", seed=0, width=64)
    told = {"base": str(base), "device": "cuda", "precision": precision, "method": "full"}
    version = ak.train(text_file, registry=registry, **told, **QUICK | {"learning_rate": 0.002})
    assert version.metrics.gain is not None
    assert version.metrics.gain < -0.3
    weights = load_file(version.path / "model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32}
    # trained in half precision every weight would be a number of that format
    assert any(not torch.equal(t, t.half().float()) for t in weights.values())


@gpu
@pytest.mark.parametrize(("quantize", "kind", "stored"), [("8bit", "Linear8bitLt", torch.int8), ("4bit", "Linear4bit", torch.uint8)])  # fmt: skip
def test_a_quantised_base_stays_as_it_is_and_its_adapter_fits_the_plain_one(
    quantize: str, kind: str, stored: torch.dtype, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    from adapterkit.model import trainable
    from adapterkit.model.base import locate
    from adapterkit.model.device import choose
    from adapterkit.recipe.schema import Recipe

    base = locate(str(make_base(tmp_path / "base", seed=0, width=64)))
    lora = {"r": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all"}
    recipe = Recipe.model_validate({"lora": lora, "train": {"quantize": quantize}})
    wrapped = trainable.attach_lora(trainable.load_model(base, choose("cuda"), recipe), recipe)
    inner = [m.base_layer for m in wrapped.modules() if hasattr(m, "base_layer")]
    assert {(type(layer).__name__, layer.weight.dtype) for layer in inner} == {(kind, stored)}
    before = [layer.weight.detach().clone() for layer in inner]
    ids = torch.arange(48, device="cuda").reshape(2, 24) * 7 % 300
    optimizer = torch.optim.AdamW((p for p in wrapped.parameters() if p.requires_grad), lr=0.02)
    losses = []
    for _ in range(30):
        with torch.autocast("cuda", torch.float16):
            loss = wrapped(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(layer.weight, was) for layer, was in zip(inner, before, strict=True))

    trainable.save_lora(wrapped, tmp_path, "tiny")
    plain = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base.folder), tmp_path).cuda()
    with torch.no_grad():
        loss = plain(input_ids=ids, labels=ids, use_cache=False).loss
    assert float(loss) < 0.6 * losses[0]


@gpu
def test_4_bits_are_nf4_quantised_twice_and_computed_in_the_runs_format(tmp_path: Path) -> None:
    from adapterkit.model import trainable
    from adapterkit.model.base import locate
    from adapterkit.model.device import choose
    from adapterkit.recipe.schema import Recipe

    base = locate(str(make_base(tmp_path / "base", seed=0, width=64)))
    model = trainable.load_model(base, choose("cuda"), Recipe.model_validate({"train": {"quantize": "4bit"}}))
    layer = model.get_submodule("transformer.h.0.mlp.c_fc")
    assert (layer.quant_type, layer.compute_dtype) == ("nf4", torch.float16)
    assert layer.weight.quant_state.nested


def _skip_without(precision: str) -> None:
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU does not compute in bf16")


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
        ({"quantize": "4bit"}, "4-bit needs CUDA, this is cpu"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
    ],
)
def test_what_needs_cuda_says_so_without_it(keys: dict[str, str], told: str, registry: Registry, text_file: Path, tiny_base: Path) -> None:  # fmt: skip
    with pytest.raises(Unsupported, match=told):
        ak.train(text_file, registry=registry, base=str(tiny_base), **QUICK | keys)
    assert registry.versions() == []


def test_an_8_bit_lora_learns_on_a_cpu(registry: Registry, text_file: Path, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", seed=0, width=64)
    told = {"base": str(base), "device": "cpu", "precision": "fp32", "quantize": "8bit"}
    version = ak.train(text_file, registry=registry, **told, **QUICK | {"epochs": 1})
    assert version.manifest["recipe"]["train"]["quantize"] == "8bit"
    assert version.metrics.gain is not None
    assert version.metrics.gain < -0.3


@gpu
@pytest.mark.parametrize(("quantize", "most"), [("none", 0.0), ("8bit", 1e-2), ("4bit", 1e-2)])
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
