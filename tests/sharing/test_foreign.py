"""PEFT folders trained elsewhere: what PEFT computes from theirs it computes from ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2LMHeadModel

from adapterkit import Generator
from adapterkit.errors import BaseMismatch, Damaged, NameTaken, Unsupported, UsageProblem
from adapterkit.model.base import recall
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from adapterkit.sharing.foreign import called
from adapterkit.sharing.incoming import add
from tests.sharing.make import lora_tensors, peft_folder

EVERY = {(i, "attn.c_attn"): 4 for i in range(2)}
IDS = torch.arange(23).reshape(1, -1) * 7 % 300
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["attn.c_attn"]},
    "bare": {"target_modules": ["c_attn", "c_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "full-names": {"target_modules": ["transformer.h.0.attn.c_attn", "h.1.mlp.c_fc"]},
    "rslora": {"target_modules": ["c_attn", "c_fc"], "use_rslora": True},
    "ranks": {"target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 2, "h.0.attn.c_attn": 7}},
    "alphas": {"target_modules": ["c_attn", "c_fc"], "alpha_pattern": {"mlp.c_fc": 3, "c_attn": 16}},
    "anchored": {
        "target_modules": ["c_attn"],
        "rank_pattern": {"^transformer.h.1.attn.c_attn": 6},
        "alpha_pattern": {r"^transformer\.h\.0\.attn\.c_attn$": 5},
    },
    "rslora-ranks": {
        "target_modules": ["c_attn", "mlp.c_proj"],
        "use_rslora": True,
        "rank_pattern": {"c_attn": 9},
        "alpha_pattern": {"c_proj": 2},
    },
    "one-layer": {"target_modules": ["c_attn"], "layers_to_transform": [1]},
    "one-layer-of-all": {"target_modules": ["c_attn", "c_proj", "c_fc"], "layers_to_transform": 0},
    "excluded": {"target_modules": ["c_attn", "c_proj"], "exclude_modules": ["mlp.c_proj"]},
    "eva": {"target_modules": ["c_attn"], "init_lora_weights": "orthogonal"},
}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_what_peft_computes_from_theirs_it_computes_from_ours(
    name: str, registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    theirs = made_by_peft(tmp_path / name, tiny_base, **CONFIGS[name])
    version = add(registry, theirs, base=str(tiny_base))
    expected, found = logits(tiny_base, theirs), logits(tiny_base, version.path)
    assert (expected - logits(tiny_base, None)).abs().max() > 0.05  # the adapter does something
    assert (expected - found).abs().max() < 1e-6 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("name", ["bare", "rslora-ranks", "one-layer"])
def test_our_generator_writes_what_peft_writes(
    name: str, registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    theirs = made_by_peft(tmp_path / "theirs", tiny_base, **CONFIGS[name])
    add(registry, theirs, base=str(tiny_base))
    with Generator(tiny_base, registry=registry, device="cpu", precision="fp32") as generator:
        written = generator("The lamp", "theirs", temperature=0.0, max_new_tokens=12, raw=True)
    assert written.text == peft_text(tiny_base, theirs, "The lamp", 12)


def test_weights_keep_their_bytes_where_nothing_has_to_change(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    tensors = lora_tensors(EVERY, dtype="<f2")
    version = add(registry, peft_folder(tmp_path / "noir", tensors), base=str(tiny_base))
    assert stored(version) == tensors
    assert version.manifest["lora"] == {"r": 4, "alpha": 8.0, "targets": ["attn.c_attn"]}


@pytest.mark.parametrize(
    "form",
    [
        "base_model.model.transformer.h.{layer}.{module}.lora_{side}.default.weight",
        "transformer.h.{layer}.{module}.lora_{side}.weight",
        "base_model.model.h.{layer}.{module}.lora_{side}.weight",
        "h.{layer}.{module}.lora_{side}.noir.weight",
    ],
)
def test_every_spelling_of_a_name_means_the_same(
    form: str, registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY, name=form))
    assert stored(add(registry, folder, base=str(tiny_base))) == lora_tensors(EVERY)


def test_a_bare_c_proj_is_the_one_that_was_trained(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    tensors = lora_tensors({(i, "mlp.c_proj"): 4 for i in range(2)})
    version = add(
        registry, peft_folder(tmp_path / "noir", tensors, target_modules=["c_proj"]), base=str(tiny_base)
    )
    assert version.manifest["lora"]["targets"] == ["mlp.c_proj"]


def test_what_was_changed_on_the_way_in_is_said(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    told: list[str] = []
    theirs = made_by_peft(tmp_path / "noir", tiny_base, target_modules=["c_attn"], layers_to_transform=[0])
    version = add(registry, theirs, base=str(tiny_base), say=told.append)
    assert told == ["1 modules had no LoRA; they got one of zeros, which changes nothing."]
    assert version.manifest["imported"]["filled"] == 1


@pytest.mark.parametrize(
    "config",
    [
        {"task_type": ..., "bias": ...},
        {"task_type": None, "auto_mapping": {"base_model_class": "GPT2LMHeadModel", "parent_library": "x"}},
        {"peft_version": "0.21.2", "velora_config": None, "kasa_config": None, "use_bdlora": None},
        {"merge_weights": True, "enable_lora": None, "fan_in_fan_out": False},
        {
            "loftq_config": {},
            "megatron_core": "megatron.core",
            "runtime_config": {"ephemeral_gpu_offload": False},
        },
    ],
)
def test_old_and_new_configs_are_read(
    config: dict[str, Any], registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), **config)
    assert add(registry, folder, base=str(tiny_base)).ref == "noir@1"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"task_type": "SEQ_CLS"}, r"sorting texts into classes \(task_type SEQ_CLS\)"),
        ({"task_type": "TOKEN_CLS"}, "labelling tokens"),
        (
            {"task_type": None, "auto_mapping": {"base_model_class": "GPT2ForSequenceClassification"}},
            "GPT2ForSequence",
        ),
        ({"peft_type": "PROMPT_TUNING"}, r"is prompt tuning \(peft_type PROMPT_TUNING\)"),
        ({"peft_type": "IA3"}, "is IA3"),
        ({"peft_type": ["LORA"]}, "is not LoRA"),
        ({"peft_type": ...}, "is not LoRA"),
        ({"use_dora": True}, "uses DoRA"),
        ({"modules_to_save": ["lm_head"]}, r"uses modules_to_save \(whole modules beside the LoRA\)"),
        ({"bias": "lora_only"}, "has trained biases too"),
        ({"init_lora_weights": "pissa"}, "began as 'pissa', which changes the base it fits"),
        ({"layer_replication": [[0, 1]]}, "uses layer replication"),
        ({"enable_lora": [True, False, True]}, "LoRA on a part of c_attn"),
        ({"alora_invocation_tokens": [1]}, "uses aLoRA"),
        ({"something_new": {"x": 1}}, "uses something_new"),
        ({"target_modules": "(a+)+$"}, "targets the pattern .* patterns are not run"),
        ({"target_modules": ["(a+)+$"]}, "patterns are not run"),
        ({"exclude_modules": "(a+)+$"}, "patterns are not run"),
        ({"rank_pattern": {"(a+)+$": 4}}, r"has the pattern '\(a\+\)\+\$' in rank_pattern"),
        ({"alpha_pattern": {"h.(0|1).attn": 4}}, "patterns are not run"),
        ({"layers_to_transform": [0, 1], "layers_pattern": "(a+)+"}, "GPT-2's layers are 'h'"),
        ({"r": 0}, "has rank 0"),
        ({"r": 100_000}, "has rank 100000"),
        ({"r": True}, "has rank True"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    config: dict[str, Any], words: str, registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), **config)
    with pytest.raises(Unsupported, match=words) as told:
        add(registry, folder, base=str(tiny_base))
    assert told.value.hint
    assert registry.names() == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"lora_alpha": "8"}, "has lora_alpha 8, which is no number"),
        ({"lora_alpha": 1e300}, "has lora_alpha"),
        ({"use_rslora": "yes"}, "neither true nor false"),
        ({"target_modules": []}, "names no target modules"),
        ({"target_modules": None}, "names no target modules"),
        ({"r": 8}, r"does not fit this base: transformer\.h\.0\.attn\.c_attn has A \(4, 32\)"),
        (
            {"target_modules": ["c_attn", "c_fc"]},
            r"lacks 2 of the modules its config names, such as h\.0\.mlp\.c_fc",
        ),
        ({"target_modules": ["c_fc"]}, "lacks 2 of the modules"),
        ({"layers_to_transform": [0]}, r"LoRA on h\.1\.attn\.c_attn, which its config does not target"),
        ({"base_model_name_or_path": 3}, "names a base of"),
        ({"rank_pattern": [1]}, "has rank_pattern"),
    ],
)
def test_a_config_that_does_not_fit_its_tensors_is_damaged(
    config: dict[str, Any], words: str, registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), **config)
    with pytest.raises(Damaged, match=words):
        add(registry, folder, base=str(tiny_base))


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("base_model.model.transformer.wte.weight", Unsupported, "a tensor of another kind"),
        ("base_model.model.score.weight", Unsupported, r"a head for classes \(SEQ_CLS\)"),
        ("base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector", Unsupported, "DoRA"),
        ("base_model.model.transformer.wte.lora_embedding_A", Unsupported, "a LoRA on the embeddings"),
        ("base_model.model.lm_head.lora_A.weight", Unsupported, "a LoRA on lm_head"),
        ("base_model.model.transformer.h.7.attn.c_attn.lora_A.weight", Damaged, "lacks A or B"),
        ("transformer.h.0.attn.c_attn.lora_A.weight", Damaged, "twice, under two names"),
    ],
)
def test_a_tensor_that_does_not_belong_is_named(
    name: str, kind: type[Exception], words: str, registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    tensors = lora_tensors(EVERY) | {name: ("F32", (4, 32), bytes(512))}
    with pytest.raises(kind, match=words):
        add(registry, peft_folder(tmp_path / "noir", tensors), base=str(tiny_base))


def test_numbers_that_are_not_finite_are_refused(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    tensors = lora_tensors(EVERY)
    name = "base_model.model.transformer.h.1.attn.c_attn.lora_B.weight"
    kind, shape, data = tensors[name]
    tensors[name] = (kind, shape, b"\x00\x00\xc0\x7f" + data[4:])
    with pytest.raises(
        Damaged, match=r"1 numbers that are not finite in transformer\.h\.1\.attn\.c_attn\.lora_B"
    ):
        add(registry, peft_folder(tmp_path / "noir", tensors), base=str(tiny_base))


def test_an_adapter_of_a_deeper_base_does_not_fit(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    tensors = lora_tensors({(i, "attn.c_attn"): 4 for i in range(3)})
    with pytest.raises(Damaged, match="it has a layer 2, the base has 2 layers"):
        add(registry, peft_folder(tmp_path / "noir", tensors), base=str(tiny_base), force_base=True)


# --- the base -----------------------------------------------------------------


@pytest.mark.parametrize(
    "named", ["gpt2", "openai-community/gpt2", "/home/ann/models/gpt2", "C:\\models\\gpt2"]
)
def test_another_base_needs_force(named: str, registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), base_model_name_or_path=named)
    with pytest.raises(BaseMismatch, match=r"was made for .*gpt2; this base is tiny") as told:
        add(registry, folder, base=str(tiny_base))
    assert "--force-base" in told.value.hint
    assert registry.names() == []
    version = add(registry, folder, base=str(tiny_base), force_base=True)
    assert (version.manifest["base"]["forced"], version.manifest["base"]["named"]) == (True, "gpt2")
    assert version.base == "tiny"


def test_a_base_of_the_same_name_needs_none(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), base_model_name_or_path="tiny")
    version = add(registry, folder, base=str(tiny_base))
    assert "forced" not in version.manifest["base"]


def test_a_base_in_a_folder_is_found_again(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    version = add(registry, peft_folder(tmp_path / "noir", lora_tensors(EVERY)), base=str(tiny_base))
    assert recall(version.manifest["base"]["weights"]) == str(tiny_base)


def test_a_base_that_is_a_place_elsewhere_is_never_opened(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), base_model_name_or_path=str(tiny_base))
    with pytest.raises(UsageProblem, match="names its base as a folder") as told:
        add(registry, folder)
    assert told.value.hint.startswith(f"adapterkit import {folder} --base gpt2     (or --base FOLDER")


def test_a_base_that_is_not_named_has_to_be_given(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), base_model_name_or_path=...)
    with pytest.raises(UsageProblem, match="does not name its base"):
        add(registry, folder)
    assert add(registry, folder, base=str(tiny_base)).ref == "noir@1"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("gpt2", "gpt2"),
        ("openai-community/gpt2", "gpt2"),
        ("openai-community/gpt2-medium", "gpt2-medium"),
        ("/data/models/gpt2/", "gpt2"),
        ("..\\gpt2-xl", "gpt2-xl"),
        ("acme/gpt2", "acme/gpt2"),
        ("/data/models/mine", None),
        ("../../etc", None),
        ("", None),
        (None, None),
    ],
)
def test_a_base_has_one_name(name: str | None, short: str | None) -> None:
    assert called(name) == short


# --- what it becomes ----------------------------------------------------------


def test_what_is_not_known_is_marked_unknown(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    version = add(registry, peft_folder(tmp_path / "noir", lora_tensors(EVERY)), base=str(tiny_base))
    assert version.manifest["data"] is None
    assert version.metrics == Metrics()
    assert version.recipe.lora.r == 4
    assert (version.lineage.how, version.lineage.parents) == ("import", ())
    assert "- Text: unknown" in (version.path / "README.md").read_text()


def test_nothing_of_this_computer_is_kept(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY), base_model_name_or_path="/home/ann/gpt2")
    version = add(registry, folder, base=str(tiny_base), force_base=True)
    kept = b"".join(p.read_bytes() for p in version.path.iterdir())
    assert str(tmp_path).encode() not in kept
    assert b"/home/ann" not in kept


def test_the_same_folder_again_is_the_same_version(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "noir", lora_tensors(EVERY))
    assert add(registry, folder, base=str(tiny_base)) == add(registry, folder, base=str(tiny_base))


def test_a_folders_name_does_not_make_it_the_newest_of_another_adapter(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    add(registry, peft_folder(tmp_path / "noir", lora_tensors(EVERY)), base=str(tiny_base))
    folder = peft_folder(tmp_path / "again" / "noir", lora_tensors(EVERY, seed=1))
    with pytest.raises(NameTaken, match="'noir' is another adapter here") as told:
        add(registry, folder, base=str(tiny_base))
    assert "--name noir-2" in told.value.hint
    assert add(registry, folder, base=str(tiny_base), name="noir").ref == "noir@2"


def test_it_packs_and_comes_back(registry: Registry, tiny_base: Path, tmp_path: Path) -> None:
    version = add(registry, peft_folder(tmp_path / "noir", lora_tensors(EVERY)), base=str(tiny_base))
    other = Registry(tmp_path / "elsewhere")
    assert other.add(registry.pack("noir", to=tmp_path)) == version


def made_by_peft(folder: Path, base: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    told = {"r": 4, "lora_alpha": 8, "fan_in_fan_out": True, "task_type": "CAUSAL_LM", **config}
    wrapped = get_peft_model(GPT2LMHeadModel.from_pretrained(base), LoraConfig(**told))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    wrapped.save_pretrained(folder)
    config_path = folder / "adapter_config.json"
    config_path.write_text(
        json.dumps(json.loads(config_path.read_text()) | {"base_model_name_or_path": "tiny"})
    )
    return folder


def logits(base: Path, folder: Path | None) -> torch.Tensor:
    model = GPT2LMHeadModel.from_pretrained(base).eval()
    model = PeftModel.from_pretrained(model, folder).eval() if folder else model
    with torch.inference_mode():
        return model(input_ids=IDS).logits  # type: ignore[no-any-return]


def peft_text(base: Path, folder: Path, prompt: str, count: int) -> str:
    tokenizer = Tokenizer(base)
    model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), folder).eval()
    ids = tokenizer.encode(prompt)
    out: list[int] = []
    with torch.inference_mode():
        for _ in range(count):
            token = int(model(input_ids=torch.tensor([ids + out]), use_cache=False).logits[0, -1].argmax())
            if token == tokenizer.end:
                break
            out.append(token)
    return str(tokenizer.decode(out))


def stored(version: Version) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    path = version.path / "adapter_model.safetensors"
    header = tensorfile.read_header(path)
    with path.open("rb") as file:
        return {
            name: (e.dtype, e.shape, tensorfile.read_bytes(file, header, name))
            for name, e in header.entries.items()
        }
