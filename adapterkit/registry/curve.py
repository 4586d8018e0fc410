"""The training curve drawn as SVG: for notebooks and for the private report.

Two panels over the steps: losses above, the learning rate below. Axes take the
colour of the text around them, and the lines are neither light nor dark, so the
same picture stands on a white and on a black page. Never loads anything: no
fonts, no scripts, no style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from adapterkit.registry.version import Point

TRAINING, HELD_OUT = "#3d85c6", "#e0752d"  # readable on white and on black
WIDTH, LEFT, RIGHT = 520, 52, 12
LOSS, RATE, HEIGHT = (28, 218), (240, 282), 320  # top and bottom of the panels, of the picture
MOST = 300  # points of a line
BARS = "▁▂▃▄▅▆▇█"
T = TypeVar("T")
Pairs = Sequence[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class Lines:
    """What is drawn: finite values by step."""

    training: Pairs
    held_out: Pairs
    rate: Pairs

    @property
    def best(self) -> tuple[int, float] | None:
        """The first of the lowest held-out losses, whose weights were kept."""
        return min(self.held_out, key=lambda pair: pair[1], default=None)

    @property
    def last_step(self) -> int:
        return max((line[-1][0] for line in (self.training, self.held_out, self.rate) if line), default=0)


def lines(points: Iterable[Point]) -> Lines:
    """The curve by steps; of several points of one step the last counts."""
    training: dict[int, float] = {}
    held_out: dict[int, float] = {}
    rate: dict[int, float] = {}
    for p in points:
        for line, value in ((training, p.loss), (held_out, p.held_out), (rate, p.learning_rate)):
            if value is not None and math.isfinite(value):
                line[p.step] = value
    return Lines(*(tuple(sorted(line.items())) for line in (training, held_out, rate)))


def svg(points: Iterable[Point], base_loss: float | None) -> str:
    """The picture, or nothing when there is no point.

    Args:
        points: of ``Version.history()``.
        base_loss: of the base on the held-out text, nats a token; a dashed line.
    """
    told = lines(points)
    losses = [v for _, v in (*told.training, *told.held_out)] + ([base_loss] if base_loss is not None else [])
    if not (told.training or told.held_out):
        return ""
    high = _Panel(*LOSS, told.last_step, min(losses), max(losses))
    marks = ticks(high.low, high.top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="currentColor" style="max-width:640px;width:100%">',
        f"<title>{_spoken(told, base_loss)}</title>",
        *high.grid(marks, names(marks)),
        *_legend(told, base_loss),
        high.line(told.training, TRAINING, 1.4),
        high.line(told.held_out, HELD_OUT, 2.2),
    ]
    if base_loss is not None:
        y = high.y(base_loss)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-dasharray="6 4" fill="none"/>'
        )
    parts += [f'<circle cx="{high.x(s):.1f}" cy="{high.y(v):.1f}" r="2.5" fill="{HELD_OUT}"/>'
              for s, v in thinned(told.held_out)]  # fmt: skip
    if told.best is not None:
        x, y = high.x(told.best[0]), high.y(told.best[1])
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="{HELD_OUT}" stroke-width="2"/>'
        )
    return "".join([*parts, *_rate(told), *_steps(told.last_step), "</svg>"])


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Numbers as one line of bars, the lowest and the highest as far apart as a line allows."""
    if not values:
        return ""
    picked = [values[round(i * (len(values) - 1) / max(width - 1, 1))] for i in range(width)]
    shown = picked if len(values) > width else values
    low, span = min(values), max(values) - min(values)
    return "".join(BARS[round((v - low) / span * (len(BARS) - 1)) if span else 0] for v in shown)


def ticks(low: float, top: float, most: int = 5) -> list[float]:
    """Round numbers between two numbers, at most so many."""
    span = top - low
    if span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(top / step + 1e-9) + 1)]


def names(values: Sequence[float]) -> list[str]:
    """With as many places as tell each from the next."""
    gap = min((b - a for a, b in pairwise(values)), default=0.0)
    places = max(0, -math.floor(math.log10(gap) + 1e-9)) if gap else 2
    return [f"{v:.{places}f}" for v in values]


def thinned(items: Sequence[T], most: int = MOST) -> Sequence[T]:
    """Every so many of them, the first and the last always."""
    each = math.ceil((len(items) - 1) / max(most - 1, 1))
    return items if each <= 1 else [*items[:-1:each], items[-1]]


class _Panel:
    """A rectangle with a scale for steps and one for values."""

    def __init__(self, above: int, below: int, steps: int, low: float, top: float) -> None:
        room = 0.06 * (top - low) or 0.05 * abs(top) or 1.0
        self.above, self.below, self.steps = above, below, max(steps, 1)
        self.low, self.top = low - room, top + room

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.steps

    def y(self, value: float) -> float:
        return self.below - (self.below - self.above) * (value - self.low) / (self.top - self.low)

    def line(self, pairs: Pairs, colour: str, width: float) -> str:
        way = " ".join(f"{self.x(s):.1f},{self.y(v):.1f}" for s, v in thinned(pairs))
        return (
            f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="{width}"/>' if way else ""
        )

    def grid(self, values: Sequence[float], named: Sequence[str]) -> list[str]:
        """Hairlines with their values to the left."""
        made = []
        for name, value in zip(named, values, strict=True):
            y = self.y(value)
            made.append(
                f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".18"/>'
            )
            made.append(_text(LEFT - 6, y + 4, name, "end"))
        return made


def _rate(told: Lines) -> list[str]:
    if not told.rate:
        return []
    top = max(v for _, v in told.rate)
    low = _Panel(*RATE, told.last_step, 0.0, top or 1.0)
    return [*low.grid([0.0, top], ["0", f"{top:g}"]),
            low.line(told.rate, "currentColor", 1.2), _text(WIDTH - RIGHT, RATE[0] - 4, "learning rate", "end")]  # fmt: skip


def _steps(last: int) -> list[str]:
    bottom = _Panel(*RATE, last, 0, 1)
    marks = [t for t in ticks(0, max(last, 1)) if t == int(t)]
    return [*(_text(bottom.x(t), RATE[1] + 18, f"{t:,.0f}", "middle") for t in marks),
            _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "step", "middle")]  # fmt: skip


def _legend(told: Lines, base_loss: float | None) -> list[str]:
    names = [("training", TRAINING, "")] if told.training else []
    if told.held_out:
        names.append(("held out (ring: kept)", HELD_OUT, ""))
    if base_loss is not None:
        names.append(("base, held out", "currentColor", ' stroke-dasharray="6 4"'))
    made, x = [_text(4, 14, "loss")], LEFT
    for name, colour, dashes in names:
        made.append(f'<path d="M{x} 10h22" stroke="{colour}" stroke-width="2"{dashes}/>')
        made.append(_text(x + 27, 14, name))
        x += 42 + 7 * len(name)
    return made


def _spoken(told: Lines, base_loss: float | None) -> str:
    """For those who can't see it."""
    parts = [f"Training curve over {told.last_step:,} steps"]
    if base_loss is not None:
        parts.append(f"base {base_loss:.2f}")
    if told.best is not None:
        parts.append(f"lowest held-out loss {told.best[1]:.2f} at step {told.best[0]:,}")
    return ", ".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
