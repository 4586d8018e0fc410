"""Blends against merged weights: the exact weighted sum of updates, added up in float64 and read by transformers."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

import adapterkit as ak
from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine
from adapterkit.generation.pages import Loaded
from adapterkit.model.base import Base
from adapterkit.model.device import choose
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import read_lora
from tests.generation.crowd import MARGIN, TARGETS

NEAR = 1e-5  # of the largest logit
RANKS = (1, 2, 7, 8, 9, 16, 33, 64)
Blend = tuple[tuple[str, float], ...]  # adapter, weight
WEIGHTS = (0.7, -0.4, 1.3, -1.0, 0.25, 0.5, -0.15, 2.0)
BLENDS: tuple[Blend, ...] = (
    (("1", 0.7), ("64", -0.4)),
    (("8-rs", 0.7), ("8", 0.3)),
    (("64-rs", -0.4), ("33-rs", 0.6), ("7", 1.0)),
    tuple(zip(map(str, RANKS), WEIGHTS, strict=True)),
    tuple(zip((f"{r}-rs" for r in RANKS), reversed(WEIGHTS), strict=True)),
)


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each rank with either scale, on one to four modules, saved by PEFT."""
    root = tmp_path_factory.mktemp("adapters")
    made = {}
    for i, r in enumerate(RANKS):
        for name, rs in ((f"{r}", False), (f"{r}-rs", True)):
            made[name] = saved(root / name, tiny_base, r, rs, TARGETS[: 1 + i % 4])
    return made


