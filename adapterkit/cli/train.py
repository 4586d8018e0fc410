"""``train``: understand SOURCE, run, and show what a person wants to know."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from adapterkit.cli import recipe_flags
from adapterkit.cli.output import common, emit, gain, note, signed
from adapterkit.cli.recipe_flags import recipe_options
from adapterkit.errors import UsageProblem
from adapterkit.files import human_size, shown
from adapterkit.recipe.given import load_named, load_sources
from adapterkit.refs import check_name
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from adapterkit.registry.version import Version
    from adapterkit.training.events import Event

# Flags shown by --help; the others by --help-all.
SHOWN = frozenset(
    [
        "base",
        "method",
        "data.document",
        "data.validation",
        "data.text",
        "lora.r",
        "lora.targets",
        "train.epochs",
        "train.learning_rate",
        "train.device",
        "train.precision",
        "train.seed",
    ]
)


@click.command("train")
@click.argument("source", nargs=-1)
@click.option("--recipe", metavar="NAME", help="A recipe by name; SOURCE then replaces its text.")
@click.option("--name", help="Name of the adapter.  [the source's name]")
@click.option("-m", "--note", default="", help="A few words kept with the version.")
@click.option("--fresh", is_flag=True, help="Train also when the same was trained before.")
@recipe_options(SHOWN)
@common
def train_verb(
    source: tuple[str, ...], recipe: str | None, name: str | None, note: str, fresh: bool, sets: tuple[str, ...],
    registry: str | None, as_json: bool, quiet: bool, **values: Any,
) -> None:  # fmt: skip
    """Learn a style from text, or follow a recipe.

    SOURCE is a file, a folder, a glob, - for stdin, a dataset on the Hub
    (owner/name), a recipe (FILE.yaml), or a recipe's name such as wikitext.
    """
    flags = recipe_flags.given(values, sets, source)
    if not source and not recipe:
        raise UsageProblem("nothing to learn from was named.", hint="adapterkit train FOLDER-OR-FILE")
    screen = Screen(quiet or as_json)
    if recipe:
        loaded = [load_named(recipe, source, flags, screen.say)]
    else:
        loaded = load_sources(source, flags, screen.say)
    if name and len(loaded) > 1:
        raise UsageProblem("--name with several recipes.", hint="leave --name out, or train them one by one")
    if name is not None:
        check_name(name)
    store = Registry(registry)
    from adapterkit.training import run as training  # torch loads here, after every slip that needs no torch

    for each in loaded:
        version = training.run(each, name=name, note=note, registry=store, fresh=fresh, on_event=screen.tell)
        _result(version, as_json, quiet, existed=screen.existed)


class Screen:
    """Shows the events of a run: notes, one bar, a line for each test, samples."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.existed = quiet, False
        self._bar: Any = None
        self._tty = sys.stderr.isatty()
        self._steps = 0
        self._told = 0
        self._counts = False  # a line of counts is on the screen, to be written over

    def tell(self, event: Event) -> None:
        """The listener that ``train`` calls."""
        kind = type(event).__name__.lower()
        if kind != "read":
            self._wipe()
        getattr(self, f"_{kind}")(event)

    def say(self, text: str) -> None:
        """The listener of what comes before ``train``."""
        note(text, self.quiet)

    def _said(self, event: Any) -> None:
        self.say(event.text)

    def _read(self, event: Any) -> None:
        """So much so far, on one line of a terminal that the next one replaces."""
        if self._tty and not self.quiet:
            self._counts = True
            told = f"· {event.documents:,} documents, {event.characters / 1e6:,.1f} million characters read"
            # the cursor goes back to the begin, so that an error is written over it too
            click.echo(f"\033[K{click.style(told, dim=True)}\r", nl=False, err=True)

    def _wipe(self) -> None:
        if self._counts:
            click.echo("\033[K", nl=False, err=True)
            self._counts = False

    def _begun(self, event: Any) -> None:
        self._steps = event.steps
        if self._tty and not self.quiet:
            from tqdm import tqdm

            shape = "  {bar:30} {n_fmt}/{total_fmt} steps {elapsed}<{remaining}{postfix}"
            self._bar = tqdm(total=event.steps, bar_format=shape, ascii=" ━", file=sys.stderr, leave=False)

    def _stepped(self, event: Any) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {event.loss:.2f} {event.tokens_per_second:,.0f} tok/s", refresh=False
            )
            self._bar.update(event.step - self._bar.n)
        elif not self._tty and event.step * 10 // self._steps > self._told:
            self._told = event.step * 10 // self._steps
            share = 100 * event.step // self._steps
            note(
                f"{share} %  step {event.step}  loss {event.loss:.2f}  {event.tokens_per_second:,.0f} tok/s",
                self.quiet,
            )

    def _tested(self, event: Any) -> None:
        if self.quiet:
            return
        loss = f"loss {event.loss:.2f}  " if event.loss is not None else ""
        end = "   no better for 3 tests: stopping, the best is kept" if event.stops else ""
        line = f"  pass {event.passes:.3g}  {loss}test {event.held_out:.2f}{end}"
        if self._bar is not None:
            self._bar.update(event.step - self._bar.n)
            self._bar.write(line, file=sys.stderr)
        else:
            click.echo(line, err=True)

    def _sampled(self, event: Any) -> None:
        if self._bar is not None:
            self._bar.close()
        if self.quiet:
            return
        for sample in event.samples:
            text = " ".join(sample.text.split())
            click.echo(
                f'          "{sample.prompt}{click.style(" " + text[:150].strip(), dim=True)} ..."', err=True
            )

    def _finished(self, event: Any) -> None:
        self.existed = event.existed
        if event.existed:
            note(
                f"Same text, same recipe: that is {event.version.ref} already. Again anyway: --fresh",
                self.quiet,
            )


def _result(version: Version, as_json: bool, quiet: bool, existed: bool) -> None:
    m = version.metrics
    if as_json:
        emit({"ref": version.ref, "digest": version.digest, "path": str(version.path), "existed": existed,
              "size": version.size, "metrics": asdict(m) | {"gain": m.gain}})  # fmt: skip
        return
    if quiet:
        click.echo(version.ref)
        return
    lines = ["", f"{version.ref}  {version.digest[:8]}"]
    if m.gain is not None:
        lines.append(f"  perplexity on your unseen text         {gain(m)}     lower is better")
    if m.copied_words is not None:
        over = (
            "over 30 would be copying"
            if m.copied_words <= 30
            else "that is copying: fewer passes or more text"
        )
        lines.append(f"  longest run copied from you            {m.copied_words} words     {over}")
    ends = f"{m.stops:.0%} of samples" if m.stops is not None else "not expected: your documents are long"
    lines.append(f"  ends by itself                         {ends}")
    if m.gain is not None:
        lines.append(_verdict(version, m.gain, m.copied_words or 0))
    lines += ["", f"saved   {shown(version.path)}   {human_size(version.size)}"]
    lines += [f"next    adapterkit chat {version.name}", f"        adapterkit compare base {version.name}"]
    click.echo("\n".join(lines))


def _verdict(version: Version, change: float, copied: int) -> str:
    if change > -0.02:
        return f"It does not write more like your text than the base does ({signed(change)}): more text or more passes may help."
    return "It writes more like you than the base does" + (
        ", and it does not copy." if copied <= 30 else ", but it copies."
    )
