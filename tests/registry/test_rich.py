"""A version in a notebook: the table, the curve, three samples, all of it escaped."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from adapterkit.registry import rich
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Point, Sample, Version
from tests.html import Page
from tests.versions import publish

EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"


def with_files(v: Version, samples: list[Sample], points: list[Point]) -> Version:
    path = v.path / "private" / "samples.json"
    path.chmod(0o644)
    path.write_text(json.dumps([asdict(s) for s in samples]))
    (v.path / "history.json").write_text(json.dumps([asdict(p) for p in points]))
    return v


POINTS = [Point(s, 512 * s, 4.0 - s / 10, 3.6 - s / 20, 1e-4, float(s)) for s in range(1, 6)]


def test_a_version_shows_its_table_curve_and_three_samples(registry: Registry) -> None:
    samples = [Sample(f"Prompt {i}", " goes on.") for i in range(5)]
    page = Page(with_files(publish(registry, "noir", note="a try"), samples, POINTS)._repr_html_())
    assert page.count("table") == page.count("svg") == 1
    for told in ("noir@1", "a try", "33.1", "20.1", "−39 % on 380 tokens", "90%", "Prompt 2"):
        assert told in page.text
    assert "Prompt 3" not in page.text


def test_everything_a_person_wrote_is_escaped(registry: Registry) -> None:
    v = publish(registry, "noir", note=EVIL, base_id=EVIL)
    page = Page(with_files(v, [Sample(EVIL, EVIL, EVIL)], POINTS)._repr_html_())
    assert page.dangers == []
    assert page.text.count(EVIL) == 5  # note, base, prompt, text, the base's text


def test_a_version_without_files_of_its_own_shows_its_table(registry: Registry) -> None:
    page = Page(publish(registry, "noir", loss=None)._repr_html_())
    assert ("not tested" in page.text, page.count("svg")) == (True, 0)


def test_a_long_sample_is_cut(registry: Registry) -> None:
    v = with_files(publish(registry, "noir"), [Sample("", "word " * 10_000)], [])
    assert len(v._repr_html_()) < 3000


def test_notebook_and_table_need_neither_torch_nor_matplotlib(registry: Registry) -> None:
    publish(registry, "noir")
    code = (
        "import sys\nfrom adapterkit import Registry\n"
        f"assert '<table' in Registry({str(registry.path)!r})['noir']._repr_html_()\n"
        "assert {'torch', 'matplotlib', 'transformers'}.isdisjoint(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_not_measured_is_not_a_number() -> None:
    page = Page(rich.scores(Metrics(), "gpt2", "noir"))
    assert [w for w in ("not tested", "not expected", "unknown") if w not in page.text] == []


@pytest.mark.parametrize(("share", "expected"), [(-0.324, "−32 %"), (0.05, "+5 %"), (0.0, "+0 %")])
def test_a_change_has_its_sign(share: float, expected: str) -> None:
    assert rich.percent(share) == expected


def test_control_characters_are_shown_and_not_sent() -> None:
    assert Page(rich.passage("a\x00\x1b[2J\r\x9b\tb\n")).text == "a␀␛[2J␍�\tb\n"
