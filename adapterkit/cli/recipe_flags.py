"""The recipe's keys as flags of a command, and back as the words to type."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Container, Mapping
from typing import Any

import click

from adapterkit.errors import UsageProblem
from adapterkit.recipe.keys import Key, keys
from adapterkit.recipe.source import STDIN

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def recipe_options(shown: Container[str]) -> Decorator:
    """One flag for each key of the recipe, from the schema; keys not ``shown`` are left to --help-all."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for key in reversed(list(keys().values())):
            if key.path != "data.source":
                command = _option(key, hidden=key.path not in shown)(command)
        return command

    decorate_sets = click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any key of the recipe, e.g. lora.alpha=32."
    )
    return lambda command: decorate_sets(decorate(command))


def _option(key: Key, *, hidden: bool) -> Decorator:
    name = key.path.replace(".", "__")
    if key.kinds == (bool,):
        # no default of its own: what a recipe file says stands when the flag is not typed
        words = f"{key.flag}/{_no(key)}" if key.default else key.flag
        told = f"{key.help}  [{'yes' if key.default else 'no'}]"
        return click.option(words, name, is_flag=True, default=None, help=told, hidden=hidden)
    return click.option(key.flag, name, metavar=_metavar(key), help=_help(key), hidden=hidden)


def _no(key: Key) -> str:
    return f"--no-{key.flag.removeprefix('--')}"


def _metavar(key: Key) -> str:
    words = "|".join(key.choices)
    plain = {int: "N", float: "X", str: "TEXT", list: "LIST", bool: ""}[key.kinds[0]] if key.kinds else ""
    return f"{plain}|{words}" if plain and words and words != "null" else plain or words


def _help(key: Key) -> str:
    return f"{key.help}  [{key.default if key.default not in (None, '', []) else 'none'}]"


def given(values: Mapping[str, Any], sets: tuple[str, ...], source: tuple[str, ...] = ()) -> dict[str, Any]:
    """What was typed, by recipe key.

    Args:
        values: the options, None where not typed.
        sets: KEY=VALUE as typed.
        source: of the command; a lone - goes as a list, as YAML would take the word for an empty one.

    Raises:
        UsageProblem: a --set without a value.
    """
    flags = {name.replace("__", "."): value for name, value in values.items() if value is not None}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageProblem(
                f"--set {text!r} has no value.", hint="--set KEY=VALUE, for example --set lora.alpha=32"
            )
        flags[key.strip()] = value.strip()
    return flags | {"data.source": [STDIN]} if source == (STDIN,) else flags


def typed(flags: Mapping[str, Any]) -> list[str]:
    """Flags as words of the shell that mean the same."""
    words: list[str] = []
    for path, value in flags.items():
        if path == "data.source" and value == [STDIN]:
            continue  # typed as SOURCE
        key = keys().get(path)
        if key is not None and isinstance(value, bool):
            words.append(key.flag if value else _no(key))
        else:
            words += [key.flag if key else "--set", shlex.quote(str(value) if key else f"{path}={value}")]
    return words
