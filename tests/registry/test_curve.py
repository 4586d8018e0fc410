"""The curve as SVG: well-formed, in place, marked where the best is, small whatever the run was."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.registry.curve import HELD_OUT, lines, names, sparkline, svg, thinned, ticks
from adapterkit.registry.version import Point

SPACE = "{http://www.w3.org/2000/svg}"


def point(step: int, loss: float | None, held_out: float | None = None, rate: float | None = 1e-4) -> Point:
    return Point(step, step * 512, loss, held_out, rate, step * 0.5)


RUN = [
    point(1, 5.0),
    point(10, 4.0, 3.6),
    point(20, 3.5, 3.2),
    point(30, 3.0, 3.4),
]


def drawn(points: list[Point], base_loss: float | None = None) -> ET.Element:
    return ET.fromstring(svg(points, base_loss))


def way(picture: ET.Element, colour: str) -> list[tuple[float, float]]:
    """Corners of the line of a colour."""
    found = [e for e in picture.iter(f"{SPACE}polyline") if e.get("stroke") == colour]
    pairs = found[0].get("points", "").split()
    return [(float(x), float(y)) for x, y in (p.split(",") for p in pairs)]


def test_held_out_losses_stand_in_proportion() -> None:
    (x1, y1), (x2, y2), (x3, y3) = way(drawn(RUN, 4.1), HELD_OUT)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)  # every ten steps
    assert (y2 - y1) / (y2 - y3) == pytest.approx((3.6 - 3.2) / (3.4 - 3.2), rel=0.02)  # y grows downward


def test_the_ring_is_around_the_lowest_held_out_loss() -> None:
    picture = drawn(RUN, 4.1)
    ring = next(e for e in picture.iter(f"{SPACE}circle") if e.get("fill") == "none")
    assert (float(ring.get("cx", 0)), float(ring.get("cy", 0))) == way(picture, HELD_OUT)[1]


def test_the_loss_of_the_base_is_a_dashed_line_between_its_neighbours() -> None:
    picture = drawn(RUN, 3.5)
    dashed = [e.get("d", "") for e in picture.iter(f"{SPACE}path") if e.get("stroke-dasharray")]
    height = float(next(d for d in dashed if not d.endswith("h22")).split("H")[0].split()[1])
    (_, first), (_, best), (_, last) = way(picture, HELD_OUT)
    assert first < height < last < best  # 3.6 above 3.5 above 3.4 above 3.2


def test_without_a_test_there_is_neither_ring_nor_dashes() -> None:
    told = svg([point(1, 5.0), point(2, 4.0)], None)
    assert (HELD_OUT in told, "dasharray" in told, "<circle" in told) == (False, False, False)


def test_without_points_nothing_is_drawn() -> None:
    assert svg([], 4.0) == ""


@pytest.mark.parametrize("points", [[point(1, 4.0)], [point(3, None, 4.0)], [point(1, 4.0, 4.0, 0.0)]])
def test_one_point_is_a_picture_too(points: list[Point]) -> None:
    assert drawn(points, 4.0).tag == f"{SPACE}svg"


def test_values_that_are_no_numbers_are_left_out() -> None:
    told = lines([point(1, float("nan"), float("inf")), point(2, 3.0)])
    assert (told.training, told.held_out) == (((2, 3.0),), ())


def test_the_last_point_of_a_step_counts() -> None:
    assert lines([point(5, 4.0), point(5, 3.9, 3.5)]).training == ((5, 3.9),)


def test_the_best_is_the_first_of_equals() -> None:
    assert lines([point(1, 4.0, 3.0), point(2, 4.0, 3.0)]).best == (1, 3.0)


def test_a_long_run_is_a_small_picture() -> None:
    assert len(svg([point(s, 4.0 + s % 7, 3.0 + s % 3) for s in range(1, 20_000)], 5.0)) < 60_000


@given(st.integers(1, 1000), st.integers(2, 300))
def test_thinning_keeps_both_ends(count: int, most: int) -> None:
    kept = thinned(range(count), most)
    assert (kept[0], kept[-1], len(kept) <= most, len(set(kept)) == len(kept)) == (0, count - 1, True, True)


@given(st.floats(-100, 100), st.floats(1e-3, 1e3))
def test_ticks_are_few_even_and_inside(low: float, span: float) -> None:
    top = low + span
    found = ticks(low, top)
    gaps = {round((b - a) / span, 6) for a, b in pairwise(found)}
    slack = 1e-6 * max(abs(low), abs(top), span)
    assert 1 <= len(found) <= 6
    assert all(low - slack <= t <= top + slack for t in found)
    assert len(gaps) <= 1


@given(st.floats(-100, 100), st.floats(1e-3, 1e3))
def test_no_two_ticks_have_one_name(low: float, span: float) -> None:
    found = ticks(low, low + span)
    told = names(found)
    assert len(set(told)) == len(found)
    assert [float(t) for t in told] == pytest.approx(
        found, abs=0.006 if len(found) == 1 else 1e-9 + span / 1e6
    )


@pytest.mark.parametrize("rate", [2e-4, 2.5e-4, 5e-5, 0.01])
def test_the_highest_learning_rate_is_named_in_full(rate: float) -> None:
    told = [
        e.text for e in drawn([point(1, 4.0, None, rate / 2), point(2, 4.0, None, rate)]).iter(f"{SPACE}text")
    ]
    assert rate in [float(t) for t in told if t and t[0].isdigit()]


def test_a_sparkline_goes_from_the_lowest_to_the_highest_bar() -> None:
    assert sparkline([3.0, 1.0, 2.0]) == "█▁▅"


def test_a_sparkline_of_many_keeps_its_ends_and_its_width() -> None:
    told = sparkline([float(n) for n in range(1000)], width=10)
    assert (len(told), told[0], told[-1]) == (10, "▁", "█")


@pytest.mark.parametrize(("values", "expected"), [([], ""), ([2.0], "▁"), ([2.0, 2.0], "▁▁")])
def test_a_sparkline_of_nothing_new_is_flat(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected
