"""Versions that were really trained, made once; tests that write to the registry take a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.registry.store import Registry
from tests.conftest import SENTENCES, fp32_on_every_machine

QUICK = {
    "epochs": 2,
    "max_length": 64,
    "tokens_per_step": 512,
    "learning_rate": 0.01,
    "max_new_tokens": 4,
    "device": "cpu",
}


def write_text(path: Path, shift: int = 0, count: int = 120) -> Path:
    """Documents of three sentences, a line each; another shift is another text."""
    triples = [(i % 8, (i // 8 + shift) % 8, (i // 16 + 3 * shift) % 8) for i in range(count)]
    path.write_text("".join(f"{SENTENCES[a]} {SENTENCES[b]} {SENTENCES[c]}\n" for a, b, c in triples))
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Path]:
    """A folder with tales.txt, songs.txt and adapters/: tales@1, tales@2 (more targets), songs@1, whole@1 (full)."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERKIT_CACHE", str(folder / "cache"))
        from adapterkit.cache import cache_folder

        cache_folder.cache_clear()
        fp32_on_every_machine()
        tales, songs = write_text(folder / "tales.txt"), write_text(folder / "songs.txt", shift=1)
        common = {"base": str(tiny_base), "registry": folder / "adapters", **QUICK}
        ak.train(tales, lora_r=4, **common)
        ak.train(tales, lora_r=2, lora_targets="all", lora_rslora=True, **common)
        ak.train(songs, lora_r=4, seed=5, **common)
        ak.train(tales, name="whole", method="full", **common | {"learning_rate": 0.001})
        cache_folder.cache_clear()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Registry:
    """A copy of the registry, and the texts in the working folder."""
    shutil.copytree(made / "adapters", tmp_path / "adapters")
    for name in ("tales.txt", "songs.txt"):
        shutil.copy(made / name, tmp_path / "desk" / name)
    return Registry(tmp_path / "adapters")
