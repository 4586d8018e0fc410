"""The private report of a real run, read back: it tells everything, fetches nothing and runs nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import adapterkit as ak
from adapterkit.data.report import DataReport
from adapterkit.recipe.keys import keys
from adapterkit.registry.rich import VISIBLE
from adapterkit.registry.version import Point, Sample
from adapterkit.training.events import Event, Said
from adapterkit.training.report_page import Account, duration, page
from tests.conftest import SENTENCES
from tests.html import Page

EVIL = "<script>alert(1)</script>"
SOURCE = f"{EVIL.replace('/', '')}.txt"  # a file may be called that
QUICK = {
    "epochs": 3,
    "max_length": 64,
    "tokens_per_step": 512,
    "learning_rate": 0.01,
    "max_new_tokens": 12,
    "device": "cpu",
    "precision": "fp32",
}


def write_text(folder: Path) -> Path:
    path = folder / SOURCE
    triples = [(i % 8, i // 8 % 8, i // 16 % 8) for i in range(120)]
    lines = [f"{SENTENCES[a]} {EVIL} & {SENTENCES[b]} {SENTENCES[c]}\n" for a, b, c in triples]
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def version(folder: Path, tiny_base: Path) -> Iterator[ak.Version]:
    """One run on a text, a file's name and a prompt that all try to be a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERKIT_CACHE", str(folder / "cache"))
        yield ak.train(
            write_text(folder), name="tales", registry=folder / "adapters", base=str(tiny_base),
            lora_r=4, prompts=[f"The {EVIL}", ""], **QUICK,
        )  # fmt: skip


@pytest.fixture(scope="module")
def report(version: ak.Version) -> Page:
    return Page(version.report().read_text(encoding="utf-8"))


def test_nothing_in_the_page_can_fetch_or_run(report: Page) -> None:
    assert report.dangers == []
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", report.html) == []
    assert "default-src 'none'" in report.html


def test_what_the_person_wrote_is_there_to_the_letter(report: Page) -> None:
    assert report.text.count(EVIL) >= 4  # prompt, recipe, documents
    assert SOURCE in report.text


def test_no_place_of_this_machine_is_named(report: Page, folder: Path, tiny_base: Path) -> None:
    assert [p for p in (folder, tiny_base, Path.home(), folder.parent) if str(p) in report.html] == []


def test_the_table_has_the_pair_and_the_gain_of_the_manifest(report: Page, version: ak.Version) -> None:
    m = version.metrics
    assert m.gain is not None
    told = f"{m.base_perplexity:.1f}{m.perplexity:.1f}−{-m.gain * 100:.0f} % on {m.tokens:,} tokens"
    assert told in report.text


def test_the_curve_of_the_history_is_drawn(report: Page, version: ak.Version) -> None:
    tested = [p.held_out for p in version.history() if p.held_out is not None]
    assert (report.count("svg"), report.count("circle")) == (1, len(tested) + 1)


def test_every_key_of_the_recipe_has_its_origin(report: Page) -> None:
    section = report.text[report.text.index("Recipekeyvaluefrom") :]
    assert [k for k in keys() if k not in section] == []
    assert "train.learning_rate0.01--learning-rate" in section
    assert "train.weight_decay0default" in section
    assert "lora.alpha8auto" in section


def test_samples_stand_beside_those_of_the_base(report: Page, version: ak.Version) -> None:
    texts = [t for s in version.samples() for t in (s.text, s.base_text) if t is not None and t.strip()]
    assert len(texts) >= 3
    assert [t for t in texts if t.translate(VISIBLE) not in report.text] == []


def test_the_environment_is_told(report: Page) -> None:
    import torch

    assert f"torch{torch.__version__}" in report.text


