"""Adapters under a budget of bytes: what leaves, what stays, and that every text is its adapter's all the same."""

from __future__ import annotations

import gc
import random
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import adapterkit as ak
from adapterkit.errors import AdapterKitError, NotFound, OutOfMemory, Unsupported, UsageProblem
from adapterkit.generation import load as loading
from adapterkit.generation import writers
from adapterkit.generation.pages import PageBank
from adapterkit.generation.prepared import prepare
from adapterkit.generation.resident import Budget, Resident, read_size
from adapterkit.model.base import locate
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import WEIGHTS, LoraFiles, read_version
from tests.generation import crowd
from tests.generation.crowd import Oracle
from tests.sharing.make import publish_full

GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 10}
PROMPTS = ("The", "Rain fell", "She wrote the", "Old Tam", "We counted the barrels")


@pytest.fixture(scope="module")
def oracle(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tiny_base, tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def shelf(oracle: Oracle, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with the oracle's adapters: ranks 1 to 64 on one to four modules."""
    root = tmp_path_factory.mktemp("shelf")
    place.create(root / "adapters")
    for name, folder in oracle.folders.items():
        Registry(root / "adapters").add(folder, name=name, base=str(tiny_base), force_base=True)
    return root / "adapters"


@pytest.fixture(scope="module")
def sizes(shelf: Path, tiny_base: Path) -> dict[str, int]:
    gen = ak.Generator(tiny_base, registry=shelf, device="cpu")
    found = {name: _files(gen, name) for name in crowd.RANKS}
    bank = gen.writer(None).engine.bank
    return {name: bank.bytes_of(files) for name, files in found.items()}


def _gen(tiny_base: Path, shelf: Path, memory: int | str) -> ak.Generator:
    return ak.Generator(tiny_base, registry=shelf, device="cpu", memory=memory)


def _files(gen: ak.Generator, name: str) -> LoraFiles:
    return read_version(gen.registry[name], gen.base.dims)


def _bank(gen: ak.Generator) -> PageBank:
    return gen.writer(None).engine.bank


def _names(gen: ak.Generator) -> list[str]:
    return [v.name for v in gen.adapters()]


def _bytes_at_rest(gen: ak.Generator) -> int:
    """Once the engine has let go of requests that are done, which is a moment after their result is there."""
    bank = _bank(gen)
    for _ in range(500):
        if not bank._pins:
            return bank.bytes
        time.sleep(0.01)
    raise AssertionError(f"still pinned: {bank._pins}")


def _wanted(gen: ak.Generator, oracle: Oracle, name: str, prompt: str, count: int) -> str | None:
    """What the oracle writes; None where its two likeliest tokens lie too close together."""
    engine = gen.writer(None).engine
    style: crowd.Style = () if name == "base" else ((name, 1.0),)
    ids, margins = oracle.write(style, engine.encode(prompt, raw=False), count, engine.tokenizer.end)
    if min(margins) <= crowd.MARGIN:
        return None
    return engine.tokenizer.decode([i for i in ids if i != engine.tokenizer.end])


# --- the budget ---


def test_an_adapter_takes_what_its_numbers_take(tiny_base: Path, shelf: Path, oracle: Oracle) -> None:
    gen = _gen(tiny_base, shelf, "1GB")
    gen.load("eight", "most")  # ranks that fill their pages
    told = [load_file(oracle.folders[name] / WEIGHTS) for name in ("eight", "most")]
    assert _bank(gen).bytes == sum(t.numel() * 4 for each in told for t in each.values())


def test_the_adapter_used_longest_ago_leaves_first(
    tiny_base: Path, shelf: Path, sizes: dict[str, int]
) -> None:
    budget = sizes["twenty"] + sizes["eight"] + sizes["one"]
    gen = _gen(tiny_base, shelf, budget)
    gen.load("one", "four", "eight")
    gen("The", "one", **GREEDY)
    _bytes_at_rest(gen)
    gen.load("twenty")
    assert _names(gen) == ["eight", "one", "twenty"]
    gen.load("one", "four")
    assert _names(gen) == ["twenty", "one", "four"]
    assert _bank(gen).bytes <= budget


def test_a_budget_that_holds_all_lets_nothing_go(tiny_base: Path, shelf: Path, sizes: dict[str, int]) -> None:
    gen = _gen(tiny_base, shelf, sum(sizes.values()))
    gen.load(*crowd.RANKS)
    assert (_names(gen), _bank(gen).bytes) == (list(crowd.RANKS), sum(sizes.values()))


def test_an_adapter_larger_than_the_budget_is_refused_with_the_size_it_takes(
    tiny_base: Path, shelf: Path, sizes: dict[str, int]
) -> None:
    gen = _gen(tiny_base, shelf, sizes["most"] - 1)
    gen.load("one")
    with pytest.raises(OutOfMemory, match=r"most@1 takes [\d.]+ kB of memory; all adapters together") as e:
        gen("The", "most")
    assert e.value.hint.startswith('Generator(..., memory="')
    asked = read_size(e.value.hint.split('"')[1])
    assert _names(gen) == ["one"]  # nothing had to leave for it
    assert _names_after_loading(_gen(tiny_base, shelf, asked), "most") == ["most"]


def _names_after_loading(gen: ak.Generator, name: str) -> list[str]:
    gen.load(name)
    return _names(gen)


def test_without_a_budget_it_is_a_share_of_the_free_memory() -> None:
    from adapterkit.model.quantize import free_memory

    cpu = torch.device("cpu")
    free = free_memory(cpu)
    assert free is not None
    assert 0.15 * free < Budget.of(None, cpu).device < 0.35 * free  # others take and give meanwhile
    assert Budget.of(5, cpu) == Budget(5, 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5g", 1_500_000_000), ("2GiB", 2**31), (7, 7), ("64", 64)],
)
def test_a_size_is_read_as_disks_are_labelled(text: str | int, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "2 PB", True, "iB", "1e9"])
def test_what_is_no_size_is_refused_when_the_generator_is_made(text: Any, tiny_base: Path) -> None:
    with pytest.raises(UsageProblem, match="is no size of memory"):
        ak.Generator(tiny_base, device="cpu", memory=text)


# --- who comes back, and who never leaves ---


def test_an_adapter_that_left_writes_the_same_when_it_is_back(
    tiny_base: Path, shelf: Path, sizes: dict[str, int], oracle: Oracle
) -> None:
    gen = _gen(tiny_base, shelf, max(sizes.values()))  # hardly more than one at a time
    told = [(n, p) for n in [*crowd.RANKS, "base"] for p in PROMPTS]
    random.Random(4).shuffle(told)
    compared = 0
    for name, prompt in told * 2:
        wanted = _wanted(gen, oracle, name, prompt, 10)
        text = gen(prompt, name, **GREEDY).text
        assert wanted is None or text == wanted, name
        compared += wanted is not None
    assert compared > len(told)


def test_requests_under_way_keep_what_they_need_beyond_the_budget(
    tiny_base: Path, shelf: Path, sizes: dict[str, int], oracle: Oracle
) -> None:
    gen = _gen(tiny_base, shelf, sizes["twenty"])
    wanted = {p: _wanted(gen, oracle, "most", p, 40) for p in PROMPTS}
    streams = {p: gen.stream(p, "most", temperature=0, max_new_tokens=40) for p in PROMPTS}
    for name in ("one", "twenty", "four", "eight") * 3:
        gen.load(name)
    texts = {p: "".join(stream) for p, stream in streams.items()}
    assert all(wanted[p] in (None, texts[p]) for p in PROMPTS)
    assert sum(w is not None for w in wanted.values()) >= 2
    _bytes_at_rest(gen)
    gen.load("one")
    assert _bank(gen).bytes <= sizes["twenty"]


def test_what_one_call_needs_at_once_is_loaded_beyond_the_budget(
    tiny_base: Path, shelf: Path, sizes: dict[str, int], oracle: Oracle
) -> None:
    gen = _gen(tiny_base, shelf, max(sizes.values()))
    done = gen(["The"] * 5, list(crowd.RANKS), **GREEDY)
    for c, name in zip(done, crowd.RANKS, strict=True):
        assert _wanted(gen, oracle, name, "The", 10) in (None, c.text)
    assert gen("The", "most=0.5,twenty=0.5", **GREEDY).adapter == "most@1=0.5,twenty@1=0.5"


def test_an_adapter_deleted_while_it_is_away_is_told_as_ever(
    tiny_base: Path, shelf: Path, sizes: dict[str, int], tmp_path: Path, oracle: Oracle
) -> None:
    place.create(tmp_path / "own")
    own = Registry(tmp_path / "own")
    for name in ("most", "twenty"):
        own.add(oracle.folders[name], name=name, base=str(tiny_base), force_base=True)
    gen = _gen(tiny_base, tmp_path / "own", max(sizes.values()))
    version = gen.load("most")[0]
    gen.load("twenty")
    assert _names(gen) == ["twenty"]
    own.delete("most@1", force=True)
    own.gc(now=True)
    with pytest.raises(NotFound, match="most"):
        gen("The", "most")
    with pytest.raises(AdapterKitError, match="most@1"):  # by the object that was held
        gen("The", version)
    assert gen("The", "twenty", **GREEDY).text


# --- many at once ---


def test_threads_with_more_adapters_than_the_budget_holds_get_their_own_texts(
    tiny_base: Path, shelf: Path, sizes: dict[str, int], oracle: Oracle
) -> None:
    gen = _gen(tiny_base, shelf, max(sizes.values()))
    known = {(n, p): _wanted(gen, oracle, n, p, 10) for n in [*crowd.RANKS, "base"] for p in PROMPTS}
    told = [key for key, text in known.items() if text is not None]
    together = threading.Barrier(8)

    def work(seed: int) -> list[tuple[str, str]]:
        draw, wrong = random.Random(seed), []
        together.wait()
        for _ in range(25):
            name, prompt = draw.choice(told)
            if draw.random() < 0.1:
                gen.unload(draw.choice(list(crowd.RANKS)))
            if gen(prompt, name, **GREEDY).text != known[name, prompt]:
                wrong.append((name, prompt))
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert [w for wrong in pool.map(work, range(8)) for w in wrong] == []
    _bytes_at_rest(gen)
    gen.load("one")
    assert _bank(gen).bytes <= max(sizes.values())


def test_an_adapter_that_several_ask_for_is_read_once_and_holds_up_nobody_else(
    tiny_base: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = _gen(tiny_base, shelf, "1GB")
    gen.load("one")
    read: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def slow_disk(version: Any, dims: Any) -> LoraFiles:
        read.append(version.name)
        begun.set()
        assert go.wait(20)
        return read_version(version, dims)

    monkeypatch.setattr(writers, "read_version", slow_disk)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(gen, "The", "four", **GREEDY) for _ in range(3)]
        assert begun.wait(20)
        assert gen("The", "one", **GREEDY).text  # while the others wait for the disk
        go.set()
        assert len({f.result().text for f in waiting}) == 1
    assert read == ["four"]


def test_a_failed_load_is_tried_again_by_the_next(
    tiny_base: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = _gen(tiny_base, shelf, "1GB")
    before = gen("The", "four", **GREEDY).text
    gen.unload("four")
    with monkeypatch.context() as m:
        m.setattr(PageBank, "put", _no_memory)
        with pytest.raises(MemoryError):
            gen.load("four")
    assert (_names(gen), _bytes_at_rest(gen)) == ([], 0)
    assert gen("The", "four", **GREEDY).text == before


def _no_memory(*_: object) -> None:
    raise MemoryError


# --- beside a GPU: host memory ---


def test_what_leaves_the_device_waits_in_host_memory_and_comes_back_bit_by_bit(
    tiny_base: Path, shelf: Path, sizes: dict[str, int]
) -> None:
    gen = _gen(tiny_base, shelf, "1GB")
    dims, names = gen.base.dims, list(crowd.RANKS)
    bank = PageBank(dims, torch.device("cpu"), torch.float32)
    held = Resident(bank, Budget(device=max(sizes.values()), host=sum(sizes.values()) - 1))
    read: list[str] = []

    def get(name: str) -> dict[tuple[str, str], bytes]:
        version = gen.registry[name]

        def from_registry() -> Any:
            read.append(name)
            return prepare(_files(gen, name), dims, torch.float32)

        loaded = held.take(version) or held.put(version, from_registry)
        found = {place: raw.tobytes() for place, raw in bank.get(loaded).raw.items()}
        bank.release([loaded])
        return found

    first = {name: get(name) for name in names}
    assert {name: get(name) for name in names} == first
    assert read == names  # the second time none came from the registry
    assert held.versions()[-1].name == names[-1]
    held.unload(gen.registry["one"])
    get("one")
    assert read == [*names, "one"]  # it was forgotten there too


@pytest.mark.gpu
def test_on_a_gpu_adapters_come_and_go(tiny_base: Path, shelf: Path, sizes: dict[str, int]) -> None:
    told: dict[str, Any] = {"registry": shelf, "device": "cuda", "precision": "fp32"}
    roomy, tight = (ak.Generator(tiny_base, memory=m, **told) for m in ("1GB", max(sizes.values())))
    for name in list(crowd.RANKS) * 2:
        assert tight("The", name, **GREEDY).text == roomy("The", name, **GREEDY).text
    assert _bank(tight).bytes <= max(sizes.values())


# --- refused ---


def test_numbers_too_large_for_float16_leave_the_bank_as_it_was(tiny_base: Path, shelf: Path) -> None:
    gen = ak.Generator(tiny_base, registry=shelf, device="cpu")
    files = _files(gen, "twenty")
    bank = PageBank(locate(str(tiny_base)).dims, torch.device("cpu"), torch.float16)
    kept = bank.load(_files(gen, "four"))
    before = {place: raw.tobytes() for place, raw in bank.get(kept).raw.items()}
    with pytest.raises(Unsupported, match="too large for float16"):
        bank.load(LoraFiles(files.r, 1e8, files.targets, files.tensors))
    again = bank.load(files)
    assert (kept.pages, again.pages) == ((1,), (2, 3, 4))  # no page was lost
    assert {place: raw.tobytes() for place, raw in bank.get(kept).raw.items()} == before


def test_an_adapter_that_was_unloaded_is_no_longer_written_with(tiny_base: Path, shelf: Path) -> None:
    gen = _gen(tiny_base, shelf, "1GB")
    gen.load("one")
    writer = gen.writer("one")
    gen.unload("one")
    gen.load("four")  # lies in the same page
    with pytest.raises(AdapterKitError, match="was unloaded before its request came"):
        _bank(gen).pin(loaded for loaded, _ in writer.parts)


# --- memory ---

CYCLES = """
import sys
from pathlib import Path
from adapterkit import Generator

def anonymous():
    told = Path("/proc/self/status").read_text().split("RssAnon:")[1]
    return int(told.split()[0])

gen = Generator(sys.argv[1], registry=sys.argv[2], device="cpu", memory=sys.argv[3])
names = sys.argv[4].split(",")
for i in range(1100):
    if i == 100:
        before = anonymous()
    gen.load(names[i % len(names)])
    if i % 3 == 0:
        gen.unload(names[i % len(names)])
    gen("The", names[i % len(names)], max_new_tokens=1)
print(before, anonymous())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_loads_take_no_more_memory(tiny_base: Path, shelf: Path, sizes: dict[str, int]) -> None:
    argv = [sys.executable, "-c", CYCLES, str(tiny_base), str(shelf), str(2 * max(sizes.values()))]
    done = subprocess.run(
        [*argv, ",".join(crowd.RANKS)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    before, after = map(int, done.stdout.split())
    assert after < 1.02 * before


# --- closed, unloaded, out of memory ---


def test_a_take_that_finds_no_room_in_host_memory_pins_nothing(
    tiny_base: Path, shelf: Path, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = _gen(tiny_base, shelf, "1GB")
    bank = PageBank(gen.base.dims, torch.device("cpu"), torch.float32)
    held = Resident(bank, Budget(device=sizes["most"], host=sum(sizes.values())))
    for name in ("one", "most"):
        version = gen.registry[name]
        held.put(version, lambda n=name: prepare(_files(gen, n), gen.base.dims, torch.float32))  # type: ignore[misc]
    bank.release(list(bank._pins))  # both were pinned at the same time, which passed the budget
    monkeypatch.setattr(PageBank, "get", _no_memory)
    with pytest.raises(MemoryError):
        held.take(gen.registry["most"])
    assert not bank._pins


@pytest.fixture
def whole(tiny_base: Path, tmp_path: Path) -> Iterator[ak.Generator]:
    """A generator whose registry has the full fine-tune ``whole``."""
    place.create(tmp_path / "own")
    publish_full(Registry(tmp_path / "own"), "whole", tiny_base)
    with ak.Generator(tiny_base, registry=tmp_path / "own", device="cpu") as gen:
        yield gen


def test_an_unloaded_full_fine_tune_writes_its_texts_to_their_end(whole: ak.Generator) -> None:
    told = {**GREEDY, "max_new_tokens": 40}
    wanted = [whole(p, "whole", **told).text for p in PROMPTS]
    streams = [whole.stream(p, "whole", **told) for p in PROMPTS]
    whole.unload("whole")
    assert _names(whole) == []
    assert ["".join(stream) for stream in streams] == wanted
    assert {s.completion.finish_reason for s in streams if s.completion} <= {"length", "stop"}


def test_an_unloaded_full_fine_tune_is_let_go_of(whole: ak.Generator) -> None:
    whole("The", "whole", **GREEDY)
    gone = weakref.ref(whole.writer("whole").engine)
    whole.unload("whole")
    for _ in range(1000):  # its thread waits for a while for more
        gc.collect()
        if gone() is None:
            break
        time.sleep(0.01)
    assert gone() is None


def test_a_close_ends_what_an_unloaded_full_fine_tune_still_writes(whole: ak.Generator) -> None:
    engine = whole.writer("whole").engine
    with engine.lock:  # nothing is written before it is closed
        future = whole.submit("The", "whole", **GREEDY)
        whole.unload("whole")
        closing = threading.Thread(target=whole.close)
        closing.start()
        for _ in range(2000):
            if engine._is_closed:
                break
            time.sleep(0.01)
        assert engine._is_closed
    closing.join(20)
    assert future.result(20).finish_reason == "cancelled"


def test_a_full_fine_tune_that_is_loaded_while_all_is_closed_does_not_stay(
    whole: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    load = loading.full_engine

    def slow_disk(*told: Any, **more: Any) -> Any:
        made.append(load(*told, **more))
        whole.close()
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(loading, "full_engine", slow_disk)
        with pytest.raises(AdapterKitError, match="is closed"):
            whole("The", "whole", **GREEDY)
    assert (_names(whole), made[0]._is_closed) == ([], True)
    assert whole("The", "whole", **GREEDY).text  # the next call loads it again


def test_a_peft_folder_that_was_written_anew_in_place_writes_as_it_is_now(
    tiny_base: Path, oracle: Oracle, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(oracle.folders["four"], folder)
    with ak.Generator(tiny_base, device="cpu", registry=tmp_path / "none") as gen:
        (first,) = gen.load(folder)
        assert gen.load(folder) == [first]
        for file in oracle.folders["most"].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())  # the folder's own times stay
        (second,) = gen.load(folder)
        assert second.digest != first.digest
        wanted = gen("The", oracle.folders["most"], **GREEDY)
        assert gen("The", folder, **GREEDY).text == wanted.text


def test_what_is_pinned_stays_until_it_is_unloaded(
    shelf: Path, sizes: dict[str, int], tiny_base: Path
) -> None:
    others = ["four", "eight", "twenty"]
    with _gen(tiny_base, shelf, max(sizes.values())) as gen:
        [version] = gen.load("one", pin=True)
        for name in [*others, *others]:
            gen("The", name, max_new_tokens=1)
        assert version in gen.adapters()
        gen.unload(version)
        gen("The", "one", max_new_tokens=1)
        for name in others:
            gen("The", name, max_new_tokens=1)
        assert version not in gen.adapters()
