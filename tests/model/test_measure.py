"""The speed of bfloat16 is measured once per machine and kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapterkit.cache import cache_folder
from adapterkit.model import measure


def _kept() -> list[Path]:
    return sorted(cache_folder().glob("machine/*.json"))


@pytest.fixture(autouse=True)
def _nothing_measured_yet() -> None:
    """conftest keeps a verdict for all other tests."""
    shutil.rmtree(cache_folder() / "machine")


def test_a_measurement_is_a_ratio_and_takes_about_a_second() -> None:
    import torch  # before the clock runs

    assert torch.get_num_threads() > 0
    begun = time.process_time()
    ratio = measure.measure()
    assert 0.01 < ratio < 100
    assert time.process_time() - begun < 10  # a second; shared machines and emulated formats take longer


def test_it_is_measured_once() -> None:
    first = measure.bf16_speedup(3)
    (path,) = _kept()
    told = json.loads(path.read_text())
    assert told["speedup"] == first
    path.write_text(json.dumps({**told, "speedup": 7.25}))
    assert measure.bf16_speedup(3) == 7.25


def test_what_is_kept_names_the_machine() -> None:
    measure.remember(1.5, 2)
    told = json.loads(_kept()[0].read_text())
    assert set(told) == {"cpu", "flags", "torch", "threads", "speedup"}
    assert told["threads"] == 2


def test_other_threads_are_another_measurement() -> None:
    measure.remember(1.5, 1)
    measure.remember(2.5, 2)
    assert (measure.bf16_speedup(1), measure.bf16_speedup(2)) == (1.5, 2.5)


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"{}", b'{"speedup": "fast"}', b'{"speedup": null}'])
def test_a_torn_file_is_measured_again(torn: bytes) -> None:
    measure.remember(1.5, 2)
    _kept()[0].write_bytes(torn)
    assert measure.bf16_speedup(2) > 0
    assert json.loads(_kept()[0].read_text())["speedup"] > 0


def test_a_cache_that_can_not_be_written_is_no_error() -> None:
    (cache_folder() / "machine").write_text("a file where the folder should be")
    assert measure.bf16_speedup(2) > 0


def test_keeping_a_speedup_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from adapterkit.model import measure; measure.remember(1.5, 2); "
        "print(measure.bf16_speedup(2), 'torch' in sys.modules)"
    )
    env = {**os.environ, "ADAPTERKIT_CACHE": str(tmp_path / "other")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["1.5", "False"]
