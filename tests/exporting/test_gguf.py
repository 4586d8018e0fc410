"""GGUF files beside the tensors they were made of, by the gguf package's reader, PEFT and llama.cpp."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapterkit.errors import Damaged, Unsupported
from adapterkit.exporting import gguf, gguf_read, vocabulary
from adapterkit.exporting.gguf import KINDS, Kind
from adapterkit.generation.load import read_tensors
from adapterkit.model.base import Base, locate
from adapterkit.model.tokenizer import END, Tokenizer
from adapterkit.registry.strict import LoraFiles, read_lora
from tests.make import make_base, make_peft_adapter

library = pytest.importorskip("gguf", reason="the gguf package is not installed")
TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
# transformers' module of each of llama.cpp's; those that are stored (in, out)
THEIRS = {"attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}  # fmt: skip


def write(base: Path, target: Path, kind: Kind) -> Base:
    found = locate(str(base))
    gguf.write_model(target, found.config, read_tensors(found.weights), found.folder, kind)
    return found


def stored(path: Path) -> dict[str, tuple[str, NDArray[Any]]]:
    """The kind and the numbers of each tensor, by the gguf package."""
    tensors = library.GGUFReader(path).tensors
    return {t.name: (t.tensor_type.name, library.quants.dequantize(t.data, t.tensor_type)) for t in tensors}


def source(base: Path) -> dict[str, NDArray[Any]]:
    """transformers' weights by llama.cpp's names, in its order."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(base).transformer
    made = {
        "token_embd.weight": model.wte.weight,
        "position_embd.weight": model.wpe.weight,
        "output_norm.weight": model.ln_f.weight,
        "output_norm.bias": model.ln_f.bias,
    }
    for i, block in enumerate(model.h):
        for theirs, ours in THEIRS.items():
            made[f"blk.{i}.{theirs}.weight"] = block.get_submodule(ours).weight.T
            made[f"blk.{i}.{theirs}.bias"] = block.get_submodule(ours).bias
        for theirs, norm in (("attn_norm", block.ln_1), ("ffn_norm", block.ln_2)):
            made |= {f"blk.{i}.{theirs}.weight": norm.weight, f"blk.{i}.{theirs}.bias": norm.bias}
    return {name: tensor.detach().numpy() for name, tensor in made.items()}


# --- a model ------------------------------------------------------------------------


def test_a_model_as_f32_holds_exactly_the_tensors_of_transformers(tiny_base: Path, tmp_path: Path) -> None:
    write(tiny_base, tmp_path / "m.gguf", "f32")
    found, wanted = stored(tmp_path / "m.gguf"), source(tiny_base)
    assert found.keys() == wanted.keys()
    assert all(kind == "F32" and np.array_equal(x, wanted[name]) for name, (kind, x) in found.items())


def test_as_f16_the_matrices_are_rounded_once_and_nothing_else_is(tiny_base: Path, tmp_path: Path) -> None:
    write(tiny_base, tmp_path / "m.gguf", "f16")
    wanted = source(tiny_base)
    for name, (kind, x) in stored(tmp_path / "m.gguf").items():
        is_matrix = x.ndim == 2 and name != "position_embd.weight"
        assert kind == ("F16" if is_matrix else "F32")
        assert np.array_equal(x, wanted[name].astype(np.float16) if is_matrix else wanted[name])


def test_as_q8_0_every_number_is_within_half_a_step(tiny_base: Path, tmp_path: Path) -> None:
    write(tiny_base, tmp_path / "m.gguf", "q8_0")
    wanted = source(tiny_base)
    kinds = set()
    for name, (kind, x) in stored(tmp_path / "m.gguf").items():
        kinds.add((kind, x.ndim))
        if kind == "F32":
            assert np.array_equal(x, wanted[name])
            continue
        blocks = wanted[name].reshape(-1, 32)
        step = np.abs(blocks).max(1, keepdims=True) / 127
        # the step itself is stored in float16: 127 times 2^-11 of it more at most
        assert (np.abs(x.reshape(-1, 32) - blocks) <= step * (0.5 + 127 * 2**-11) + 1e-6).all()
    assert kinds == {("Q8_0", 2), ("F32", 2), ("F32", 1)}


def test_rows_that_are_no_whole_blocks_are_f16_in_q8_0(tmp_path: Path) -> None:
    base = make_base(tmp_path / "odd", seed=1, width=24)
    write(base, tmp_path / "m.gguf", "q8_0")
    kinds = {name: kind for name, (kind, _) in stored(tmp_path / "m.gguf").items()}
    assert kinds["token_embd.weight"] == kinds["blk.1.ffn_up.weight"] == "F16"
    assert kinds["blk.1.ffn_down.weight"] == "Q8_0"  # 96 a row


