"""The engine under a crowd: every text is the one its adapter writes alone."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from adapterkit.errors import AdapterKitError, PromptTooLong
from adapterkit.generation import engine as engines
from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine
from adapterkit.generation.requests import Request, Ticket
from adapterkit.generation.sampling import Sampling
from adapterkit.model.base import Base
from adapterkit.model.device import choose
from adapterkit.registry.strict import read_lora
from tests.generation import crowd
from tests.generation.crowd import Oracle, Tally

GREEDY = Sampling(temperature=0.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def oracle(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tiny_base, tmp_path_factory.mktemp("crowd"))


@pytest.fixture
def engine(tiny_base: Path) -> Engine:
    made = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))
    yield made
    made.close()


def _load(engine: Engine, oracle: Oracle, tiny_base: Path, name: str) -> engines.Loaded:
    return engine.load(read_lora(oracle.folders[name], Base("tiny", tiny_base).dims, name))


def _crowd(engine: Engine, oracle: Oracle, tiny_base: Path, seed: int, count: int) -> Tally:
    return crowd.play(engine, oracle, lambda n: _load(engine, oracle, tiny_base, n), seed=seed, count=count)


def test_every_text_is_the_one_its_adapter_writes_alone(
    engine: Engine, oracle: Oracle, tiny_base: Path
) -> None:
    tally = _crowd(engine, oracle, tiny_base, seed=1, count=300)
    assert tally.wrong == []
    assert (tally.equal > 250, tally.excused <= 3) == (True, True)
    assert min(tally.cancelled, tally.late, tally.raised, tally.overflowed) > 3


@pytest.mark.slow
def test_ten_thousand_texts_are_those_their_adapters_write_alone(
    engine: Engine, oracle: Oracle, tiny_base: Path
) -> None:
    tally = _crowd(engine, oracle, tiny_base, seed=2, count=10_000)
    assert (tally.wrong, tally.excused <= 10) == ([], True)


def test_eight_threads_get_what_one_gets(engine: Engine, oracle: Oracle, tiny_base: Path) -> None:
    loaded = {name: _load(engine, oracle, tiny_base, name) for name in crowd.NAMES}
    draw = random.Random(3)
    each = [[crowd.asked(draw) for _ in range(12)] for _ in range(8)]
    together = threading.Barrier(8)

    def work(many: list[crowd.Asked]) -> list[tuple[crowd.Asked, Ticket]]:
        together.wait()
        tickets = [engine.submit([crowd.request(one, loaded)])[0] for one in many]
        for one, ticket in zip(many, tickets, strict=True):
            crowd.attend(one, ticket)
        for ticket in tickets:
            crowd.end(ticket)
        return list(zip(many, tickets, strict=True))

    tally = Tally()
    with ThreadPoolExecutor(8) as pool:
        for pairs in pool.map(work, each):
            for one, ticket in pairs:
                crowd.judge(one, ticket, engine, oracle, tally)
    assert (tally.wrong, tally.equal + tally.excused > 80) == ([], True)
    assert min(tally.cancelled, tally.raised, tally.overflowed) > 0


def test_more_requests_than_rows_wait_for_their_turn(tiny_base: Path, oracle: Oracle) -> None:
    made = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))
    narrow = Engine(made.model, made.tokenizer, made.bank, rows=2)
    written = narrow.run([Request(p, (), GREEDY, 0) for p in ("The", "A", "We", "She", "Rain")])
    alone = [narrow.run([Request(p, (), GREEDY, 0)])[0].text for p in ("The", "A", "We", "She", "Rain")]
    assert [w.text for w in written] == alone
    narrow.close()


def test_an_error_in_a_step_ends_those_it_met_and_no_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = engine.model.step, []

    def fails_once(*told: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError("none left")
        return step(*told)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.model, "step", fails_once)
    with pytest.raises(MemoryError, match="none left"):
        engine.run([Request("The lamp", (), GREEDY, 0)])
    assert engine.run([Request("The lamp", (), GREEDY, 0)])[0].new_tokens > 0


def test_a_row_that_is_no_number_leaves_its_neighbours_and_its_successor_alone(
    engine: Engine, oracle: Oracle, tiny_base: Path
) -> None:
    loaded = _load(engine, oracle, tiny_base, "eight")
    healthy = Request("The tide", (), GREEDY, 0)
    alone = engine.run([healthy])[0].text
    for _ in range(3):
        broken, beside = engine.run([Request("The tide", ((loaded, 1e38),), GREEDY, 0), healthy])
        assert (broken.finish_reason, beside.text, engine.run([healthy])[0].text) == ("error", alone, alone)


def test_an_adapter_is_kept_until_its_last_request_is_done(
    engine: Engine, oracle: Oracle, tiny_base: Path
) -> None:
    loaded = _load(engine, oracle, tiny_base, "four")
    tickets = engine.submit([Request("The", ((loaded, 1.0),), GREEDY, 0) for _ in range(3)])
    engine.unload(loaded)
    assert len({t.result().text for t in tickets}) == 1
    engine.run([Request("", (), GREEDY, 0)])  # a step later its pages are free, and zero
    assert not any(a[list(loaded.pages)].any() for a in engine.bank._a.values())


def test_a_cancelled_request_that_waits_is_never_begun(tiny_base: Path) -> None:
    made = loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))
    narrow = Engine(made.model, made.tokenizer, made.bank, rows=1)
    first, second = narrow.submit([Request("The", (), GREEDY, 0), Request("A", (), GREEDY, 0)])
    second.cancel()
    assert (first.result().finish_reason != "cancelled", second.result().new_tokens) == (True, 0)
    narrow.close()


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_enqueued(engine: Engine) -> None:
    with pytest.raises(PromptTooLong, match=r"the prompt is [\d,]+ tokens; this base sees 64"):
        engine.submit([Request("The", (), GREEDY, 0), Request("lamp " * 80, (), GREEDY, 0)])
    assert not engine._waiting


def test_closing_ends_what_is_written_and_refuses_what_comes(engine: Engine) -> None:
    tickets = engine.submit([Request("The", (), GREEDY.with_(max_new_tokens=40), i) for i in range(40)])
    engine.close()
    assert all(t.wait(5) for t in tickets)
    with pytest.raises(AdapterKitError, match="is closed"):
        engine.submit([Request("The", (), GREEDY, 0)])


def test_the_thread_ends_when_there_is_nothing_to_do(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "IDLE", 0.05)
    engine.run([Request("The", (), GREEDY, 0)])
    owner = engine._owner
    assert owner is not None
    owner.join(5)
    assert (owner.is_alive(), engine.run([Request("The", (), GREEDY, 0)])[0].new_tokens > 0) == (False, True)


EXIT = """
import sys
from adapterkit import Generator

