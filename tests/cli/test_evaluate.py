"""``evaluate`` on the command line: the table, JSON, the bars, and slips that are answered before torch is loaded."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.registry.store import Registry
from tests.evaluation.conftest import QUICK, write_text
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry of the test, also for the command line."""
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    monkeypatch.setenv("COLUMNS", "96")
    return registry


@pytest.fixture
def tales(here: Registry, text_file: Path, tiny_base: Path) -> ak.Version:
    return ak.train(text_file, registry=here, base=str(tiny_base), lora_targets="attn", **QUICK)


SCREEN = """\
ADAPTER BASE TEXT TOKENS PERPLEXITY A WORD BITS A BYTE
tales@N tiny N unseen documents N N → N −N % N → N N → N
"""


def _masked(text: str) -> str:
    """Numbers as N, blanks as one."""
    return re.sub(" +", " ", re.sub(r"\d[\d,.]*\d|\d", "N", text))


def test_a_version_is_scored_on_its_own_unseen_text(cli: Cli, tales: ak.Version) -> None:
    code, out, err = cli("evaluate", "tales")
    assert (code, _masked(out), err) == (0, SCREEN, "")
    m = tales.metrics
    assert f"{m.base_perplexity:.1f} → {m.perplexity:.1f}" in out


def test_other_text_is_scored_beside_the_base(cli: Cli, tales: ak.Version) -> None:
    write_text(Path("other.txt"), shift=2)
    code, out, err = cli(
        "evaluate", "base", "tales", "tales=0.5", "--data", "other.txt", "--document", "line"
    )
    assert (code, err) == (0, "· Text other.txt.\n")
    rows = [re.split("   +", line) for line in out.splitlines()]
    assert [r[0] for r in rows] == ["ADAPTER", "base", "tales@1", "tales@1=0.5"]
    assert [" → " in r[4] for r in rows] == [False, False, True, True]
    assert {r[4].split(" → ")[0] for r in rows[1:]} == {rows[1][4]}


def test_text_comes_through_a_pipe(cli: Cli, tales: ak.Version, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_text(Path("other.txt"), shift=2).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    code, out, _ = cli("evaluate", "tales", "--data", "-", "--document", "line")
    assert (code, out.splitlines()[1].split()[:3]) == (0, ["tales@1", "tiny", "stdin"])


def test_json_has_the_numbers_and_the_checks(cli: Cli, tales: ak.Version) -> None:
    code, out, err = cli(
        "evaluate", "tales", "--json", "--require", "gain>=1%", "--require", "perplexity<9999"
    )
    told = json.loads(out)
    (row,) = told["scores"]
    assert (code, err, told["schema"], told["passed"]) == (0, "", 1, True)
    assert told["checks"] == [{"check": "gain>=0.01"}, {"check": "perplexity<9999"}]
    assert row["loss"] == pytest.approx(tales.metrics.loss, abs=1e-4)
    assert (row["digests"], row["held_out"]) == ([tales.digest], tales.metrics.held_out)


def test_a_bar_that_is_missed_ends_with_3_and_the_table_is_there(cli: Cli, tales: ak.Version) -> None:
    bars = ("--require", "gain>=99%", "--require", "loss<0", "--require", "perplexity<9999")
    code, out, err = cli("evaluate", "tales", *bars)
    assert (code, _masked(out)) == (3, SCREEN)
    assert "error: 2 of 3 checks failed: tales@1: gain>=0.99 is asked, it is 0." in err
    assert "tales@1: loss<0 is asked" in err
    code, out, err = cli("evaluate", "tales", *bars, "--json")
    assert (code, json.loads(out)["passed"], json.loads(err)["error"]["code"]) == (3, False, "check-failed")


def test_texts_of_their_own_are_said_not_to_be_a_ranking(cli: Cli, tales: ak.Version, tiny_base: Path, here: Registry) -> None:  # fmt: skip
    ak.train(write_text(Path("songs.txt"), shift=1), registry=here, base=str(tiny_base), **QUICK)
    assert "Each on a text of its own" in cli("evaluate", "tales", "songs")[2]
    assert cli("evaluate", "tales", "songs", "-q")[2] == ""


def test_the_style_test_shows_who_expects_whose_samples(cli: Cli, tales: ak.Version) -> None:
    code, out, err = cli("evaluate", "tales", "--style-test")
    head, row = (re.split("   +", line) for line in out.splitlines())
    assert (code, head) == (0, ["WRITTEN BY", "UNDER base", "UNDER tales@1", "STYLE"])
    assert (row[0], row[-1]) == ("tales@1", "took")
    assert "* is who expects them most" in err
    told = json.loads(cli("evaluate", "tales", "--style-test", "--json")[1])
    assert told["styles"][0]["took"] is True


def test_a_terminal_sees_a_bar_for_each_score(
    cli: Cli, tales: ak.Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    err = cli("evaluate", "tales")[2]
    assert re.search(r"base .*\d/\d+ rows", err)
    assert re.search(r"tales@1 .*\d/\d+ rows", err)


def test_a_text_that_is_gone_is_an_error_whose_hint_works(
    cli: Cli, tales: ak.Version, text_file: Path
) -> None:
    text_file.rename("moved.txt")
    code, _, err = cli("evaluate", "tales")
    assert code == 1
    assert (
        "error: the text that tales@1 was tested on can't be found again: there is no file or folder" in err
    )
    hint = re.search(r"hint:  adapterkit (.*?)     ", err)
    assert hint is not None
    assert cli(*hint[1].replace("SOURCE", "moved.txt").split())[0] == 0


SLIPS = [
    (["evaluate"], 2, "no adapter was named"),
    (["evaluate", "storys"], 1, "no adapter named 'storys'"),
    (["evaluate", "noir", "--require", "gian>=0.2"], 2, "did you mean 'gain'"),
    (["evaluate", "noir", "--require", "gain"], 2, "is not METRIC OP NUMBER"),
    (["evaluate", "noir", "--data", "gone.txt"], 1, "there is no file or folder 'gone.txt'"),
    (
        ["evaluate", "noir", "--document", "line"],
        2,
        "--document says how a text is read, but no text was given",
    ),
    (
        ["evaluate", "noir", "--data", "a.txt", "--set", "lora.r=4"],
        2,
        "lora.r says nothing of how a text is read",
    ),
    (["evaluate", "noir", "--style-test", "--data", "a.txt"], 2, "--data beside --style-test"),
    (["evaluate", "noir,noir"], 2, "names 2 adapters without weights"),
]


@pytest.mark.parametrize(("argv", "code", "words"), SLIPS)
def test_a_slip_is_told(cli: Cli, here: Registry, argv: list[str], code: int, words: str) -> None:
    publish(here, "noir")
    Path("a.txt").write_text("The lamp was lit.\n")
    found, out, err = cli(*argv)
    assert (found, out) == (code, "")
    assert words in err
    assert "hint:  " in err


def test_a_slip_is_answered_before_torch_is_loaded(here: Registry) -> None:
    publish(here, "noir")
    Path("a.txt").write_text("The lamp was lit.\n")
    told = [(argv, code) for argv, code, _ in SLIPS]
    code = (
        f"from adapterkit.cli.main import run\nfor argv, code in {told!r}: assert run(argv) == code, argv\n"
    )
    code += "import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
