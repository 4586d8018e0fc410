"""Asking without standing still, adapters from files, long prompts, and an end in good order."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.errors import AdapterKitError, NotFound, PromptTooLong, UsageProblem
from adapterkit.model.base import Base
from adapterkit.registry.store import Registry
from tests.make import make_peft_adapter

SETTINGS = {"seed": 5, "max_new_tokens": 16}


@pytest.fixture(scope="module")
def stocked(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two adapters, ``a`` in two versions and ``b``, made by PEFT."""
    root = tmp_path_factory.mktemp("later")
    registry = Registry(root / "adapters")
    for seed, name in enumerate(["a", "a", "b"]):
        folder = make_peft_adapter(
            root / f"{name}{seed}", tiny_base, seed=seed, targets=["attn.c_attn", "mlp.c_fc"]
        )
        registry.add(folder, name=name, base=str(tiny_base), force_base=True)
    return registry


@pytest.fixture
def gen(stocked: Registry, tiny_base: Path) -> Iterator[ak.Generator]:
    with ak.Generator(tiny_base, registry=stocked, device="cpu") as made:
        yield made


# --- futures and coroutines ---


def test_a_future_is_what_the_call_gives(gen: ak.Generator) -> None:
    waited = gen.submit("The lamp", "a", **SETTINGS).result(20)
    assert (waited.text, waited.digests) == (
        gen("The lamp", "a", **SETTINGS).text,
        (gen.registry["a"].digest,),
    )


def test_many_futures_are_each_their_own(gen: ak.Generator) -> None:
    names = [None, "a", "a@1", "b", "a=0.5,b=0.5"] * 4
    futures = [gen.submit("The lamp", name, **SETTINGS) for name in names]
    texts = {f"{name}": gen("The lamp", name, **SETTINGS).text for name in names}
    assert [f.result(20).text for f in futures] == [texts[f"{name}"] for name in names]


def test_a_future_that_is_cancelled_ends_the_writing(gen: ak.Generator) -> None:
    gen("The", **SETTINGS)
    future = gen.submit("The", seed=1, max_new_tokens=50)
    assert future.cancel() or future.done()
    assert gen("The", **SETTINGS).text


def test_a_mistake_is_told_at_once_and_not_by_the_future(gen: ak.Generator) -> None:
    with pytest.raises(NotFound):
        gen.submit("The", "nobody")


def test_coroutines_write_at_once_what_calls_write(gen: ak.Generator) -> None:
    async def all_of_them() -> list[str]:
        made = await asyncio.gather(*(gen.agenerate("The lamp", n, **SETTINGS) for n in (None, "a", "b")))
        return [c.text for c in made]

    assert asyncio.run(all_of_them()) == [gen("The lamp", n, **SETTINGS).text for n in (None, "a", "b")]


def test_pieces_come_in_an_event_loop_and_make_the_text(gen: ak.Generator) -> None:
    async def read() -> list[str]:
        return [piece async for piece in gen.astream("The lamp", "a", **SETTINGS)]

    pieces = asyncio.run(read())
    assert ("".join(pieces), len(pieces) > 2) == (gen("The lamp", "a", **SETTINGS).text, True)


def test_twenty_streams_of_one_loop_need_no_thread_each(gen: ak.Generator) -> None:
    async def read(i: int) -> str:
        return "".join([p async for p in gen.astream("The lamp", ["a", "b"][i % 2], **SETTINGS)])

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(read(i) for i in range(20)))

    gen("The", **SETTINGS)
    before = threading.active_count()
    texts = asyncio.run(all_of_them())
    assert texts == [gen("The lamp", ["a", "b"][i % 2], **SETTINGS).text for i in range(20)]
    assert threading.active_count() <= before + 1


def test_leaving_a_stream_of_an_event_loop_ends_the_writing(gen: ak.Generator) -> None:
    async def first() -> str:
        async for piece in gen.astream("The lamp", seed=1, max_new_tokens=50):
            return piece
        return ""

    assert asyncio.run(first())
    engine = gen.writer(None).engine
    assert engine.run([]) == []
    gen.close()  # ends at once, as nothing is written


