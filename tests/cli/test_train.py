"""``train`` on the command line: what is shown, several recipes, and runs that are taken up."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterkit.cli.train_screen import Screen, not_better
from adapterkit.registry import evaluations, runs
from adapterkit.registry.evaluations import Evaluation, yardstick
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Sample
from adapterkit.training import events
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(cli: Cli, text_file: Path, tiny_base: Path, registry: Registry) -> Cli:
    """``train`` of a few quick steps; flags given later win."""

    def call(*words: str) -> tuple[int, str, str]:
        flags = [
            "--epochs",
            "2",
            "--max-length",
            "64",
            "--tokens-per-step",
            "2560",
            "--learning-rate",
            "0.01",
        ]
        flags += ["--max-new-tokens", "6", "--device", "cpu", "--precision", "fp32", "--batch-size", "8"]
        return cli(
            "train",
            *words[:1],
            "--base",
            str(tiny_base),
            *flags,
            "--registry",
            str(registry.path),
            *words[1:],
        )

    return call


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody presses Ctrl-C once, when the checkpoint of step 3 is there."""
    rename, pressed = os.rename, []

    def press(src: Any, dst: Any) -> None:
        rename(src, dst)
        if str(dst).endswith("checkpoint-3") and not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "rename", press)
    yield
    assert pressed


# --- the screen -------------------------------------------------------------------------


def test_off_a_terminal_there_are_lines_for_the_tests_with_a_sample_under_each(train: Cli) -> None:
    code, out, err = train("tales.txt")
    assert code == 0
    lines = err.splitlines()
    passes = [i for i, line in enumerate(lines) if line.startswith("  pass ")]
    assert [bool(re.fullmatch(r"  pass [12]    loss \d\.\d\d  test \d\.\d\d", lines[i])) for i in passes] == [
        True,
        True,
    ]
    assert all(re.match(r' {10}"The', lines[i + 1]) for i in passes)
    assert "━" not in err
    assert "\r" not in err
    assert re.search(
        r"\n {2,}tiny +tales@1\n  perplexity on your unseen text +[\d.]+  → +[\d.]+   [−+]\d+ %", out
    )


def test_quiet_says_the_ref_alone(train: Cli) -> None:
    assert train("tales.txt", "-q") == (0, "tales@1\n", "")


def test_the_same_again_says_which_version_that_is(train: Cli) -> None:
    train("tales.txt", "-q")
    code, _, err = train("tales.txt")
    assert code == 0
    assert "Same text, same recipe: that is tales@1 already." in err
    assert train("tales.txt", "-q", "--fresh")[1] == "tales@2\n"


def test_on_a_terminal_there_is_one_bar_with_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("COLUMNS", "100")
    screen = Screen(quiet=False)
    screen.tell(events.Begun(40, 10, 4.0, step=10))
    screen.tell(events.Stepped(20, 3.58, 830.0))
    screen.tell(events.Tested(20, 2.0, 3.58, 3.51, True, False, 20, 60.0))
    screen.tell(events.Sampled((Sample("The", " sea was calm."),), 20))
    screen.tell(events.Stepped(30, 3.4, 830.0))
    screen._bar.refresh()
    screen.tell(events.Tested(40, 4.0, 3.4, 3.6, False, True, 20, 650.0))
    screen.tell(events.Sampled((Sample("The", " end."),)))
    told = re.sub(r"\x1b\[\d*m", "", shown.getvalue())
    bars = [part for part in re.split(r"[\r\n]", told) if "steps" in part]
    assert any("20/40 steps  loss 3.58  830 tok/s" in bar for bar in bars)
    assert any("30/40 steps  loss 3.40  test 3.51  830 tok/s" in bar and "left" in bar for bar in bars)
    assert "  pass 2    loss 3.58  test 3.51\n" in told
    assert '          "The sea was calm. ..."\n' in told
    assert "no better for 3 tests: stopping, pass 2 is kept" in told


def test_without_a_test_a_log_still_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=False)
    screen.tell(events.Begun(40, 10, None))
    for step in (1, 4, 5, 8):
        screen.tell(events.Stepped(step, 3.0, 100.0))
    assert re.findall(r"\d+ %  step \d+", capsys.readouterr().err) == ["10 %  step 4", "20 %  step 8"]


def test_a_version_that_is_no_better_is_told_with_both_numbers(registry: Registry) -> None:
    publish(registry, "stories", loss=3.329)
    worse = publish(registry, "stories", loss=3.36, seed=1)
    assert not_better(worse, registry) == (
        "stories@2 is not better: 28.8 against 27.9 on the same pages. 'stories' now means @2; "
        "the better one is stories@best (@1)."
    )


