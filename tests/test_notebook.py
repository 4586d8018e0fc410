"""examples/adapterkit.ipynb: every cell runs in order, as a notebook would run it, and shows what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.html import Page

NOTEBOOK = Path(__file__).parent.parent / "examples" / "adapterkit.ipynb"
# IPython is what runs inside a kernel; without the kernel's sockets the cells run in the same way.
RUN = """
import json, sys, warnings
from IPython.core.interactiveshell import InteractiveShell

warnings.simplefilter("error")
shell, shown = InteractiveShell.instance(), []
for source in json.load(sys.stdin):
    done = shell.run_cell(source, store_history=True)
    done.raise_error()
    data = shell.display_formatter.format(done.result)[0] if done.result is not None else {}
    shown.append({k: v for k, v in data.items() if k in ("text/plain", "text/html")})
json.dump(shown, open(sys.argv[1], "w"))
"""


def cells() -> list[dict[str, Any]]:
    told = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (told["nbformat"], told["nbformat_minor"]) == (4, 5)
    return list(told["cells"])


def test_no_output_is_kept_in_the_notebook() -> None:
    code = [c for c in cells() if c["cell_type"] == "code"]
    assert [c["id"] for c in code if c["outputs"] or c["execution_count"]] == []


def test_every_cell_has_a_name_of_its_own() -> None:
    names = [c["id"] for c in cells()]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_every_cell_runs_in_order_and_shows_what_it_should(tmp_path: Path) -> None:
    sources = ["".join(c["source"]) for c in cells() if c["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "shown.json")],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython"), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shown = json.loads((tmp_path / "shown.json").read_text())
    by_source = dict(zip(sources, shown, strict=True))
    version = Page(by_source["version"]["text/html"])
    assert (version.count("svg"), version.dangers, "shanty@1" in version.text) == (1, [], True)
    report = next(v for k, v in by_source.items() if k.startswith("report = ak.describe"))
    assert "documents202 of 202 read" in Page(report["text/html"]).text
    assert "held out" in done.stdout  # the events as lines
    assert "shanty@1=0.5" in done.stdout  # the comparison names its writers
    assert any(v.get("text/plain", "").startswith("('report.html', ") for v in shown)
