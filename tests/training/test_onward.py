"""Going on from an adapter, repeating one, and what a run would take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import adapterkit as ak
from adapterkit.errors import BaseMismatch, DataError, NotFound, RecipeError, UsageProblem
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import Dims, read_lora
from adapterkit.registry.version import Version
from adapterkit.training.events import Begun, Event, Said
from tests.make import make_base

FEW: dict[str, Any] = {
    "epochs": 1,
    "document": "line",
    "learning_rate": 5e-3,
    "lora_r": 2,
    "lora_targets": "attn",
}
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def first(text_file: Path, tiny_base: Path, registry: Registry) -> Version:
    return ak.train(text_file, registry=registry, base=str(tiny_base), **FEW)


def weights(v: Version) -> bytes:
    return (v.path / "adapter_model.safetensors").read_bytes()


# --- from ---


def test_training_begins_with_the_weights_and_says_so(
    first: Version, text_file: Path, registry: Registry
) -> None:
    """Base, rank and targets are the parent's, without being named; the loss begins where it ended."""
    heard: list[Event] = []
    more = ak.train(text_file, name="more", registry=registry, start_from="tales", epochs=1, document="line",
                    learning_rate=1e-3, on_event=heard.append)  # fmt: skip
    assert more.lineage.parents == (first.digest,)
    assert (more.recipe.lora.r, more.recipe.lora.targets, more.base) == (2, "attn", first.base)
    (begun,) = (e for e in heard if isinstance(e, Begun))
    assert begun.base_loss == pytest.approx(first.metrics.loss, rel=1e-4)
    assert more.metrics.base_loss == pytest.approx(
        first.metrics.base_loss, rel=1e-6
    )  # the base's, not the parent's
    assert more.metrics.loss is not None
    assert first.metrics.loss is not None
    assert more.metrics.loss < first.metrics.loss


def test_one_tiny_step_leaves_the_weights_near_the_parents(
    first: Version, text_file: Path, registry: Registry
) -> None:
    near = ak.train(text_file, name="near", registry=registry, start_from=first, epochs=0.05, document="line",
                    learning_rate=1e-6)  # fmt: skip
    before, after = (read_lora(v.path, Dims(2, 32, 128), v.ref).tensors for v in (first, near))
    assert before.keys() == after.keys()
    for name in before:
        a, b = (torch.frombuffer(bytearray(t[name][2]), dtype=torch.float32) for t in (before, after))
        assert torch.allclose(a, b, atol=1e-4)
    assert weights(first) != weights(near)


def test_the_same_text_from_a_parent_is_another_run(
    first: Version, text_file: Path, registry: Registry
) -> None:
    again = ak.train(text_file, registry=registry, start_from=first, **FEW)
    assert (again.name, again.number) == (first.name, 2)


@pytest.mark.parametrize(
    ("asked", "key"),
    [({"lora_r": 4}, "lora.r"), ({"lora_targets": "mlp"}, "lora.targets"), ({"method": "full"}, "method")],
)
def test_another_shape_than_the_parents_is_refused(
    first: Version, text_file: Path, registry: Registry, asked: dict[str, Any], key: str
) -> None:
    with pytest.raises(RecipeError, match=f"{first.ref} has {key} "):
        ak.train(text_file, name="more", registry=registry, start_from=first, **asked)


def test_another_base_than_the_parents_is_refused(
    first: Version, text_file: Path, registry: Registry, tmp_path: Path
) -> None:
    other = make_base(tmp_path / "other", seed=9)
    with pytest.raises(BaseMismatch, match=f"{first.ref} was trained on"):
        ak.train(text_file, name="more", registry=registry, start_from=first, base=str(other))


@pytest.mark.parametrize("start", ["tales=0.5", "tales,tales", {"tales": 1.0}])
def test_a_mix_is_no_beginning(first: Version, text_file: Path, registry: Registry, start: Any) -> None:
    with pytest.raises(UsageProblem, match="not with a mix"):
        ak.train(text_file, registry=registry, start_from=start)


def test_an_unknown_beginning_is_told_with_the_nearest(first: Version, cli: Cli, registry: Registry) -> None:
    code, _, err = cli("train", "tales.txt", "--from", "tale", "--registry", str(registry.path))
    assert code == 1
    assert "hint:  adapterkit train tales.txt --from tales " in err


