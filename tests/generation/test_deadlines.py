"""Requests end at their deadline, written or waiting, and no more wait than may."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.errors import Overloaded, UsageProblem
from adapterkit.generation import load as loading
from adapterkit.generation.engine import ROWS, Engine
from adapterkit.generation.requests import Request, Ticket
from adapterkit.generation.sampling import Sampling
from adapterkit.model.base import Base
from adapterkit.model.device import choose

GREEDY = Sampling(temperature=0.0, max_new_tokens=30, logit_bias=((399, -100.0),))  # 399 would end it


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in ("requests", "waiting"):
        monkeypatch.setattr(sys.modules[f"adapterkit.generation.{module}"], "time", made)
    return made


@pytest.fixture
def narrow(tiny_base: Path) -> Iterator[Engine]:
    """An engine with one row, so that the second request waits."""
    made = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))
    engine = Engine(made.model, made.tokenizer, made.bank, rows=1)
    yield engine
    engine.close()


@pytest.fixture
def gen(tiny_base: Path, tmp_path: Path) -> Iterator[ak.Generator]:
    with ak.Generator(tiny_base, registry=tmp_path / "none", device="cpu", max_waiting=0) as made:
        made("The", max_new_tokens=1)
        yield made


def _at_piece(ticket: Ticket, number: int, act: object) -> list[str]:
    """Do something when so many pieces of a text came; those that come."""
    pieces: list[str] = []

    def hear(piece: str | None) -> None:
        pieces.append(piece or "")
        if len(pieces) == number:
            act()  # type: ignore[operator]

    ticket.listen(hear)
    return pieces


def _pass(clock: Clock) -> None:
    clock.now += 60


# --- deadlines ---


def test_at_its_deadline_a_request_ends_with_what_was_written(narrow: Engine, clock: Clock) -> None:
    whole = narrow.run([Request("The lamp", (), GREEDY, 0)])[0].text
    with narrow.lock:  # nothing is written before it is listened to
        [ticket] = narrow.submit([Request("The lamp", (), GREEDY, 0, deadline=clock.now + 30)])
        pieces = _at_piece(ticket, 5, lambda: _pass(clock))
    done = ticket.result()
    assert (done.finish_reason, done.text) == ("timeout", "".join(pieces))
    assert 0 < len(done.text) < len(whole)
    assert whole.startswith(done.text)


def test_a_request_that_waits_beyond_its_deadline_ends_without_a_row(narrow: Engine, clock: Clock) -> None:
    ended: list[Ticket] = []
    with narrow.lock:
        requests = [
            Request("The lamp", (), GREEDY, 0),
            Request("Rain", (), GREEDY, 0, deadline=clock.now + 30),
        ]
        first, second, third = narrow.submit([*requests, Request("A", (), GREEDY, 0)])
        for ticket in (first, second, third):
            ticket.when_done(ended.append)
        _at_piece(first, 3, lambda: _pass(clock))
    done = [t.result() for t in (first, second, third)]
    assert [d.finish_reason for d in done] == ["length", "timeout", "length"]
    assert (done[1].text, done[1].new_tokens) == ("", 0)
    assert ended == [second, first, third]  # it did not wait for the first one's row


def test_one_that_waits_and_is_cancelled_ends_though_no_row_is_free(narrow: Engine) -> None:
    ended: list[Ticket] = []
    with narrow.lock:
        first, second = narrow.submit([Request(p, (), GREEDY, 0) for p in ("The lamp", "Rain")])
        for ticket in (first, second):
            ticket.when_done(ended.append)
        _at_piece(first, 3, second.cancel)
    assert (first.result().finish_reason, second.result().finish_reason) == ("length", "cancelled")
    assert ended == [second, first]


def test_a_timeout_is_the_same_in_every_way_of_asking(gen: ak.Generator) -> None:
    async def both() -> tuple[ak.Completion, str]:
        pieces = [piece async for piece in gen.astream("The", timeout=1e-9)]
        return await gen.agenerate("The", timeout=1e-9), "".join(pieces)

    stream = gen.stream("The", timeout=1e-9)
    pieces = "".join(stream)
    later, streamed = asyncio.run(both())
    done = [gen("The", timeout=1e-9), *gen(["A", "B"], timeout=1e-9), stream.completion, later]
    assert [(c.finish_reason, c.text, c.usage.new_tokens) for c in done if c] == [("timeout", "", 0)] * 5
    assert (pieces, streamed) == ("", "")


def test_a_time_that_is_long_enough_changes_nothing(gen: ak.Generator) -> None:
    told = {"seed": 3, "max_new_tokens": 8}
    assert gen("The", timeout=600, **told).text == gen("The", **told).text


@pytest.mark.parametrize("timeout", [0, -1, "5", float("nan")])
def test_a_timeout_that_is_none_is_refused(gen: ak.Generator, timeout: object) -> None:
    with pytest.raises(UsageProblem, match="must be a number of seconds above 0"):
        gen("The", timeout=timeout)


# --- how many wait ---


def test_a_request_beyond_the_bound_is_refused_and_those_before_are_written(gen: ak.Generator) -> None:
    engine = gen.writer(None).engine
    with engine.lock:  # as in a long step
        futures = [gen.submit("The", seed=i, max_new_tokens=3) for i in range(ROWS)]
        for ask in (gen.submit, gen.stream):
            with pytest.raises(Overloaded, match="0 requests wait already; more than 0 may not") as caught:
                ask("The")
    assert (caught.value.exit_code, "max_waiting" in caught.value.hint) == (4, True)
    assert all(f.result(20).usage.new_tokens for f in futures)
    assert gen.submit("The", max_new_tokens=3).result(20).usage.new_tokens


def test_of_a_call_that_is_refused_nothing_waits(narrow: Engine) -> None:
    with narrow.lock:
        [first] = narrow.submit([Request("The lamp", (), GREEDY, 0)], max_waiting=0)
        with pytest.raises(Overloaded):
            narrow.submit([Request("Rain", (), GREEDY, 0)] * 3, max_waiting=0)
        assert len(narrow._waiting) <= 1
    assert first.result().new_tokens


def test_a_list_longer_than_the_bound_is_written(gen: ak.Generator) -> None:
    done = gen(["The", "Rain"] * 50, max_new_tokens=2, temperature=0)
    assert [c.text for c in done] == [done[0].text, done[1].text] * 50


def test_a_call_that_waits_for_its_text_waits_for_room(gen: ak.Generator) -> None:
    engine = gen.writer(None).engine
    with ThreadPoolExecutor(4) as pool:
        with engine.lock:
            futures = [gen.submit("The", seed=i, max_new_tokens=3) for i in range(ROWS)]
            calls = [pool.submit(gen, "The", max_new_tokens=3, seed=i) for i in range(4)]
            with pytest.raises(Overloaded):
                gen.submit("The")
        texts = [c.result(20).text for c in calls]
    assert texts == [f.result(20).text for f in futures[:4]]


def test_a_call_does_not_wait_for_room_beyond_its_time(gen: ak.Generator) -> None:
    engine = gen.writer(None).engine
    with engine.lock:
        futures = [gen.submit("The", seed=i, max_new_tokens=3) for i in range(ROWS)]
        with pytest.raises(Overloaded, match="wait already"):
            gen("The", timeout=0.05)
    assert all(f.result(20) for f in futures)


def test_an_adapter_argument_is_understood_while_a_call_waits_for_room(gen: ak.Generator) -> None:
    """It holds no lock that others need."""
    engine = gen.writer(None).engine
    with engine.lock:
        futures = [gen.submit("The", seed=i, max_new_tokens=3) for i in range(ROWS)]
        caller = threading.Thread(target=gen, args=("The",), kwargs={"max_new_tokens": 3})
        caller.start()
        looked = threading.Thread(target=gen.writer, args=(None,))
        looked.start()
        looked.join(20)
        assert not looked.is_alive()
    caller.join(20)
    assert (caller.is_alive(), all(f.result(20) for f in futures)) == (False, True)


def test_closing_lets_a_call_go_on_that_waits_for_room(tiny_base: Path, tmp_path: Path) -> None:
    gen = ak.Generator(tiny_base, registry=tmp_path / "none", device="cpu", max_waiting=0)
    engine = gen.writer(None).engine
    with ThreadPoolExecutor(2) as pool:
        with engine.lock:
            futures = [gen.submit("The", seed=i, max_new_tokens=50) for i in range(ROWS)]
            call = pool.submit(gen, "The", max_new_tokens=3)
            closing = pool.submit(gen.close)
        closing.result(20)
        assert call.result(20).usage.new_tokens  # a closed generator loads again when it is asked
    assert all(f.done() for f in futures)
    gen.close()


def test_a_bound_below_nothing_is_refused(tiny_base: Path) -> None:
    with pytest.raises(UsageProblem, match="max_waiting is -1"):
        ak.Generator(tiny_base, max_waiting=-1)
