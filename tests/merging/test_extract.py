"""Extracting: PEFT loads the result, numpy's SVD says what must be lost, ``evaluate`` scores it again."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

import adapterkit as ak
from adapterkit.errors import BaseMismatch, NotFound, Unsupported, UsageProblem
from adapterkit.merging.extract import extract_of
from adapterkit.merging.extracted import Asked
from adapterkit.registry.store import Registry
from tests.conftest import SENTENCES, fp32_on_every_machine
from tests.make import make_base
from tests.versions import publish

TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
RANK = 3


def tuned(base: Path, folder: Path, *, rank: int = RANK, rest: bool = True) -> Path:
    """A full fine-tune whose matrices changed by this rank; and with ``rest`` a bias, a norm and embeddings."""
    shutil.copytree(base, folder)
    model = GPT2LMHeadModel.from_pretrained(base)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if any(name.endswith(f"{t}.weight") for t in TARGETS):
                sides = (torch.randn(n, rank, generator=draw) * 0.1 for n in p.shape)
                p += next(sides) @ next(sides).T
        if rest:
            model.transformer.h[1].mlp.c_fc.bias[0] += 0.25
            model.transformer.h[0].ln_1.weight[2] += 0.5
            model.transformer.wte.weight[7, 3] += 2.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    return tuned(tiny_base, tmp_path_factory.mktemp("tuned") / "tuned")


def changes(base: Path, folder: Path) -> dict[str, np.ndarray]:
    """The change of each matrix by the name of its module, float64."""
    old, new = (GPT2LMHeadModel.from_pretrained(p).state_dict() for p in (base, folder))
    return {
        n.removeprefix("transformer.").removesuffix(".weight"): (new[n].double() - old[n].double()).numpy()
        for n in old
        if any(n.endswith(f"{t}.weight") for t in TARGETS)
    }


def test_peft_merges_the_adapter_to_the_matrices_of_the_full_fine_tune(
    registry: Registry, tiny_base: Path, folder: Path
) -> None:
    version = ak.extract(folder, base=tiny_base, name="taken", rank=RANK, registry=registry)
    base = GPT2LMHeadModel.from_pretrained(tiny_base)
    theirs = PeftModel.from_pretrained(base, version.path).merge_and_unload().state_dict()
    full = GPT2LMHeadModel.from_pretrained(folder).state_dict()
    for module in changes(tiny_base, folder):
        name = f"transformer.{module}.weight"
        assert torch.allclose(theirs[name], full[name], atol=1e-5), name


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_what_is_lost_is_what_the_singular_values_say(
    rank: int, registry: Registry, tiny_base: Path, folder: Path
) -> None:
    made = extract_of(folder, Asked("taken", rank), base=tiny_base, registry=registry)
    for module, change in changes(tiny_base, folder).items():
        s = np.linalg.svd(change, compute_uv=False)
        wanted = math.sqrt((s[rank:] ** 2).sum() / (s**2).sum())
        assert made.residuals[module] == pytest.approx(wanted, rel=0.01, abs=1e-5)
    assert (made.residual > 0.1) is (rank < RANK)


def test_the_energy_gives_the_smallest_rank_that_keeps_it(
    registry: Registry, tiny_base: Path, folder: Path
) -> None:
    squares = sum(np.linalg.svd(c, compute_uv=False)[:32] ** 2 for c in changes(tiny_base, folder).values())
    share = np.cumsum(squares) / np.sum(squares)
    for energy in (0.3, 0.6, 0.99):
        made = extract_of(folder, Asked("taken", energy=energy), base=tiny_base, registry=registry)
        assert made.r == int(np.argmax(share >= energy)) + 1
        assert made.residual**2 <= 1 - energy + 1e-3


def test_what_no_lora_can_hold_is_named_with_its_size(
    registry: Registry, tiny_base: Path, folder: Path
) -> None:
    made = extract_of(folder, Asked("taken", RANK), base=tiny_base, registry=registry)
    told = {x.name: (x.kind, x.change) for x in made.left}
    assert told == {
        "h.1.mlp.c_fc.bias": ("biases", pytest.approx(0.25, rel=1e-5)),
        "h.0.ln_1.weight": ("norms", pytest.approx(0.5, rel=1e-5)),
        "wte.weight": ("embeddings", pytest.approx(2.0, rel=1e-5)),
    }
    kept = json.loads((made.version.path / "export.json").read_text())
    assert {x["name"] for x in kept["left"]} == set(told)
    card = (made.version.path / "README.md").read_text()
    assert "Embeddings changed by 2 " in card


def test_matrices_that_did_not_change_are_no_targets(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "some")
    model = GPT2LMHeadModel.from_pretrained(tiny_base)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[:, 4] += 0.5
    model.save_pretrained(tmp_path / "some")
    version = ak.extract(tmp_path / "some", base=tiny_base, name="taken", rank=1, registry=registry)
    assert version.manifest["lora"]["targets"] == ["mlp.c_fc"]
    merged = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), version.path)
    theirs = merged.merge_and_unload().state_dict()
    assert all(torch.allclose(t, theirs[n], atol=1e-5) for n, t in model.state_dict().items())


def test_a_folder_says_that_perplexity_was_not_measured(
    registry: Registry, tiny_base: Path, folder: Path
) -> None:
    said: list[str] = []
    made = extract_of(folder, Asked("taken"), base=tiny_base, registry=registry, say=said.append)
    assert made.perplexity is None
    assert any("without a held-out text" in line for line in said)
    assert made.version.lineage.parents == ()


# --- of a version, with its text ----------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A folder with tales.txt and adapters/, in which whole@1 is a full fine-tune."""
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "tales.txt"
    triples = [(i % 8, i // 8 % 8, i // 16 % 8) for i in range(120)]
    text.write_text("".join(f"{SENTENCES[a]} {SENTENCES[b]} {SENTENCES[c]}\n" for a, b, c in triples))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERKIT_CACHE", str(folder / "cache"))
        from adapterkit.cache import cache_folder

        cache_folder.cache_clear()
        fp32_on_every_machine()
        ak.train(
            text, name="whole", method="full", base=str(tiny_base), registry=folder / "adapters", epochs=2,
            max_length=64, tokens_per_step=512, learning_rate=0.003, max_new_tokens=4, device="cpu",
        )  # fmt: skip
        cache_folder.cache_clear()
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Registry:
    shutil.copytree(trained / "adapters", tmp_path / "adapters")
    shutil.copy(trained / "tales.txt", tmp_path / "desk" / "tales.txt")
    return Registry(tmp_path / "adapters")


def test_the_perplexities_are_those_that_evaluate_measures(here: Registry, tiny_base: Path) -> None:
    made = extract_of("whole", Asked("taken", 32), base=tiny_base, registry=here)
    assert made.perplexity is not None
    scores = ak.evaluate(["whole", "taken"], registry=here, base=tiny_base, device="cpu")
    full, taken = (math.exp(s.loss) for s in scores)
    assert made.perplexity.full == pytest.approx(full, rel=1e-5)
    assert made.perplexity.extracted == pytest.approx(taken, rel=1e-5)
    assert made.perplexity.base == pytest.approx(math.exp(next(iter(scores)).base_loss), rel=1e-5)
    assert made.perplexity.kept is not None
    assert 0.3 < made.perplexity.kept < 1.5
    assert made.version.metrics.perplexity == made.perplexity.extracted


def test_the_version_it_came_from_is_its_parent(here: Registry, tiny_base: Path) -> None:
    version = ak.extract("whole", base=tiny_base, name="taken", rank=4, registry=here)
    assert version.kind == "lora"
    assert version.lineage.how == "extract"
    assert version.lineage.parents == (here["whole"].digest,)
    assert here.verify("taken") == []
    assert ak.extract("whole", base=tiny_base, name="taken", rank=4, registry=here) == version


def test_a_text_that_is_gone_is_said_and_the_adapter_is_made(here: Registry, tiny_base: Path) -> None:
    Path("tales.txt").unlink()
    said: list[str] = []
    made = extract_of("whole", Asked("taken", 4), base=tiny_base, registry=here, say=said.append)
    assert made.perplexity is None
    assert any("perplexity is not measured" in line for line in said)
    assert made.version.metrics.loss is None


def test_a_damaged_version_is_not_read(here: Registry, tiny_base: Path) -> None:
    weights = here["whole"].path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    with pytest.raises(ak.Damaged, match="not the file that was published"):
        ak.extract("whole", base=tiny_base, name="taken", registry=here)
    with pytest.raises(NotFound):
        here["taken"]


# --- refused ------------------------------------------------------------------


def test_an_adapter_is_one_already(registry: Registry) -> None:
    publish(registry, "noir")
    with pytest.raises(Unsupported, match="LoRA adapter already"):
        ak.extract("noir", name="taken", registry=registry)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked("taken", 4, 0.5), "follows from the energy"),
        (Asked("taken", 0), "no rank"),
        (Asked("taken", 257), "no rank"),
        (Asked("taken", energy=1.5), "no share"),
        (Asked("taken", energy=math.nan), "no share"),
    ],
)
def test_a_rank_and_an_energy_that_are_none(asked: Asked, why: str, registry: Registry, folder: Path) -> None:
    with pytest.raises(UsageProblem, match=why):
        extract_of(folder, asked, registry=registry)


