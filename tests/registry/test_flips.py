"""A bit that flips in anything a version is made of is found before a token is generated."""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.generation.resident import Resident
from adapterkit.model.base import locate
from adapterkit.registry.store import Registry
from tests.versions import _metrics, manifest_of, publish

REFS = {"noir": "noir@prod", "whole": "whole@main"}  # an alias of each, so that its file is read too
FULL = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def shelf(registry: Registry, tiny_base: Path) -> Registry:
    """A LoRA and a full fine-tune that fit the tiny base, each with an alias."""
    prints = asdict(locate(str(tiny_base)).fingerprints)
    publish(registry, "noir", base_fingerprints=prints)
    registry.alias("noir@1", "prod")
    manifest = manifest_of("whole", "full", "tiny", prints, _metrics(3.0, 3.5, "44" * 32))
    with registry.staging() as folder:
        for name in FULL:
            shutil.copyfile(tiny_base / name, folder / name)
        (folder / "README.md").write_text("# whole\n")
        (folder / "history.json").write_text("[]")
        registry.publish(folder, manifest)
    registry.alias("whole@1", "main")
    return registry


@pytest.fixture
def base(tiny_base: Path, shelf: Registry) -> ak.Generator:
    """With its base loaded, which all others of this test share."""
    gen = ak.Generator(tiny_base, registry=shelf, device="cpu")
    gen("The", max_new_tokens=1)
    return gen


def generate(base: ak.Generator, ref: str) -> str:
    """One token by a registry and a generator that know nothing yet but the base."""
    gen = ak.Generator(base.base.folder, registry=Registry(base.registry.path), device="cpu")
    engine, loaded = base._writers._served
    gen._writers.base, gen._writers._served = base.base, (engine, Resident(engine.bank, loaded.budget))
    return gen("The", ref, max_new_tokens=1, temperature=0).text


def flippable(root: Path) -> list[tuple[Path, str]]:
    """Every file that says what a version is, and a ref that needs it."""
    found = [(root / "registry.json", REFS["noir"])]
    for name, ref in REFS.items():
        inside = [
            p for p in sorted((root / name / "1").rglob("*")) if p.is_file() and "private" not in p.parts
        ]
        found += [(path, ref) for path in [*inside, *sorted((root / name / "aliases").iterdir())]]
    return found


def flip(path: Path, bit: int) -> None:
    """Turn one bit over, in place, whatever the file's mode says."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))


def missed(base: ak.Generator, count: int) -> list[str]:
    """Flips after which something was generated, or that ended in an error which is none of ours."""
    draw, wrong = random.Random(0), []
    files = flippable(base.registry.path)
    for n in range(count):
        path, ref = files[n % len(files)]  # each file as often as the others, however small
        bit = draw.randrange(8 * path.stat().st_size)
        flip(path, bit)
        try:
            wrong.append(f"{path} bit {bit}: wrote {generate(base, ref)!r}")
        except ak.AdapterKitError:
            pass
        except Exception as e:
            wrong.append(f"{path} bit {bit}: {e!r}")
        flip(path, bit)
    return wrong


def test_a_thousand_flipped_bits_are_found_before_a_token_is_generated(base: ak.Generator) -> None:
    assert len(flippable(base.registry.path)) == 15
    assert missed(base, 1000) == []


def test_what_is_private_is_no_part_of_a_version(base: ak.Generator) -> None:
    flip(base.registry.path / "noir" / "1" / "private" / "samples.json", 3)
    assert generate(base, REFS["noir"])


def test_both_write_when_every_bit_is_as_it_was(base: ak.Generator) -> None:
    before = [generate(base, ref) for ref in REFS.values()]
    missed(base, 32)
    assert [generate(base, ref) for ref in REFS.values()] == before


@pytest.mark.parametrize("ref", REFS.values())
def test_every_flip_of_the_fewest_bytes_is_found(base: ak.Generator, ref: str) -> None:
    name, _, alias = ref.partition("@")
    path = base.registry.path / name / "aliases" / alias
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        with pytest.raises(ak.AdapterKitError):
            Registry(base.registry.path)[ref]
        flip(path, bit)
