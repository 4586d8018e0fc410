"""Docs that can't drift: the table of keys, the README's commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from adapterkit.cli.main import cli
from adapterkit.recipe.keys import keys

ROOT = Path(__file__).parent.parent


def keys_table() -> str:
    rows = ["| key | flag | default | may be | |", "|---|---|---|---|---|"]
    for key in keys().values():
        default = "" if key.default in ("", None, []) else f"`{key.default}`"
        rows.append(
            f"| `{key.path}` | `{key.flag}` | {default} | {key.allowed} | {key.help} |".replace("  ", " ")
        )
    return "\n".join(rows)


def test_the_table_of_keys_in_the_docs_is_the_schema() -> None:
    assert keys_table() in (ROOT / "docs" / "recipes.md").read_text()


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    found = re.findall(
        r"^(?:\$ )?(adapterkit [^\n#]*)", "\n".join(re.findall(r"```[a-z]*\n(.*?)```", text, re.S)), re.M
    )
    return sorted({c.split("   ")[0].strip() for c in found})


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_parses(command: str) -> None:
    verb, *rest = shlex.split(command)[1:]
    root = click.Context(
        cli, **cli.context_settings
    )  # a command remembers the help flags of its first parent
    found = cli.get_command(root, verb)
    assert found is not None
    found.make_context(verb, rest, parent=root)


def test_the_readme_has_five_commands_or_more() -> None:
    assert len(commands()) >= 5
