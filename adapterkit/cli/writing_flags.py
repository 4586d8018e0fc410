"""The flags of the verbs that write: sampling, from the schema, and where to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from adapterkit.cli.output import force_base_option
from adapterkit.recipe.keys import keys

SAMPLING = (
    "max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "typical_p",
    "presence_penalty", "frequency_penalty", "no_repeat_ngram_size", "logit_bias",
)  # fmt: skip
RARE = frozenset(SAMPLING[6:])  # left to --help-all


def writing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Sampling flags with the schema's help, and where to run."""
    command = force_base_option(command)
    command = click.option("--base", help="The base, when it is not where the adapter says.")(command)
    command = click.option(
        "--quantize",
        type=click.Choice(["auto", "none", "8bit"]),
        default="auto",
        hidden=True,
        help="Weights in 8 bits on a CPU.  [auto: where that was measured to be better]",
    )(command)
    command = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N.  [auto]")(command)
    command = click.option(
        "--stop", multiple=True, metavar="TEXT", help="End before this text; several allowed."
    )(command)
    command = click.option(
        "--overflow",
        type=click.Choice(["error", "left"]),
        help="A prompt longer than the base sees: an error, or its beginning is left out.  [error]",
    )(command)
    command = click.option("--seed", type=int, help="Seed; drawn and told when left out.")(command)
    for name in reversed(SAMPLING):
        command = _sampling_option(name)(command)
    return command


def _sampling_option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    key = keys()[f"sample.{name}"]
    told = f"{key.help}  [the adapter's, else {key.default if key.default != [] else 'none'}]"
    if key.kinds == (list,):
        return click.option(
            key.flag, name, multiple=True, metavar="TOKEN=BIAS", help=told, hidden=name in RARE
        )
    return click.option(key.flag, name, type=key.kinds[0], help=told, hidden=name in RARE)


def settings(values: dict[str, Any], stop: tuple[str, ...], seed: int | None) -> dict[str, Any]:
    told = {name: values[name] for name in SAMPLING if values.get(name) not in (None, ())}
    told |= {"overflow": values["overflow"]} if values.get("overflow") else {}
    return told | ({"stop": stop} if stop else {}) | ({"seed": seed} if seed is not None else {})
