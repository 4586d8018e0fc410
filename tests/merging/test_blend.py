"""Published blends, opened by PEFT, against sums of PEFT's own updates in float64."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from transformers import GPT2LMHeadModel

import adapterkit as ak
from adapterkit.errors import BaseMismatch, Damaged, NotFound, Unsupported, UsageProblem
from adapterkit.merging.blend import blend_of
from adapterkit.merging.blended import Asked
from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics
from tests.make import make_base
from tests.merging.adapters import (
    RANKS,
    TARGETS,
    Deltas,
    added,
    brought,
    furthest,
    named,
    of_folder,
    of_model,
    saved,
)
from tests.versions import FINGERPRINTS, adapter_config, manifest_of, publish, tensors

NEAR = 1e-5
WEIGHTS = (0.7, -0.4, 1.3, -1.0, 0.25, 0.5, -0.15, 2.0)
BLENDS: tuple[dict[str, float], ...] = (
    {"1": 0.7, "64": -0.4},
    {"8-rs": 0.7, "8": 0.3},
    {"64-rs": -0.4, "33-rs": 0.6, "7": 1.0},
    {"1": 0.5, "4-mlp": 0.5},  # no module in common
    dict(zip(map(str, RANKS), WEIGHTS, strict=True)),
    dict(zip((f"{r}-rs" for r in RANKS), reversed(WEIGHTS), strict=True)),
)
TWO = {"8": 0.7, "8-other": 0.3}


# --- exact --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1", "9-rs", "33", "64-rs"])
def test_a_blend_of_one_is_that_one(
    name: str, registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    made = ak.blend({f"r{name}": 1}, name="c", registry=brought(registry, folders, tiny_base, name))
    assert furthest(of_folder(made.path, tiny_base), deltas[name]) < 1e-7


@pytest.mark.parametrize("parts", BLENDS, ids=lambda parts: f"{len(parts)} from {next(iter(parts))}")
def test_a_blend_is_the_weighted_sum(
    parts: dict[str, float],
    registry: Registry,
    folders: dict[str, Path],
    deltas: dict[str, Deltas],
    tiny_base: Path,
) -> None:
    made = ak.blend(named(parts), name="c", registry=brought(registry, folders, tiny_base, *parts))
    assert furthest(of_folder(made.path, tiny_base), added(parts, deltas)) < NEAR


def test_random_blends_are_weighted_sums(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    draw, every = random.Random(0), [*map(str, RANKS), *(f"{r}-rs" for r in RANKS)]
    brought(registry, folders, tiny_base, *every)
    for _ in range(12):
        parts = {n: round(draw.uniform(-1.5, 1.5), 3) for n in draw.sample(every, draw.randint(2, 8))}
        made = ak.blend(named(parts), name="c", registry=registry)
        assert furthest(of_folder(made.path, tiny_base), added(parts, deltas)) < NEAR, parts


def test_peft_is_as_near_with_cat_and_far_off_with_linear(
    record_property: Callable[[str, object], None],
    registry: Registry,
    folders: dict[str, Path],
    deltas: dict[str, Deltas],
    tiny_base: Path,
) -> None:
    model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), folders["8"])
    model.load_adapter(folders["8-other"], "other")
    meant, off = added(TWO, deltas), {}
    for kind in ("linear", "cat"):
        model.add_weighted_adapter(["default", "other"], list(TWO.values()), kind, combination_type=kind)
        off[kind] = furthest(of_model(model, kind), meant)
    brought(registry, folders, tiny_base, *TWO)
    ours = ak.blend(named(TWO), name="c", method="linear", registry=registry)
    error = furthest(of_folder(ours.path, tiny_base), meant)
    record_property("relative error", f"ours {error:.1e}, cat {off['cat']:.1e}, linear {off['linear']:.2f}")
    assert error < NEAR
    assert off["cat"] < NEAR
    assert off["linear"] > 0.3


def test_what_people_call_linear_is_the_sum(
    registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *TWO)
    exact = ak.blend(named(TWO), name="c", registry=registry)
    assert ak.blend(named(TWO), name="c", method="linear", registry=registry) == exact
    assert exact.manifest["lineage"]["method"] == "exact"


def test_a_version_named_twice_counts_with_both_weights(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, "8")
    made = ak.blend("r8=0.5,r8@1=0.25", name="c", registry=registry)
    assert made.manifest["lora"]["r"] == 8
    assert furthest(of_folder(made.path, tiny_base), added({"8": 0.75}, deltas)) < NEAR


# --- a smaller rank -----------------------------------------------------------


def test_a_rank_as_large_as_the_modules_loses_nothing(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    parts = {"64": 0.6, "33-rs": -0.5, "16": 1.0}
    brought(registry, folders, tiny_base, *parts)
    done = blend_of(named(parts), Asked("c", rank=32), registry)  # 113 is what the sum has
    assert done.r == 32
    assert done.residual < 1e-6
    assert furthest(of_folder(done.version.path, tiny_base), added(parts, deltas)) < NEAR


@pytest.mark.parametrize("rank", [1, 4, 15])
def test_a_smaller_rank_is_the_nearest_and_its_residual_is_told(
    rank: int, registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *TWO)
    done = blend_of(named(TWO), Asked("c", rank=rank), registry)
    ours, meant = of_folder(done.version.path, tiny_base), added(TWO, deltas)
    lost = whole = 0.0
    for module, matrix in meant.items():
        values = np.linalg.svd(matrix, compute_uv=False)
        size, best = np.linalg.norm(values), np.linalg.norm(values[rank:])
        assert np.linalg.norm(ours[module] - matrix) == pytest.approx(best, rel=1e-5)
        assert done.residuals[module] == pytest.approx(best / size, rel=0.01)
        lost, whole = lost + best**2, whole + size**2
    assert done.residual == pytest.approx((lost / whole) ** 0.5, rel=0.01)
    assert done.residuals[done.worst] == max(done.residuals.values())
    assert done.version.manifest["lora"] == {"r": rank, "alpha": float(rank), "targets": sorted(TARGETS)}


def test_a_rank_that_is_not_served_names_the_flag(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    parts = {f"{r}{rs}": 0.3 for r in RANKS for rs in ("", "-rs")}
    brought(registry, folders, tiny_base, *parts)
    with pytest.raises(Unsupported, match="exact sum has rank 280; up to 256") as caught:
        ak.blend(named(parts), name="c", registry=registry)
    assert caught.value.hint.startswith("--rank 32 ")
    made = ak.blend(named(parts), name="c", rank=32, registry=registry)
    assert furthest(of_folder(made.path, tiny_base), added(parts, deltas)) < NEAR


# --- the version --------------------------------------------------------------


def test_a_blend_writes_what_the_mix_writes(
    registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, "33-rs", "64", "8")
    ak.blend({"r33-rs": 0.7, "r64": -0.4, "r8": 0.5}, name="c", registry=registry)
    with ak.Generator(tiny_base, registry=registry, device="cpu") as gen:
        for prompt in ("The lamp", "Old Tam", "Rain"):
            mixed = gen(prompt, "r33-rs=0.7,r64=-0.4,r8=0.5", temperature=0, max_new_tokens=24)
            assert gen(prompt, "c", temperature=0, max_new_tokens=24).text == mixed.text
            assert gen(prompt, None, temperature=0, max_new_tokens=24).text != mixed.text


def test_the_lineage_has_all_that_makes_it_again(
    registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *TWO)
    made = ak.blend(named(TWO), name="c", rank=5, method="dare_ties", density=0.3, seed=7, registry=registry)
    told = made.manifest["lineage"]
    assert made.lineage.how == "blend"
    assert made.lineage.parents == (registry["r8"].digest, registry["r8-other"].digest)
    assert (told["weights"], told["method"], told["density"], told["seed"]) == (
        [0.7, 0.3],
        "dare-ties",
        0.3,
        7,
    )
    assert 0 < told["residual"] <= told["largest"] < 1
    assert {"density", "seed"}.isdisjoint(
        ak.blend(named(TWO), name="d", registry=registry).manifest["lineage"]
    )


def test_versions_count_up_and_the_same_one_is_found_again(
    registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *TWO)
    first = ak.blend(named(TWO), name="r8", registry=registry)  # a part itself goes on
    assert first.ref == "r8@2"
    assert blend_of({"r8@1": 0.7, "r8-other": 0.3}, Asked("r8"), registry).existed
    assert ak.blend({"r8@1": 0.7, "r8-other": 0.4}, name="r8", registry=registry).ref == "r8@3"


def test_a_blend_travels_and_is_blended_again(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path, tmp_path: Path
) -> None:
    brought(registry, folders, tiny_base, *TWO)
    made = ak.blend(named(TWO), name="c", registry=registry)
    other = Registry(tmp_path / "other")
    assert other.add(registry.pack("c", to=tmp_path)) == made
    again = ak.blend({"c": 2.0}, name="twice", registry=other)
    meant = added({name: 2 * weight for name, weight in TWO.items()}, deltas)
    assert furthest(of_folder(again.path, tiny_base), meant) < NEAR
    assert registry.verify() == []


@pytest.mark.parametrize(("other", "expected"), [(0.3, 0.3), (0.4, 0.8)])
def test_settings_are_the_parents_where_they_agree(other: float, expected: float, registry: Registry) -> None:
    made_by_hand(registry, "a", tensors(0), {"temperature": 0.3, "prompts": ["The sea"]})
    made_by_hand(registry, "b", tensors(1), {"temperature": other, "prompts": ["The hill"]})
    made = ak.blend({"a": 0.5, "b": 0.5}, name="c", registry=registry)
    assert made.recipe.sample.temperature == expected
    assert made.recipe.sample.prompts == []
    assert made.metrics.loss is None


def test_a_base_that_was_forced_stays_told(
    registry: Registry, folders: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    brought(registry, folders, tiny_base, "8")
    alien = saved(tmp_path / "x", make_base(tmp_path / "second", seed=5), 8, False, TARGETS)
    registry.add(alien, name="x", base=str(tiny_base), force_base=True)
    made = ak.blend({"r8": 0.5, "x": 0.5}, name="c", registry=registry)
    assert made.manifest["base"]["forced"] is True
    assert made.manifest["base"]["named"] == "second"


def test_an_adapter_of_one_module_tells_its_base(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    for target in TARGETS:
        folder = saved(tmp_path / target, tiny_base, 3, False, [target])
        name = target.replace(".", "-")
        registry.add(folder, name=name, base=str(tiny_base))
        made = ak.blend({name: 0.5}, name="c", registry=registry)
        meant = {m: 0.5 * d for m, d in of_folder(folder, tiny_base).items()}
        assert furthest(of_folder(made.path, tiny_base), meant) < 1e-7


def test_parents_in_fp16_are_read(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path, tmp_path: Path
) -> None:
    brought(registry, folders, tiny_base, "8")
    half = registry.add(registry.pack("r8", to=tmp_path, half=True))
    made = ak.blend({half.ref: 1.0, "r8": -1.0}, name="c", registry=registry)
    rounding, whole = of_folder(made.path, tiny_base), deltas["8"]
    assert all(0 < np.linalg.norm(rounding[m]) < 1e-3 * np.linalg.norm(whole[m]) for m in whole)


# --- errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "more", "told"),
    [
        ({}, {}, "a blend is made of adapters"),
        ({"a": 0.0, "b": 1.0}, {}, "a@1 with a weight of 0 adds nothing"),
        ("a=0.5,a=-0.5", {}, "a@1 with a weight of 0 adds nothing"),
        ({"a": float("nan")}, {}, "is not a weight"),
        ({"a": float("inf")}, {}, "is not a weight"),
        ({"a": 1e7}, {}, "is over 1,000,000"),
        ("a,b", {}, "without weights"),
        ("base", {}, "a blend is made of adapters"),
        ({"a": 1}, {"method": "tie"}, "'tie' is no method; there are exact, ties, dare-ties, magnitude"),
        ({"a": 1}, {"rank": 0}, "0 is no rank"),
        ({"a": 1}, {"rank": 257}, "257 is no rank"),
        ({"a": 1}, {"rank": True}, "True is no rank"),
        ({"a": 1}, {"density": 0.5}, "density is of ties"),
        ({"a": 1}, {"method": "ties", "density": 0.0}, "0.0 is no density"),
        ({"a": 1}, {"method": "ties", "density": float("nan")}, "nan is no density"),
        ({"a": 1}, {"method": "ties", "seed": 1}, "only dare-ties draws"),
        ({"a": 1}, {"method": "dare-ties", "seed": -1}, "-1 is no seed"),
        ({"a": 1}, {"name": "My Blend"}, "not a name"),
    ],
)
def test_what_can_not_be_blended_is_told(
    parts: dict[str, float] | str, more: dict[str, object], told: str, registry: Registry
) -> None:
    publish(registry, "a")
    publish(registry, "b", seed=1)
    with pytest.raises(UsageProblem, match=told) as caught:
        ak.blend(parts, registry=registry, **{"name": "c", **more})  # type: ignore[arg-type]
    assert caught.value.hint
    assert "c" not in registry.names()


def test_an_adapter_that_is_not_there(registry: Registry) -> None:
    publish(registry, "noir")
    with pytest.raises(NotFound, match="no adapter named 'noire'"):
        ak.blend({"noire": 1}, name="c", registry=registry)


def test_adapters_of_two_bases_are_refused(
    registry: Registry, folders: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    brought(registry, folders, tiny_base, "8")
    base = make_base(tmp_path / "second", seed=5)
    registry.add(saved(tmp_path / "x", base, 8, False, TARGETS), name="x", base=str(base))
    with pytest.raises(
        BaseMismatch, match=r"x@1 was trained on second .*, r8@1 on tiny .*, whose weights differ\."
    ):
        ak.blend({"r8": 0.5, "x": 0.5}, name="c", registry=registry)


def test_a_full_fine_tune_is_refused_with_the_way_out(registry: Registry) -> None:
    publish(registry, "whole", kind="full")
    publish(registry, "a")
    with pytest.raises(Unsupported, match="whole@1 is a full fine-tune") as caught:
        ak.blend({"a": 0.5, "whole": 0.5}, name="c", registry=registry)
    assert "adapterkit extract whole@1 --base tiny --name whole-lora" in caught.value.hint


def test_a_damaged_parent_is_refused(registry: Registry) -> None:
    made = publish(registry, "a")
    path = made.path / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(Damaged, match="a@1"):
        ak.blend({"a": 1}, name="c", registry=registry)


@pytest.mark.parametrize("method", ["exact", "magnitude"])
def test_numbers_that_float32_can_not_hold_are_refused(method: str, registry: Registry) -> None:
    huge = {n: (d, s, np.full(s, 1e36, "<f4").tobytes()) for n, (d, s, _) in tensors(0).items()}
    made_by_hand(registry, "a", huge, {})
    with pytest.raises(UsageProblem, match=r"h\.0\.attn\.c_attn holds numbers that float32 can't"):
        ak.blend({"a": 1e6}, name="c", method=method, registry=registry)


def made_by_hand(
    registry: Registry,
    name: str,
    numbers: dict[str, tuple[str, tuple[int, ...], bytes]],
    sample: dict[str, object],
) -> None:
    manifest = manifest_of(name, "lora", "tiny", FINGERPRINTS, Metrics())
    manifest["recipe"]["sample"] |= sample
    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", numbers, {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config()))
        registry.publish(folder, manifest)
