"""The formats a base is kept in, beside transformers' forward in float32; and how one is chosen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from transformers import GPT2LMHeadModel

from adapterkit.errors import Unsupported
from adapterkit.generation import formats, load, weights
from adapterkit.generation.formats import Facts, choose
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import PageBank
from adapterkit.model.base import Base, locate
from adapterkit.model.device import choose as choose_device
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.strict import read_lora
from tests.conftest import SENTENCES
from tests.make import make_peft_adapter

CPU = torch.device("cpu")
FORMATS = {"fp32": (torch.float32, 0), "bf16": (torch.bfloat16, 0), "8bit": (torch.float32, 8)}
BETTER = Facts(one=3.0, many=2.0, perplexity=1.001, agreement=0.98)


@dataclass
class Pair:
    """A base in one format with an empty bank."""

    model: GPT2
    bank: PageBank

    def logits(self, ids: Tensor) -> Tensor:
        return self.model.logits(ids, self.bank.route([()] * len(ids)))


def made(base: Base, form: str) -> Pair:
    dtype, bits = FORMATS[form]
    model = GPT2(base.config, load.read_tensors(base.weights), CPU, dtype, bits=bits)
    return Pair(model, PageBank(base.dims, CPU, dtype))


@pytest.fixture(scope="module")
def embedded() -> Base:
    return locate("embedded")


@pytest.fixture(scope="module")
def ids(embedded: Base) -> Tensor:
    encoded = [Tokenizer(embedded.folder).encode(s)[:12] for s in SENTENCES]
    return torch.tensor([i for i in encoded if len(i) == 12])


@pytest.fixture(scope="module")
def wanted(embedded: Base, ids: Tensor) -> Tensor:
    model = GPT2LMHeadModel.from_pretrained(embedded.folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return torch.as_tensor(model(ids).logits)


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Largest relative error of a position's logits."""
    theirs = theirs.detach()
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


# --- beside transformers and PEFT ---


def test_fp32_equals_transformers(embedded: Base, ids: Tensor, wanted: Tensor) -> None:
    assert torch.allclose(made(embedded, "fp32").logits(ids), wanted, atol=1e-4)


@pytest.mark.parametrize("form", ["bf16", "8bit"])
def test_rougher_formats_are_within_a_tenth_and_choose_the_same_token(form: str, embedded: Base, ids: Tensor, wanted: Tensor) -> None:  # fmt: skip
    ours = made(embedded, form).logits(ids)
    assert apart(ours, wanted) < 0.1
    assert (ours.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.95


@pytest.mark.parametrize(("form", "most"), [("fp32", 1e-5), ("bf16", 0.05), ("8bit", 0.05)])
def test_mixed_adapter_rows_equal_peft_in_every_format(form: str, most: float, tiny_base: Path, tmp_path: Path) -> None:  # fmt: skip
    folders = [make_peft_adapter(tmp_path / str(r), tiny_base, seed=r, r=r, targets=["attn.c_attn", "mlp.c_proj"]) for r in (4, 12)]  # fmt: skip
    ours = made(Base("tiny", tiny_base), form)
    dims = Base("tiny", tiny_base).dims
    route = ours.bank.route([(), *(((ours.bank.load(read_lora(f, dims, "a")), 1.0),) for f in folders)])
    ids = torch.randint(0, 300, (3, 9), generator=torch.Generator().manual_seed(3))
    logits = ours.model.logits(ids, route)
    plain = GPT2LMHeadModel.from_pretrained(tiny_base).eval()
    assert apart(logits[0], plain(ids[:1]).logits[0]) < most
    for i, folder in enumerate(folders, 1):
        model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), folder).eval()
        assert apart(logits[i], model(ids[i : i + 1]).logits[0]) < most


def test_bf16_keeps_apart_what_all_logits_share(embedded: Base) -> None:
    """GPT-2's own logits lie about 100 below 0, where bfloat16 steps by a half."""
    tensors = {n: t.float() for n, t in load.read_tensors(embedded.weights).items()}
    tensors["wte.weight"][:, 0] -= 10
    x = torch.randn(9, embedded.dims.width).bfloat16()
    x[:, 0] = 10
    half = GPT2(embedded.config, tensors, CPU, torch.bfloat16)
    exact = x.float() @ tensors["wte.weight"].T
    assert exact.mean() < -90
    assert (half._logits(x) - exact).abs().max() < 0.1


@pytest.mark.data
def test_perplexity_in_8_bits_is_within_a_hundredth(embedded: Base) -> None:
    text = (Path(os.environ["ADAPTERKIT_DATA"]) / "wikitext2" / "wiki.test.raw").read_text(encoding="utf-8")
    ids = torch.tensor(Tokenizer(embedded.folder).encode(text[:30_000])[:4096]).view(-1, 512)

    def perplexity(form: str) -> float:
        logits = made(embedded, form).logits(ids)
        return float(F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).exp())

    assert perplexity("8bit") == pytest.approx(perplexity("fp32"), rel=0.01)


