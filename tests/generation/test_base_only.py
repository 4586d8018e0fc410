"""What adapters cost where they are not used: torch's own profiler counts the operations of a call."""

from __future__ import annotations

from ast import literal_eval
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine, Request
from adapterkit.generation.pages import Loaded
from adapterkit.generation.sampling import Sampling
from adapterkit.model.base import Base
from adapterkit.model.device import choose
from adapterkit.registry.strict import read_lora
from tests.generation.crowd import TARGETS
from tests.make import make_peft_adapter

LAYERS, RANK = 2, 8  # of tiny_base, and of the adapters
OUTS = {"attn.c_attn": 96, "attn.c_proj": 32, "mlp.c_fc": 128, "mlp.c_proj": 32}  # numbers a module puts out
PRODUCTS = {f"aten::{name}" for name in ("mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_")}
SETTINGS = Sampling(temperature=0.0, max_new_tokens=4)
Ops = Counter[tuple[str, str]]  # name and shapes of what goes in -> how often


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of one module, and one of all four."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: make_peft_adapter(root / name, tiny_base, seed=1, r=RANK, targets=targets)
        for name, targets in (("narrow", TARGETS[:1]), ("wide", TARGETS))
    }


@pytest.fixture(params=(0, 8), ids=("fp32", "8-bit"))
def engine(request: pytest.FixtureRequest, tiny_base: Path) -> Iterator[Engine]:
    """One without any adapter, that has written before: what is made once is made."""
    made = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"), bits=request.param)
    made.run([Request("The lamp", (), SETTINGS, 0) for _ in range(2)])
    yield made
    made.close()


def operations(engine: Engine, adapters: list[Loaded | None]) -> Ops:
    """What a call runs, in the engine's thread too: prompts read and four tokens written, a row for each adapter."""
    requests = [Request("The lamp", ((a, 1.0),) if a else (), SETTINGS, 0) for a in adapters]
    with profile(
        activities=[ProfilerActivity.CPU],
        record_shapes=True,
        experimental_config=_ExperimentalConfig(profile_all_threads=True),
    ) as seen:
        written = engine.run(requests)
    assert all(w.finish_reason == "length" for w in written)
    return Counter((e.name, str(e.input_shapes)) for e in seen.events())


def products(found: Ops) -> Counter[int]:
    """Matrix products by the numbers they put out for each row."""
    out: Counter[int] = Counter()
    for (name, shapes), count in found.items():
        if name in PRODUCTS:
            matrices = [s for s in literal_eval(shapes) if len(s) >= 2]
            out[matrices[-1][-1]] += count
    return out


def load(engine: Engine, folders: dict[str, Path], tiny_base: Path) -> dict[str, Loaded]:
    dims = Base("tiny", tiny_base).dims
    return {name: engine.load(read_lora(folder, dims, name)) for name, folder in folders.items()}


def test_base_rows_run_the_same_operations_beside_loaded_adapters_as_without(
    engine: Engine, folders: dict[str, Path], tiny_base: Path
) -> None:
    without = operations(engine, [None, None])
    load(engine, folders, tiny_base)
    assert operations(engine, [None, None]) == without


@pytest.mark.parametrize("row", ["alone", "mixed"])
def test_an_adapter_of_one_module_adds_products_there_only(
    engine: Engine, folders: dict[str, Path], tiny_base: Path, row: str
) -> None:
    loaded = load(engine, folders, tiny_base)
    beside: list[Loaded | None] = [None] if row == "mixed" else []
    base = operations(engine, [None, *beside])
    added = {
        name: products(operations(engine, [adapter, *beside]) - base) for name, adapter in loaded.items()
    }
    assert set(added["narrow"]) == {RANK, OUTS["attn.c_attn"]}
    assert set(added["wide"]) == {RANK, *OUTS.values()}
    assert added["narrow"].total() >= 2 * LAYERS  # down to the rank and up again
    assert added["wide"].total() == len(TARGETS) * added["narrow"].total()


def test_the_operations_of_a_call_are_seen(engine: Engine) -> None:
    """Or equal counts would say nothing: each token's norms are there, two a layer and the last."""
    found = operations(engine, [None])
    norms = sum(n for (name, _), n in found.items() if name == "aten::native_layer_norm")
    assert norms == SETTINGS.max_new_tokens * (2 * LAYERS + 1)