@pytest.mark.parametrize("kind", KINDS)
def test_our_reader_reads_what_the_librarys_does(tiny_base: Path, tmp_path: Path, kind: Kind) -> None:
    base = write(tiny_base, tmp_path / "m.gguf", kind)
    contents = gguf_read.read(tmp_path / "m.gguf")
    theirs = stored(tmp_path / "m.gguf")
    assert list(contents.tensors) == list(theirs)
    assert all(np.array_equal(contents.tensors[n].decode().numpy(), x) for n, (_, x) in theirs.items())
    fields = library.GGUFReader(tmp_path / "m.gguf").fields
    assert contents.fields == {n: f.contents() for n, f in fields.items() if not n.startswith("GGUF.")}
    back = gguf_read.model_tensors(contents, base.config)
    if kind == "f32":
        assert all(torch.equal(back[name], x) for name, x in read_tensors(base.weights).items())


def test_a_model_says_its_sizes_and_that_a_document_begins_with_its_end_token(
    tiny_base: Path, tmp_path: Path
) -> None:
    base = write(tiny_base, tmp_path / "m.gguf", "f16")
    fields = gguf_read.read(tmp_path / "m.gguf").fields
    assert fields["general.architecture"] == "gpt2"
    assert fields["gpt2.block_count"] == 2
    assert fields["gpt2.context_length"] == 64
    assert fields["gpt2.embedding_length"] == 32
    assert fields["gpt2.feed_forward_length"] == 128
    assert fields["gpt2.attention.head_count"] == 4
    assert fields["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    end = Tokenizer(base.folder).end
    assert fields["tokenizer.ggml.bos_token_id"] == fields["tokenizer.ggml.eos_token_id"] == end
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.tokens"][end] == END


def test_the_same_tensors_give_the_same_bytes(tiny_base: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tiny_base, tmp_path / name, "q8_0")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("value", "words"), [(1e5, "too large for f16"), (float("nan"), "not finite")])
def test_numbers_that_do_not_fit_leave_the_file_that_was_there(
    tiny_base: Path, tmp_path: Path, value: float, words: str
) -> None:
    base = locate(str(tiny_base))
    tensors = read_tensors(base.weights)
    tensors["h.1.mlp.c_fc.weight"] = torch.full_like(tensors["h.1.mlp.c_fc.weight"], value)
    (tmp_path / "m.gguf").write_text("old")
    with pytest.raises(Unsupported, match=words):
        gguf.write_model(tmp_path / "m.gguf", base.config, tensors, base.folder, "f16")
    assert (tmp_path / "m.gguf").read_text() == "old"
    assert list(tmp_path.glob(".m.gguf*")) == []


