"""A base in 8 bits, for real on this CPU; when auto takes bits away; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapterkit.errors import RecipeError, Unsupported
from adapterkit.model import quantize, trainable
from adapterkit.model.base import Base, locate
from adapterkit.model.device import Device, choose
from adapterkit.recipe.schema import Recipe
from adapterkit.scoring.loss import PackedLoss, probe_isolation
from tests.make import make_base

IDS = torch.arange(48).reshape(2, 24) * 7 % 300


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return locate(str(make_base(tmp_path_factory.mktemp("base") / "wide", seed=0, width=64)))


def _recipe(bits: str = "8bit", method: str = "lora") -> Recipe:
    lora = {"r": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all"}
    return Recipe.model_validate({"method": method, "lora": lora, "train": {"quantize": bits}})


def _wrapped(base: Base, recipe: Recipe, precision: str = "fp32") -> Any:
    torch.manual_seed(5)
    model = trainable.load_model(base, choose("cpu", precision), recipe)
    return trainable.attach_lora(model, recipe)


def _frozen(wrapped: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in wrapped.named_parameters() if not p.requires_grad}


def _gradients(wrapped: Any) -> dict[str, torch.Tensor]:
    wrapped(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return {n: p.grad for n, p in wrapped.named_parameters() if p.requires_grad}


# --- 8 bits on a CPU ---


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_base_is_in_8_bits_and_the_lora_in_float32(precision: str, base: Base) -> None:
    wrapped = _wrapped(base, _recipe(), precision)
    found = {n.split(".")[-2]: p.dtype for n, p in wrapped.named_parameters() if n.endswith("weight")}
    assert {found[n] for n in ("wte", "ln_1", "ln_f", "default")} == {torch.float32}
    inner = [m.base_layer for m in wrapped.modules() if hasattr(m, "base_layer")]
    assert len(inner) == 2 * 4
    assert {layer.weight.dtype for layer in inner} == {torch.int8}
    assert not wrapped.get_base_model().is_activation_checkpointing


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_8_bit_lora_learns_and_its_base_stays(precision: str, base: Base) -> None:
    wrapped = _wrapped(base, _recipe(), precision)
    before, losses = _frozen(wrapped), []
    optimizer = torch.optim.AdamW((p for p in wrapped.parameters() if p.requires_grad), lr=0.02)
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = wrapped(input_ids=IDS, labels=IDS, use_cache=False).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    after = _frozen(wrapped)
    assert all(torch.equal(after[n], before[n]) for n in before)


def test_the_gradient_is_about_that_of_float32(base: Base) -> None:
    exact, coarse = (_gradients(_wrapped(base, _recipe(bits))) for bits in ("none", "8bit"))
    assert exact.keys() == coarse.keys()
    for name in (n for n in exact if "lora_B" in n):
        assert torch.cosine_similarity(exact[name].flatten(), coarse[name].flatten(), 0) > 0.98, name
        assert float(coarse[name].norm()) == pytest.approx(float(exact[name].norm()), rel=0.1), name


def test_what_is_trained_on_8_bits_is_read_on_the_plain_base(base: Base, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    wrapped = _wrapped(base, _recipe())
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.05)
    trainable.save_lora(wrapped, tmp_path, "wide")
    plain = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base.folder), tmp_path)
    without = GPT2LMHeadModel.from_pretrained(base.folder)
    with torch.no_grad():
        ours, theirs, bare = (m.eval()(IDS, use_cache=False).logits for m in (wrapped, plain, without))
    moved = (theirs - bare).norm()
    assert (ours - theirs).norm() < 0.2 * moved  # 8 bits cost little beside what the adapter does


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packed_documents_do_not_see_each_other_in_8_bits(precision: str, base: Base) -> None:
    module = PackedLoss(_wrapped(base, _recipe(), precision).get_base_model())
    moved = probe_isolation(module, base.config["vocab_size"], 64, torch.device("cpu"), exact=False)
    assert moved < 1e-2


# --- what is refused, and what auto decides ---


def test_4_bits_on_a_cpu_are_refused_by_name(base: Base) -> None:
    with pytest.raises(Unsupported, match=r"4-bit needs CUDA, this is cpu: .* breaks inside bitsandbytes"):
        quantize.decide(_recipe("4bit"), base, choose("cpu"))
    with pytest.raises(Unsupported, match="4-bit needs CUDA"):
        trainable.load_model(base, choose("cpu"), _recipe("4bit"))


def test_4_bits_on_a_cpu_do_break_in_bitsandbytes(base: Base) -> None:
    """The reason of the refusal: once a text was scored, bitsandbytes' training step fails."""
    from bitsandbytes.functional import has_avx512bf16
    from transformers import BitsAndBytesConfig, GPT2LMHeadModel

    if not has_avx512bf16():
        pytest.skip("this CPU has no avx512_bf16, for which bitsandbytes packs the weights anew")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    model = GPT2LMHeadModel.from_pretrained(base.folder, quantization_config=config, device_map={"": "cpu"})
    wrapped = trainable.attach_lora(model, _recipe("4bit"))
    with torch.inference_mode():
        wrapped.eval()(input_ids=IDS, use_cache=False)
    with pytest.raises(RuntimeError, match="in-place operation"):
        wrapped.train()(input_ids=IDS, labels=IDS, use_cache=False)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_full_fine_tune_is_not_quantised(bits: str, base: Base) -> None:
    with pytest.raises(RecipeError, match=f"is {bits} with method full"):
        quantize.decide(_recipe(bits, "full"), base, choose("cpu"))


