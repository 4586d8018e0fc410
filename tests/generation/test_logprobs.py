"""How likely tokens are, against transformers' log-softmax of a model that PEFT put the adapter on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

import adapterkit as ak
from adapterkit.errors import UsageProblem
from adapterkit.generation import logprobs as scoring
from adapterkit.model.base import locate
from adapterkit.registry.store import Registry
from tests.make import make_peft_adapter

PROMPT = "The lamp was lit"
BASES = ["tiny", "embedded"]


class Oracle:
    """Log-probabilities (t, v) of the token after each of t tokens."""

    def __init__(self, base: Path, adapters: dict[str, Path]) -> None:
        self._base, self._adapters = base, adapters

    @torch.inference_mode()
    def __call__(self, adapter: str | None, ids: list[int]) -> torch.Tensor:
        model = GPT2LMHeadModel.from_pretrained(self._base, dtype=torch.float32).eval()
        if adapter is not None:
            model = PeftModel.from_pretrained(model, self._adapters[adapter]).eval()
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)


@pytest.fixture(scope="module", params=BASES)
def made(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ak.Generator, Oracle]]:
    base = tiny_base if request.param == "tiny" else locate("embedded").folder
    root = tmp_path_factory.mktemp("scored")
    registry, folders = Registry(root / "adapters"), {}
    for seed, name in enumerate(("noir", "shanty")):
        folders[name] = make_peft_adapter(root / name, base, seed=seed, targets=["attn.c_attn", "mlp.c_fc"])
        registry.add(folders[name], name=name, base=str(base), force_base=True)
    gen = ak.Generator(base, registry=registry, device="cpu", precision="fp32", quantize="none", force_base=True)  # fmt: skip
    with gen:
        yield gen, Oracle(base, folders)


def _ids(gen: ak.Generator, prompt: str) -> list[int]:
    return gen.writer(None).engine.encode(prompt, raw=False)


@pytest.mark.parametrize("adapter", [None, "noir"])
def test_each_new_token_has_the_log_probability_of_the_model(
    made: tuple[ak.Generator, Oracle], adapter: str | None
) -> None:
    gen, oracle = made
    # settings that move the scores of the draw: they do not move what is told
    done = gen(PROMPT, adapter, logprobs=4, max_new_tokens=12, seed=5, temperature=1.5, repetition_penalty=1.5, top_k=40)  # fmt: skip
    prompt = _ids(gen, PROMPT)
    assert done.logprobs is not None
    wanted = oracle(adapter, prompt + [t.id for t in done.logprobs])[len(prompt) - 1 : -1]
    assert len(done.logprobs) == done.usage.new_tokens > 3
    for told, row in zip(done.logprobs, wanted, strict=True):
        assert told.logprob == pytest.approx(float(row[told.id]), abs=1e-4)
        assert [a.logprob for a in told.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
        assert [float(row[a.id]) for a in told.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)


@pytest.mark.parametrize("adapter", [None, "shanty", "noir=0.6,shanty=0.4"])
def test_an_echo_scores_the_prompt_with_the_requests_own_adapter(
    made: tuple[ak.Generator, Oracle], adapter: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PIECE", 3)  # so that a short prompt is read in several pieces
    gen, oracle = made
    words = PROMPT + ". Old Tam mended nets"
    done = gen(words, adapter, logprobs=2, echo=True, max_new_tokens=3, temperature=0)
    plain = gen(words, adapter, logprobs=2, max_new_tokens=3, temperature=0)
    prompt = _ids(gen, words)
    assert done.logprobs is not None
    assert plain.logprobs is not None
    told = done.logprobs[: done.usage.prompt_tokens]
    assert ([t.id for t in told], told[0].logprob, told[0].text) == (prompt, None, "<|endoftext|>")
    assert done.text == plain.text
    assert [t.id for t in done.logprobs[len(told) :]] == [t.id for t in plain.logprobs]
    if adapter is None or "=" not in adapter:
        wanted = oracle(adapter, prompt)
        assert [t.logprob for t in told[1:]] == pytest.approx(
            [float(wanted[i, token]) for i, token in enumerate(prompt[1:])], abs=1e-4
        )
        assert [[a.id for a in t.top] for t in told[1:]] == wanted[:-1].topk(2).indices.tolist()
    else:  # a blend agrees with itself, one token at a time
        for n in (1, len(prompt) - 1):
            engine = gen.writer(adapter).engine
            one = engine.model.logits(
                torch.tensor([prompt[:n]]), engine.bank.route([gen.writer(adapter).parts])
            )
            assert told[n].logprob == pytest.approx(float(one[0, -1].log_softmax(-1)[prompt[n]]), abs=1e-4)


def test_a_greedy_token_is_the_first_of_the_likeliest(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    done = gen(PROMPT, "noir", logprobs=1, max_new_tokens=15, temperature=0)
    assert done.logprobs is not None
    assert [t.id for t in done.logprobs] == [t.top[0].id for t in done.logprobs]
    assert [t.logprob for t in done.logprobs] == [t.top[0].logprob for t in done.logprobs]


def test_a_batch_tells_what_each_alone_tells(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    prompts, adapters = [PROMPT, "Rain", "", "We counted the barrels"], ["noir", None, "shanty", "noir"]
    told = {"logprobs": 3, "echo": True, "max_new_tokens": 6, "temperature": 0}
    together = gen(prompts, adapters, **told)
    for prompt, adapter, one in zip(prompts, adapters, together, strict=True):
        alone = gen(prompt, adapter, **told)
        assert one.logprobs is not None
        assert alone.logprobs is not None
        assert [t.id for t in one.logprobs] == [t.id for t in alone.logprobs]
        ours, theirs = ([t.logprob or 0.0 for t in c.logprobs or ()] for c in (one, alone))
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_neighbours_may_ask_for_other_numbers_or_none(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    futures = [gen.submit(PROMPT, "noir", logprobs=k, max_new_tokens=5, seed=1) for k in (None, 0, 2, 20)]
    done = [f.result(30) for f in futures]
    assert done[0].logprobs is None
    assert [{len(t.top) for t in c.logprobs or ()} for c in done[1:]] == [{0}, {2}, {20}]
    assert len({c.text for c in done}) == 1


def test_each_token_has_its_text_and_their_ids_make_the_text(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    tokenizer = gen.writer(None).engine.tokenizer
    told = {"max_new_tokens": 10, "temperature": 0, "logit_bias": {tokenizer.end: -100}}
    done = gen(PROMPT, "noir", logprobs=0, **told)
    assert done.logprobs is not None
    assert tokenizer.decode([t.id for t in done.logprobs]) == done.text
    assert [t.text for t in done.logprobs] == [tokenizer.decode([t.id]) for t in done.logprobs]


def test_the_end_token_is_told_too_and_shown_by_its_name(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    end = gen.writer(None).engine.tokenizer.end
    done = gen(PROMPT, logprobs=1, max_new_tokens=5, logit_bias={end: 100}, temperature=0)
    assert done.logprobs is not None
    assert (done.text, done.finish_reason, done.usage.new_tokens) == ("", "stop", 1)
    assert [(t.text, t.id) for t in done.logprobs] == [("<|endoftext|>", end)]
    assert done.logprobs[0].logprob < -1  # of the model: the bias is not in it


def test_a_stream_tells_them_at_its_end(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    stream = gen.stream(PROMPT, "noir", logprobs=1, max_new_tokens=4, seed=2)
    "".join(stream)
    assert stream.completion is not None
    assert stream.completion.logprobs == gen(PROMPT, "noir", logprobs=1, max_new_tokens=4, seed=2).logprobs


def test_they_are_plain_values_for_json(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    done = gen(PROMPT, "noir", logprobs=2, echo=True, max_new_tokens=2)
    assert json.loads(json.dumps(asdict(done), allow_nan=False))["logprobs"][0]["logprob"] is None


def test_an_echo_of_an_adapter_that_overflows_ends_with_error(made: tuple[ak.Generator, Oracle]) -> None:
    gen, _ = made
    done, beside = gen([PROMPT] * 2, [{"noir": 1e38}, None], logprobs=1, echo=True, max_new_tokens=3)
    assert (done.finish_reason, done.logprobs) == ("error", ())
    assert beside.finish_reason != "error"


@pytest.mark.parametrize("number", [-1, 21, 2.0, True, "5"])
def test_a_number_that_is_none_is_refused(made: tuple[ak.Generator, Oracle], number: object) -> None:
    with pytest.raises(UsageProblem, match="must be a whole number from 0 to 20"):
        made[0](PROMPT, logprobs=number)


def test_an_echo_without_logprobs_says_what_it_needs(made: tuple[ak.Generator, Oracle]) -> None:
    with pytest.raises(UsageProblem, match="needs logprobs") as caught:
        made[0](PROMPT, echo=True)
    assert "Completion.full_text" in caught.value.hint