@pytest.mark.parametrize(
    "other",
    [{"activation_function": "relu"}, {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}],
)  # fmt: skip
def test_another_architecture_is_refused(tiny_base: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    base = locate(str(tiny_base))
    with pytest.raises(Unsupported, match=r"llama\.cpp"):
        gguf.write_model(tmp_path / "m.gguf", base.config | other, read_tensors(base.weights), base.folder)


def test_without_the_package_the_command_that_installs_it_is_told(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(Unsupported) as told:
        write(tiny_base, tmp_path / "m.gguf", "f16")
    assert told.value.hint == 'pip install "adapterkit[gguf]"'


# --- its tokens ---------------------------------------------------------------------


def test_both_forms_of_a_tokenizer_give_the_same_vocabulary(tiny_base: Path, tmp_path: Path) -> None:
    whole = json.loads((tiny_base / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = whole["model"]["vocab"] | {END: whole["added_tokens"][0]["id"]}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in whole["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    size = len(vocab)
    assert vocabulary.read(tmp_path, size) == vocabulary.read(tiny_base, size)


def test_ids_that_mean_nothing_are_unused(tiny_base: Path) -> None:
    size = Tokenizer(tiny_base).size
    words = vocabulary.read(tiny_base, size + 2)
    assert words.tokens[size:] == [f"[PAD{size}]", f"[PAD{size + 1}]"]
    assert words.kinds[size - 1 :] == [3, 5, 5]  # the end token controls


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(normalizer={"type": "NFC"}), "changes a text"),
        (lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "cut words"),
        (lambda t: t["pre_tokenizer"].update(type="Whitespace"), "cut words"),
        (lambda t: t["model"].update(byte_fallback=True), "no plain byte-level BPE"),
        (lambda t: t["model"].update(merges=[]), "merges nothing"),
        (lambda t: t.update(added_tokens=[]), "has no <|endoftext|>"),
    ],
)
def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(
    tiny_base: Path, tmp_path: Path, change: Callable[[Any], None], words: str
) -> None:
    told = json.loads((tiny_base / "tokenizer.json").read_text(encoding="utf-8"))
    change(told)
    (tmp_path / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(Unsupported) as refused:
        vocabulary.read(tmp_path, 400)
    assert words in refused.value.message


def test_a_tokenizer_larger_than_the_base_is_refused(tiny_base: Path) -> None:
    size = Tokenizer(tiny_base).size
    with pytest.raises(Unsupported, match=f"the id {size - 1}, and the base has {size - 1} words"):
        vocabulary.read(tiny_base, size - 1)


# --- an adapter ---------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [4.0, 11.0])
def test_an_adapters_product_is_what_peft_adds_to_the_weights(
    tiny_base: Path, tmp_path: Path, alpha: float
) -> None:
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    folder = make_peft_adapter(tmp_path / "a", tiny_base, seed=3, r=4, alpha=alpha, targets=TARGETS)
    gguf.write_adapter(tmp_path / "a.gguf", read_lora(folder, locate(str(tiny_base)).dims, "a"), base="tiny")
    model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), folder)
    found = stored(tmp_path / "a.gguf")
    assert len(found) == 2 * 2 * len(TARGETS)
    for i, block in enumerate(model.base_model.model.transformer.h):
        for theirs, ours in THEIRS.items():
            a, b = (found[f"blk.{i}.{theirs}.weight.lora_{side}"][1] for side in "ab")
            delta = block.get_submodule(ours).get_delta_weight("default").T.detach().numpy()
            assert b @ a == pytest.approx(delta, abs=1e-6)


def test_an_adapter_is_one_for_llama_cpp_and_its_scale_is_one(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_peft_adapter(tmp_path / "a", tiny_base, seed=3, r=4, alpha=11.0, targets=TARGETS[:1])
    gguf.write_adapter(tmp_path / "a.gguf", read_lora(folder, locate(str(tiny_base)).dims, "a"), base="tiny")
    fields = gguf_read.read(tmp_path / "a.gguf").fields
    assert fields["general.architecture"] == "gpt2"
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 4.0  # over the rank, 1
    assert fields["general.base_model.0.name"] == "tiny"


def test_an_adapter_that_its_scale_makes_too_large_is_refused(tmp_path: Path) -> None:
    side = {"A": (2, 32), "B": (96, 2)}
    tensors = {
        f"base_model.model.transformer.h.0.attn.c_attn.lora_{s}.weight": (
            "F32", shape, np.full(shape, 1e37, np.float32).tobytes(),
        )
        for s, shape in side.items()
    }  # fmt: skip
    with pytest.raises(Unsupported, match=r"blk\.0\.attn_qkv\.weight\.lora_b are too large"):
        gguf.write_adapter(tmp_path / "a.gguf", LoraFiles(2, 1e3, ("attn.c_attn",), tensors))
    assert not (tmp_path / "a.gguf").exists()


# --- damage -------------------------------------------------------------------------


def test_a_file_cut_short_anywhere_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    write(tiny_base, tmp_path / "m.gguf", "q8_0")
    whole = (tmp_path / "m.gguf").read_bytes()
    draw = random.Random(0)
    for at in [0, 1, 4, 23, 24, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(50))]:
        (tmp_path / "cut.gguf").write_bytes(whole[:at])
        with pytest.raises(Damaged, match="not a whole GGUF file"):
            gguf_read.read(tmp_path / "cut.gguf")


def test_bytes_changed_in_the_header_never_escape_as_another_error(tiny_base: Path, tmp_path: Path) -> None:
    base = write(tiny_base, tmp_path / "m.gguf", "q8_0")
    whole = (tmp_path / "m.gguf").read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            changed[draw.randrange(20_000)] = draw.choice([0, 255, draw.randrange(256)])
        (tmp_path / "bad.gguf").write_bytes(changed)
        try:
            gguf_read.model_tensors(gguf_read.read(tmp_path / "bad.gguf"), base.config)
        except Damaged:
            refused += 1
    assert refused > 30  # of the others a word of the vocabulary, or a number of a matrix, is another


def test_a_model_of_another_size_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = write(tiny_base, tmp_path / "m.gguf", "f16")
    contents = gguf_read.read(tmp_path / "m.gguf")
    with pytest.raises(Damaged, match=r"gpt2.attention.head_count is 4, not 2"):
        gguf_read.model_tensors(contents, base.config | {"n_head": 2})
    with pytest.raises(Damaged, match=r"blk\.2\..* is missing"):
        gguf_read.model_tensors(contents, base.config | {"n_layer": 3})
