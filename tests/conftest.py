"""Shared fixtures: nothing outside tmp_path, no network, one thread a process."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"  # set before any library reads it; Hub tests run in processes of their own
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from adapterkit.registry import place
from adapterkit.registry.store import Registry

settings.register_profile(
    "adapterkit", database=None, deadline=None, derandomize=True
)  # the same on every run
settings.load_profile("adapterkit")

SENTENCES = (
    "The lamp was lit and the tide came in over the stones.",
    "Nobody had told the baker that the bread was late.",
    "A grey cat sat on the wall and watched the carts go by.",
    "We counted the barrels twice and found one more than before.",
    "Rain fell on the market until the awnings gave way.",
    "She wrote the letter, burned it, and wrote it again.",
    "The bell rang for noon though it was nearly three.",
    "Old Tam mended nets and told lies about the sea.",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks that need something this machine may lack are skipped, and say so."""
    data = os.environ.get("ADAPTERKIT_DATA")
    for item in items:
        if item.get_closest_marker("data") and not data:
            item.add_marker(pytest.mark.skip(reason="ADAPTERKIT_DATA names no folder"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _own_places(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every test has its own cache, home and working folder."""
    monkeypatch.setenv("ADAPTERKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADAPTERKIT_REGISTRY", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    from adapterkit.cache import cache_folder

    cache_folder.cache_clear()
    fp32_on_every_machine()


def fp32_on_every_machine() -> None:
    """Keep in the cache that bfloat16 was measured to be slower, so that precision auto is float32."""
    from adapterkit.model import measure  # imports no torch

    measure.remember(0.5, int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    place.create(tmp_path / "adapters")
    return Registry(tmp_path / "adapters")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of 2 layers, 32 wide, 4 heads of 8, 64 positions, and a byte-level tokenizer."""
    from tests.make import make_base

    return make_base(tmp_path_factory.mktemp("base") / "tiny", seed=0)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """About 2,600 words, a line a document."""
    path = tmp_path / "desk" / "tales.txt"
    triples = [(i % 8, i // 8 % 8, i // 16 % 8) for i in range(120)]  # nearly all different
    path.write_text("".join(f"{SENTENCES[a]} {SENTENCES[b]} {SENTENCES[c]}\n" for a, b, c in triples))
    return path


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from adapterkit.cli.main import run

    def call(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(list(argv))
        out, err = capfd.readouterr()
        return code, out, err

    return call
