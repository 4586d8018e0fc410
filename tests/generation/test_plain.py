"""The page bank on a plain transformers GPT-2. The oracle is PEFT with the same adapters, one request at a time."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    LogitsProcessor,
    pipeline,
)

import adapterkit as ak
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.make import make_base, make_peft_adapter

SHAPES = {  # name -> (rank, alpha, targets)
    "small": (4, 8.0, ["attn.c_attn"]),
    "wide": (20, 16.0, ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    "mlp": (8, 32.0, ["mlp.c_fc", "mlp.c_proj"]),
}
IDS = torch.randint(0, 300, (3, 9), generator=torch.Generator().manual_seed(1))
GREEDY = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("peft")
    return {
        name: make_peft_adapter(root / name, tiny_base, seed=i, r=r, alpha=alpha, targets=targets)
        for i, (name, (r, alpha, targets)) in enumerate(SHAPES.items())
    }


@pytest.fixture(scope="module")
def shelf(folders: dict[str, Path], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("shelf") / "adapters"
    place.create(root)
    for name, folder in folders.items():
        Registry(root).add(folder, name=name, base=str(tiny_base), force_base=True)
    return Registry(root)


@pytest.fixture
def model(shelf: Registry, tiny_base: Path) -> Any:
    return ak.with_adapters(GPT2LMHeadModel.from_pretrained(tiny_base), registry=shelf)


@pytest.fixture
def plain(tiny_base: Path) -> Any:
    return GPT2LMHeadModel.from_pretrained(tiny_base)


@pytest.fixture
def peft(tiny_base: Path, folders: dict[str, Path]) -> Callable[[str | None], Any]:
    """A model of its own with one adapter, by PEFT; None is the base."""

    def made(name: str | None) -> Any:
        base = GPT2LMHeadModel.from_pretrained(tiny_base)
        return PeftModel.from_pretrained(base, folders[name]).eval() if name else base.eval()

    return made


# --- logits ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SHAPES))
def test_logits_equal_peft(model: Any, peft: Any, plain: Any, name: str) -> None:
    ours, theirs = model(IDS, adapter=name).logits, peft(name)(IDS).logits
    assert (ours - plain(IDS).logits).abs().max() > 0.05  # the adapter does something
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_each_row_of_a_mixed_batch_equals_peft(model: Any, peft: Any) -> None:
    names = ["wide", None, "mlp"]
    mixed = model(IDS, adapter=names).logits
    for row, name in enumerate(names):
        assert torch.allclose(mixed[row], peft(name)(IDS[row : row + 1]).logits[0], atol=1e-4), name


def test_a_blend_equals_the_weighted_sum_of_what_peft_merges(model: Any, peft: Any, plain: Any) -> None:
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    for name, weight in {"small": 0.7, "wide": -0.4}.items():
        own = dict(peft(name).merge_and_unload().named_parameters())
        with torch.no_grad():
            for key, parameter in plain.named_parameters():
                parameter += weight * (own[key] - before[key])
    ours = model(IDS, adapter="small=0.7,wide=-0.4").logits
    assert torch.allclose(ours, plain(IDS).logits, atol=1e-4)
    assert torch.equal(ours, model(IDS, adapter={"small": 0.7, "wide": -0.4}).logits)


@pytest.mark.parametrize("adapter", [None, "base", [None, None, "base"]])
def test_without_an_adapter_the_bits_are_those_of_the_untouched_model(model: Any, plain: Any, adapter: Any) -> None:  # fmt: skip
    model(IDS, adapter="wide")
    assert torch.equal(model(IDS, adapter=adapter).logits, plain(IDS).logits)
    assert torch.equal(model.generate(IDS, adapter=adapter, **GREEDY), plain.generate(IDS, **GREEDY))


def test_a_base_row_beside_adapters_is_the_base(model: Any, plain: Any) -> None:
    mixed = model(IDS, adapter=["wide", None, "small"]).logits
    assert torch.equal(mixed[1], plain(IDS).logits[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_runs_adapters_in_it(shelf: Registry, tiny_base: Path, peft: Any, dtype: torch.dtype) -> None:  # fmt: skip
    model = ak.with_adapters(GPT2LMHeadModel.from_pretrained(tiny_base, dtype=dtype), registry=shelf)
    ours, exact = model(IDS, adapter="wide").logits, peft("wide")(IDS).logits
    base = peft(None)(IDS).logits
    assert ours.dtype == dtype
    assert (ours.float() - exact).abs().mean() < 0.1 * (exact - base).abs().mean()


def test_pages_follow_a_model_that_is_cast(model: Any) -> None:
    exact = model(IDS, adapter="wide").logits
    rough = model.bfloat16()(IDS, adapter="wide").logits
    assert rough.dtype == torch.bfloat16
    assert torch.equal(model.float().bfloat16()(IDS, adapter="wide").logits, rough)
    assert (rough.float() - exact).abs().max() < 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_8_bits_runs_what_peft_runs_on_it(shelf: Registry, tiny_base: Path, folders: dict[str, Path], tmp_path: Path, dtype: torch.dtype) -> None:  # fmt: skip
    shutil.copytree(folders["wide"], tmp_path / "wide")
    config = tmp_path / "wide" / "adapter_config.json"  # PEFT asks how the matrices lie
    config.write_text(json.dumps(json.loads(config.read_text()) | {"fan_in_fan_out": False}))
    theirs = PeftModel.from_pretrained(quantised(tiny_base, dtype, load_in_8bit=True), tmp_path / "wide")
    model = ak.with_adapters(quantised(tiny_base, dtype, load_in_8bit=True), registry=shelf)
    with theirs.disable_adapter():
        assert torch.equal(model(IDS).logits, theirs(IDS).logits)
    near = 1e-4 if dtype == torch.float32 else 0.25
    assert torch.allclose(model(IDS, adapter="wide").logits, theirs.eval()(IDS).logits, atol=near)


def test_a_model_in_4_bits_takes_adapters(shelf: Registry, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", seed=0, width=64)  # less is no block of 4-bit numbers
    style = make_peft_adapter(tmp_path / "style", base, seed=1, r=20, targets=SHAPES["wide"][2])
    told = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}
    both = [
        ak.with_adapters(m, registry=shelf)
        for m in (quantised(base, torch.float32, **told), GPT2LMHeadModel.from_pretrained(base))
    ]
    rough, exact = (m(IDS, adapter=style).logits - m(IDS).logits for m in both)
    assert torch.cosine_similarity(rough.flatten(), exact.flatten(), dim=0) > 0.8
    with torch.no_grad():
        mixed = both[0](IDS, adapter=[None, style, None]).logits
        assert torch.equal(mixed[::2], both[0](IDS[::2]).logits)
    assert both[0].generate(IDS, adapter=[None, style, None], **GREEDY).shape[0] == 3


def quantised(base: Path, dtype: torch.dtype, **told: Any) -> Any:
    config = BitsAndBytesConfig(**told)
    return GPT2LMHeadModel.from_pretrained(base, quantization_config=config, dtype=dtype, device_map="cpu")


@pytest.mark.gpu
def test_pages_follow_a_model_to_the_gpu_and_back(model: Any, peft: Any) -> None:
    names = ["wide", None, "small"]
    here = model(IDS, adapter=names).logits
    there = model.cuda()(IDS.cuda(), adapter=names).logits
    assert there.device.type == "cuda"
    assert torch.allclose(there.cpu(), here, atol=1e-3)
    told = {
        **GREEDY,
        "cache_implementation": "static",
    }  # which transformers compiles there, but not with adapters
    assert model.generate(IDS.cuda(), adapter=names, **told).shape[0] == 3
    assert torch.equal(model.cpu()(IDS, adapter=names).logits, here)


def test_autocast_runs_adapters_too(model: Any) -> None:
    exact = model(IDS, adapter="wide").logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(IDS, adapter="wide").logits
    assert (rough.float() - exact).abs().mean() < 0.1 * (model(IDS).logits - exact).abs().mean()


def test_gradients_reach_the_inputs(model: Any, peft: Any) -> None:
    """As attributions need them."""
    theirs, ours = (model.transformer.wte(IDS[:1]).detach().requires_grad_() for _ in range(2))
    peft("wide")(inputs_embeds=theirs).logits.logsumexp(-1).sum().backward()
    model(inputs_embeds=ours, adapter="wide").logits.logsumexp(-1).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-3)


def test_loaded_within_inference_mode_an_adapter_works_without_it(model: Any, peft: Any) -> None:
    with torch.inference_mode():
        model(IDS, adapter="small")
    logits = model(IDS, adapter=["small", "wide", None]).logits
    logits.sum().backward()
    assert torch.allclose(logits[1], peft("wide")(IDS[1:2]).logits[0], atol=1e-4)


# --- generate -------------------------------------------------------------------------


class Without(LogitsProcessor):  # type: ignore[misc]
    """Tokens that must not be written."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, self.ids] = float("-inf")
        return scores


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "greedy": dict,
    "a logits processor": lambda: {"logits_processor": [Without(*range(200))]},
    "penalties": lambda: {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "four beams": lambda: {"num_beams": 4},
    "four beams, three of them told": lambda: {"num_beams": 4, "num_return_sequences": 3},
    "a prompt looked up": lambda: {"prompt_lookup_num_tokens": 3},
    "no cache": lambda: {"use_cache": False},
    "a static cache": lambda: {"cache_implementation": "static"},
    "a config": lambda: {"generation_config": GenerationConfig(no_repeat_ngram_size=1, max_new_tokens=7)},
    "a prompt in pieces": lambda: {"prefill_chunk_size": 4},
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("name", ["small", "wide", None])
def test_generate_writes_what_peft_writes(model: Any, peft: Any, way: str, name: str | None) -> None:
    told = WAYS[way]() if way == "a config" else GREEDY | WAYS[way]()
    ours = model.generate(IDS[:1], adapter=name, **told)
    assert torch.equal(ours, peft(name).generate(input_ids=IDS[:1], **told))


@pytest.mark.parametrize("way", ["greedy", "four beams", "four beams, three of them told"])
def test_a_mixed_batch_writes_what_peft_writes_row_by_row(model: Any, peft: Any, way: str) -> None:
    names = ["wide", None, "small"]
    told = {**GREEDY, **WAYS[way](), "eos_token_id": None}  # so that all rows are of one length
    ours = model.generate(IDS, adapter=names, **told)
    wanted = [peft(n).generate(input_ids=IDS[i : i + 1], **told) for i, n in enumerate(names)]
    assert torch.equal(ours, torch.cat(wanted))


def test_samples_of_one_seed_equal_peft(model: Any, peft: Any) -> None:
    told = {"input_ids": IDS[:1], **GREEDY, "do_sample": True, "num_return_sequences": 4}
    theirs = peft("mlp")
    torch.manual_seed(3)
    ours = model.generate(adapter="mlp", **told)
    torch.manual_seed(3)
    assert torch.equal(ours, theirs.generate(**told))


def test_a_pipeline_takes_the_adapter(model: Any, tiny_base: Path, peft: Any, caplog: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    ids = tokenizer("The lamp", return_tensors="pt").input_ids
    for name in ("small", "wide", None):
        wanted = tokenizer.decode(peft(name).generate(input_ids=ids, **GREEDY)[0])
        assert write("The lamp", adapter=name, **GREEDY)[0]["generated_text"] == wanted
    assert "is not supported" not in caplog.text


def test_a_forward_pass_through_the_cache_goes_on_with_its_adapter(model: Any, peft: Any) -> None:
    first = model(IDS[:1, :5], adapter="wide", use_cache=True)
    second = model(IDS[:1, 5:], adapter="wide", past_key_values=first.past_key_values)
    assert torch.allclose(second.logits, peft("wide")(IDS[:1]).logits[:, 5:], atol=1e-4)


# --- never a state --------------------------------------------------------------------


def test_eight_threads_with_different_adapters_never_mix(model: Any) -> None:
    """PEFT's set_adapter gets 84 of 300 such calls wrong."""
    choices: list[Any] = [None, "small", "wide", "mlp", ["mlp", None], ["small", "wide"]]
    rows = {str(c): IDS[: len(c)] if isinstance(c, list) else IDS[:1] for c in choices}
    told = GREEDY | {"max_new_tokens": 24, "eos_token_id": None}
    alone = {str(c): model.generate(rows[str(c)], adapter=c, **told) for c in choices}
    assert len({str(v[:1].tolist()) for v in alone.values()}) == len(SHAPES) + 1
    draw = random.Random(0)
    jobs = [draw.choice(choices) for _ in range(300)]
    together = threading.Barrier(8)
    threads_begun = set()

    def work(job: Any) -> bool:
        if threading.get_ident() not in threads_begun:
            threads_begun.add(threading.get_ident())
            together.wait()
        if draw.random() < 0.2:
            model.adapters.unload(draw.choice(list(SHAPES)))
        if draw.random() < 0.1:
            with pytest.raises(IndexError):
                model(torch.full((1, 90), 1), adapter=job if isinstance(job, str) else "wide")
        return torch.equal(model.generate(rows[str(job)], adapter=job, **told), alone[str(job)])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, jobs)).count(False) == 0


