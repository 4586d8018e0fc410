"""What a Generator promises about its base: the same bits after anything that is loaded, or refused."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adapterkit as ak
from adapterkit.errors import AdapterKitError, BaseMismatch, Damaged, Unsupported
from adapterkit.evaluation.chosen import Bases
from adapterkit.evaluation.chosen import choose as choose_adapter
from adapterkit.evaluation.score import Scorer
from adapterkit.generation.load import full_engine, resident_digest
from adapterkit.generation.weights import prepare
from adapterkit.model.base import Base, locate, remember, weights_fingerprint
from adapterkit.model.device import choose
from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.strict import WEIGHTS, read_lora, read_version
from adapterkit.registry.version import Version
from tests import versions
from tests.make import make_base
from tests.registry import hostile

GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 6}
OPERATIONS = 1000


@pytest.fixture
def fingerprints(tiny_base: Path) -> dict[str, str]:
    return asdict(locate(str(tiny_base)).fingerprints)


@pytest.fixture
def stocked(registry: Registry, fingerprints: dict[str, str]) -> Registry:
    """``good-0`` to ``good-3``, fine adapters of the tiny base."""
    for i in range(4):
        versions.publish(registry, f"good-{i}", seed=i, base_fingerprints=fingerprints)
    return registry


@pytest.fixture
def gen(stocked: Registry, tiny_base: Path) -> ak.Generator:
    return ak.Generator(tiny_base, registry=stocked, device="cpu")


# --- the base does not change ---


def test_after_a_thousand_operations_the_base_is_the_same(
    gen: ak.Generator, stocked: Registry, tiny_base: Path, tmp_path: Path, fingerprints: dict[str, str]
) -> None:
    """Load, swap, blend, unload, add to the weights and take out again, with good adapters and bad ones."""
    cases = [c for c in hostile.corpus(tmp_path / "corpus") if c.files]
    bad = [hostile.publish(c, stocked.path, fingerprints).parent.name for c in cases[::6]]
    good = [f"good-{i}" for i in range(4)]
    scorer, draw = Scorer(locate(str(tiny_base)), "cpu"), random.Random(5)
    engine = gen.writer(None).engine
    before = resident_digest(engine), _digest(scorer._core), gen("The", **GREEDY).text
    texts = {name: gen("The", name, **GREEDY).text for name in good}
    refused = 0
    for _ in range(OPERATIONS):
        name = draw.choice(good if draw.random() < 0.6 else bad)
        try:
            _operate(draw.choice(["load", "write", "blend", "unload", "add"]), name, gen, scorer, draw)
        except AdapterKitError:
            refused += 1
        assert (resident_digest(engine), _digest(scorer._core)) == before[:2]
    assert OPERATIONS / 5 < refused < OPERATIONS / 2
    assert gen("The", **GREEDY).text == before[2]
    assert {name: gen("The", name, **GREEDY).text for name in good} == texts


def _operate(what: str, name: str, gen: ak.Generator, scorer: Scorer, draw: random.Random) -> None:
    if what == "load":
        gen.load(name)
    elif what == "write":
        gen("The", name, max_new_tokens=1)
    elif what == "blend":
        gen("The", f"{name}={draw.uniform(-2, 2):.2f},good-0=0.5", max_new_tokens=1)
    elif what == "unload":
        gen.unload(name)
    else:
        files = read_version(gen.registry[name], gen.base.dims)
        with scorer._added([(files, draw.uniform(-2, 2))]):
            assert _digest(scorer._core) != _digest(Scorer(gen.base, "cpu")._core)


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def test_the_digest_of_the_resident_base_sees_a_single_bit(gen: ak.Generator) -> None:
    engine = gen.writer(None).engine
    before = resident_digest(engine)
    linear = engine.model.blocks[1].linear
    old = linear["mlp.c_proj"]
    weight = old[0].to_dense() if old[0].is_mkldnn else old[0].clone()
    linear["mlp.c_proj"] = prepare(weight, old[1], weight.device, weight.dtype)
    assert resident_digest(engine) == before
    weight.view(torch.int32)[3, 3] ^= 1
    linear["mlp.c_proj"] = prepare(weight, old[1], weight.device, weight.dtype)
    assert resident_digest(engine) != before


def test_a_refused_adapter_leaves_no_pages_behind(gen: ak.Generator) -> None:
    engine = gen.writer("good-0").engine
    free = sorted(engine.bank._free)
    files = read_version(gen.registry["good-1"], gen.base.dims)
    with pytest.raises(Unsupported, match=r"numbers of layer 0's .* are too large for float32") as e:
        engine.bank.load(type(files)(files.r, 1e300, files.targets, files.tensors))
    assert e.value.code == "overflow"
    assert sorted(engine.bank._free) == free
    assert all(not pages[free].any() for pages in engine.bank._b.values())


def test_numbers_that_float16_can_not_hold_are_refused(stocked: Registry, tiny_base: Path) -> None:
    from adapterkit.generation.pages import PageBank

    files = read_version(stocked["good-0"], locate(str(tiny_base)).dims)
    bank = PageBank(locate(str(tiny_base)).dims, torch.device("cpu"), torch.float16)
    with pytest.raises(Unsupported, match="too large for float16"):
        bank.load(type(files)(files.r, 1e8, files.targets, files.tensors))


# --- another base, by force ---


@pytest.fixture
def other_base(tmp_path: Path) -> Path:
    """Another base of the same sizes."""
    return make_base(tmp_path / "other", seed=9)


def test_force_uses_an_adapter_of_another_base_and_says_so(stocked: Registry, other_base: Path) -> None:
    gen = ak.Generator(other_base, registry=stocked, device="cpu", force_base=True)
    assert [c.forced_base for c in gen.compare("The", [None, "good-0"], **GREEDY)] == [False, True]
    assert gen("The", "good-0=0.5", **GREEDY).forced_base


def test_force_on_its_own_base_is_not_called_forced(stocked: Registry, tiny_base: Path) -> None:
    gen = ak.Generator(tiny_base, registry=stocked, device="cpu", force_base=True)
    assert not gen("The", "good-0", **GREEDY).forced_base


def test_without_force_the_hint_is_the_base_it_was_trained_on(
    stocked: Registry, other_base: Path, tiny_base: Path
) -> None:
    remember(locate(str(tiny_base)))
    with pytest.raises(BaseMismatch, match=r"good-0@1 was trained on tiny \(.{8}\); this base is other") as e:
        ak.Generator(other_base, registry=stocked, device="cpu")("The", "good-0")
    command, _, rest = e.value.hint.partition("     ")
    assert command == f'adapterkit generate good-0@1 "..." --base {tiny_base}'
    assert "--force-base" in rest
    assert e.value.details["can_force"] is True


def test_a_base_that_lies_nowhere_here_is_asked_for_by_its_name(stocked: Registry, other_base: Path) -> None:
    with pytest.raises(BaseMismatch) as e:
        ak.Generator(other_base, registry=stocked, device="cpu")("The", "good-0")
    assert "--base PATH/TO/tiny " in e.value.hint


@pytest.mark.parametrize(("changes", "why"), [({"layers": 3}, "which has 3 layers, not 2"), ({"width": 64}, "whose config differs")])  # fmt: skip
def test_force_does_not_help_where_the_sizes_differ(
    stocked: Registry, tmp_path: Path, changes: dict[str, int], why: str
) -> None:
    base = make_base(tmp_path / "larger", seed=2, **changes)
    with pytest.raises(BaseMismatch, match=why) as e:
        ak.Generator(base, registry=stocked, device="cpu", force_base=True)("The", "good-0")
    assert e.value.hint.endswith("(--force-base can't help: the sizes differ)")


def test_force_allows_another_length_of_context(stocked: Registry, tmp_path: Path) -> None:
    """The config is another, but every shape of the adapter fits."""
    base = make_base(tmp_path / "longer", seed=2, positions=128)
    gen = ak.Generator(base, registry=stocked, device="cpu", force_base=True)
    assert gen("The", "good-0", **GREEDY).forced_base


def test_force_does_not_take_a_damaged_adapter(stocked: Registry, other_base: Path) -> None:
    path = stocked["good-0"].path / WEIGHTS
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged, match="good-0@1 is damaged"):
        ak.Generator(other_base, registry=stocked, device="cpu", force_base=True)("The", "good-0")


def test_force_scores_on_another_base_and_says_so(stocked: Registry, other_base: Path) -> None:
    said: list[str] = []
    found = Bases(stocked, str(other_base), said.append, force_base=True)
    assert found.of(choose_adapter(stocked, "good-0"), []).folder == other_base
    assert said == ["good-0@1 was not made on other; it is scored there because of --force-base."]


def test_a_base_whose_name_is_a_command_is_quoted(registry: Registry, tiny_base: Path) -> None:
    versions.publish(registry, "odd", base_id="o/x; rm -rf ~")
    with pytest.raises(BaseMismatch) as e:
        ak.Generator(tiny_base, registry=registry, device="cpu")("The", "odd")
    assert "--base 'o/x; rm -rf ~' " in e.value.hint


# --- a base that is no base ---


def _change_weights(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors"
    header = tensorfile.read_header(path)
    with path.open("rb") as file:
        held = {
            n: (e.dtype, e.shape, tensorfile.read_bytes(file, header, n)) for n, e in header.entries.items()
        }
    edit(held)
    path.chmod(0o644)
    tensorfile.write(path, held, {"format": "pt"})


def _spoiled(held: dict[str, Any], name: str) -> None:
    dtype, shape, raw = held[name]
    held[name] = (dtype, shape, np.float32("nan").tobytes() + raw[4:])


WTE = "transformer.wte.weight"
BASES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a tensor missing": (lambda t: t.pop("transformer.h.1.ln_2.bias"), "missing-tensors"),
    "a tensor more": (lambda t: t.update({"score.weight": t[WTE]}), "extra-tensors"),
    "a tensor under both names": (lambda t: t.update({"wte.weight": t[WTE]}), "doubled-tensors"),
    "another shape": (
        lambda t: t.update({"transformer.ln_f.bias": ("F32", (31,), bytes(124))}),
        "wrong-shape",
    ),
    "whole numbers": (lambda t: t.update({"transformer.ln_f.bias": ("I32", (32,), bytes(128))}), "dtype"),
    "nan": (lambda t: _spoiled(t, WTE), "not-finite"),
}


@pytest.mark.parametrize("case", BASES)
def test_a_base_that_is_not_what_its_config_says_is_refused(
    case: str, tiny_base: Path, tmp_path: Path, registry: Registry
) -> None:
    edit, code = BASES[case]
    folder = shutil.copytree(tiny_base, tmp_path / "broken")
    _change_weights(folder, edit)
    with pytest.raises(AdapterKitError, match="broken") as e:
        ak.Generator(folder, registry=registry, device="cpu")("The")
    assert e.value.code == code
    assert e.value.hint


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"n_layer": 10**9}, "config-size"),
        ({"n_embd": True}, "config-size"),
        ({"n_head": 5}, "config-size"),
        ({"n_positions": "64"}, "config-size"),
        ({"n_layer": 3}, "missing-tensors"),
        ({"vocab_size": 401}, "wrong-shape"),
        ({"model_type": "llama"}, "model-type"),
    ],
)
def test_a_config_that_is_not_that_of_the_weights_is_refused(
    changes: dict[str, Any], code: str, tiny_base: Path, tmp_path: Path, registry: Registry
) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(AdapterKitError) as e:
        ak.Generator(folder, registry=registry, device="cpu")("The")
    assert e.value.code == code


def test_the_second_start_does_not_read_the_weights_of_the_base_again(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    locate(str(folder)).check()

    def again(path: Path, label: str = "") -> str:
        raise AssertionError("read again")

    monkeypatch.setattr("adapterkit.model.base.weights_fingerprint", again)
    locate(str(folder)).check()
    assert weights_fingerprint(folder / "model.safetensors") == locate(str(folder)).fingerprints.weights


# --- full fine-tunes ---


@pytest.fixture
def whole(registry: Registry, tiny_base: Path, fingerprints: dict[str, str]) -> Version:
    """The tiny base itself, published as a full fine-tune of itself."""
    return _publish_full(registry, tiny_base, fingerprints, lambda held: None)


def _publish_full(
    registry: Registry, base: Path, fingerprints: dict[str, str], edit: Callable[[dict[str, Any]], object]
) -> Version:
    manifest = versions.manifest_of(
        "whole", "full", "tiny", fingerprints, versions._metrics(3.0, 3.5, "44" * 32)
    )
    with registry.staging() as folder:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(base / name, folder / name)
        _change_weights(folder, edit)
        return registry.publish(folder, manifest)


def test_a_full_fine_tune_is_read_to_the_bit(whole: Version, tiny_base: Path) -> None:
    from adapterkit.generation.load import engine

    device = choose("cpu", "fp32")
    read = full_engine(whole, device)
    assert resident_digest(read) == resident_digest(engine(Base("tiny", tiny_base), device))


@pytest.mark.parametrize("case", BASES)
def test_a_full_fine_tune_that_is_no_whole_gpt2_is_refused(
    case: str, registry: Registry, tiny_base: Path, fingerprints: dict[str, str]
) -> None:
    edit, code = BASES[case]
    _publish_full(registry, tiny_base, fingerprints, edit)
    with pytest.raises(AdapterKitError, match="whole@1") as e:
        ak.Generator(tiny_base, registry=registry, device="cpu")("The", "whole")
    assert e.value.code == code


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_byte_of_a_full_fine_tune_is_found(
    name: str, whole: Version, registry: Registry, tiny_base: Path
) -> None:
    path = whole.path / name
    raw = bytearray(path.read_bytes())
    raw[math.floor(len(raw) / 2)] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)
    with pytest.raises(Damaged, match=f"whole@1 is damaged: {name} is not the file that was published"):
        ak.Generator(tiny_base, registry=registry, device="cpu")("The", "whole")


def test_what_is_changed_after_the_check_is_still_found(
    whole: Version, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that are used are those that were hashed, however late they are swapped."""
    verify = Version.verify

    def and_swap(version: Version, *told: Any, **more: Any) -> None:
        verify(version, *told, **more)
        _change_weights(version.path, lambda t: t.update({WTE: ("F32", t[WTE][1], bytes(len(t[WTE][2])))}))

    monkeypatch.setattr(Version, "verify", and_swap)
    with pytest.raises(Damaged, match=r"model\.safetensors is not the file that was published"):
        full_engine(whole, choose("cpu", "fp32"))


def test_an_adapter_swapped_after_the_check_is_still_found(
    stocked: Registry, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, verify = stocked["good-0"], Version.verify

    def and_swap(each: Version, *told: Any, **more: Any) -> None:
        verify(each, *told, **more)
        (each.path / WEIGHTS).unlink()
        shutil.copy(stocked["good-1"].path / WEIGHTS, each.path / WEIGHTS)

    monkeypatch.setattr(Version, "verify", and_swap)
    with pytest.raises(Damaged, match=r"adapter_model\.safetensors is not the file that was published"):
        read_version(version, locate(str(tiny_base)).dims)
    assert read_lora(version.path, locate(str(tiny_base)).dims, "it").r == versions.RANK  # it was a good one


def test_a_version_folder_that_is_a_link_is_refused(
    stocked: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    version = stocked["good-0"]
    version.path.rename(tmp_path / "elsewhere")
    version.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Damaged, match="is a link") as e:
        read_version(version, locate(str(tiny_base)).dims)
    assert e.value.code == "link"
