"""The training curve as a PNG, for a paper or a chat: ``private/loss.png``.

Matplotlib takes most of a second to import, so nothing imports this module
before a run has ended. No display and no pyplot: nothing global is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.registry.curve import HELD_OUT, TRAINING, Lines, lines
from adapterkit.registry.version import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES, DOTS = (8.0, 5.6), 140  # the picture, and dots an inch


def draw(path: Path, points: Sequence[Point], base_loss: float | None, title: str) -> None:
    """Write the curve: losses in nats a token above, the learning rate below.

    Args:
        path: of the PNG.
        points: at least one with a loss.
        base_loss: of the base on the held-out text; a dashed line.
        title: plain text.
    """
    with _silent():
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        with matplotlib.rc_context(matplotlib.rcParamsDefault):  # a person's matplotlibrc changes nothing
            figure = Figure(figsize=INCHES, dpi=DOTS, layout="constrained")
            FigureCanvasAgg(figure)
            above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
            told = lines(points)
            above.set_title(title, parse_math=False)
            _losses(above, told, base_loss)
            _rate(below, told)
            figure.savefig(path, format="png", metadata={"Software": None})


def _losses(axes: Axes, told: Lines, base_loss: float | None) -> None:
    if told.training:
        axes.plot(*zip(*told.training, strict=True), color=TRAINING, linewidth=1.2, label="training")
    if told.held_out:
        axes.plot(*zip(*told.held_out, strict=True), color=HELD_OUT, linewidth=2, marker="o", markersize=4,
                  label="held out")  # fmt: skip
    if base_loss is not None:
        axes.axhline(
            base_loss, color="0.35", linestyle="--", linewidth=1.2, label=f"base, held out: {base_loss:.3f}"
        )
    if told.best is not None:
        step, loss = told.best
        axes.plot([step], [loss], color=HELD_OUT, marker="o", markersize=12, fillstyle="none", linestyle="none",
                  markeredgewidth=2, label=f"best, kept: {loss:.3f} at step {step:,}")  # fmt: skip
    axes.set_ylabel("loss (nats a token)")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _rate(axes: Axes, told: Lines) -> None:
    if told.rate:
        axes.plot(*zip(*told.rate, strict=True), color="0.35", linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_xlabel("optimizer step")
    axes.grid(alpha=0.25)


@contextmanager
def _silent() -> Iterator[None]:
    """Matplotlib logs that it builds its list of fonts, and where it may not keep it: no news to anyone here."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