def test_auto_leaves_a_full_fine_tune_as_it_is(base: Base) -> None:
    assert quantize.decide(_recipe("auto", "full"), base, choose("cpu"), free=1).choice == "none"


GPU = Device(torch.device("cuda"), "fp16", "Device: cuda.")
CPU = Device(torch.device("cpu"), "fp32", "Device: cpu.")


@pytest.fixture
def xl(tmp_path: Path) -> Base:
    """GPT-2 XL by its sizes; the file is not looked at."""
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "n_head": 25}'
    )
    return Base("gpt2-xl", tmp_path)


@pytest.mark.parametrize(
    ("device", "gigabytes", "choice"),
    [
        (GPU, 16, "none"),
        (GPU, 4, "8bit"),
        (GPU, 2.5, "4bit"),
        (GPU, 1, "4bit"),
        (CPU, 16, "none"),
        (CPU, 4, "8bit"),
        (CPU, 1, "8bit"),
    ],
)
def test_auto_takes_away_only_what_it_must(device: Device, gigabytes: float, choice: str, xl: Base) -> None:
    assert quantize.decide(_recipe("auto"), xl, device, free=int(gigabytes * 1e9)).choice == choice


def test_auto_says_why_it_quantises(xl: Base) -> None:
    assert quantize.decide(_recipe("auto"), xl, GPU, free=4 * 10**9).said == (
        "Base in 8 bits, 1.8 GB: it would take 3.1 GB else, and 4.0 GB are free. It takes 2 to 5 times as long."
    )


def test_auto_says_why_it_does_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    told = quantize.decide(_recipe("auto"), Base("gpt2", tmp_path), CPU, free=4 * 10**9)
    assert told == quantize.Quantization(
        "none",
        "Not quantised: the base takes 497 MB and fits in 4.0 GB (8-bit saves 255 MB and is slower).",
    )


def test_8_bits_asked_for_on_a_cpu_are_taken_and_their_price_told(base: Base) -> None:
    told = quantize.decide(_recipe("8bit"), base, choose("cpu"))
    assert told.choice == "8bit"
    assert told.said.startswith("Base in 8 bits: 8-bit saves ")
    assert told.said.endswith(" and is slower.")


def test_nothing_is_said_of_what_nobody_asked(base: Base) -> None:
    assert quantize.decide(_recipe("none"), base, choose("cpu")) == quantize.Quantization("none", "")


def test_the_size_of_a_base_is_that_of_its_tensors(base: Base) -> None:
    for precision, bits in (("fp32", "none"), ("bf16", "none"), ("fp32", "8bit")):
        model = trainable.load_model(base, choose("cpu", precision), _recipe(bits))
        model = quantize.prepare(model) if bits == "8bit" else model
        held = sum(p.numel() * p.element_size() for p in model.parameters())
        assert quantize.base_bytes(base, precision, bits) == pytest.approx(held, rel=0.05)


def test_the_free_memory_of_this_machine_is_a_number() -> None:
    free = quantize.free_memory(torch.device("cpu"))
    assert free is None or 10**6 < free < 10**15
