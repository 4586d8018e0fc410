"""Training end to end on a small real base; transformers and PEFT read the result back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel, pipeline

import adapterkit as ak
from adapterkit.errors import Unsupported
from adapterkit.recipe.load import from_flags
from adapterkit.registry.store import Registry
from adapterkit.training import events
from adapterkit.training.events import Event
from adapterkit.training.plan import plan

QUICK = {
    "epochs": 4,
    "max_length": 64,
    "tokens_per_step": 512,
    "learning_rate": 0.01,
    "max_new_tokens": 12,
    "device": "cpu",
}


@pytest.fixture
def trained(registry: Registry, text_file: Path, tiny_base: Path) -> ak.Version:
    return ak.train(text_file, registry=registry, base=str(tiny_base), lora_r=4, **QUICK)


def test_an_adapter_lowers_the_held_out_loss(trained: ak.Version) -> None:
    assert trained.metrics.loss is not None
    assert trained.metrics.base_loss is not None
    assert trained.metrics.loss < trained.metrics.base_loss - 0.5


def test_peft_loads_the_folder_to_the_logits_of_the_generator(trained: ak.Version, registry: Registry, tiny_base: Path) -> None:  # fmt: skip
    ids = torch.randint(0, 300, (1, 21))
    model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), trained.path).eval()
    writer = ak.Generator(tiny_base, registry=registry, device="cpu").writer(trained.name)
    ours = writer.engine.model.logits(ids, writer.engine.bank.route([writer.parts]))
    assert torch.allclose(ours, model(ids).logits, atol=1e-4)


def test_a_full_fine_tune_is_a_folder_that_pipeline_opens(
    registry: Registry, text_file: Path, tiny_base: Path
) -> None:
    version = ak.train(
        text_file, registry=registry, base=str(tiny_base), method="full", **QUICK | {"learning_rate": 0.001}
    )
    write = pipeline("text-generation", str(version.path), device="cpu")
    text = write("The lamp", max_new_tokens=5, do_sample=False)[0]["generated_text"]
    ours = ak.Generator(tiny_base, registry=registry, device="cpu")("The lamp", version.ref, temperature=0, max_new_tokens=5, raw=True)  # fmt: skip
    assert text == ours.full_text


def test_a_full_fine_tune_moves_every_tensor(registry: Registry, text_file: Path, tiny_base: Path) -> None:
    version = ak.train(text_file, registry=registry, base=str(tiny_base), method="full", **QUICK)
    before = GPT2LMHeadModel.from_pretrained(tiny_base).state_dict()
    after = GPT2LMHeadModel.from_pretrained(version.path).state_dict()
    assert [n for n in before if torch.equal(before[n], after[n])] == []


def test_the_same_command_again_is_the_same_version(trained: ak.Version, registry: Registry, text_file: Path, tiny_base: Path) -> None:  # fmt: skip
    again = ak.train(text_file, registry=registry, base=str(tiny_base), lora_r=4, **QUICK)
    assert again == trained
    assert len(registry.versions()) == 1


def test_another_rank_is_the_next_version(trained: ak.Version, registry: Registry, text_file: Path, tiny_base: Path) -> None:  # fmt: skip
    other = ak.train(text_file, registry=registry, base=str(tiny_base), lora_r=2, **QUICK)
    assert (other.name, other.number) == (trained.name, trained.number + 1)


def test_training_twice_gives_the_same_bits(
    trained: ak.Version, text_file: Path, tiny_base: Path, tmp_path: Path
) -> None:
    other = Registry(tmp_path / "elsewhere")
    again = ak.train(text_file, registry=other, base=str(tiny_base), lora_r=4, **QUICK)
    weights = "adapter_model.safetensors"
    assert (again.path / weights).read_bytes() == (trained.path / weights).read_bytes()


def test_batch_size_only_cuts_a_step_into_pieces(text_file: Path, tiny_base: Path, tmp_path: Path) -> None:
    few = {**QUICK, "epochs": 1, "lora_dropout": 0.0}
    losses = [
        ak.train(text_file, registry=tmp_path / str(b), base=str(tiny_base), batch_size=b, **few).metrics.loss
        for b in (1, 8)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_no_file_of_a_version_names_a_path_of_this_machine(trained: ak.Version, tmp_path: Path) -> None:
    shipped = [p for p in trained.path.rglob("*") if p.is_file()]
    assert [p.name for p in shipped if str(tmp_path).encode() in p.read_bytes()] == []


def test_the_manifest_is_small_and_told_the_data(trained: ak.Version) -> None:
    assert (trained.path / "manifest.json").stat().st_size < 4096
    assert trained.manifest["data"]["documents"] == 120


def test_a_name_from_a_path_does_not_mix_two_texts(trained: ak.Version, registry: Registry, tiny_base: Path, tmp_path: Path) -> None:  # fmt: skip
    other = tmp_path / "other" / "tales.txt"
    other.parent.mkdir()
    other.write_text(
        "".join(
            f"Entry {i}: {i * 7} bolts of cloth, {i} of them blue, and so on until dusk.\n"
            for i in range(200)
        )
    )
    with pytest.raises(ak.NameTaken, match=r"trained on other text \(0 of 200 documents in common\)"):
        ak.train(other, registry=registry, base=str(tiny_base), **QUICK)


def test_a_failed_run_leaves_nothing_in_the_registry(
    registry: Registry, text_file: Path, tiny_base: Path
) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, events.Tested):
            raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError, match="pulled"):
        ak.train(text_file, registry=registry, base=str(tiny_base), on_event=fail, **QUICK)
    assert registry.versions() == []
    assert list((registry.path / ".staging").iterdir()) == []


def test_an_adapter_is_refused_by_another_base(
    trained: ak.Version, registry: Registry, tmp_path: Path
) -> None:
    from tests.make import make_base

    other = make_base(tmp_path / "other", seed=5)
    with pytest.raises(ak.BaseMismatch, match=re.escape(f"{trained.ref} was trained on tiny")):
        ak.Generator(other, registry=registry, device="cpu")("The", adapter=trained.name)


def test_a_flipped_bit_is_refused(trained: ak.Version, registry: Registry, tiny_base: Path) -> None:
    path = trained.path / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(ak.Damaged, match="is not the file that was published"):
        ak.Generator(tiny_base, registry=registry, device="cpu")("The", adapter=trained.name)


def test_short_documents_learn_to_end(registry: Registry, tmp_path: Path, tiny_base: Path) -> None:
    path = tmp_path / "desk" / "short.txt"
    path.write_text("".join("The lamp was lit.\n" if i % 2 else "Rain fell on nets.\n" for i in range(700)))
    version = ak.train(
        path,
        registry=registry,
        base=str(tiny_base),
        method="full",
        **QUICK | {"max_new_tokens": 60, "epochs": 8, "learning_rate": 0.003, "temperature": 0.2},
    )
    assert version.metrics.stops is not None
    assert version.metrics.stops > 0.8


def test_events_tell_the_curve_that_the_version_keeps(
    registry: Registry, text_file: Path, tiny_base: Path
) -> None:
    heard: list[Event] = []
    version = ak.train(text_file, registry=registry, base=str(tiny_base), on_event=heard.append, **QUICK)
    tested = [e.held_out for e in heard if isinstance(e, events.Tested)]
    assert tested == [p.held_out for p in version.history() if p.held_out is not None]
    assert version.metrics.loss == pytest.approx(min(tested), rel=1e-5)


def test_recipe_json_holds_every_value_resolved(trained: ak.Version) -> None:
    told = json.loads((trained.path / "recipe.json").read_text())["recipe"]
    assert "auto" not in json.dumps(dict(told["train"].items()))
    assert told["lora"]["alpha"] == 8.0


@pytest.mark.parametrize(
    ("key", "value", "is_same"),
    [
        ("batch_size", 2, True),
        ("save_steps", 3, True),
        ("log_steps", 1, True),
        ("gradient_checkpointing", True, True),
        ("fast", False, True),
        ("precision", "bf16", False),
        ("eval_steps", 2, False),
        ("seed", 4, False),
        ("epochs", "auto", False),
    ],
)
def test_what_a_version_is_made_from_is_what_its_result_depends_on(
    text_file: Path, tiny_base: Path, registry: Registry, key: str, value: object, is_same: bool
) -> None:
    def made_from(**more: Any) -> str:
        flags = {"data.source": str(text_file), "base": str(tiny_base), "train.epochs": 20.0,
                 "train.device": "cpu", "train.precision": "fp32", **more}  # fmt: skip
        return plan(from_flags(flags, name="tales"), name=None, registry=registry).made_from

    assert (made_from() == made_from(**{f"train.{key}": value})) is is_same


def test_samples_are_written_at_each_test(registry: Registry, text_file: Path, tiny_base: Path) -> None:
    heard: list[Event] = []
    ak.train(
        text_file, registry=registry, base=str(tiny_base), on_event=heard.append, prompts=["Old Tam"], **QUICK
    )
    tests = [e.step for e in heard if isinstance(e, events.Tested)]
    sampled = [e for e in heard if isinstance(e, events.Sampled)]
    assert [e.step for e in sampled] == [*tests, None]
    assert {e.samples[0].prompt for e in sampled} == {"Old Tam"}
    assert len({e.samples[0].text for e in sampled}) > 1  # by other weights each time


def test_several_processes_are_refused_by_name(
    text_file: Path, tiny_base: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Unsupported, match="by 2 processes"):
        ak.train(text_file, registry=registry, base=str(tiny_base))
