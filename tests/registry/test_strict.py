"""A LoRA made by PEFT is read; whatever does not fit is refused with a reason."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from adapterkit.errors import Damaged, Unsupported
from adapterkit.registry import strict, tensorfile
from adapterkit.registry.strict import CONFIG, WEIGHTS, Dims, read_lora, tensor_name
from tests.make import make_peft_adapter

TINY = Dims(layers=2, width=32, inner=128)
ATTN = ["attn.c_attn", "attn.c_proj"]
FIRST = tensor_name(0, "attn.c_attn", "A")
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


@pytest.fixture(scope="module")
def by_peft(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_peft_adapter(tmp_path_factory.mktemp("peft") / "a", tiny_base, seed=1, targets=ATTN)


@pytest.fixture
def plain(by_peft: Path, tmp_path: Path) -> Path:
    """A copy to mutilate."""
    return shutil.copytree(by_peft, tmp_path / "adapter")


def _set(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    return folder


def _edit(folder: Path, edit: Callable[[Tensors], object]) -> Path:
    header = tensorfile.read_header(folder / WEIGHTS)
    with (folder / WEIGHTS).open("rb") as file:
        tensors: Tensors = {
            n: (e.dtype, e.shape, tensorfile.read_bytes(file, header, n)) for n, e in header.entries.items()
        }
    edit(tensors)
    tensorfile.write(folder / WEIGHTS, tensors, {"format": "pt"})
    return folder


def _zeros(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", shape, bytes(4 * math.prod(shape))


# --- what fits ---


def test_an_adapter_made_by_peft_is_read(by_peft: Path) -> None:
    assert read_lora(by_peft, TINY, "noir@1").r == 4


def test_the_tensors_are_those_of_the_safetensors_library(plain: Path) -> None:
    read = read_lora(plain, TINY, "noir@1")
    oracle = load_file(plain / WEIGHTS)
    ours = {n: np.frombuffer(b, "<f4").reshape(shape) for n, (_, shape, b) in read.tensors.items()}
    assert ours.keys() == oracle.keys()
    assert all(np.array_equal(ours[n], oracle[n]) for n in oracle)


def test_the_scale_is_alpha_over_r(plain: Path) -> None:
    assert read_lora(plain, TINY, "noir@1").scale == 2.0


def test_the_scale_of_rslora_is_alpha_over_the_root_of_r(plain: Path) -> None:
    assert read_lora(_set(plain, use_rslora=True), TINY, "noir@1").scale == 4.0


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_is_read(plain: Path, dtype: str) -> None:
    def halve(tensors: Tensors) -> None:
        for name, (_, shape, raw) in tensors.items():
            tensors[name] = (dtype, shape, bytes(len(raw) // 2))

    read = read_lora(_edit(plain, halve), TINY, "noir@1")
    assert {d for d, _, _ in read.tensors.values()} == {dtype}


def test_every_target_of_every_layer_is_expected() -> None:
    shapes = strict.expected_shapes(Dims(12, 768, 3072), ("mlp.c_fc", "mlp.c_proj"), 8)
    assert len(shapes) == 12 * 2 * 2
    assert shapes[tensor_name(11, "mlp.c_proj", "A")] == (8, 3072)
    assert shapes[tensor_name(11, "mlp.c_fc", "B")] == (3072, 8)


# --- tensors that do not fit ---


def test_a_missing_tensor_is_refused(plain: Path) -> None:
    _edit(plain, lambda t: t.pop(FIRST))
    with pytest.raises(Damaged, match=f"noir@1 does not fit this base: it lacks 1 tensors such as {FIRST}"):
        read_lora(plain, TINY, "noir@1")


def test_an_extra_tensor_is_refused(plain: Path) -> None:
    extra = tensor_name(0, "mlp.c_fc", "A")
    _edit(plain, lambda t: t.update({extra: _zeros(4, 32)}))
    with pytest.raises(Damaged, match=f"has 1 that do not belong, such as {extra}"):
        read_lora(plain, TINY, "noir@1")


@pytest.mark.parametrize(
    "name",
    [
        "transformer.wte.weight",
        "base_model.model.transformer.wte.weight",
        "base_model.model.transformer.wte.lora_embedding_A",
        "base_model.model.lm_head.weight",
        "base_model.model.transformer.h.0.attn.c_attn.base_layer.weight",
    ],
)
def test_a_tensor_of_the_base_is_refused(plain: Path, name: str) -> None:
    _edit(plain, lambda t: t.update({name: _zeros(400, 32)}))
    with pytest.raises(Damaged, match=f"do not belong, such as {name}"):
        read_lora(plain, TINY, "noir@1")


@pytest.mark.parametrize("shape", [(4, 33), (32, 4), (3, 32), (128,), (1, 4, 32), (4, 0)])
def test_a_tensor_of_another_shape_is_refused(plain: Path, shape: tuple[int, ...]) -> None:
    _edit(plain, lambda t: t.update({FIRST: _zeros(*shape)}))
    with pytest.raises(Damaged, match=rf"{FIRST} is .*, expected \(4, 32\)"):
        read_lora(plain, TINY, "noir@1")


@pytest.mark.parametrize("dims", [Dims(1, 32, 128), Dims(3, 32, 128), Dims(2, 64, 256)])
def test_an_adapter_of_another_base_is_refused(plain: Path, dims: Dims) -> None:
    with pytest.raises(Damaged, match="noir@1 does not fit this base") as caught:
        read_lora(plain, dims, "noir@1")
    assert caught.value.hint == "use the base it was trained on"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(plain: Path, bad: float) -> None:
    def spoil(tensors: Tensors) -> None:
        values = np.frombuffer(tensors[FIRST][2], "<f4").copy()
        values[77] = bad
        tensors[FIRST] = ("F32", (4, 32), values.tobytes())

    with pytest.raises(Damaged, match=f"noir@1 holds 1 numbers that are not finite in {FIRST}"):
        read_lora(_edit(plain, spoil), TINY, "noir@1")


@pytest.mark.parametrize(("dtype", "size"), [("F64", 8), ("I64", 8), ("I8", 1), ("BOOL", 1)])
def test_numbers_of_another_kind_are_refused(plain: Path, dtype: str, size: int) -> None:
    _edit(plain, lambda t: t.update({FIRST: (dtype, (4, 32), bytes(128 * size))}))
    with pytest.raises(Unsupported, match=f"noir@1 stores {dtype}; F32, F16 and BF16 are read"):
        read_lora(plain, TINY, "noir@1")


def test_weights_cut_short_are_refused(plain: Path) -> None:
    raw = (plain / WEIGHTS).read_bytes()
    (plain / WEIGHTS).write_bytes(raw[:-4])
    with pytest.raises(Damaged, match="not a whole safetensors file"):
        read_lora(plain, TINY, "noir@1")


def test_a_pickle_is_never_opened(plain: Path) -> None:
    (plain / WEIGHTS).rename(plain / "adapter_model.bin")
    with pytest.raises(Damaged, match=r"noir@1 has no adapter_model\.safetensors") as caught:
        read_lora(plain, TINY, "noir@1")
    assert "pickled .bin files are not opened" in caught.value.hint


def test_a_pickle_under_the_name_of_safetensors_is_not_run(plain: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    (plain / WEIGHTS).write_bytes(f"cos\nsystem\n(S'touch {proof}'\ntR.".encode())
    with pytest.raises(Damaged, match="not a whole safetensors file"):
        read_lora(plain, TINY, "noir@1")
    assert not proof.exists()


# --- a config that does not fit ---


@pytest.mark.parametrize("r", [0, -1, 257, 1000, 4.0, True, "4", None, [4], 10**19])
def test_a_rank_out_of_bounds_is_refused(plain: Path, r: object) -> None:
    with pytest.raises(Unsupported, match=r"noir@1 has rank .*; 1 to 256 are served"):
        read_lora(_set(plain, r=r), TINY, "noir@1")


def test_a_rank_that_is_not_that_of_the_tensors_is_refused(plain: Path) -> None:
    with pytest.raises(Damaged, match=r"is \(4, 32\), expected \(8, 32\)"):
        read_lora(_set(plain, r=8), TINY, "noir@1")


@pytest.mark.parametrize("alpha", [1e7, -1e7, "16", None, True, [8]])
def test_an_alpha_that_is_no_number_is_refused(plain: Path, alpha: object) -> None:
    with pytest.raises(Damaged, match=r"noir@1 has lora_alpha .*, which is no number"):
        read_lora(_set(plain, lora_alpha=alpha), TINY, "noir@1")


@pytest.mark.parametrize(
    "alpha", ["Infinity", "-Infinity", "NaN", "1e999", "9" * 400, "9" * 5000], ids=lambda text: text[:9]
)
def test_an_alpha_that_no_other_reader_takes_is_refused(plain: Path, alpha: str) -> None:
    text = (_set(plain, lora_alpha="HERE") / CONFIG).read_text()
    (plain / CONFIG).write_text(text.replace('"HERE"', alpha))
    with pytest.raises(Damaged, match=r"can't be read: (it has a number of \d|.* is no finite number)") as e:
        read_lora(plain, TINY, "noir@1")
    assert e.value.code == "config-number"


@pytest.mark.parametrize("word", ["yes", 2, [], {"on": True}])
def test_rslora_is_true_or_false(plain: Path, word: object) -> None:
    with pytest.raises(Damaged, match=r"noir@1 has use_rslora .*, which is neither true nor false"):
        read_lora(_set(plain, use_rslora=word), TINY, "noir@1")


@pytest.mark.parametrize(
    "targets",
    [".*c_attn", "attn.c_attn", ["c_proj"], [".*"], ["wte"], ["lm_head"], [], None, {"attn.c_attn": 1}, 3],
)
def test_targets_that_are_not_exact_names_are_refused(plain: Path, targets: object) -> None:
    with pytest.raises(Unsupported, match=r"noir@1 targets .*; exact names are needed"):
        read_lora(_set(plain, target_modules=targets), TINY, "noir@1")


def test_targets_that_are_lists_are_refused(plain: Path) -> None:
    with pytest.raises(Unsupported, match="exact names are needed"):
        read_lora(_set(plain, target_modules=[["attn.c_attn"]]), TINY, "noir@1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("modules_to_save", ["wte"]),
        ("rank_pattern", {"attn.c_attn": 2}),
        ("alpha_pattern", {"attn.c_attn": 2}),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 2]]),
        ("exclude_modules", ["attn.c_proj"]),
        ("trainable_token_indices", [1, 2]),
        ("target_parameters", ["wte.weight"]),
        ("lora_bias", True),
        ("use_qalora", True),
        ("a_key_of_the_future", 1),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_its_key(plain: Path, key: str, value: object) -> None:
    with pytest.raises(Unsupported, match=f"noir@1 uses {key}, which is not plain LoRA"):
        read_lora(_set(plain, **{key: value}), TINY, "noir@1")


@pytest.mark.parametrize("how", ["pissa", "pissa_niter_16", "olora", "loftq", "corda"])
def test_an_initialisation_that_changes_the_base_is_refused(plain: Path, how: str) -> None:
    """PEFT subtracts the initial update from the base, so the adapter is only right on that other base."""
    with pytest.raises(Unsupported, match="init_lora_weights"):
        read_lora(_set(plain, init_lora_weights=how), TINY, "noir@1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", "PREFIX_TUNING"),
        ("task_type", "SEQ_CLS"),
        ("task_type", None),
        ("bias", "all"),
        ("bias", "lora_only"),
    ],
)
def test_another_kind_of_adapter_is_refused(plain: Path, key: str, value: object) -> None:
    with pytest.raises(Unsupported, match=f"noir@1 is .*{value}.*; only plain LoRA for text is served"):
        read_lora(_set(plain, **{key: value}), TINY, "noir@1")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xff", b'"LORA"'])
def test_a_config_that_can_not_be_read_is_refused(plain: Path, raw: bytes) -> None:
    (plain / CONFIG).write_bytes(raw)
    with pytest.raises(Damaged, match=r"noir@1: its adapter_config\.json can't be read"):
        read_lora(plain, TINY, "noir@1")


def test_a_config_nested_deeply_is_refused(plain: Path) -> None:
    (plain / CONFIG).write_bytes(b"[" * 60_000)
    with pytest.raises(Damaged, match="can't be read"):
        read_lora(plain, TINY, "noir@1")


def test_a_missing_config_is_refused(plain: Path) -> None:
    (plain / CONFIG).unlink()
    with pytest.raises(Damaged, match=r"noir@1 has no adapter_config\.json"):
        read_lora(plain, TINY, "noir@1")
