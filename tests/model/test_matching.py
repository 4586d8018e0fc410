"""Which modules lora.targets picks, and how large the file gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterkit.errors import RecipeError
from adapterkit.model import trainable
from adapterkit.model.base import locate
from adapterkit.model.device import choose
from adapterkit.model.matching import match
from adapterkit.recipe.schema import LoraSpec, Recipe
from adapterkit.registry.strict import Dims

SMALL = Dims(12, 768, 3072)  # GPT-2 124M


def test_one_module_a_layer_of_gpt2_is_told_in_numbers() -> None:
    told = match(SMALL, LoraSpec(targets=["attn.c_attn"]))
    assert str(told) == "LoRA on 12 modules (attn.c_attn in 12 layers), 0.29 M parameters, file 1.2 MB"


@pytest.mark.parametrize(
    ("targets", "modules", "megabytes"), [("attn", 24, 1.77), ("mlp", 24, 2.95), ("all", 48, 4.72)]
)
def test_sizes_of_the_presets_at_rank_8(targets: str, modules: int, megabytes: float) -> None:
    told = match(SMALL, LoraSpec(targets=targets))
    assert told.modules == modules
    assert 4 * told.parameters / 1e6 == pytest.approx(megabytes, abs=0.01)


@pytest.mark.parametrize("targets", ["attn", "mlp", "all", ["mlp.c_proj", "attn.c_attn"]])
def test_it_is_what_gets_attached_and_saved(
    targets: str | list[str], tiny_base: Path, tmp_path: Path
) -> None:
    base = locate(str(tiny_base))
    recipe = Recipe.model_validate({"lora": {"r": 3, "alpha": 6.0, "targets": targets}})
    wrapped = trainable.attach_lora(trainable.load_model(base, choose("cpu"), recipe), recipe)
    trainable.save_lora(wrapped, tmp_path, "tiny")
    told = match(base.dims, recipe.lora)
    assert told.parameters == sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert told.file_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size
    assert told.modules == sum(n.endswith("lora_A") for n, _ in wrapped.named_modules())


def test_a_name_twice_is_one() -> None:
    assert match(SMALL, LoraSpec(targets=["mlp.c_fc", "mlp.c_fc"])).targets == ("mlp.c_fc",)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ("c_proj", r"'c_proj' matches attn\.c_proj, mlp\.c_proj; there are attn\.c_attn, "),
        ("attn.c_atn", "'attn.c_atn' matches no module of this base exactly"),
        (["attn.c_attn", "c_fc"], "'c_fc' matches no module of this base exactly"),
        (".*", "matches no module of this base exactly"),
        ([], "'lora.targets' is empty"),
    ],
)
def test_what_is_not_exactly_one_module_is_refused(targets: str | list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        match(SMALL, LoraSpec(targets=targets))


def test_the_nearest_name_is_the_hint() -> None:
    with pytest.raises(RecipeError) as caught:
        match(SMALL, LoraSpec(targets="attn.c_atn"))
    assert caught.value.hint == "--lora-targets attn, mlp or all, or attn.c_attn"