# --- the cache ---


@pytest.mark.parametrize(("form", "most"), [("fp32", 1e-5), ("bf16", 0.05), ("8bit", 1e-3)])
def test_steps_equal_the_whole_forward(form: str, most: float, embedded: Base, ids: Tensor) -> None:
    ours = made(embedded, form)
    whole, rows = ours.logits(ids), len(ids)
    cache, route = ours.model.new_cache(rows, 12), ours.bank.route([()] * rows)
    got = [ours.model.prefill(ids[:, :5], torch.full((rows,), 5), cache, route)]
    got += [ours.model.step(ids[:, i], torch.full((rows,), i), cache, route) for i in range(5, 12)]
    assert apart(torch.stack(got, 1), whole[:, 4:]) < most


def test_a_prompt_in_pieces_equals_the_whole_prompt(tiny_base: Path) -> None:
    ours = made(Base("tiny", tiny_base), "fp32")
    ids = torch.randint(0, 300, (2, 64), generator=torch.Generator().manual_seed(1))
    route = ours.bank.route([(), ()])
    cache = ours.model.new_cache(3, 64)
    ours.model.prefill(ids[:, :30], torch.tensor([30, 21]), cache, route, first=1)
    rest = torch.zeros(2, 34, dtype=torch.long)  # one row to the end of the context, the other shorter
    rest[0], rest[1, :9] = ids[0, 30:], ids[1, 21:30]
    got = ours.model.prefill(rest, torch.tensor([34, 9]), cache, route, first=1, start=torch.tensor([30, 21]))
    whole = ours.logits(ids)
    assert torch.allclose(got, torch.stack([whole[0, 63], whole[1, 29]]), atol=1e-4)


def test_padding_beyond_the_context_is_written_nowhere(tiny_base: Path) -> None:
    ours = made(Base("tiny", tiny_base), "fp32")
    ids = torch.randint(0, 300, (2, 64), generator=torch.Generator().manual_seed(2))
    cache, route = ours.model.new_cache(2, 64), ours.bank.route([(), ()])
    ours.model.prefill(ids[:, :60], torch.tensor([60, 10]), cache, route)
    more = torch.stack([F.pad(ids[0, 60:62], (0, 18)), ids[1, 10:30]])
    ours.model.prefill(more, torch.tensor([2, 20]), cache, route, start=torch.tensor([60, 10]))
    got = ours.model.step(torch.stack([ids[0, 62], ids[1, 30]]), torch.tensor([62, 30]), cache, route)
    whole = ours.logits(ids)
    assert torch.allclose(got, torch.stack([whole[0, 62], whole[1, 30]]), atol=1e-4)


def test_growing_and_moving_keep_what_is_cached(embedded: Base, ids: Tensor) -> None:
    ours = made(embedded, "fp32")
    cache = ours.model.new_cache(2, 12)
    ours.model.prefill(ids[:2, :11], torch.tensor([11, 11]), cache, ours.bank.route([(), ()]))
    cache.ensure(5, 200)
    assert (cache.rows, cache.length) == (5, 256)
    cache.move(1, 0, 11)
    got = ours.model.step(ids[1:2, 11], torch.tensor([11]), cache, ours.bank.route([()]))
    assert torch.allclose(got, ours.logits(ids[1:2])[:, -1], atol=1e-4)


def test_a_cleared_row_is_healthy_again(embedded: Base, ids: Tensor) -> None:
    ours = made(embedded, "fp32")
    cache, route = ours.model.new_cache(2, 12), ours.bank.route([(), ()])
    cache.kv[:, :, 0] = float("nan")
    cache.clear(0)
    ours.model.prefill(ids[:2, :10], torch.tensor([4, 10]), cache, route)
    got = ours.model.step(ids[[0, 1], [4, 10]], torch.tensor([4, 10]), cache, route)
    assert torch.allclose(got[0], ours.logits(ids[:1, :5])[0, -1], atol=1e-4)


# --- the matrices ---


@pytest.mark.parametrize("rows", [1, weights.DIRECT, weights.DIRECT + 1, 40])
@pytest.mark.parametrize(("kind", "most"), [("bytes", 2e-4), ("plain", 5e-3)])
def test_8_bit_products_equal_those_of_the_widened_weights(kind: str, most: float, rows: int) -> None:
    if kind == "bytes" and not weights.has_byte_products():
        pytest.skip("this CPU has no byte products")
    torch.manual_seed(rows)
    _, table = weights.prepare8(torch.randn(96, 64), None)
    assert table.scale is not None
    bias, x = torch.randn(96), torch.randn(rows, 64) * torch.randn(64).exp()
    matrix = (weights._bytes if kind == "bytes" else weights.Plain8)(table.weight, bias, table.scale)
    exact = x.double() @ (table.weight.double() * table.scale.double()[:, None]).T + bias
    assert apart(matrix(x).double(), exact) < most


