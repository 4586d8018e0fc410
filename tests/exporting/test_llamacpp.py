"""GGUF files run in llama.cpp beside PEFT's logits and our own; needs llama-cpp-python, or is skipped."""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapterkit.errors import CheckFailed, Unsupported
from adapterkit.exporting import gguf, gguf_read, llamacpp
from adapterkit.exporting.gguf import KINDS, Kind
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.load import read_tensors
from adapterkit.generation.pages import PageBank
from adapterkit.model.base import locate
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.strict import read_lora
from tests.conftest import SENTENCES
from tests.make import make_peft_adapter

CPU = torch.device("cpu")
TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
with_llama = pytest.mark.skipif(not llamacpp.is_there(), reason="llama-cpp-python is not installed")


def test_without_llama_cpp_it_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(Unsupported, match="llama-cpp-python is not installed"):
        llamacpp.run(tmp_path / "m.gguf")


def test_a_verdict_names_every_gate_that_was_missed() -> None:
    rows = [[0, 1, 2, 3]]
    ours = [torch.tensor([[0.0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 4], [4, 0, 0, 0]])]
    wrong = [torch.roll(ours[0], 1, 0)]
    assert llamacpp.compare(ours, ours, rows, "f32").passed
    assert len(llamacpp.compare(ours, wrong, rows, "f32").missed) == 2
    assert [m.split()[0] for m in llamacpp.compare(ours, wrong, rows, "q8_0").missed] == [
        "0.0%",
        "perplexity",
    ]
    assert len(llamacpp.compare(ours, wrong, rows, "q8_0", trained=False).missed) == 1
    assert not llamacpp.compare(ours, [ours[0] * float("nan")], rows, "f16").passed
    with pytest.raises(CheckFailed, match="other shapes"):
        llamacpp.compare(ours, [ours[0][:2]], rows, "f32")


def test_within_its_table_gelu_is_that_of_float16_numbers() -> None:
    x = torch.linspace(-12, 12, 5001)
    with llamacpp.GeluTable():
        found = F.gelu(x, approximate="tanh").numpy()
    half = x.numpy().astype(np.float16).astype(np.float64)
    exact = 0.5 * half * (1 + np.tanh(np.sqrt(2 / np.pi) * (half + 0.044715 * half**3)))
    exact[x.numpy() <= -10] = 0
    # one unit of float16 where torch's own float32 lies at the edge between two
    assert np.abs(found - np.where(x.numpy() >= 10, x.numpy(), exact)).max() < 2**-7
    assert (np.abs(found - exact) <= np.abs(exact) * 2**-10 + 1e-6)[x.numpy() < 10].all()
    assert not np.array_equal(found, F.gelu(x, approximate="tanh").numpy())


def test_what_the_table_alone_moves_is_measured_on_the_model(bench: Bench) -> None:
    """So GELU is computed in a way that the table can take the place of."""
    route = bench.bank.route([()])
    assert 1e-5 < llamacpp.allowance(bench.model, bench.rows[:1], route) < 0.05


# --- llama.cpp ----------------------------------------------------------------------


class Bench:
    """The embedded base, rows of text, and our own logits."""

    def __init__(self) -> None:
        self.base = locate("embedded")
        self.tensors = read_tensors(self.base.weights)
        self.model = GPT2(self.base.config, self.tensors, CPU, torch.float32)
        self.bank = PageBank(self.base.dims, CPU, torch.float32)
        self.tokenizer = Tokenizer(self.base.folder)
        texts = [" ".join(random.Random(i).sample(SENTENCES, len(SENTENCES))) for i in range(6)]
        self.rows = [[self.tokenizer.end, *self.tokenizer.encode(text)][:120] for text in texts]

    def write(self, target: Path, kind: Kind) -> Path:
        gguf.write_model(target, self.base.config, self.tensors, self.base.folder, kind)
        return target


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.slow
@with_llama
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_passes_its_gate_read_back_and_in_llama_cpp(bench: Bench, tmp_path: Path, kind: Kind) -> None:
    path = bench.write(tmp_path / "m.gguf", kind)
    route = bench.bank.route([()])
    ours = llamacpp.reference(bench.model, bench.rows, route)
    back = gguf_read.model_tensors(gguf_read.read(path), bench.base.config)
    read_back = llamacpp.reference(GPT2(bench.base.config, back, CPU, torch.float32), bench.rows, route)
    assert llamacpp.compare(ours, read_back, bench.rows, kind).missed == ()
    allowed = llamacpp.allowance(bench.model, bench.rows, route, ours)
    assert 0 < allowed < 0.05
    verdict = llamacpp.compare(ours, llamacpp.run(path, bench.rows).logits, bench.rows, kind, allowed=allowed)
    assert verdict.missed == ()
    assert verdict.counted > 0.9 * verdict.positions


