"""Beam search of the Generator. The oracle is PEFT's ``generate(num_beams=...)`` on a model with one adapter."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, GPT2LMHeadModel

import adapterkit as ak
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.make import make_peft_adapter

TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
PROMPTS = ["The lamp", "", "Old Tam mended nets and"]


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("peft")
    return {
        name: make_peft_adapter(root / name, tiny_base, seed=i, r=r, alpha=2.0 * r, targets=TARGETS)
        for i, (name, r) in enumerate({"noir": 4, "shanty": 20}.items())
    }


@pytest.fixture(scope="module")
def shelf(folders: dict[str, Path], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("shelf") / "adapters"
    place.create(root)
    for name, folder in folders.items():
        Registry(root).add(folder, name=name, base=str(tiny_base), force_base=True)
    return Registry(root)


@pytest.fixture(scope="module")
def gen(shelf: Registry, tiny_base: Path) -> ak.Generator:
    return ak.Generator(tiny_base, registry=shelf, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Tokenizer:
    return Tokenizer(tiny_base)


def oracle(base: Path, folder: Path | None, ours: Tokenizer, prompt: str, **told: Any) -> list[int]:
    """New tokens, without the end."""
    model = GPT2LMHeadModel.from_pretrained(base)
    model = PeftModel.from_pretrained(model, folder).eval() if folder else model.eval()
    ids = torch.tensor([[ours.end, *ours.encode(prompt)]])
    out = model.generate(input_ids=ids, do_sample=False, pad_token_id=ours.end, **told)
    new: list[int] = out[0, ids.shape[1] :].tolist()
    return new[: new.index(ours.end)] if ours.end in new else new


WAYS: dict[str, dict[str, Any]] = {
    "plain": {"num_beams": 4, "max_new_tokens": 16},
    "two beams": {"num_beams": 2, "max_new_tokens": 30},
    "penalties": {"num_beams": 3, "max_new_tokens": 20, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("name", [None, "noir", "shanty"])
def test_the_text_is_that_of_pefts_beams(gen: ak.Generator, tiny_base: Path, folders: dict[str, Path], tokenizer: Tokenizer, name: str | None, way: str) -> None:  # fmt: skip
    told = WAYS[way]
    for prompt in PROMPTS:
        wanted = oracle(tiny_base, folders[name] if name else None, tokenizer, prompt, **told)
        done = gen(prompt, name, **told)
        assert done.text == tokenizer.decode(wanted)
        assert done.usage.prompt_tokens == 1 + len(tokenizer.encode(prompt))
        ended = done.stopped_by == "end-of-text"
        assert done.usage.new_tokens == len(wanted) + ended
        assert done.finish_reason == ("stop" if ended else "length")


def test_several_prompts_have_their_own_adapters(gen: ak.Generator) -> None:
    told = WAYS["plain"]
    names: list[Any] = ["noir", None, {"noir": 0.5, "shanty": 0.5}]
    together = gen(PROMPTS, names, **told)
    assert [c.text for c in together] == [gen(p, n, **told).text for p, n in zip(PROMPTS, names, strict=True)]
    assert [c.adapter for c in together] == ["noir@1", "base", "noir@1=0.5,shanty@1=0.5"]
    assert together[0].digests == (gen.registry["noir"].digest,)


def test_a_stop_string_ends_beams_as_transformers_ends_them(gen: ak.Generator, tiny_base: Path, folders: dict[str, Path], tokenizer: Tokenizer) -> None:  # fmt: skip
    told: dict[str, Any] = {"num_beams": 4, "max_new_tokens": 20}
    theirs = AutoTokenizer.from_pretrained(tiny_base)
    ended = 0
    for prompt, name in itertools.product(("Rain fell", "Old Tam mended nets and"), (None, "noir", "shanty")):
        text = gen(prompt, name, **told).text
        for stop in [c for c in dict.fromkeys(text) if c.isprintable() and c != "\ufffd"][:6]:
            done = gen(prompt, name, stop=stop, **told)
            more = {**told, "stop_strings": stop, "tokenizer": theirs}
            new = oracle(tiny_base, folders[name] if name else None, tokenizer, prompt, **more)
            whole = tokenizer.decode(new)
            assert done.text == whole.split(stop)[0]
            assert done.stopped_by == (stop if stop in whole else "")
            ended += stop in whole
    assert ended > 2  # so that something was compared


def test_a_banned_token_is_not_written(gen: ak.Generator, tokenizer: Tokenizer) -> None:
    told: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 10}
    first = tokenizer.encode(gen("The lamp", **told).text)[0]
    assert first not in tokenizer.encode(gen("The lamp", **told, logit_bias={first: -100}).text)


def test_the_seed_is_told_again_and_changes_nothing(gen: ak.Generator) -> None:
    told: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 10, "temperature": 0}
    first, second = gen("The", "noir", seed=5, **told), gen("The", "noir", seed=6, **told)
    assert (first.seed, second.seed) == (5, 6)
    assert first.text == second.text
    assert first.sampling.temperature == 0


def test_one_beam_is_the_engines_own_text(gen: ak.Generator) -> None:
    told: dict[str, Any] = {"temperature": 0, "max_new_tokens": 10}
    assert gen("The", "noir", num_beams=1, **told).text == gen("The", "noir", **told).text


def test_without_the_start_token(gen: ak.Generator, tokenizer: Tokenizer) -> None:
    done = gen("The lamp", num_beams=2, max_new_tokens=3, raw=True)
    assert done.usage.prompt_tokens == len(tokenizer.encode("The lamp"))


def test_a_long_prompt_is_refused_or_cut_as_the_engine_cuts_it(gen: ak.Generator) -> None:
    long = "The lamp was lit and the tide came in. " * 20
    with pytest.raises(ak.PromptTooLong, match=r"tokens; this base sees 64"):
        gen(long, num_beams=2)
    told: dict[str, Any] = {"overflow": "left", "max_new_tokens": 9}
    ours, engines = gen(long, num_beams=2, **told).usage, gen(long, **told).usage
    assert (ours.prompt_tokens, ours.cut_tokens) == (engines.prompt_tokens, engines.cut_tokens)


def test_numbers_that_overflow_end_with_error(gen: ak.Generator) -> None:
    done = gen("The", "shanty=1e38", num_beams=2, max_new_tokens=4)
    assert (done.text, done.finish_reason) == ("", "error")
    assert gen("The", "shanty", num_beams=2, max_new_tokens=4).finish_reason != "error"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"num_beams": 0}, "num_beams is 0; it must be a whole number of 1 to 64"),
        ({"num_beams": 2.5}, r"num_beams is 2\.5"),
        ({"num_beams": 100}, "num_beams is 100"),
        ({"num_beams": 2, "temperature": 0.5}, "temperature does not go together with num_beams"),
        ({"num_beams": 2, "top_p": 0.5}, "top_p does not go together"),
        ({"num_beams": 2, "logprobs": 2}, "logprobs does not go together"),
        ({"num_beams": 2, "overflow": "right"}, "overflow is 'right'"),
        ({"num_beams": 2, "no_such": 1}, "unknown sampling setting 'no_such'"),
    ],
)
def test_what_does_not_fit_is_refused(gen: ak.Generator, told: dict[str, Any], words: str) -> None:
    with pytest.raises(ak.AdapterKitError, match=words):
        gen("The", "noir", **told)


def test_streams_futures_sessions_and_comparisons_are_refused(gen: ak.Generator) -> None:
    calls = (
        lambda: gen.stream("The", "noir", num_beams=2),
        lambda: gen.submit("The", "noir", num_beams=2),
        lambda: gen.session("noir", num_beams=2)("The"),
        lambda: gen.compare("The", [None, "noir"], num_beams=2),
    )
    for call in calls:
        with pytest.raises(ak.AdapterKitError, match="num_beams is for whole texts"):
            call()
    with pytest.raises(ak.AdapterKitError, match="finds one text"):
        gen.samples("The", "noir", n=2, num_beams=2)
    [only] = gen.samples("The", "noir", n=1, num_beams=2, max_new_tokens=6)
    assert only.text == gen("The", "noir", num_beams=2, max_new_tokens=6).text


def test_transformers_is_loaded_for_beams_only(shelf: Registry, tiny_base: Path) -> None:
    code = f"""