def test_an_8_bit_row_does_not_depend_on_its_neighbours() -> None:
    matrix, _ = weights.prepare8(torch.randn(96, 64), torch.randn(96))
    x = torch.randn(5, 64) * torch.tensor([[1e-6], [1.0], [1e6], [0.0], [float("nan")]])
    beside = matrix(x)
    assert torch.equal(beside[1], matrix(x[1:3])[0])
    torch.testing.assert_close(beside[1], matrix(x[1:2])[0], rtol=1e-6, atol=1e-5)  # sums in another order
    torch.testing.assert_close(beside[3], matrix(torch.zeros(1, 64))[0], rtol=1e-6, atol=1e-5)
    assert not torch.isfinite(beside[4]).any()
    assert not torch.isfinite(matrix(x[4:])).any()
    assert not torch.isfinite(matrix(torch.full((1, 64), float("inf")))).any()


def test_8_bits_take_the_memory_they_are_said_to(embedded: Base) -> None:
    dims, vocabulary = embedded.dims, int(embedded.config["vocab_size"])
    rough = made(embedded, "8bit").model.bytes
    bytes_of_matrices = dims.layers * 12 * dims.width**2 + vocabulary * dims.width
    head_beside_embeddings = vocabulary * dims.width * weights.has_byte_products()
    rest = rough - bytes_of_matrices - head_beside_embeddings  # positions, norms, biases, scales
    assert 0 < rest < 0.1 * made(embedded, "fp32").model.bytes


def test_the_resident_digest_covers_8_bit_weights(embedded: Base) -> None:
    engine = load.engine(embedded, choose_device("cpu", "fp32"), bits=8)
    before = load.resident_digest(engine)
    assert before == load.resident_digest(load.engine(embedded, choose_device("cpu", "fp32"), bits=8))
    stored = load.read_tensors(embedded.weights)
    name = "h.2.mlp.c_fc"
    stored[f"{name}.weight"][3, 3] *= -1
    engine.model.blocks[2].linear["mlp.c_fc"] = weights.prepare8(stored[f"{name}.weight"].T, stored[f"{name}.bias"])[0]  # fmt: skip
    assert load.resident_digest(engine) != before


# --- choosing ---


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded base counts as one that does not fit into the processor's cache."""
    monkeypatch.setattr(formats, "LARGE", 1)


def test_auto_is_8_bit_where_it_is_faster_and_agrees(large: None, embedded: Base) -> None:
    formats.remember(BETTER, torch.get_num_threads())
    chosen = choose(embedded, "cpu")
    assert (chosen.bits, chosen.device.precision) == (8, "fp32")
    assert "3.0x as fast as float32 with one text, 2.0x with 16; +0.1% perplexity" in chosen.said


@pytest.mark.parametrize("worse", [{"one": 1.1}, {"many": 0.9}, {"perplexity": 1.02}])
def test_auto_leaves_the_weights_where_8_bits_are_worse(worse: dict[str, float], large: None, embedded: Base) -> None:  # fmt: skip
    formats.remember(Facts(**({"one": 3.0, "many": 2.0, "perplexity": 1.0, "agreement": 1.0} | worse)), torch.get_num_threads())  # fmt: skip
    assert choose(embedded, "cpu").bits == 0


def test_a_base_that_fits_into_the_cache_stays_as_it_is(embedded: Base) -> None:
    formats.remember(BETTER, torch.get_num_threads())
    assert choose(embedded, "cpu").bits == 0


def test_a_precision_that_is_named_is_kept(large: None, embedded: Base) -> None:
    formats.remember(BETTER, torch.get_num_threads())
    assert [choose(embedded, "cpu", p).bits for p in ("fp32", "bf16")] == [0, 0]


def test_what_is_asked_for_is_done_without_measuring(embedded: Base) -> None:
    assert [choose(embedded, "cpu", quantize=q).bits for q in ("none", "8bit")] == [0, 8]


def test_8_bits_are_refused_in_another_precision(embedded: Base) -> None:
    with pytest.raises(Unsupported, match="in fp32 on a CPU, not bf16"):
        choose(embedded, "cpu", "bf16", "8bit")


def test_an_unknown_word_is_refused(embedded: Base) -> None:
    with pytest.raises(Unsupported, match="'2bit' is not known; there are auto, none, 8bit and 4bit"):
        choose(embedded, "cpu", quantize="2bit")


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_4_bits_on_a_cpu_are_refused(precision: str, embedded: Base) -> None:
    with pytest.raises(Unsupported, match="4-bit needs CUDA, this is cpu") as told:
        choose(embedded, "cpu", precision, "4bit")
    assert "--quantize 8bit" in told.value.hint


def test_facts_are_measured_once_and_kept(embedded: Base) -> None:
    first = formats.facts(1)
    assert min(first.one, first.many) > 0
    assert first.perplexity == pytest.approx(1.0, abs=0.01)
    assert formats.facts(1) == first
