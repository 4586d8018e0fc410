"""The public Generator: what an adapter argument means and what a result tells."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import adapterkit as ak
from adapterkit.errors import UsageProblem
from adapterkit.registry.store import Registry

QUICK = {
    "epochs": 2,
    "max_length": 64,
    "tokens_per_step": 512,
    "learning_rate": 0.01,
    "max_new_tokens": 12,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Registry:
    """A registry with two adapters, ``odd`` and ``even``."""
    from tests.conftest import SENTENCES

    root = tmp_path_factory.mktemp("shelf")
    for name, part in (("odd", SENTENCES[1::2]), ("even", SENTENCES[0::2])):
        texts = [f"{part[i % 4]} {part[(i + 1) % 4]}" for i in range(120)]
        ak.train(ak.Documents(texts, name=name), registry=root, base=str(tiny_base), **QUICK)
    return Registry(root)


@pytest.fixture
def gen(shelf: Registry, tiny_base: Path) -> ak.Generator:
    return ak.Generator(tiny_base, registry=shelf, device="cpu")


def test_a_result_names_who_wrote_it(gen: ak.Generator) -> None:
    done = gen("The", adapter="odd=0.5,even=0.5", max_new_tokens=3)
    assert done.adapter == "odd@1=0.5,even@1=0.5"
    assert done.digests == tuple(gen.registry[n].digest for n in ("odd", "even"))


def test_the_seed_is_told_also_when_it_was_drawn(gen: ak.Generator) -> None:
    done = gen("The", adapter="odd", max_new_tokens=8)
    assert gen("The", adapter="odd", max_new_tokens=8, seed=done.seed).text == done.text


def test_none_and_base_are_the_plain_base(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 8}
    assert gen("The", None, **told).text == gen("The", "base", **told).text
    assert gen("The", None).adapter == "base"


def test_a_strength_of_one_is_the_adapter_and_of_zero_the_base(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 10}
    assert gen("The", "odd=1", **told).text == gen("The", "odd", **told).text
    assert gen("The", "odd=0", **told).text == gen("The", None, **told).text


def test_the_adapters_write_differently(gen: ak.Generator) -> None:
    texts = {c.text for c in gen.compare("The", [None, "odd", "even"], temperature=0, max_new_tokens=12)}
    assert len(texts) == 3


def test_several_prompts_take_one_adapter_each(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 8}
    together = gen(["The", "Rain"], ["odd", None], **told)
    assert [c.text for c in together] == [gen("The", "odd", **told).text, gen("Rain", None, **told).text]


def test_one_prompt_with_several_adapters_names_compare(gen: ak.Generator) -> None:
    with pytest.raises(ak.AdapterKitError, match=r"gen\.compare"):
        gen("The", ["odd", "even"])  # type: ignore[call-overload]


def test_unequal_lists_are_refused(gen: ak.Generator) -> None:
    with pytest.raises(ak.AdapterKitError, match="2 prompts, but 3 adapters"):
        gen(["a", "b"], ["odd", "even", None])


def test_n_samples_of_one_seed_differ_and_repeat(gen: ak.Generator) -> None:
    first = [c.text for c in gen.samples("The", "odd", n=3, seed=4, temperature=2.0, top_p=1.0)]
    assert len(set(first)) == 3
    assert first == [c.text for c in gen.samples("The", "odd", n=3, seed=4, temperature=2.0, top_p=1.0)]


def test_a_stream_gives_the_text_of_the_call(gen: ak.Generator) -> None:
    stream = gen.stream("The", "odd", seed=3)
    text = "".join(stream)
    assert stream.completion is not None
    assert text == stream.completion.text == gen("The", "odd", seed=3).text


def test_a_closed_stream_is_cancelled_and_keeps_what_was_written(gen: ak.Generator) -> None:
    stream = gen.stream("The", "odd", seed=3, max_new_tokens=40, temperature=5.0, top_p=1.0)
    pieces = iter(stream)
    first = next(pieces)
    stream.close()
    assert stream.completion is not None
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text.startswith(first)


def test_a_failed_call_leaves_the_next_as_it_was(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 8}
    before = gen("The", "odd", **told).text
    with pytest.raises(ak.NotFound):
        gen("The", "nobody")
    with pytest.raises(ak.PromptTooLong):
        gen("The lamp was lit and the tide came in. " * 20, "even")
    assert gen("The", "odd", **told).text == before


def test_a_prompt_as_long_as_the_context_says_both_numbers(gen: ak.Generator) -> None:
    with pytest.raises(ak.PromptTooLong, match=r"tokens; this base sees 64"):
        gen("The lamp was lit and the tide came in. " * 20)


def test_threads_get_their_own_adapters(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 10}
    wanted = {a: gen("The", a, **told).text for a in ("odd", "even", "base")}
    wrong: list[str] = []

    def work(adapter: str) -> None:
        wrong.extend(adapter for _ in range(8) if gen("The", adapter, **told).text != wanted[adapter])

    threads = [threading.Thread(target=work, args=(a,)) for a in wanted for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


def test_an_unloaded_adapter_is_loaded_again(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 8}
    before = gen("The", "odd", **told).text
    gen.unload("odd")
    assert [v.name for v in gen.adapters()] == []
    assert gen("The", "odd", **told).text == before


def test_a_session_goes_on_from_its_text_and_slides(gen: ak.Generator) -> None:
    chat = ak.Session(gen, "odd", max_new_tokens=10, seed=1)
    for _ in range(12):
        chat("The lamp was lit and the tide came in. ")
    assert chat.forgotten > 0
    assert chat.text.startswith("The lamp was lit")


def test_a_session_switches_its_writer_and_keeps_its_text(gen: ak.Generator) -> None:
    chat = ak.Session(gen, "odd", max_new_tokens=5, seed=1)
    chat("The")
    before = chat.text
    chat.switch("even")
    chat()
    assert chat.text.startswith(before)
    assert chat.adapter == "even@1"


def test_a_retry_replaces_the_last_passage(gen: ak.Generator) -> None:
    chat = ak.Session(gen, "odd", max_new_tokens=5, temperature=3.0)
    chat("The")
    again = "".join(chat.retry())
    assert chat.text == "The" + again


def test_a_repetition_penalty_changes_the_text(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 25}
    assert gen("The", "odd", repetition_penalty=5.0, **told).text != gen("The", "odd", **told).text


def test_an_adapter_unloaded_under_a_stream_still_writes_it(gen: ak.Generator) -> None:
    wanted = gen("The", "odd", seed=3).text
    stream = gen.stream("The", "odd", seed=3)
    gen.unload("odd")
    gen.load("even")
    assert "".join(stream) == wanted


@pytest.mark.parametrize("seed", ["abc", "17", 1.7, True, [3]])
@pytest.mark.parametrize("beams", [1, 2])
def test_a_seed_that_is_no_whole_number_is_refused(gen: ak.Generator, seed: object, beams: int) -> None:
    with pytest.raises(UsageProblem, match="it must be a whole number") as told:
        gen("The", "odd", seed=seed, num_beams=beams, max_new_tokens=2)
    assert (told.value.message.split(";")[0], told.value.hint) == (f"seed is {seed!r}", "seed=17")


def test_a_whole_number_of_numpy_is_a_seed(gen: ak.Generator) -> None:
    wanted = gen("The", "odd", seed=3, temperature=3.0)
    made = gen("The", "odd", seed=np.int64(3), temperature=3.0)
    assert (made.text, made.seed) == (wanted.text, 3)


def test_what_only_sessions_hand_on_is_no_setting(gen: ak.Generator) -> None:
    with pytest.raises(UsageProblem, match="unknown sampling setting 'memory'"):
        gen("The", memory=3)


def test_a_comparison_of_nobody_is_refused(gen: ak.Generator) -> None:
    with pytest.raises(UsageProblem, match="nothing to compare"):
        gen.compare("The", [])


def test_a_stream_that_nobody_holds_is_written_no_further(gen: ak.Generator) -> None:
    engine = gen.writer("odd").engine
    with engine.lock:  # nothing is written before it is dropped
        ticket = gen.stream("The", "odd", max_new_tokens=40, logit_bias={399: -100})._pieces
    written = ticket.result()  # type: ignore[attr-defined]
    assert (written.finish_reason, written.new_tokens) == ("cancelled", 0)


def test_a_stream_that_was_read_to_its_end_is_not_cancelled_when_it_is_dropped(gen: ak.Generator) -> None:
    stream = gen.stream("The", "odd", seed=3)
    ticket = stream._pieces
    assert "".join(stream)
    del stream
    assert not ticket.is_cancelled  # type: ignore[attr-defined]


def test_a_stream_is_closed_at_the_end_of_its_block(gen: ak.Generator) -> None:
    with gen.stream("The", "odd", max_new_tokens=40, temperature=5.0, top_p=1.0) as stream:
        first = next(iter(stream))
    assert stream.completion is not None
    assert stream.completion.text.startswith(first)
    before = stream.completion
    stream.close()
    assert stream.completion is before


def test_an_error_in_the_block_of_a_stream_is_the_one_that_is_told(gen: ak.Generator) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        gen.stream("The", "odd", max_new_tokens=40) as stream,
    ):
        raise ZeroDivisionError
    assert stream.completion is not None