def test_a_folder_needs_its_base(registry: Registry, folder: Path) -> None:
    with pytest.raises(UsageProblem, match="trained from"):
        ak.extract(folder, name="taken", registry=registry)


def test_a_base_of_other_sizes(registry: Registry, folder: Path, tmp_path: Path) -> None:
    other = make_base(tmp_path / "deep", seed=0, layers=3)
    with pytest.raises(BaseMismatch, match="n_layer 2, the base 3"):
        ak.extract(folder, base=other, name="taken", registry=registry)


def test_a_model_that_is_its_base(registry: Registry, tiny_base: Path) -> None:
    with pytest.raises(Unsupported, match="nothing that a LoRA could hold"):
        ak.extract(tiny_base, base=tiny_base, name="taken", registry=registry)


def test_a_folder_that_is_not_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model"):
        ak.extract(tmp_path / "gone", name="taken", registry=registry)


# --- the command --------------------------------------------------------------


def test_the_command_shows_what_was_kept_and_what_was_not(
    cli: Callable[..., tuple[int, str, str]], registry: Registry, tiny_base: Path, folder: Path
) -> None:
    words = ["extract", str(folder), "--base", str(tiny_base), "--name", "taken"]
    place = ["--registry", str(registry.path)]
    code, out, err = cli(*words, "--rank", "2", *place)
    assert code == 0, err
    assert "not kept of the matrices' change" in out
    assert "no LoRA can hold: embeddings, changed by 2 " in out
    code, out, err = cli(*words, "--energy", "0.999", "--json", *place)
    assert code == 0, err
    told = json.loads(out)
    assert told["rank"] == RANK
    assert len(told["residuals"]) == 8
    assert told["perplexity"] is None
