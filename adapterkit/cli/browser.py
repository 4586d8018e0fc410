"""Pages shown in the person's browser, or named where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from adapterkit.cli.output import emit, note
from adapterkit.files import shown


def open_reports(paths: Sequence[Path], as_json: bool, quiet: bool) -> None:
    """Open each page; its path is the result wherever no browser took it."""
    if as_json:
        emit({"reports": [str(p) for p in paths]})
        return
    import webbrowser  # 7 ms that list and show do not need

    for path in paths:
        if sys.stdout.isatty() and _has_screen() and webbrowser.open(path.resolve().as_uri()):
            note(f"opened {shown(path)}", quiet)
        else:
            click.echo(str(path))


def _has_screen() -> bool:
    """Without one, ``webbrowser`` would start a text browser and take the terminal over."""
    own = sys.platform in ("darwin", "win32")
    return own or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
