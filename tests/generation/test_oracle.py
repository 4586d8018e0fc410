"""Our decode against transformers and PEFT on a small real GPT-2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine, Request
from adapterkit.generation.pages import Loaded
from adapterkit.generation.sampling import Sampling
from adapterkit.model.base import Base
from adapterkit.model.device import choose
from adapterkit.registry.strict import read_lora
from tests.make import make_base, make_peft_adapter

GREEDY = Sampling(temperature=0.0, max_new_tokens=20)
SHAPES = {  # name -> (rank, alpha, targets)
    "small": (4, 8.0, ["attn.c_attn"]),
    "wide": (20, 16.0, ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    "mlp": (8, 32.0, ["mlp.c_fc", "mlp.c_proj"]),
}


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: make_peft_adapter(root / name, tiny_base, seed=i, r=r, alpha=alpha, targets=targets)
        for i, (name, (r, alpha, targets)) in enumerate(SHAPES.items())
    }


@pytest.fixture(scope="module")
def engine(tiny_base: Path) -> Engine:
    return loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))


@pytest.fixture(scope="module")
def loaded(engine: Engine, tiny_base: Path, adapters: dict[str, Path]) -> dict[str, Loaded]:
    dims = Base("tiny", tiny_base).dims
    return {name: engine.bank.load(read_lora(folder, dims, name)) for name, folder in adapters.items()}


def reference(tiny_base: Path, folder: Path | None) -> torch.nn.Module:
    model = GPT2LMHeadModel.from_pretrained(tiny_base).eval()
    return PeftModel.from_pretrained(model, folder).eval() if folder else model


def peft_greedy(model: torch.nn.Module, ids: list[int], count: int, end: int) -> list[int]:
    out: list[int] = []
    with torch.inference_mode():
        for _ in range(count):
            token = int(model(input_ids=torch.tensor([ids + out]), use_cache=False).logits[0, -1].argmax())
            if token == end:
                break
            out.append(token)
    return out


def test_base_logits_equal_transformers(engine: Engine, tiny_base: Path) -> None:
    ids = torch.randint(0, 300, (2, 17))
    ours = engine.model.logits(ids, engine.bank.route([(), ()]))
    theirs = reference(tiny_base, None)(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", list(SHAPES))
def test_adapter_logits_equal_peft(name: str, engine: Engine, loaded: dict[str, Loaded], tiny_base: Path, adapters: dict[str, Path]) -> None:  # fmt: skip
    ids = torch.randint(0, 300, (1, 23))
    ours = engine.model.logits(ids, engine.bank.route([((loaded[name], 1.0),)]))
    theirs = reference(tiny_base, adapters[name])(ids).logits
    assert (ours - reference(tiny_base, None)(ids).logits).abs().max() > 0.05  # the adapter does something
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_mixed_batch_writes_what_peft_writes_one_by_one(
    engine: Engine, loaded: dict[str, Loaded], tiny_base: Path, adapters: dict[str, Path]
) -> None:
    prompts = ["The lamp", "", "Old Tam mended nets and", "Rain fell"]
    names = [None, "small", "wide", "mlp"]
    requests = [
        Request(p, ((loaded[n], 1.0),) if n else (), GREEDY, 0) for p, n in zip(prompts, names, strict=True)
    ]
    written = engine.run(requests)
    for prompt, name, got in zip(prompts, names, written, strict=True):
        model = reference(tiny_base, adapters[name] if name else None)
        wanted = peft_greedy(model, engine.encode(prompt, raw=False), 20, engine.tokenizer.end)
        assert got.text == engine.tokenizer.decode(wanted), name


def test_a_blend_equals_the_weighted_sum_of_updates(
    engine: Engine, loaded: dict[str, Loaded], tiny_base: Path, adapters: dict[str, Path]
) -> None:
    ids = torch.randint(0, 300, (1, 11))
    weights = {"small": 0.7, "wide": -0.4}
    ours = engine.model.logits(ids, engine.bank.route([[(loaded[n], w) for n, w in weights.items()]]))
    merged = GPT2LMHeadModel.from_pretrained(tiny_base).eval()
    plain = {k: v.clone() for k, v in merged.state_dict().items()}
    for name, weight in weights.items():
        own = PeftModel.from_pretrained(
            GPT2LMHeadModel.from_pretrained(tiny_base), adapters[name]
        ).merge_and_unload()
        with torch.no_grad():
            for key, parameter in merged.named_parameters():
                parameter += weight * (own.state_dict()[key] - plain[key])
    assert torch.allclose(ours, merged(ids).logits, atol=1e-4)


def test_a_batch_of_base_rows_gathers_no_page(engine: Engine, loaded: dict[str, Loaded]) -> None:
    route = engine.bank.route([(), ()])
    engine.model.logits(torch.randint(0, 300, (2, 5)), route)
    assert route._gathered == {}


def test_unloading_leaves_the_base_as_it_was(
    engine: Engine, tiny_base: Path, adapters: dict[str, Path]
) -> None:
    ids = torch.randint(0, 300, (1, 9))
    before = engine.model.logits(ids, engine.bank.route([()]))
    extra = engine.bank.load(read_lora(adapters["wide"], Base("tiny", tiny_base).dims, "extra"))
    engine.bank.unload(extra)
    assert all(not a[list(extra.pages)].any() for a in engine.bank._a.values())
    assert torch.equal(before, engine.model.logits(ids, engine.bank.route([()])))


def test_a_seeded_text_does_not_depend_on_its_neighbours(engine: Engine, loaded: dict[str, Loaded]) -> None:
    settings = Sampling(max_new_tokens=15)
    alone = engine.run([Request("The lamp", ((loaded["small"], 1.0),), settings, 5)])[0].text
    beside = engine.run(
        [
            Request("Rain fell on the market", (), settings, 1),
            Request("The lamp", ((loaded["small"], 1.0),), settings, 5),
            Request("", ((loaded["wide"], 1.0),), settings, 2),
        ]
    )[1].text
    assert alone == beside


def test_a_row_that_overflows_ends_with_error_and_leaves_its_neighbour(engine: Engine, loaded: dict[str, Loaded]) -> None:  # fmt: skip
    requests = [Request("The", ((loaded["wide"], float("1e38")),), GREEDY, 0), Request("The", (), GREEDY, 0)]
    broken, healthy = engine.run(requests)
    assert broken.finish_reason == "error"
    assert healthy.text == engine.run([requests[1]])[0].text


def test_generation_goes_to_the_end_of_the_context_and_not_beyond(engine: Engine) -> None:
    settings = Sampling(temperature=0.0, max_new_tokens=500)
    written = engine.run([Request("The lamp", (), settings, 0)])[0]
    assert written.prompt_tokens + written.new_tokens <= engine.model.context


def test_another_base_changes_the_logits(engine: Engine, tmp_path: Path) -> None:
    other = loading.engine(Base("other", make_base(tmp_path / "other", seed=9)), choose("cpu", "fp32"))
    ids = torch.randint(0, 300, (1, 9))
    route = engine.bank.route([()])
    assert not torch.allclose(engine.model.logits(ids, route), other.model.logits(ids, route), atol=0.1)
