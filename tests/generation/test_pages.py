"""Pages: numbers as torch rounds them, memory that comes and goes, and nothing left for whoever comes next."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
import pytest
import torch

from adapterkit.generation import stores
from adapterkit.generation.pages import PageBank
from adapterkit.generation.prepared import prepare
from adapterkit.generation.stores import Store
from adapterkit.registry.strict import Dims, LoraFiles, tensor_name

DIMS = Dims(layers=3, width=32, inner=128)
CPU = torch.device("cpu")
ALL = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.fixture(params=[True, False], ids=["reserved", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways a store can grow."""
    monkeypatch.setattr(stores, "can_reserve", lambda: request.param)
    return bool(request.param)


def _plain(r: int, targets: tuple[str, ...], seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    made = {}
    for layer in range(DIMS.layers):
        for target in targets:
            n_in, n_out = DIMS.in_out(target)
            made[tensor_name(layer, target, "A")] = torch.randn(r, n_in, generator=draw).to(dtype)
            made[tensor_name(layer, target, "B")] = torch.randn(n_out, r, generator=draw).to(dtype)
    return made


def _files(tensors: dict[str, torch.Tensor], r: int, targets: tuple[str, ...], stored: str) -> LoraFiles:
    told = {n: (stored, tuple(t.shape), t.view(torch.uint8).numpy().tobytes()) for n, t in tensors.items()}
    return LoraFiles(r, 0.3, targets, told)


def _lora(r: int, targets: tuple[str, ...] = ALL, seed: int = 0) -> LoraFiles:
    return _files(_plain(r, targets, seed, torch.float32), r, targets, "F32")


@pytest.mark.parametrize("dtype", STORED.values(), ids=str)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("r", [1, 8, 20])
def test_pages_hold_the_numbers_torch_would_make(r: int, stored: str, dtype: torch.dtype) -> None:
    tensors = _plain(r, ALL, 1, STORED[stored])
    bank = PageBank(DIMS, CPU, dtype)
    loaded = bank.load(_files(tensors, r, ALL, stored))
    ids = torch.tensor([loaded.pages])
    for layer in range(DIMS.layers):
        for target in ALL:
            a, b = bank.gather(ids, layer, target)
            wanted_a = tensors[tensor_name(layer, target, "A")].float().to(dtype)
            wanted_b = (tensors[tensor_name(layer, target, "B")].float().T * 0.3).to(dtype)
            assert torch.equal(a[0, :r], wanted_a)
            assert torch.equal(b[0, :r], wanted_b)
            assert not a[0, r:].any()
            assert not b[0, r:].any()


def test_a_gather_picks_the_pages_of_each_row() -> None:
    bank = PageBank(DIMS, CPU, torch.float32)
    loaded = [bank.load(_lora(8, seed=i)) for i in range(5)]
    ids = torch.tensor([[loaded[3].pages[0], 0], [loaded[1].pages[0], loaded[4].pages[0]]])
    a, b = bank.gather(ids, 2, "mlp.c_fc")
    each = [prepare(_lora(8, seed=i), DIMS, torch.float32).raw["mlp.c_fc", "A"][0, 2] for i in range(5)]
    assert (a.shape, b.shape) == ((2, 16, 32), (2, 16, 128))
    assert np.array_equal(a[0].numpy(), np.concatenate([each[3], np.zeros_like(each[0])]))
    assert np.array_equal(a[1].numpy(), np.concatenate([each[1], each[4]]))


def test_a_page_used_again_holds_nothing_of_who_was_there(way: bool) -> None:
    bank = PageBank(DIMS, CPU, torch.float32)
    first = bank.load(_lora(20, ALL))
    bank.unload(first)
    second = bank.load(_lora(3, ("attn.c_attn",)))
    assert second.pages[0] in first.pages
    ids = torch.tensor([first.pages])
    for layer in range(DIMS.layers):
        for target in ALL[1:]:
            assert not any(x.any() for x in bank.gather(ids, layer, target))
    assert not bank.gather(ids, 0, "attn.c_attn")[0][0, 3:].any()


def test_adapters_stay_where_they_are_while_the_bank_grows(
    way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "RESERVED", 8)
    bank = PageBank(DIMS, CPU, torch.float32)
    loaded = [bank.load(_lora(8, ALL[: 1 + i % 4], seed=i)) for i in range(40)]
    for i, each in enumerate(loaded):
        wanted = prepare(_lora(8, ALL[: 1 + i % 4], seed=i), DIMS, torch.float32).raw
        found = bank.get(each).raw
        assert {p: r.tobytes() for p, r in found.items()} == {p: r.tobytes() for p, r in wanted.items()}
    batch = torch.tensor([[each.pages[0]] for each in loaded])  # of each from every store
    assert (
        bank.gather(batch, 1, "mlp.c_proj")[0].count_nonzero(dim=(1, 2)).tolist() == [0, 0, 0, 8 * 128] * 10
    )


def test_a_bank_that_grows_does_not_move_what_a_gather_reads(
    way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread loads and unloads, another one gathers an adapter that stays."""
    monkeypatch.setattr(stores, "RESERVED", 8)
    bank = PageBank(DIMS, CPU, torch.float32)
    kept = bank.load(_lora(8, seed=100))
    bank.pin([kept])
    ids = torch.tensor([kept.pages])
    wanted = bank.gather(ids, 0, "attn.c_attn")
    ends, wrong = threading.Event(), []

    def look() -> None:
        while not ends.is_set():
            found = bank.gather(ids, 0, "attn.c_attn")
            wrong.extend(1 for a, b in zip(found, wanted, strict=True) if not torch.equal(a, b))

    thread = threading.Thread(target=look)
    thread.start()
    for i in range(30):
        many = [bank.load(_lora(8, seed=i)) for _ in range(i)]
        for each in many:
            bank.unload(each)
    ends.set()
    thread.join()
    assert wrong == []
    bank.release([kept])
    assert bank.drop(kept)
    assert bank.bytes == 0


@pytest.mark.skipif(not stores.can_reserve(), reason="addresses are not free here")
def test_a_freed_page_gives_its_memory_back() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as told:
            return int(told.read().split()[1]) * 4096

    store = Store(12, 3072, torch.float32, CPU)
    before = resident()
    page = np.ones((12, 8, 3072), np.float32)
    for i in range(100):
        store.put(i, page)
    full = resident() - before
    for i in range(100):
        store.clear(i)
    assert full > 90 * page.nbytes
    assert resident() - before < full / 10
    assert not store.tensor[:100].any()


@pytest.mark.parametrize("size", [32, 96, 1000, 1024])
def test_a_cleared_page_leaves_its_neighbours(size: int, way: bool) -> None:
    """Whether or not it fills whole pages of the system."""
    store = Store(3, size, torch.float32, CPU)
    page: Any = np.ones((3, 8, size), np.float32)
    for i in range(8):
        store.put(i, page * (i + 1))
    store.clear(4)
    assert store.tensor[:8].amax((1, 2, 3)).tolist() == [1, 2, 3, 4, 0, 6, 7, 8]
    assert store.tensor[:8].amin((1, 2, 3)).tolist() == [1, 2, 3, 4, 0, 6, 7, 8]


# --- reserved memory ---

RESERVES = pytest.mark.skipif(not stores.can_reserve(), reason="addresses are not free here")


def _resident() -> int:
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) * 4096


@RESERVES
def test_a_store_that_grows_beyond_its_reserve_takes_no_memory_for_pages_nobody_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stores, "RESERVED", 64)
    store = Store(12, 3072, torch.float32, CPU)
    page: Any = np.ones((12, 8, 3072), np.float32)
    for i in (3, 40, 41):
        store.put(i, page * i)
    store.clear(41)
    before = _resident()
    assert store.ensure(65)
    assert _resident() - before < 20 * page.nbytes
    filled = store.tensor[:65].amax((1, 2, 3))
    assert {int(i): filled[i].item() for i in filled.nonzero()} == {3: 3.0, 40: 40.0}


@RESERVES
@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_no_addresses_are_taken_in_advance_where_a_limit_counts_them(name: str) -> None:
    resource = pytest.importorskip("resource")
    kind = getattr(resource, name)
    before = resource.getrlimit(kind)
    if before[1] != resource.RLIM_INFINITY:
        pytest.skip("the limit could not be lifted again")
    try:
        resource.setrlimit(kind, (1 << 46, before[1]))
        assert not stores.can_reserve.__wrapped__()
    finally:
        resource.setrlimit(kind, before)
    assert stores.can_reserve.__wrapped__()


@RESERVES
def test_a_page_of_locked_memory_is_cleared_all_the_same() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    store = Store(1, 512, torch.float32, CPU)
    place, size = ctypes.c_void_p(store.tensor.data_ptr()), ctypes.c_size_t(3 * store.tensor[0].nbytes)
    if libc.mlock(place, size):
        pytest.skip("memory can't be locked here")
    page: Any = np.ones((1, 8, 512), np.float32)
    try:
        for i in range(3):
            store.put(i, page)
        store.clear(1)
        assert store.tensor[:3].sum((1, 2, 3)).tolist() == [4096, 0, 4096]
    finally:
        libc.munlock(place, size)
