"""Rows that come and go: their routes, long prompts in pieces, and beginnings that are kept."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import torch

from adapterkit.errors import UsageProblem
from adapterkit.generation import load as loading
from adapterkit.generation.cache import Cache
from adapterkit.generation.engine import Engine
from adapterkit.generation.pages import Loaded
from adapterkit.generation.prefixes import Prefix, Prefixes
from adapterkit.generation.requests import Request, Ticket
from adapterkit.generation.routes import Routes
from adapterkit.generation.sampling import Sampling
from adapterkit.model.base import Base
from adapterkit.model.device import choose
from adapterkit.registry.strict import read_lora
from tests.generation import crowd
from tests.generation.crowd import Oracle

LONG = "the rain came in over the hills and nobody was there to see it"  # about 30 tokens


@pytest.fixture(scope="module")
def oracle(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tiny_base, tmp_path_factory.mktemp("crowd"))


@pytest.fixture
def engine(tiny_base: Path) -> Engine:
    """Reads seven tokens at a time and keeps beginnings of four."""
    plain = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))
    made = Engine(plain.model, plain.tokenizer, plain.bank, rows=6, piece=7, prefixes=Prefixes(least=4))
    yield made
    made.close()


def load(engine: Engine, oracle: Oracle, name: str) -> Loaded:
    folder = oracle.folders[name]
    return engine.load(read_lora(folder, engine.bank.dims, name))


def write(engine: Engine, prompt: str, style: dict[Loaded, float], count: int = 8, **more: object) -> Ticket:
    parts = tuple(style.items())
    how = Sampling(temperature=0.0, max_new_tokens=count)
    [ticket] = engine.submit([Request(prompt, parts, how, 0, keeps=parts, **more)])  # type: ignore[arg-type]
    ticket.result()
    return ticket


def test_pieces_and_kept_beginnings_change_no_text(engine: Engine, oracle: Oracle) -> None:
    tally = crowd.play(engine, oracle, lambda name: load(engine, oracle, name), seed=3, count=400)
    assert tally.wrong == []
    assert (tally.equal > 300, tally.excused <= 3) == (True, True)
    assert len(engine.prefixes) > 5


def test_a_long_prompt_does_not_hold_up_those_who_write(engine: Engine, oracle: Oracle) -> None:
    order: list[str] = []
    how = Sampling(temperature=0.0, max_new_tokens=40)
    [short] = engine.submit([Request("a", (), how, 0)])
    short.listen(lambda piece: order.append("short"))
    [long] = engine.submit([Request(LONG, (), how, 0)])
    long.listen(lambda piece: order.append("long"))
    short.result()
    long.result()
    between = order.index("long")
    assert between >= len(engine.encode(LONG, False)) // 7  # a step of the other for each piece


def test_who_ends_while_its_prompt_is_read_lets_go_of_its_pages(engine: Engine, oracle: Oracle) -> None:
    four = load(engine, oracle, "four")
    how = Sampling(temperature=0.0, max_new_tokens=20)
    with engine.lock:  # all of them are there before the first step
        soon = time.perf_counter() + 0.02
        asked = [Request(LONG, ((four, 1.0),), how, 0, deadline=soon) for _ in range(5)]
        late, cancelled = engine.submit(asked), engine.submit([Request(LONG, ((four, 1.0),), how, 0)])
        [first] = engine.submit([Request("a", (), how, 0)])
        first.listen(lambda piece: cancelled[0].cancel())
    ends = {ticket.result().finish_reason for ticket in [*late, *cancelled]}
    assert ends <= {"timeout", "cancelled", "length", "stop"}
    first.result()
    patience = time.perf_counter() + 10
    while engine.bank.is_pinned(four) and time.perf_counter() < patience:
        time.sleep(0.001)
    assert not engine.bank.is_pinned(four)


def test_no_memory_for_a_prompt_s_cache_ends_that_request_and_frees_its_pages(
    engine: Engine, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = load(engine, oracle, "four")
    whole = engine.model.new_cache

    def refuse_one_row(rows: int, length: int) -> Cache:
        if rows == 1 and length > 20:
            raise MemoryError
        return whole(rows, length)

    monkeypatch.setattr(engine.model, "new_cache", refuse_one_row)
    how = Sampling(temperature=0.0, max_new_tokens=4)
    asked = [Request(LONG, ((four, 1.0),), how, 0), Request("the", (), how, 0), Request("a", (), how, 0)]
    long, *others = engine.submit(asked)
    with pytest.raises(MemoryError):
        long.result()
    assert [t.result().finish_reason for t in others] == ["length", "length"]
    while engine.bank.is_pinned(four):
        time.sleep(0.001)


def test_a_callback_may_not_wait_for_room(engine: Engine) -> None:
    caught: list[UsageProblem] = []

    def tell(_: Ticket) -> None:
        try:
            engine.wait_for_room(0)
        except UsageProblem as e:
            caught.append(e)

    with engine.lock:
        [ticket] = engine.submit([Request("a", (), Sampling(max_new_tokens=1), 0)])
        ticket.when_done(tell)
    ticket.result()
    while not caught:
        time.sleep(0.001)
    assert "the same thread writes it" in str(caught[0])


def test_a_text_that_goes_on_is_not_read_again(engine: Engine, oracle: Oracle) -> None:
    four = load(engine, oracle, "four")
    first = write(engine, LONG, {four: 1.0})
    again = LONG + " so"
    second = write(engine, again, {four: 1.0})
    assert second.written.kept_tokens == first.written.prompt_tokens
    fresh, _ = oracle.write((("four", 1.0),), engine.encode(again, False), 8, engine.tokenizer.end)
    assert second.ids[-8:] == fresh


def test_what_another_reader_kept_is_never_taken(engine: Engine, oracle: Oracle) -> None:
    four, eight = load(engine, oracle, "four"), load(engine, oracle, "eight")
    write(engine, LONG, {four: 1.0})
    for style in ({}, {eight: 1.0}, {four: 0.5}, {four: 1.0, eight: 1.0}):
        assert write(engine, LONG + " then", style).written.kept_tokens == 0
    assert write(engine, LONG + " then", {four: 1.0}).written.kept_tokens > 20
    while engine.bank.is_pinned(four):  # the engine lets go a moment after the text is there
        time.sleep(0.001)
    engine.unload(four)
    again = load(engine, oracle, "twenty")  # in the pages that were four's
    assert set(four.pages) <= set(again.pages)
    assert write(engine, LONG + " then", {again: 1.0}).written.kept_tokens == 0


def test_a_prompt_that_was_read_whole_has_its_last_token_read_again(engine: Engine) -> None:
    first = write(engine, LONG, {})
    second = write(engine, LONG, {})
    assert second.written.kept_tokens == second.written.prompt_tokens - 1
    assert second.ids == first.ids


def test_what_went_wrong_is_not_kept(engine: Engine, oracle: Oracle) -> None:
    huge = load(engine, oracle, crowd.HUGE)
    assert write(engine, LONG, {huge: 1.0}).written.finish_reason == "error"
    assert len(engine.prefixes) == 0


def test_what_is_kept_stays_within_its_bytes() -> None:
    kv = torch.zeros(2, 2, 1, 10, 4)  # 640 bytes
    kept = Prefixes(2000, least=4)
    for i in range(5):
        kept.keep("a", Prefix(tuple(range(i * 10, i * 10 + 10)), kv, 10))
    assert (len(kept), kept.bytes) == (3, 1920)
    assert kept.find("a", range(12))[0] == 0  # the first went first
    assert kept.find("a", [*range(20, 30), 7])[0] == 10
    kept.keep("a", Prefix(tuple(range(90, 100)), kv, 10))  # now 30.. was used longest ago
    assert [kept.find("a", [*range(n, n + 10), 7])[0] for n in (20, 30, 40, 90)] == [10, 0, 10, 10]
    kept.keep("a", Prefix(tuple(range(1000)), torch.zeros(1000), 10))  # larger than all the room
    assert kept.find("a", [*range(900), 7])[0] == 0


def test_one_text_is_kept_of_each_prompt() -> None:
    kept = Prefixes(least=2)
    for i in range(9):
        kept.keep("a", Prefix((1, 2, 3, 100 + i), torch.zeros(1), asked=3))
    kept.keep("b", Prefix((1, 2, 3, 100), torch.zeros(1), asked=3))
    assert len(kept) == 2
    assert kept.find("a", [1, 2, 3, 108, 5])[0] == 4


def test_the_routes_of_rows_that_come_and_go_are_those_of_the_rows(engine: Engine, oracle: Oracle) -> None:
    """The oracle is the route of the same rows, gathered anew."""
    bank, draw = engine.bank, random.Random(5)
    loaded = [load(engine, oracle, name) for name in crowd.RANKS]
    routes, rows = Routes(bank), []
    for _ in range(300):
        if rows and draw.random() < 0.45:
            place = draw.randrange(len(rows))
            routes.leave(place)
            rows[place] = rows[-1]
            rows.pop()
        else:
            new = [
                tuple((each, draw.choice([1.0, -0.5])) for each in draw.sample(loaded, draw.randrange(3)))
                for _ in range(draw.randrange(1, 4))
            ]
            routes.join(new)
            rows += new
        if not rows:
            continue
        for target in crowd.TARGETS:
            n_in, n_out = bank.dims.in_out(target)
            x, y = torch.randn(len(rows), 1, n_in), torch.randn(len(rows), 1, n_out)
            got = routes.route().add(y.clone(), x, 1, target)
            torch.testing.assert_close(got, bank.route(rows).add(y.clone(), x, 1, target))