@pytest.mark.slow
@with_llama
@pytest.mark.parametrize(("r", "alpha"), [(4, 8.0), (20, 7.0)])
def test_an_adapter_in_llama_cpp_gives_pefts_logits(
    bench: Bench, tmp_path: Path, r: int, alpha: float
) -> None:
    folder = make_peft_adapter(tmp_path / "a", bench.base.folder, seed=5, r=r, alpha=alpha, targets=TARGETS)
    files = read_lora(folder, bench.base.dims, "a")
    model = bench.write(tmp_path / "m.gguf", "f32")
    gguf.write_adapter(tmp_path / "a.gguf", files)
    loaded = bench.bank.load(files)
    wanted = peft_logits(bench, folder)
    allowed = llamacpp.allowance(bench.model, bench.rows, bench.bank.route([((loaded, 1.0),)]))
    found = llamacpp.run(model, bench.rows, adapter=tmp_path / "a.gguf").logits
    assert llamacpp.compare(wanted, found, bench.rows, "f32", allowed=allowed).missed == ()
    plain = llamacpp.run(model, bench.rows).logits
    assert not llamacpp.compare(wanted, plain, bench.rows, "f32", allowed=allowed).passed
    half = llamacpp.reference(bench.model, bench.rows, bench.bank.route([((loaded, 0.5),)]))
    found = llamacpp.run(model, bench.rows, adapter=tmp_path / "a.gguf", scale=0.5).logits
    assert llamacpp.compare(half, found, bench.rows, "f32", allowed=allowed).missed == ()


def peft_logits(bench: Bench, folder: Path) -> list[Tensor]:
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    plain = GPT2LMHeadModel.from_pretrained(bench.base.folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, folder).eval()
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in bench.rows]


@pytest.mark.slow
@with_llama
def test_llama_cpp_cuts_texts_as_we_do(bench: Bench, tmp_path: Path) -> None:
    path = bench.write(tmp_path / "m.gguf", "q8_0")
    texts = [
        *SENTENCES,
        "It's  two\n\n\nlines,\tand 1234 times <|endoftext|> is text.",
        "Ärger über naïve cafés; 数字と漢字 🙂 \u00a0\u200bend ",
        "don't we'LL they'd 'tis  x=y+z; http://a.b/c?d=e#f",
    ]
    found = llamacpp.run(path, texts=texts).texts
    assert found == [[bench.tokenizer.end, *bench.tokenizer.encode(text)] for text in texts]


@pytest.mark.slow
@with_llama
def test_fifty_damaged_adapters_end_llama_cpp_and_not_us(bench: Bench, tmp_path: Path) -> None:
    model = bench.write(tmp_path / "m.gguf", "q8_0")
    folder = make_peft_adapter(tmp_path / "a", bench.base.folder, seed=5, targets=TARGETS[:2])
    gguf.write_adapter(tmp_path / "a.gguf", read_lora(folder, bench.base.dims, "a"))
    whole = (tmp_path / "a.gguf").read_bytes()
    draw = random.Random(0)
    survived = 0
    for i in range(50):
        bad = bytearray(whole[: draw.randrange(len(whole))] if i % 2 else whole)
        if not i % 2:
            at = draw.randrange(0, 300)
            bad[at : at + 8] = draw.randbytes(8)
        (tmp_path / "bad.gguf").write_bytes(bad)
        with suppress(CheckFailed):
            found = llamacpp.run(model, bench.rows[:1], adapter=tmp_path / "bad.gguf")
            # a change that llama.cpp does not mind, such as of a name
            assert found.logits[0].shape == (len(bench.rows[0]), bench.base.config["vocab_size"])
            survived += 1
    assert survived < 25  # no file that was cut is among them
