"""A version that was really trained: it leaves this computer and writes the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterkit import Generator, train
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from tests.conftest import SENTENCES

SETTINGS: dict[str, Any] = {
    "epochs": 2.0,
    "max_length": 64,
    "device": "cpu",
    "precision": "fp32",
    "document": "line",
}


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, Version]:
    """A version made from a text given by its whole path."""
    root = tmp_path_factory.mktemp("trained")
    text = root / "novel" / "tales.txt"
    text.parent.mkdir()
    text.write_text("".join(f"{a} {b} {c}\n" for a in SENTENCES for b in SENTENCES for c in SENTENCES[:2]))
    place.create(root / "adapters")
    registry = Registry(root / "adapters")
    return registry, train(str(text), name="tales", base=str(tiny_base), registry=registry, **SETTINGS)


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    place.create(tmp_path / "elsewhere")
    return Registry(tmp_path / "elsewhere")


def test_it_writes_the_same_in_another_registry(
    trained: tuple[Registry, Version], other: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    registry, version = trained
    back = other.add(registry.pack("tales", to=tmp_path))
    assert back.digest == version.digest
    texts = []
    for each in (registry, other):
        with Generator(tiny_base, registry=each, device="cpu", precision="fp32") as generator:
            texts.append(generator("The lamp", "tales", temperature=0.0, max_new_tokens=20).text)
    assert texts[0] == texts[1]


def test_nothing_that_ships_names_a_place_or_quotes_the_text(
    trained: tuple[Registry, Version], tmp_path: Path
) -> None:
    registry, version = trained
    shipped = registry.pack("tales", to=tmp_path).read_bytes()
    assert str(registry.path.parent).encode() not in shipped
    private = [p.read_bytes() for p in (version.path / "private").iterdir() if p.suffix == ".json"]
    assert len(private) >= 2
    assert not [p for p in private if p in shipped]


def test_its_card_is_one_for_the_hub(trained: tuple[Registry, Version]) -> None:
    version = trained[1]
    text = (version.path / "README.md").read_text()
    assert "tales.txt" in text
    assert f"| `lora.r` | {version.recipe.lora.r} |" in text
