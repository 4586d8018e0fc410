"""The card: a table that Markdown understands, and samples that are no markup."""

from __future__ import annotations

from dataclasses import asdict

from adapterkit.registry.card import card
from adapterkit.registry.version import Metrics, Sample
from tests.versions import FINGERPRINTS, manifest_of

TESTED = Metrics(
    loss=3.0, base_loss=3.5, perplexity=20.1, base_perplexity=33.1, tokens=380, stops=0.9, copied_words=6
)


def made(metrics: Metrics, *samples: Sample) -> str:
    return card(manifest_of("noir", "lora", "gpt2", FINGERPRINTS, metrics), samples)


def table(text: str) -> list[list[str]]:
    """Cells of the only table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_pair_and_the_gain_stand_in_one_row() -> None:
    rows = table(made(TESTED))
    assert rows[0] == ["", "`gpt2`", "this", "change"]
    assert rows[2] == ["perplexity on 380 tokens of unseen text", "33.1", "20.1", "−39 %"]
    assert {len(row) for row in rows} == {4}


def test_what_was_not_measured_has_no_row() -> None:
    assert table(made(Metrics())) == []


def test_a_sample_keeps_its_lines_and_is_no_markup() -> None:
    told = made(TESTED, Sample("The sea", " was\n<img src=x>\nhigh", "base"))
    assert "> **The sea** was  \n> &lt;img src=x&gt;  \n> high\n" in told


def test_a_sample_without_a_prompt_has_nothing_in_bold() -> None:
    assert "\n> Once\n" in made(TESTED, Sample("", "\nOnce"))


def test_every_metric_that_a_manifest_has_is_understood() -> None:
    assert made(Metrics(**asdict(TESTED))) == made(TESTED)
