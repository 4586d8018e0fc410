"""What ``train`` shows: one bar, a line and a sample for each test, one table at the end."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from adapterkit.cli.output import note, signed, table
from adapterkit.errors import AdapterKitError
from adapterkit.files import human_size, shown
from adapterkit.registry import evaluations
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

if TYPE_CHECKING:
    from adapterkit.training.events import Event

SHAPE = "  {bar:20} {n_fmt}/{total_fmt} steps  {desc}{remaining} left"


class Screen:
    """Shows the events of a run: notes, one bar, a line for each test, samples.

    Not on a terminal: lines only.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.existed = quiet, False
        self._bar: Any = None
        self._tty = sys.stderr.isatty()
        self._steps = self._told = 0
        self._tests = False
        self._test = ""
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

    def fail(self, error: AdapterKitError) -> None:
        """One of several went wrong; the others go on."""
        click.echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
        if error.hint:
            click.echo(click.style("hint:  ", fg="cyan") + error.hint, err=True)

    def close(self) -> None:
        """The bar goes away, so that what comes next has a line of its own."""
        self._wipe()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

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
        self._steps, self._told = event.steps, 10 * event.step // max(event.steps, 1)
        self._tests = event.base_loss is not None  # else nothing would be seen off a terminal
        self._test = ""
        if self._tty and not self.quiet:
            from tqdm import tqdm

            self._bar = tqdm(
                total=event.steps,
                initial=event.step,
                bar_format=SHAPE,
                ascii=" ━",
                file=sys.stderr,
                leave=False,
            )

    def _stepped(self, event: Any) -> None:
        loss = f"loss {event.loss:.2f}" if event.loss is not None else ""
        speed = f"{event.tokens_per_second:,.0f} tok/s"
        if self._bar is not None:
            told = "  ".join(p for p in (loss, self._test, speed) if p) + "  "
            self._bar.set_description_str(told, refresh=False)
            self._bar.update(event.step - self._bar.n)
        elif not self._tty and not self._tests and event.step * 10 // self._steps > self._told:
            self._told = event.step * 10 // self._steps
            share = 100 * event.step // self._steps
            note(f"{share} %  step {event.step}  {loss}  {speed}", self.quiet)

    def _tested(self, event: Any) -> None:
        self._test = f"test {event.held_out:.2f}"
        loss = f"loss {event.loss:.2f}  " if event.loss is not None else ""
        end = ""
        if event.stops:
            from adapterkit.training.resolve import PATIENCE  # loaded by then; --help does without

            kept = event.passes * event.best_step / event.step
            end = f"   no better for {PATIENCE} tests: stopping, pass {kept:.3g} is kept   {_elapsed(event.seconds)}"
        self._line(f"  pass {event.passes:<4.3g} {loss}{self._test}{end}")

    def _sampled(self, event: Any) -> None:
        if event.step is None:  # all steps are done
            self.close()
        for sample in event.samples:
            text = " ".join("".join(c if c.isprintable() else " " for c in sample.text).split())
            if not text:
                continue  # it ended at once
            self._line(f'          "{sample.prompt}{click.style(" " + text[:150].strip(), dim=True)} ..."')

    def _finished(self, event: Any) -> None:
        self.close()
        self.existed = event.existed
        if event.existed:
            self.say(
                f"Same text, same recipe: that is {event.version.ref} already. "
                "Other settings: adapterkit train --help; again anyway: --fresh"
            )

    def _line(self, text: str) -> None:
        """A line that stays, above the bar when there is one."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)


def _elapsed(spent: float) -> str:
    minutes, seconds = divmod(round(spent), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def record(version: Version, existed: bool) -> dict[str, Any]:
    """A version as ``--json`` tells it."""
    m = version.metrics
    return {"ref": version.ref, "digest": version.digest, "path": str(version.path), "existed": existed,
            "size": version.size, "forced_base": bool(version.manifest["lineage"].get("forced_base")), "metrics": asdict(m) | {"gain": m.improvement}}  # fmt: skip


def show(version: Version, store: Registry, quiet: bool) -> None:
    """The table of base against adapter, the sentence, and where it lies; quiet: its ref."""
    if quiet:
        click.echo(version.ref)
        return
    from adapterkit.scoring.verdict import train_loss, verdict

    lines = [
        "",
        f"{version.ref}  {version.digest[:8]}",
        _scores(version),
        verdict(version.metrics, train_loss(version.history())),
    ]
    if worse := not_better(version, store):
        lines.append(worse)
    lines += ["", f"saved   {shown(version.path)}   {human_size(version.size)}"]
    lines += [f"next    adapterkit chat {version.name}", f"        adapterkit compare base {version.name}"]
    click.echo("\n".join(lines))


def _scores(version: Version) -> str:
    m = version.metrics
    rows = [["", version.base, version.ref, ""]]
    if m.perplexity is not None and m.base_perplexity is not None and m.gain is not None:
        after = f"{m.perplexity:.1f}   {signed(m.gain)}"
        rows.append(
            ["perplexity on your unseen text", f"{m.base_perplexity:.1f}  →", after, "lower is better"]
        )
    if m.copied_words is not None:
        over = "over 30 would be copying" if m.copied_words < 30 else "over 30 is copying"
        rows.append(["longest run copied from you", "", f"{m.copied_words} words", over])
    ends = f"{m.stops:.0%} of samples" if m.stops is not None else "not expected"
    rows.append(["ends by itself", "", ends, "" if m.stops is not None else "your documents are long"])
    return table(rows, indent="  ")


def not_better(version: Version, store: Registry) -> str:
    """What a name means now that another version is better; empty when this one is the best."""
    best, by = store.best(version.name), evaluations.yardstick(version)
    latest = store.latest(version.name)
    if by is None or best == version or latest != version or version.metrics.loss is None:
        return ""
    loss = evaluations.loss_by(store.path, best, by)
    if loss is None or loss >= version.metrics.loss:
        return ""
    ours, theirs = math.exp(version.metrics.loss), math.exp(loss)
    return (
        f"{version.ref} is not better: {ours:.1f} against {theirs:.1f} on the same pages. '{version.name}' now "
        f"means @{version.number}; the better one is {version.name}@best (@{best.number})."
    )