def test_the_page_is_private_and_so_is_the_picture(version: ak.Version) -> None:
    assert not [name for name in version.manifest["files"] if "report" in name or "loss.png" in name]
    assert (version.path / "private" / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_picture_that_fails_does_not_lose_the_version(
    tmp_path: Path, text_file: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is broken: the import fails
    heard: list[Event] = []
    made = ak.train(
        text_file,
        registry=tmp_path / "adapters",
        base=str(tiny_base),
        on_event=heard.append,
        lora_r=4,
        **QUICK,
    )
    told = [e.text for e in heard if isinstance(e, Said) and "loss.png" in e.text]
    assert (len(told), (made.path / "private" / "loss.png").exists()) == (1, False)
    assert "could not be made (ModuleNotFoundError" in told[0]
    assert made.report().exists()


# --- the page alone ---


@pytest.fixture(scope="module")
def account(version: ak.Version, folder: Path, tiny_base: Path) -> Account:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERKIT_CACHE", str(folder / "cache"))
        data: DataReport = ak.describe(folder / SOURCE, base=str(tiny_base), max_length=64)
    return Account(
        manifest=version.manifest,
        made=datetime(2026, 11, 21, 13, 40, tzinfo=UTC),
        verdict="It writes more like you & it does not copy.",
        points=version.history(),
        base_loss=version.metrics.base_loss,
        sampled=[(3, Sample("The", EVIL)), (6, Sample("The", " sea"))],
        samples=version.samples(),
        data=data,
        drawing=["a <row> drawn"],
        origins=json.loads((version.path / "recipe.json").read_text())["origins"],
    )


def test_the_head_names_the_adapter_and_the_day(account: Account) -> None:
    told = Page(page(account)).text
    assert told.lstrip().startswith("tales21 November 2026, 13:40 UTC · LoRA adapter of tiny")
    assert "It writes more like you & it does not copy." in told


def test_samples_on_the_way_stand_beside_the_loss_of_their_step(account: Account) -> None:
    points = [Point(3, 1500, 4.0, 3.75, 1e-3, 1.0), Point(6, 3000, 3.9, 3.5, 0.0, 2.0)]
    told = Page(page(replace(account, points=points)))
    assert f"33.750The{EVIL}63.500The sea" in told.text
    assert told.dangers == []


def test_a_run_without_a_test_says_so(account: Account) -> None:
    points = [Point(1, 500, 4.0, None, 1e-3, 1.0)]
    manifest: dict[str, Any] = dict(account.manifest) | {"metrics": {"copied_words": 3}}
    told = Page(
        page(replace(account, points=points, manifest=manifest, base_loss=None, verdict="", sampled=()))
    )
    assert "not tested" in told.text
    assert "the last weights were kept" in told.text
    assert "How the style came" not in told.text


def test_a_full_fine_tune_has_no_base_beside_its_samples(account: Account) -> None:
    manifest = dict(account.manifest) | {"kind": "full"}
    told = Page(page(replace(account, manifest=manifest, samples=[Sample("", "", None)])))
    assert "full fine-tune of tiny" in told.text
    assert "A new document(nothing: it ended at once)" in told.text


def test_of_a_long_run_not_every_sample_is_shown(account: Account) -> None:
    sampled = [(step, Sample("", f"<at {step}>")) for step in range(1, 1001)]
    told = Page(page(replace(account, sampled=sampled)))
    assert told.text.count("<at ") <= 40
    assert "<at 1>" in told.text
    assert "<at 1000>" in told.text


@pytest.mark.parametrize("text", ["\x00", "\ud800", "]]>", "<!--", "</style>", "</div>", '" onload="x'])
def test_no_text_breaks_the_page(account: Account, text: str) -> None:
    told = page(replace(account, samples=[Sample(text, text, text)], verdict=text, drawing=[text]))
    assert Page(told.encode("utf-8", "replace").decode("utf-8")).dangers == []


@pytest.mark.parametrize(("seconds", "expected"), [(8.6, "9 s"), (198, "3 min 18 s"), (3720, "1 h 2 min"), (59.7, "1 min 0 s")])  # fmt: skip
def test_a_time_has_two_units_at_most(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