def test_one_that_is_better_or_was_measured_otherwise_is_not(registry: Registry) -> None:
    first = publish(registry, "stories", loss=3.4)
    assert not_better(publish(registry, "stories", loss=3.3, seed=1), registry) == ""
    other = publish(registry, "stories", loss=3.5, seed=2, held_out="66" * 32)
    assert not_better(other, registry) == ""
    by = yardstick(other)
    assert by is not None
    evaluations.record(registry.path, "stories", Evaluation(first.digest, 3.45, 380, "fp32", by))
    assert "stories@3 is not better: 33.1 against 31.5" in not_better(other, registry)


# --- runs that are taken up -------------------------------------------------------------


@pytest.mark.usefixtures("ctrl_c")
def test_a_run_is_listed_taken_up_and_gone(train: Cli, cli: Cli, registry: Registry) -> None:
    place = ("--registry", str(registry.path))
    code, out, err = train("tales.txt", "-m", "sunday")
    assert (code, out) == (130, "")
    assert "stopped 'tales' at step 4 of 6; nothing is lost.\nhint:  adapterkit train --resume\n" in err
    listed = cli("list", *place)[1]
    assert re.search(r"unfinished: tales, 67 %, stopped just now {5,}adapterkit train --resume\n", listed)
    assert json.loads(cli("list", "--json", *place)[1])["unfinished"][0]["step"] == 4
    code, out, err = cli("train", "--resume", *place, "-q")
    assert (code, out) == (0, "tales@1\n")
    assert registry["tales"].note == "sunday"
    assert "unfinished" not in cli("list", *place)[1]


@pytest.mark.usefixtures("ctrl_c")
def test_the_same_command_says_that_it_goes_on(train: Cli) -> None:
    train("tales.txt")
    err = train("tales.txt")[2]
    assert re.search(
        r"· Going on with the run of \d\d:\d\d, step 4, pass 2 "
        r"\(same result as without the break\)\. Start over: --fresh\n",
        err,
    )


@pytest.mark.usefixtures("ctrl_c")
def test_finish_publishes_the_best_so_far(train: Cli, cli: Cli, registry: Registry) -> None:
    train("tales.txt")
    code, out, _ = cli("train", "--finish", "tales", "--registry", str(registry.path))
    assert code == 0
    assert out.startswith("\ntales@1  ")
    assert runs.unfinished(registry.path) == []


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--resume",), 1, "no unfinished run in"),
        (("--finish", "noir"), 1, "no unfinished run in"),
        (("--resume", "--finish"), 2, "--resume and --finish together"),
        (("--resume", "a", "b"), 2, "--resume takes one run"),
        (("--resume", "--lora-r", "4"), 2, "--resume takes the recipe that the run was begun with"),
        (("--finish", "-m", "x"), 2, "--finish takes the recipe that the run was begun with"),
        (("--finish", "--fresh"), 2, "--finish takes the recipe that the run was begun with"),
    ],
)
def test_slips_with_runs(cli: Cli, words: tuple[str, ...], code: int, told: str) -> None:
    found, out, err = cli("train", *words)
    assert (found, out) == (code, "")
    assert told in err


# --- several recipes --------------------------------------------------------------------


def recipe(folder: Path, name: str, text: Path, base: Path, **more: Any) -> str:
    told = {"epochs": 1, "max_length": 64, "tokens_per_step": 2560, "batch_size": 8, "device": "cpu",
            "precision": "fp32"} | more  # fmt: skip
    path = folder / f"{name}.yaml"
    body = {"base": str(base), "data": {"source": str(text)}, "train": told, "sample": {"max_new_tokens": 4}}
    path.write_text(json.dumps(body))
    return str(path)


def test_one_of_several_that_fails_does_not_stop_the_others(
    cli: Cli, registry: Registry, text_file: Path, tiny_base: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone.txt"
    given = [
        recipe(tmp_path, n, t, tiny_base)
        for n, t in (("one", text_file), ("two", gone), ("three", text_file))
    ]
    code, out, err = cli("train", *given, "--registry", str(registry.path), "-q")
    assert (code, out) == (1, "one@1\nthree@1\n")
    assert err.count("error: ") == 1
    assert "gone.txt" in err
    told = json.loads(cli("train", *given, "--registry", str(registry.path), "--json")[1])
    assert [v["ref"] for v in told["versions"]] == ["one@1", "three@1"]
    assert [e["code"] for e in told["errors"]] == ["no-such-text"]
