"""What goes wrong for one request, or for one who is told of it, and what becomes of the others."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.errors import UsageProblem
from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine
from adapterkit.generation.requests import Request, Ticket
from adapterkit.generation.sampling import Sampling
from adapterkit.model.base import Base
from adapterkit.model.device import choose
from adapterkit.registry.store import Registry
from tests.make import make_peft_adapter

GREEDY = Sampling(temperature=0.0, max_new_tokens=20, logit_bias=((399, -100.0),))  # 399 would end it
PROMPTS = ("The lamp", "Rain fell", "We counted", "")


class Own(Exception):
    """An error of whoever listens."""


@pytest.fixture
def engine(tiny_base: Path) -> Iterator[Engine]:
    made = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))
    yield made
    made.close()


def _requests() -> list[Request]:
    return [Request(p, (), GREEDY, 0) for p in PROMPTS]


def _fails_at(ticket: Ticket, number: int, error: BaseException) -> None:
    """Listen, and raise at the piece of that number."""
    heard: list[str | None] = []

    def hear(piece: str | None) -> None:
        heard.append(piece)
        if len(heard) == number:
            raise error

    ticket.listen(hear)


# --- those who are told ---


@pytest.mark.parametrize("error", [Own("no more"), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 4])
def test_a_listener_that_raises_ends_its_own_text_only(engine: Engine, error: BaseException, at: int) -> None:
    wanted = [w.text for w in engine.run(_requests())]
    with engine.lock:
        tickets = engine.submit(_requests())
        _fails_at(tickets[1], at, error)
    with pytest.raises(type(error)):
        tickets[1].result()
    assert tickets[1].written.finish_reason == "error"
    assert [t.result().text for t in tickets if t is not tickets[1]] == [wanted[0], *wanted[2:]]
    assert [w.text for w in engine.run(_requests())] == wanted


def test_a_listener_that_raises_at_the_very_end_leaves_the_text(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def hear(piece: str | None) -> None:
        if piece is None:
            raise Own("at the end")

    with engine.lock:
        [ticket] = engine.submit(_requests()[:1])
        ticket.listen(hear)
    assert ticket.result().text
    engine.run(_requests())  # the thread goes on
    assert "Own('at the end')" in caplog.text


@pytest.mark.parametrize("error", [Own("told"), SystemExit(3)])
def test_one_who_raises_when_told_of_the_end_harms_nobody(
    engine: Engine, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [w.text for w in engine.run(_requests())]
    told: list[Ticket] = []

    def fails(_: Ticket) -> None:
        raise error

    with engine.lock:
        tickets = engine.submit(_requests())
        for ticket in tickets:
            ticket.when_done(fails)
            ticket.when_done(told.append)
    assert [t.result().text for t in tickets] == wanted
    assert [w.text for w in engine.run(_requests())] == wanted
    assert (len(told), type(error).__name__ in caplog.text) == (4, True)


def test_one_who_raises_when_a_waiting_request_is_cancelled_harms_nobody(tiny_base: Path) -> None:
    made = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))
    narrow = Engine(made.model, made.tokenizer, made.bank, rows=1)

    def fails(_: Ticket) -> None:
        raise SystemExit(3)

    with narrow.lock:
        first, second, third = narrow.submit(_requests()[:3])
        second.when_done(fails)
        second.cancel()
    assert [t.result().finish_reason for t in (first, second, third)] == ["length", "cancelled", "length"]
    narrow.close()


def test_who_is_told_of_an_end_may_load_an_adapter_and_ask_for_more(tiny_base: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "adapters")
    folder = make_peft_adapter(tmp_path / "noir", tiny_base, seed=1, targets=["attn.c_attn"])
    registry.add(folder, name="noir", base=str(tiny_base), force_base=True)
    with ak.Generator(tiny_base, registry=registry, device="cpu", force_base=True) as gen:
        wanted = gen("The lamp", "noir", temperature=0, max_new_tokens=8).text
        gen.unload("noir")
        texts: list[str] = []
        done = threading.Event()

        def hear(text: str) -> None:
            texts.append(text)
            done.set()

        def go_on(_: object) -> None:
            gen.load("noir")
            after = gen.submit("The lamp", "noir", temperature=0, max_new_tokens=8)
            after.add_done_callback(lambda f: hear(f.result().text))

        gen.submit("Rain", max_new_tokens=5).add_done_callback(go_on)
        assert done.wait(20)
        assert texts == [wanted]


def test_who_is_told_of_an_end_can_not_wait_for_another_text(engine: Engine) -> None:
    caught: list[BaseException] = []

    def waits(_: Ticket) -> None:
        try:
            engine.run(_requests())
        except BaseException as e:
            caught.append(e)

    [ticket] = engine.submit(_requests()[:1])
    ticket.when_done(waits)
    ticket.result()
    engine.close()
    assert [type(e) for e in caught] == [UsageProblem]
    assert "same thread writes it" in str(caught[0])


def test_a_listener_that_raises_at_a_piece_of_before_ends_the_text_too(engine: Engine) -> None:
    heard = threading.Event()
    with engine.lock:
        first, second = engine.submit(_requests()[:2])
        second.when_done(lambda _: heard.set())
        first.listen(lambda _: _fails_at(second, 1, Own("late")))  # its first piece may have come before
    with pytest.raises(Own):
        second.result()
    assert heard.wait(20)
    assert first.result().new_tokens == 20


def test_a_stream_that_was_read_to_its_end_can_be_closed_and_read_again(engine: Engine) -> None:
    [ticket] = engine.submit(_requests()[:1])
    pieces = list(ticket)
    ended: list[list[str]] = []
    again = threading.Thread(target=lambda: ended.append(list(ticket)), daemon=True)
    again.start()
    again.join(20)
    assert (ended, "".join(pieces)) == ([[]], ticket.result().text)


def test_a_text_that_failed_under_a_session_is_told_and_the_session_goes_on(
    tiny_base: Path, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "adapters")
    folder = make_peft_adapter(tmp_path / "noir", tiny_base, seed=1, targets=["attn.c_attn", "mlp.c_fc"])
    registry.add(folder, name="noir", base=str(tiny_base), force_base=True)
    with ak.Generator(tiny_base, registry=registry, device="cpu", force_base=True) as gen:
        session = gen.session({"noir": 1e38}, max_new_tokens=3)
        session("The lamp")
        assert session.passages[0].finish_reason == "error"
        session.switch("noir")
        assert "".join(session.retry())
        assert [p.adapter for p in session.passages] == ["noir@1"]


# --- the thread ---


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_end_of_the_thread_itself_ends_its_requests_and_the_next_one_begins_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = engine.model.step, []

    def ends_once(*told: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise SystemExit(3)  # which nothing of ours raises, and which ends a thread in silence
        return step(*told)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.model, "step", ends_once)
    with engine.lock:
        tickets = engine.submit(_requests())
    for ticket in tickets:
        with pytest.raises(SystemExit):
            ticket.result()
    assert engine.run(_requests())[0].new_tokens == 20
    assert not engine.bank._pins


def test_a_thread_that_can_not_begin_is_told_and_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("can't start")))
        with pytest.raises(RuntimeError, match="can't start"):
            engine.submit(_requests())
    assert len(engine._waiting) == 0
    assert engine.run(_requests())[0].new_tokens == 20


FORKED = """
import os, signal, threading
from adapterkit import Forked, Generator