gen = Generator("embedded", device="cpu")
futures = [gen.submit("The sea", seed=i, max_new_tokens=200) for i in range(16)]
if sys.argv[1] == "in the middle":
    next(iter(gen.stream("The sea", max_new_tokens=5)))
else:
    gen("The sea", max_new_tokens=5)
"""


@pytest.mark.parametrize("when", ["in the middle", "after a text"])
def test_a_program_may_end_while_something_is_written(when: str) -> None:
    """A thread inside torch when the interpreter goes aborts the process, in every second run or so."""
    argv = [sys.executable, "-c", EXIT, when]
    done = [subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False) for _ in range(3)]
    assert [(p.returncode, p.stderr) for p in done] == [(0, "")] * 3


def test_a_forked_process_ends_though_its_parent_writes() -> None:
    code = """
import os
from adapterkit import Generator

gen = Generator("embedded", device="cpu")
futures = [gen.submit("The sea", seed=i, max_new_tokens=200) for i in range(8)]
pid = os.fork()
if pid == 0:
    raise SystemExit(0)
assert os.waitpid(pid, 0)[1] == 0
assert futures[0].result().text
"""
    argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_pieces_come_as_they_are_written_and_make_the_text(engine: Engine) -> None:
    [ticket] = engine.submit([Request("The lamp", (), GREEDY, 0)])
    pieces = list(ticket)
    assert ("".join(pieces), len(pieces) > 3) == (ticket.result().text, True)


def test_being_told_of_the_end_works_before_and_after_it(engine: Engine) -> None:
    told: list[Ticket] = []
    [ticket] = engine.submit([Request("The lamp", (), GREEDY, 0)])
    ticket.when_done(told.append)
    ticket.result()
    ticket.when_done(told.append)
    engine.close()
    assert told == [ticket, ticket]


@pytest.mark.slow
def test_the_same_crowd_finds_the_wrong_adapters_of_a_model_that_has_an_active_one(
    oracle: Oracle, tiny_base: Path
) -> None:
    """PEFT from several threads: so this way of looking can find what it looks for."""
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    names = list(crowd.RANKS)
    model = PeftModel.from_pretrained(
        GPT2LMHeadModel.from_pretrained(tiny_base), oracle.folders[names[0]], adapter_name=names[0]
    )
    for name in names[1:]:
        model.load_adapter(oracle.folders[name], adapter_name=name)
    model.eval()
    ids = list(range(5, 12))

    def write(name: str) -> list[int]:
        model.set_adapter(name)
        out: list[int] = []
        with torch.inference_mode():
            for _ in range(12):
                top = model(input_ids=torch.tensor([ids + out]), use_cache=False).logits[0, -1]
                out.append(int(top.argmax()))
        return out

    wanted = {name: write(name) for name in names}
    asked = [names[i % len(names)] for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        wrong = sum(got != wanted[name] for name, got in zip(asked, pool.map(write, asked), strict=True))
    assert wrong > 0