def test_a_failed_call_leaves_nothing_behind(model: Any, plain: Any) -> None:
    class Broken(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.generate(IDS, adapter="wide", logits_processor=[Broken()], **GREEDY)
    with pytest.raises(IndexError):
        model(torch.tensor([[10**6]]), adapter="wide")
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    assert torch.equal(model.transformer(IDS)[0], plain.transformer(IDS)[0])
    model.adapters.unload("wide")
    assert model.adapters._writers.bank.bytes == 0  # nothing kept it pinned


def test_a_model_asked_within_a_call_is_the_base_unless_told(model: Any, plain: Any) -> None:
    seen = []

    class Asks(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            seen.append(model(IDS).logits)
            return scores

    model.generate(IDS, adapter="wide", logits_processor=[Asks()], **GREEDY | {"max_new_tokens": 2})
    assert torch.equal(seen[0], plain(IDS).logits)


def test_an_adapter_that_is_unloaded_while_it_writes_stays_to_the_end(model: Any) -> None:
    alone = model.generate(IDS, adapter="wide", **GREEDY)

    class Unloads(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            model.adapters.unload("wide")
            model.adapters.load("small", "mlp")  # which would take its pages
            return scores

    assert torch.equal(model.generate(IDS, adapter="wide", logits_processor=[Unloads()], **GREEDY), alone)
    assert torch.equal(model.generate(IDS, adapter="wide", **GREEDY), alone)


def test_two_models_do_not_see_each_others_adapters(model: Any, shelf: Registry, tiny_base: Path, plain: Any) -> None:  # fmt: skip
    other = ak.with_adapters(GPT2LMHeadModel.from_pretrained(tiny_base), registry=shelf)
    seen = []
    handle = model.lm_head.register_forward_hook(lambda *_: seen.append(other.transformer(IDS)[0]))
    model(IDS, adapter="wide")
    handle.remove()
    assert torch.equal(seen[0], plain.transformer(IDS)[0])


# --- still a plain model --------------------------------------------------------------


def test_what_is_saved_is_the_plain_base(model: Any, plain: Any, tmp_path: Path) -> None:
    model(IDS, adapter="wide")
    assert list(model.state_dict()) == list(plain.state_dict())
    model.save_pretrained(tmp_path / "ours")
    plain.save_pretrained(tmp_path / "theirs")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_a_copy_has_adapters_of_its_own(model: Any, peft: Any) -> None:
    model.adapters.load("wide")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.zero_()
    assert copied.adapters is not model.adapters
    assert copied.adapters.versions() == []
    assert torch.allclose(copied(IDS, adapter="wide").logits, peft("wide")(IDS).logits, atol=1e-4)


def test_a_pickled_model_comes_back_with_its_adapters(model: Any) -> None:
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for back in (pickle.loads(pickle.dumps(model)), torch.load(stored, weights_only=False)):
        assert torch.equal(back(IDS, adapter="wide").logits, model(IDS, adapter="wide").logits)


def test_a_peft_folder_is_an_adapter_without_a_registry(model: Any, folders: dict[str, Path], peft: Any) -> None:  # fmt: skip
    assert torch.allclose(model(IDS, adapter=folders["mlp"]).logits, peft("mlp")(IDS).logits, atol=1e-4)


def test_loading_and_unloading(model: Any) -> None:
    assert [v.ref for v in model.adapters.load("small", "wide=0.5")] == ["small@1", "wide@1"]
    model.adapters.unload("small")
    assert [v.ref for v in model.adapters.versions()] == ["wide@1"]


# --- refused --------------------------------------------------------------------------


def test_a_list_is_one_adapter_for_each_row(model: Any) -> None:
    for call in (model, model.generate):
        with pytest.raises(ak.AdapterKitError, match="3 rows, but 2 adapters"):
            call(IDS, adapter=["wide", None])
    with pytest.raises(ak.AdapterKitError, match="4 rows, but 2 adapters"):
        model(IDS[[0, 1, 2, 0]], adapter=["wide", None])
    with pytest.raises(ak.AdapterKitError, match="1 rows, but 2 adapters"):
        model.generate(adapter=["wide", None], **GREEDY)
    with pytest.raises(ak.AdapterKitError, match="no adapter for any row"):
        model(IDS, adapter=[])


def test_an_unknown_adapter_is_refused(model: Any) -> None:
    with pytest.raises(ak.NotFound, match="small"):
        model(IDS, adapter="smal")


def test_a_slip_in_another_argument_is_still_caught_by_transformers(model: Any) -> None:
    with pytest.raises(ValueError, match="adaptor"):
        model.generate(IDS, adaptor="wide", **GREEDY)


def test_training_mode_is_refused_with_an_adapter_only(model: Any) -> None:
    model.train()
    model(IDS, labels=IDS).loss.backward()
    for call in (model, model.generate):
        with pytest.raises(ak.Unsupported, match="training mode"):
            call(IDS, adapter="wide")


@pytest.mark.parametrize("told", [{"guidance_scale": 1.5}, {"cache_implementation": "paged"}, {"assistant_model": "x"}])  # fmt: skip
def test_ways_that_would_lose_the_adapter_are_refused(model: Any, told: dict[str, Any]) -> None:
    with pytest.raises(ak.Unsupported, match=next(iter(told))):
        model.generate(IDS, adapter="wide", **GREEDY, **told)


def test_generate_batch_is_refused(model: Any) -> None:
    with pytest.raises(ak.Unsupported, match="generate_batch"):
        model.generate_batch([[1, 2]], adapter="wide")


def test_another_base_is_refused_unless_forced(shelf: Registry, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", seed=5)
    model = ak.with_adapters(GPT2LMHeadModel.from_pretrained(other), registry=shelf)
    with pytest.raises(ak.BaseMismatch, match="small@1 was trained on"):
        model(IDS, adapter="small")
    forced = ak.with_adapters(GPT2LMHeadModel.from_pretrained(other), registry=shelf, force_base=True)
    assert not torch.equal(forced(IDS, adapter="small").logits, forced(IDS).logits)


def test_a_model_that_was_changed_in_memory_is_refused(plain: Any, shelf: Registry, tiny_base: Path) -> None:
    with torch.no_grad():
        plain.transformer.h[1].ln_1.bias[0] += 1e-3
    with pytest.raises(ak.BaseMismatch, match=r"h\.1\.ln_1\.bias differs"):
        ak.with_adapters(plain, registry=shelf)
    assert ak.with_adapters(plain, registry=shelf, force_base=True)(IDS, adapter="small") is not None


def test_a_model_of_other_sizes_is_refused(shelf: Registry, tiny_base: Path, tmp_path: Path) -> None:
    larger = GPT2LMHeadModel.from_pretrained(make_base(tmp_path / "larger", seed=0, layers=3))
    for force in (False, True):
        with pytest.raises(ak.BaseMismatch, match="n_layer is 3, not 2"):
            ak.with_adapters(larger, registry=shelf, base=tiny_base, force_base=force)


def test_a_model_with_more_words_is_taken_when_forced(plain: Any, shelf: Registry) -> None:
    """As with a pad token that was added."""
    before = ak.with_adapters(copy.deepcopy(plain), registry=shelf)(IDS, adapter="wide").logits
    plain.resize_token_embeddings(410)
    with pytest.raises(ak.BaseMismatch, match="vocab_size is 410, not 400") as caught:
        ak.with_adapters(plain, registry=shelf)
    assert "force_base=True" in caught.value.hint
    more = ak.with_adapters(plain, registry=shelf, force_base=True)
    assert torch.allclose(more(IDS, adapter="wide").logits[..., :400], before, atol=1e-5)


def test_a_model_from_nowhere_must_name_its_base(plain: Any, shelf: Registry, tiny_base: Path) -> None:
    bare = GPT2LMHeadModel(plain.config)
    bare.load_state_dict(plain.state_dict())
    bare.config._name_or_path = bare.name_or_path = ""
    with pytest.raises(ak.AdapterKitError, match="does not say which base"):
        ak.with_adapters(bare, registry=shelf)
    named = ak.with_adapters(bare.eval(), registry=shelf, base=tiny_base)
    assert torch.equal(named(IDS).logits, plain(IDS).logits)


@pytest.mark.parametrize("kind", [GPT2Model, GPT2ForSequenceClassification])
def test_other_heads_are_refused(kind: Any, plain: Any, shelf: Registry) -> None:
    with pytest.raises(ak.Unsupported, match=f"this is a {kind.__name__}"):
        ak.with_adapters(kind(plain.config), registry=shelf)


def test_what_peft_has_wrapped_is_refused_and_what_it_gave_back_is_not(peft: Any, shelf: Registry) -> None:
    wrapped = peft("small")
    with pytest.raises(ak.Unsupported, match="this is a PeftModel"):
        ak.with_adapters(wrapped, registry=shelf)
    with pytest.raises(ak.Unsupported, match="is a peft Linear"):
        ak.with_adapters(wrapped.get_base_model(), registry=shelf)
    given_back = wrapped.unload()
    assert ak.with_adapters(given_back, registry=shelf)(IDS, adapter="small") is not None


def test_adapters_twice_are_refused(model: Any, shelf: Registry) -> None:
    with pytest.raises(ak.AdapterKitError, match="already"):
        ak.with_adapters(model, registry=shelf)


def test_double_precision_is_refused(plain: Any, shelf: Registry) -> None:
    with pytest.raises(ak.Unsupported, match="float64"):
        ak.with_adapters(plain.double(), registry=shelf)


def test_the_examples_of_the_docs_run(tiny_base: Path, shelf: Registry, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(shelf.path))
    text = (Path(ak.__file__).parent.parent / "docs" / "transformers.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    for name, ours in {
        "gpt2": str(tiny_base),
        "noir": "wide",
        "shanty": "mlp",
        "my-peft": str(folders["small"]),
    }.items():
        code = code.replace(name, ours)
    known: dict[str, Any] = {}
    exec(code, known)
    assert len(known["ids"]) == 3