def test_a_session_is_had_from_the_generator(gen: ak.Generator) -> None:
    session = gen.session("a", seed=3, max_new_tokens=8)
    said = session("The lamp")
    assert (session.text, bool(said)) == ("The lamp" + said, True)


# --- versions come and go ---


def test_a_new_version_is_used_by_the_next_call_and_the_old_one_by_its_number(
    stocked: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(stocked.path, tmp_path / "adapters")
    registry = Registry(tmp_path / "adapters")
    with ak.Generator(tiny_base, registry=registry, device="cpu") as gen:
        before = gen("The lamp", "b", **SETTINGS)
        folder = make_peft_adapter(tmp_path / "new", tiny_base, seed=9, targets=["attn.c_attn"])
        registry.add(folder, name="b", base=str(tiny_base), force_base=True)
        after = gen("The lamp", "b", **SETTINGS)
        assert (before.adapter, after.adapter) == ("b@1", "b@2")
        assert gen("The lamp", "b@1", **SETTINGS).text == before.text


def test_unloading_while_it_writes_changes_nothing_of_the_text(gen: ak.Generator) -> None:
    alone = gen("The lamp", "a", **SETTINGS).text
    stream = gen.stream("The lamp", "a", **SETTINGS)
    gen.unload("a")
    assert "".join(stream) == alone
    assert gen("The lamp", "a", **SETTINGS).text == alone


# --- files without a registry ---


def test_a_packed_file_writes_without_a_registry(gen: ak.Generator, tiny_base: Path, tmp_path: Path) -> None:
    path = gen.registry.pack("b", to=tmp_path)
    with ak.Generator(tiny_base, registry=tmp_path / "none", device="cpu") as alone:
        [version] = alone.load(path)
        written = alone("The lamp", path, **SETTINGS)
        assert (version.digest, written.text) == (
            gen.registry["b"].digest,
            gen("The lamp", "b", **SETTINGS).text,
        )
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_no_adapter_is_refused(gen: ak.Generator, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(AdapterKitError):
        gen("The lamp", tmp_path / "x.safetensors")


# --- long prompts ---


def test_a_prompt_that_is_too_long_says_how_to_give_its_end(gen: ak.Generator) -> None:
    with pytest.raises(PromptTooLong, match="this base sees 64") as caught:
        gen("lamp " * 90)
    assert "--overflow left" in caught.value.hint


def test_overflow_left_writes_on_from_the_end_and_says_what_was_cut(
    gen: ak.Generator, tiny_base: Path
) -> None:
    words = "The lamp was lit and the tide came in over the stones. " * 12
    written = gen(words, overflow="left", **SETTINGS)
    ids = gen.writer(None).engine.tokenizer.encode(words)
    room = Base("tiny", tiny_base).context - 16
    assert written.usage.cut_tokens == len(ids) + 1 - room
    assert written.usage.prompt_tokens == room
    end = gen.writer(None).engine.tokenizer.decode(ids[-(room - 1) :])
    assert gen(end, **SETTINGS).text == written.text


def test_an_overflow_that_is_none_is_refused(gen: ak.Generator) -> None:
    with pytest.raises(UsageProblem, match="overflow is 'right'"):
        gen("The", overflow="right")


# --- the end ---


def test_closing_ends_a_stream_with_what_was_written(gen: ak.Generator) -> None:
    stream = gen.stream("The lamp", seed=1, max_new_tokens=50)
    pieces = iter(stream)
    first = next(pieces)
    gen.close()
    rest = "".join(pieces)
    assert stream.completion is not None
    assert stream.completion.text == first + rest


def test_a_closed_generator_loads_again_when_it_is_asked(gen: ak.Generator) -> None:
    before = gen("The lamp", "a", **SETTINGS).text
    gen.close()
    assert gen("The lamp", "a", **SETTINGS).text == before