def test_a_full_fine_tune_goes_on_from_a_full_one(
    text_file: Path, tiny_base: Path, registry: Registry
) -> None:
    few = {"epochs": 1, "document": "line", "learning_rate": 1e-3}
    one = ak.train(text_file, registry=registry, base=str(tiny_base), method="full", **few)
    heard: list[Event] = []
    two = ak.train(text_file, name="two", registry=registry, start_from=one, on_event=heard.append, **few)
    (begun,) = (e for e in heard if isinstance(e, Begun))
    assert begun.base_loss == pytest.approx(one.metrics.loss, rel=1e-4)
    assert (two.kind, two.lineage.parents) == ("full", (one.digest,))


# --- repeat ---


def test_a_version_repeated_is_the_same_bits(first: Version, registry: Registry) -> None:
    heard: list[Event] = []
    assert ak.repeat("tales@1", registry=registry, on_event=heard.append) == first
    assert [v.ref for v in registry.versions()] == ["tales@1"]
    assert "Identical: the same bits as tales@1." in [e.text for e in heard if isinstance(e, Said)]


def test_epochs_that_were_auto_are_repeated_so(text_file: Path, tiny_base: Path, registry: Registry) -> None:
    auto = ak.train(text_file, registry=registry, base=str(tiny_base), document="line", learning_rate=0.05)
    assert ak.repeat(auto, registry=registry) == auto


def test_one_that_began_with_another_is_repeated_from_it(
    first: Version, text_file: Path, registry: Registry
) -> None:
    more = ak.train(text_file, name="more", registry=registry, start_from=first, epochs=1, document="line")
    assert ak.repeat("more", registry=registry) == more


def test_text_that_has_changed_is_refused(first: Version, text_file: Path, registry: Registry) -> None:
    text_file.write_text(text_file.read_text() + "A line more at the very end of it all.\n")
    with pytest.raises(DataError, match=r"text of tales@1 has changed") as caught:
        ak.repeat("tales", registry=registry)
    assert "--repeat tales@1" in (caught.value.hint or "")


def test_text_that_has_gone_can_be_named(
    first: Version, text_file: Path, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = text_file.rename(tmp_path / "elsewhere" / "tales.txt")
    with pytest.raises(DataError, match=r"text of tales@1 is not here"):
        ak.repeat("tales", registry=registry)
    assert ak.repeat("tales", str(moved), registry=registry) == first


def test_text_under_another_name_is_held_out_otherwise(
    first: Version, text_file: Path, registry: Registry
) -> None:
    moved = text_file.rename(text_file.with_name("stories.txt"))
    with pytest.raises(DataError, match=r"other parts of it are held out"):
        ak.repeat("tales", str(moved), registry=registry)


def test_repeat_takes_no_other_flag(first: Version, cli: Cli, registry: Registry) -> None:
    assert cli("train", "--repeat", "tales", "--epochs", "3", "--registry", str(registry.path))[0] == 2
    with pytest.raises(NotFound):
        ak.repeat("nobody", registry=registry)


# --- plan ---


def test_a_plan_tells_what_a_run_then_does(text_file: Path, tiny_base: Path, registry: Registry) -> None:
    asked: dict[str, Any] = {"base": str(tiny_base), **FEW, "epochs": 3}
    plan = ak.plan(text_file, registry=registry, **asked)
    assert registry.versions() == []
    assert not (registry.path / ".runs").exists()
    heard: list[Event] = []
    version = ak.train(text_file, registry=registry, on_event=heard.append, **asked)
    (begun,) = (e for e in heard if isinstance(e, Begun))
    assert (plan.steps, plan.passes) == (begun.steps, 3)
    assert plan.train_tokens == version.manifest["data"]["train_tokens"]
    assert plan.held_out_tokens == version.metrics.tokens
    assert plan.adapter == (version.path / "adapter_model.safetensors").stat().st_size
    assert plan.resolved["train.tokens_per_step"] == version.recipe.train.tokens_per_step
    assert plan.resolved["train.batch_size"] == version.recipe.train.batch_size
    assert 0 < plan.seconds_per_step < 60
    assert plan.seconds >= plan.seconds_per_step * plan.steps
    assert plan.memory > 0
    assert plan.exists is None
    assert ak.plan(text_file, registry=registry, **asked).exists == "tales@1"


def test_the_plan_is_printed_and_is_json(text_file: Path, tiny_base: Path, cli: Cli) -> None:
    asked = ("train", "tales.txt", "--base", str(tiny_base), "--document", "line", "--plan")
    code, out, _ = cli(*asked)
    assert code == 0
    for word in ("learn from", "test on", "up to", "time", "memory", "disk", "device", "train.batch_size"):
        assert word in out
    told = json.loads(cli(*asked, "--json")[1])
    assert told["may_stop"] is True
    assert told["matched"].startswith("LoRA on 4 modules")
