"""``evaluate``: how good adapters are on unseen text, the base beside each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from adapterkit.cli import recipe_flags
from adapterkit.cli.output import common, emit, force_base_option, note, table
from adapterkit.errors import CheckFailed, UsageProblem, nearest
from adapterkit.recipe.given import load_sources
from adapterkit.recipe.keys import keys
from adapterkit.refs import parse_adapter
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from adapterkit.evaluation.events import Event
    from adapterkit.evaluation.table import Table

FLAGS = ("data.document", "data.text", "data.subset", "data.split", "data.format")


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of ``train`` that say how a text is read."""
    for path in reversed(FLAGS):
        key = keys()[path]
        command = click.option(key.flag, path.replace(".", "__"), metavar="TEXT", help=key.help)(command)
    return click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any key of data, e.g. data.separator='<>'."
    )(command)


@click.command("evaluate")
@click.argument("adapters", nargs=-1, metavar="ADAPTER...")
@click.option(
    "--data", multiple=True, metavar="SOURCE", help="Text to score all of.  [each version's own unseen text]"
)
@click.option(
    "--require", multiple=True, metavar="EXPR", help="A bar, e.g. 'gain>=0.20'; exit code 3 below it. Several allowed."
)  # fmt: skip
@click.option("--style-test", is_flag=True, help="Score each adapter's samples under every adapter instead.")
@reading_options
@click.option("--base", help="The base, when it is not where the adapter says.")
@force_base_option
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N.  [auto]")
@common
def evaluate_verb(
    adapters: tuple[str, ...], data: tuple[str, ...], require: tuple[str, ...], style_test: bool, sets: tuple[str, ...],
    base: str | None, force_base: bool, device: str, registry: str | None, as_json: bool, quiet: bool, **values: Any,
) -> None:  # fmt: skip
    """Score adapters on unseen text, the base beside each."""
    from adapterkit.evaluation.require import parse

    checks = parse(require)
    store = Registry(registry)
    if not adapters:
        made = store.names()
        raise UsageProblem(
            "no adapter was named.", hint=f"adapterkit evaluate {made[0] if made else 'base --data SOURCE'}"
        )
    for part in (part for adapter in adapters for part in parse_adapter(adapter)):
        store[str(part.ref)]  # raises, naming the nearest, before torch is loaded
    screen = _Screen(quiet or as_json)
    if style_test:
        _refuse_beside_style_test(data, require, force_base)
        _style_test(adapters, store, base, device, screen, as_json)
        return
    loaded = _text(data, recipe_flags.given(values, sets, data), screen)
    from adapterkit.evaluation.run import run  # torch loads here

    try:
        found = run(
            adapters,
            loaded,
            registry=store,
            base=base,
            device=device,
            force_base=force_base,
            on_event=screen.tell,
        )
    finally:
        screen.close()
    failed = _failed(found, checks)
    if as_json:
        told = [{"check": str(c)} for c in checks]
        emit(found.as_dict() | ({"checks": told, "passed": failed is None} if checks else {}))
    else:
        _show(found, quiet)
    if failed is not None:
        raise failed


def _refuse_beside_style_test(data: tuple[str, ...], require: tuple[str, ...], force_base: bool) -> None:
    for flag, typed in (("--data", data), ("--require", require)):
        if typed:
            raise UsageProblem(
                f"{flag} beside --style-test, which scores what the adapters write.", hint=f"leave {flag} out"
            )
    if force_base:
        raise UsageProblem(
            "--force-base beside --style-test: on another base an adapter does not write in its own style.",
            hint="leave --force-base out",
        )


def _style_test(
    adapters: tuple[str, ...], store: Registry, base: str | None, device: str, screen: _Screen, as_json: bool
) -> None:
    from adapterkit.evaluation.style import style_test  # torch loads here

    try:
        found = style_test(adapters, registry=store, base=base, device=device, on_event=screen.tell)
    finally:
        screen.close()
    if as_json:
        emit(found.as_dict())
        return
    click.echo(table(found.cells()))
    note(
        "Perplexity of each adapter's own samples under every adapter; * is who expects them most.",
        screen.quiet,
    )


def _text(data: tuple[str, ...], flags: dict[str, Any], screen: _Screen) -> Any:
    """The text as a loaded recipe; None for each version's own."""
    typed = {k: v for k, v in flags.items() if k != "data.source"}
    if not data:
        if typed:
            raise UsageProblem(
                f"{recipe_flags.typed(typed)[0]} says how a text is read, but no text was given.",
                hint="adapterkit evaluate ADAPTER --data SOURCE",
            )
        return None
    known = [k for k in keys() if k.startswith("data.")]
    for key in typed:
        if key not in known:
            close = nearest(key, known)
            raise UsageProblem(
                f"--set {key} says nothing of how a text is read.",
                hint=f"did you mean {close}?" if close else f"there are {', '.join(known)}",
            )
    return load_sources(data, flags, screen.say)[0]


def _failed(found: Table, checks: Any) -> CheckFailed | None:
    try:
        found.require(checks)
    except CheckFailed as e:
        return e
    return None


def _show(found: Table, quiet: bool) -> None:
    click.echo(table(found.cells()))
    if not found.is_one_text:
        note(
            "Each on a text of its own: percentages compare an adapter with its base, not the rows with each other.",
            quiet,
        )


class _Screen:
    """Notes, and one bar for each score on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._shows = sys.stderr.isatty() and not quiet

    def say(self, text: str) -> None:
        note(text, self.quiet)

    def tell(self, event: Event) -> None:
        """The listener that ``evaluate`` calls."""
        kind = type(event).__name__
        if kind == "Said":
            self.close()
            self.say(event.text)  # type: ignore[union-attr]
        elif kind == "Scoring" and self._shows:
            self._scoring(event)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _scoring(self, event: Any) -> None:
        if event.done == 0:
            from tqdm import tqdm

            self.close()
            shape = "  {desc} {bar:30} {n_fmt}/{total_fmt} rows {elapsed}<{remaining}"
            self._bar = tqdm(
                total=event.rows,
                desc=event.adapter,
                bar_format=shape,
                ascii=" ━",
                file=sys.stderr,
                leave=False,
            )
        self._bar.update(event.done - self._bar.n)
