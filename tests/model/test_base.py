"""Finding a base and its fingerprints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from adapterkit.errors import NotFound, Unsupported
from adapterkit.model.base import Base, locate, recall, remember, weights_fingerprint
from tests.make import make_base


def test_the_fingerprint_does_not_depend_on_prefix_mask_buffers_or_the_tied_head(
    tiny_base: Path, tmp_path: Path
) -> None:
    import torch

    stored = load_file(tiny_base / "model.safetensors")
    bare = {n.removeprefix("transformer."): t for n, t in stored.items()}
    bare |= {"h.0.attn.bias": torch.ones(4), "lm_head.weight": bare["wte.weight"].clone()}
    save_file(bare, tmp_path / "other.safetensors")
    assert weights_fingerprint(tmp_path / "other.safetensors") == weights_fingerprint(
        tiny_base / "model.safetensors"
    )


def test_one_changed_number_changes_the_fingerprint(tiny_base: Path, tmp_path: Path) -> None:
    stored = load_file(tiny_base / "model.safetensors")
    stored["transformer.ln_f.bias"][0] += 1e-3
    save_file(stored, tmp_path / "other.safetensors")
    assert weights_fingerprint(tmp_path / "other.safetensors") != weights_fingerprint(
        tiny_base / "model.safetensors"
    )


def test_a_rewritten_file_is_hashed_again_though_the_cache_knows_the_path(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", seed=1)
    before = Base("b", folder).fingerprints.weights
    shutil.rmtree(folder)
    make_base(folder, seed=2)
    assert Base("b", folder).fingerprints.weights != before


def test_another_activation_is_another_config(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_base, folder)
    told = json.loads((folder / "config.json").read_text()) | {"activation_function": "relu"}
    (folder / "config.json").write_text(json.dumps(told))
    one, two = Base("a", tiny_base).fingerprints, Base("b", folder).fingerprints
    assert one.config != two.config
    assert one.weights == two.weights


def test_both_file_forms_of_a_tokenizer_have_one_fingerprint(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old-form"
    folder.mkdir()
    model = json.loads((tiny_base / "tokenizer.json").read_text())
    vocab = model["model"]["vocab"] | {t["content"]: t["id"] for t in model["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    shutil.copy(tiny_base / "config.json", folder)
    shutil.copy(tiny_base / "model.safetensors", folder)
    assert Base("a", tiny_base).fingerprints == Base("b", folder).fingerprints


def test_the_id_of_a_folder_is_its_name_never_its_path(tiny_base: Path) -> None:
    assert locate(str(tiny_base)).id == tiny_base.name


def test_a_folder_without_a_model_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no model in"):
        locate(str(tmp_path / "nothing"))


def test_a_model_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(Unsupported, match="is a 'llama' model; AdapterKit is for GPT-2"):
        _ = locate(str(tmp_path)).config


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(Unsupported, match="save_pretrained"):
        _ = locate(str(tmp_path)).weights


def test_a_base_in_a_folder_is_found_again_by_its_weights(tiny_base: Path) -> None:
    base = locate(str(tiny_base))
    remember(base)
    assert recall(base.fingerprints.weights) == str(base.folder)
    assert recall("0" * 64) is None


def test_the_embedded_base_is_a_small_gpt2() -> None:
    base = locate("embedded")
    assert base.id == "embedded"
    assert base.context >= 512
    assert base.dims.width % 64 == 0
    assert sum(p.stat().st_size for p in base.folder.iterdir() if p.is_file()) <= 16_000_000
