"""loss.png: what it shows, and that drawing it says nothing and touches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors, image

from adapterkit.registry.curve import HELD_OUT, TRAINING
from adapterkit.registry.version import Point
from adapterkit.training.figure import draw

RUN = [
    Point(s, 500 * s, 5 - s / 10, 4 - s / 20 if s % 5 == 0 else None, 1e-3 / s, float(s))
    for s in range(1, 21)
]


def coloured(path: Path, colour: str) -> int:
    """Pixels of exactly that colour."""
    pixels = np.asarray(image.imread(path))[:, :, :3]
    return int((np.abs(pixels - np.array(colors.to_rgb(colour))) < 0.01).all(axis=2).sum())


def test_both_losses_are_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "loss.png", RUN, 4.5, "noir on gpt2")
    assert coloured(tmp_path / "loss.png", TRAINING) > 500
    assert coloured(tmp_path / "loss.png", HELD_OUT) > 500


def test_without_a_test_there_is_only_the_training_loss(tmp_path: Path) -> None:
    draw(
        tmp_path / "loss.png",
        [Point(p.step, p.tokens, p.loss, None, None, p.seconds) for p in RUN],
        None,
        "x",
    )
    assert coloured(tmp_path / "loss.png", TRAINING) > 500
    assert coloured(tmp_path / "loss.png", HELD_OUT) == 0


def test_the_loss_of_the_base_changes_the_picture(tmp_path: Path) -> None:
    draw(tmp_path / "with.png", RUN, 4.5, "x")
    draw(tmp_path / "without.png", RUN, None, "x")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


@pytest.mark.parametrize("points", [RUN[:1], [Point(1, 5, None, 3.0, None, 0.1)], [Point(1, 5, float("nan"), None, 0.0, 0.1)]])  # fmt: skip
def test_a_single_point_is_drawn_without_a_warning(tmp_path: Path, points: list[Point]) -> None:
    draw(tmp_path / "loss.png", points, None, "$one_$ {point}")
    assert image.imread(tmp_path / "loss.png").shape[:2] == (784, 1120)


def test_the_same_run_is_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, RUN, 4.5, "noir")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_is_silent_where_matplotlib_may_keep_nothing(tmp_path: Path) -> None:
    """Neither display nor home, and a matplotlibrc that asks for a window."""
    (tmp_path / "matplotlibrc").write_text("backend: TkAgg\nfigure.figsize: 1, 1\n")
    (tmp_path / "no-folder").write_text("")
    code = (
        "import sys\nfrom pathlib import Path\nfrom adapterkit.registry.version import Point\n"
        "from adapterkit.training.figure import draw\n"
        "draw(Path('loss.png'), [Point(1, 9, 4.0, 3.0, 1e-3, 1.0), Point(2, 9, 3.0, 2.0, 0.0, 2.0)], 4.0, 'noir')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    nowhere = str(tmp_path / "no-folder" / "x")
    environment = {
        k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=environment | {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "XDG_CONFIG_HOME": nowhere, "MPLCONFIGDIR": nowhere},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert image.imread(tmp_path / "loss.png").shape[:2] == (784, 1120)