gen = Generator("embedded", device="cpu")
future = gen.submit("The sea", seed=1, max_new_tokens=400)
stream = gen.stream("The sea", seed=1, max_new_tokens=400)
held, free = threading.Event(), threading.Event()

def hold():
    with gen._writers.lock:
        held.set()
        free.wait(30)

threading.Thread(target=hold).start()
held.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(30)  # ends it where it waits for ever
    refused = 0
    for ask in (lambda: gen("The"), lambda: gen.stream("The"), lambda: gen.submit("The"), stream.close,
                lambda: gen.compare("The", [None]), lambda: gen.load("x"), lambda: gen.unload("x")):
        try:
            ask()
        except Forked:
            refused += 1
    gen.close()
    os._exit(refused)
free.set()
status = os.waitpid(pid, 0)[1]
assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7, status
assert future.result().text
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no fork")
def test_a_forked_process_is_refused_whatever_was_locked_when_it_began() -> None:
    argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- memory ---


def test_pieces_that_nobody_reads_are_not_kept(engine: Engine) -> None:
    [ticket] = engine.submit(_requests()[:1])
    ticket.mute()
    ticket.result()
    assert ticket._pieces.empty()


def test_a_ticket_that_is_done_is_let_go_of(engine: Engine) -> None:
    tickets = engine.submit(_requests())
    gone = [weakref.ref(t) for t in tickets]
    for ticket in tickets:
        ticket.result()
    del tickets, ticket
    for _ in range(200):  # until the thread has looked and found nothing
        gc.collect()
        if not any(ref() for ref in gone):
            break
        threading.Event().wait(0.05)
    assert [ref() for ref in gone] == [None] * 4
