"""The flags of the verbs that write: sampling, from the schema, and where to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from adapterkit.cli.output import force_base_option
from adapterkit.errors import UsageProblem
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
        type=click.Choice(["auto", "none", "8bit", "4bit"]),
        default="auto",
        hidden=True,
        help="Weights in 8 bits, on a GPU also in 4.  [auto: where it was measured to be better; on a GPU where they would not fit]",
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


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is asked of one request beside its settings; left to --help-all."""
    command = click.option(
        "--timeout", type=float, hidden=True, help="Seconds after which a text ends with what is written."
    )(command)
    command = click.option(
        "--num-beams",
        type=click.IntRange(1, 64),
        hidden=True,
        help="Search with so many beams for the likeliest text instead of drawing one.",
    )(command)
    return click.option(
        "--logprobs",
        type=click.IntRange(0, 20),
        hidden=True,
        help="How likely each token was, with so many alternatives, in --json and --out; with --echo the prompt's too.",
    )(command)


def beside(
    raw: bool, echo: bool, logprobs: int | None, timeout: float | None, has_records: bool
) -> dict[str, Any]:
    """What is told of a request beside its settings."""
    if logprobs is not None and not has_records:
        raise UsageProblem(
            "--logprobs are told in JSON, not in a text.", hint="add --json, or --prompts and --out"
        )
    told = {"raw": raw or None, "timeout": timeout, "logprobs": logprobs}
    told |= {"echo": echo or None} if logprobs is not None else {}
    return {key: value for key, value in told.items() if value is not None}