def saved(folder: Path, base: Path, r: int, rs: bool, targets: list[str]) -> Path:
    torch.manual_seed(2 * r + rs)
    config = LoraConfig(
        r=r, lora_alpha=1.5 * r**0.5 if rs else 1.5 * r, use_rslora=rs, target_modules=targets,
        fan_in_fan_out=True, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(GPT2LMHeadModel.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2 * r**-0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(tiny_base: Path) -> Engine:
    return loading.engine(Base("tiny", tiny_base), choose("cpu", "fp32"))


@pytest.fixture(scope="module")
def loaded(engine: Engine, tiny_base: Path, folders: dict[str, Path]) -> dict[str, Loaded]:
    dims = Base("tiny", tiny_base).dims
    return {name: engine.load(read_lora(folder, dims, name)) for name, folder in folders.items()}


def merged(base: Path, folders: dict[str, Path], blend: Blend) -> GPT2LMHeadModel:
    """transformers' model in float64 with the sum of weight * scale * B A in its weights."""
    model = GPT2LMHeadModel.from_pretrained(base).double().eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in blend:
            told = json.loads((folders[name] / "adapter_config.json").read_text())
            scale = told["lora_alpha"] / (told["r"] ** 0.5 if told["use_rslora"] else told["r"])
            tensors = load_file(folders[name] / "adapter_model.safetensors")
            for key, a in tensors.items():
                if ".lora_A." in key:
                    b = tensors[key.replace(".lora_A.", ".lora_B.")].double()
                    module = key.removeprefix("base_model.model.").partition(".lora_A.")[0]
                    parameters[f"{module}.weight"] += weight * scale * (b @ a.double()).T  # stored (in, out)
    return model


def furthest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, as a share of the largest logit."""
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


def parts(loaded: dict[str, Loaded], blend: Blend) -> list[tuple[Loaded, float]]:
    return [(loaded[name], weight) for name, weight in blend]


@pytest.mark.parametrize("name", ["1", "64", "9-rs", "64-rs"])
@torch.inference_mode()
def test_the_oracle_with_one_adapter_is_peft(name: str, tiny_base: Path, folders: dict[str, Path]) -> None:
    ids = torch.randint(0, 300, (1, 19))
    theirs = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), folders[name]).double()
    assert furthest(merged(tiny_base, folders, ((name, 1.0),))(ids).logits, theirs.eval()(ids).logits) < 1e-9


@pytest.mark.parametrize("blend", BLENDS, ids=lambda blend: f"{len(blend)} from {blend[0][0]}")
@torch.inference_mode()
def test_a_blend_equals_merged_weights(
    blend: Blend, engine: Engine, loaded: dict[str, Loaded], tiny_base: Path, folders: dict[str, Path]
) -> None:
    ids = torch.randint(0, 300, (2, 31))
    theirs = merged(tiny_base, folders, blend)(ids).logits
    ours = engine.model.logits(ids, engine.bank.route([parts(loaded, blend)] * 2))
    assert furthest(ours, theirs) < NEAR
    assert furthest(theirs, merged(tiny_base, folders, ())(ids).logits) > 0.1  # the blend does something


@torch.inference_mode()
def test_a_batch_of_blends_equals_each_ones_merged_weights_token_by_token(
    engine: Engine, loaded: dict[str, Loaded], tiny_base: Path, folders: dict[str, Path]
) -> None:
    """A prompt read and five tokens written on, rows of different blends and of the base side by side."""
    styles: Sequence[Blend] = (*BLENDS, ())
    models = [merged(tiny_base, folders, style) for style in styles]
    ids = torch.randint(0, 300, (len(styles), 17))
    route = engine.bank.route([parts(loaded, style) for style in styles])
    cache = engine.model.new_cache(len(styles), 17)
    logits = engine.model.prefill(ids[:, :12], torch.full((len(styles),), 12), cache, route)
    for at in range(12, 18):
        for row, model in enumerate(models):
            theirs = model(ids[row : row + 1, :at]).logits[0, -1]
            assert furthest(logits[row], theirs) < NEAR, (at, styles[row])
        if at < 17:
            logits = engine.model.step(ids[:, at], torch.full((len(styles),), at), cache, route)


def random_blend(draw: random.Random, names: Sequence[str]) -> Blend:
    chosen = draw.sample(names, draw.randint(2, 8))
    return tuple((name, round(draw.uniform(-1.5, 1.5), 3)) for name in chosen)


@torch.inference_mode()
def test_random_blends_equal_merged_weights(
    engine: Engine, loaded: dict[str, Loaded], tiny_base: Path, folders: dict[str, Path]
) -> None:
    draw = random.Random(0)
    blends = [random_blend(draw, list(folders)) for _ in range(40)]
    ids = torch.randint(0, 300, (len(blends), 13))
    ours = engine.model.logits(ids, engine.bank.route([parts(loaded, blend) for blend in blends]))
    for row, blend in enumerate(blends):
        theirs = merged(tiny_base, folders, blend)(ids[row : row + 1]).logits[0]
        assert furthest(ours[row], theirs) < NEAR, blend


@torch.inference_mode()
def test_the_generator_writes_what_merged_weights_write(
    tiny_base: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Through a registry, the text of a blend and a mapping; greedy, to the first choice that rounding may swap."""
    registry = Registry(tmp_path / "adapters")
    names = {"1": "thin", "33-rs": "wide", "64": "most"}
    for old, new in names.items():
        registry.add(folders[old], name=new, base=str(tiny_base))
    blend = (("1", 0.8), ("33-rs", -0.6), ("64", 0.5))
    model = merged(tiny_base, folders, blend)
    told = {"temperature": 0, "max_new_tokens": 24, "seed": 0}
    with ak.Generator(tiny_base, registry=registry, device="cpu") as gen:
        made = gen("The lamp", "thin=0.8,wide=-0.6,most=0.5", **told)
        tokenizer = gen.writer(None).engine.tokenizer
        assert gen("The lamp", {names[n]: w for n, w in blend}, **told).text == made.text
    ids = [tokenizer.end, *tokenizer.encode("The lamp")]
    wanted: list[int] = []
    for _ in range(made.usage.new_tokens):
        top = model(torch.tensor([ids + wanted])).logits[0, -1].topk(2)
        if float(top.values[0] - top.values[1]) < MARGIN:
            break
        wanted.append(int(top.indices[0]))
    assert len(wanted) >= 8
    assert made.text.startswith(tokenizer.decode([t for t in wanted if t != tokenizer.end]))
