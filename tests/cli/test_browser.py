"""``show --open``: the report in a browser, or its path where there is none; and the curve in ``show``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from adapterkit.registry.store import Registry
from adapterkit.registry.version import Point, Version
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    return registry


def reported(registry: Registry, name: str) -> Version:
    v = publish(registry, name)
    (v.path / "private" / "report.html").write_text("<!doctype html><title>report</title>")
    return v


def on_a_terminal(argv: list[str], environment: dict[str, str]) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    keep = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    done = subprocess.run([sys.executable, "-m", "adapterkit", *argv], stdout=theirs, stderr=subprocess.PIPE,
                          env=keep | environment, text=True, timeout=60)  # fmt: skip
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    written = b""
    try:
        while piece := os.read(ours, 4096):
            written += piece
    except OSError:  # how Linux says that the other end is closed and empty
        pass
    os.close(ours)
    return written.decode()


def test_open_without_a_terminal_prints_the_path(cli: Cli, here: Registry) -> None:
    v = reported(here, "noir")
    assert cli("show", "noir", "--open") == (0, f"{v.path}/private/report.html\n", "")


def test_open_takes_several_refs(cli: Cli, here: Registry) -> None:
    paths = [reported(here, name).report() for name in ("noir", "shanty")]
    assert cli("show", "noir", "shanty", "--open")[1].splitlines() == [str(p) for p in paths]


def test_open_as_json_names_the_pages(cli: Cli, here: Registry) -> None:
    v = reported(here, "noir")
    assert json.loads(cli("show", "noir", "--open", "--json")[1]) == {
        "schema": 1,
        "reports": [str(v.report())],
    }


def test_open_without_a_report_says_what_there_is(cli: Cli, here: Registry) -> None:
    reported(here, "noir")
    publish(here, "shanty")
    code, out, err = cli("show", "noir", "shanty", "--open")
    assert (code, out) == (1, "")
    assert err == (
        "error: shanty@1 has no report: it is written by training and stays where that was done.\n"
        "hint:  adapterkit show shanty@1     (its numbers)\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system names the browser")
def test_open_on_a_terminal_hands_the_page_to_the_browser(here: Registry, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/asked\n')
    browser.chmod(0o755)
    v = reported(here, "noir")
    written = on_a_terminal(["show", "noir", "--open"], {"BROWSER": f"{browser} %s"})
    assert (written, (tmp_path / "asked").read_text()) == ("", f"{v.report().as_uri()}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_open_on_a_terminal_without_a_screen_prints_the_path(here: Registry) -> None:
    v = reported(here, "noir")
    assert on_a_terminal(["show", "noir", "--open"], {}).strip() == str(v.report())


def test_show_draws_the_tests_of_the_run(cli: Cli, here: Registry) -> None:
    v = publish(here, "noir")
    held_out = {10: 3.6, 20: 3.2, 30: 3.3}
    points = [Point(s, s, 4.0, held_out.get(s), 1e-4, 1.0) for s in range(1, 31)]
    (v.path / "history.json").write_text(json.dumps([asdict(p) for p in points]))
    out = cli("show", "noir")[1]
    assert "  while learning  test loss 3.60 █▁▃ 3.30, best 3.20 at step 20 of 30\n" in out
