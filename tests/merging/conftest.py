from __future__ import annotations

from pathlib import Path

import pytest

from tests.merging.adapters import RANKS, TARGETS, Deltas, of_folder, saved


@pytest.fixture(scope="session")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each rank with either scale, on one to four modules, and two alike but for their numbers."""
    root = tmp_path_factory.mktemp("blended")
    made = {}
    for i, r in enumerate(RANKS):
        for name, rs in ((f"{r}", False), (f"{r}-rs", True)):
            made[name] = saved(root / name, tiny_base, r, rs, TARGETS[: 1 + i % 4])
    made["8-other"] = saved(root / "8-other", tiny_base, 8, False, TARGETS, seed=1)
    made["4-mlp"] = saved(root / "4-mlp", tiny_base, 4, False, TARGETS[2:])
    return made


@pytest.fixture(scope="session")
def deltas(tiny_base: Path, folders: dict[str, Path]) -> dict[str, Deltas]:
    return {name: of_folder(folder, tiny_base) for name, folder in folders.items()}