import sys, adapterkit as ak
with ak.Generator({str(tiny_base)!r}, registry={str(shelf.path)!r}, device="cpu", precision="fp32") as gen:
    gen("The", "noir", max_new_tokens=2)
    print("transformers" in sys.modules)
    gen("The", "noir", max_new_tokens=2, num_beams=2)
    print("transformers" in sys.modules, "peft" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "True", "False"], done.stderr
    assert "Warning" not in done.stderr


def test_beams_go_to_the_end_of_the_context_and_not_beyond(gen: ak.Generator) -> None:
    usage = gen("The lamp", "noir", num_beams=2, max_new_tokens=500, no_repeat_ngram_size=2).usage
    assert usage.prompt_tokens + usage.new_tokens <= 64


def test_a_closed_generator_lets_go_of_the_model_and_can_load_it_again(shelf: Registry, tiny_base: Path) -> None:  # fmt: skip
    gen = ak.Generator(tiny_base, registry=shelf, device="cpu", precision="fp32")
    told: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 6}
    first = gen("The", "noir", **told).text
    gen.close()
    assert "_beams" not in vars(gen)
    assert gen("The", "noir", **told).text == first


def test_beams_in_half_precision(shelf: Registry, tiny_base: Path) -> None:
    with ak.Generator(tiny_base, registry=shelf, device="cpu", precision="bf16") as gen:
        assert gen("The", "noir", num_beams=2, max_new_tokens=6).usage.new_tokens > 0
        assert gen._beams._ready().dtype == torch.bfloat16
