"""``demo``: three adapters on the toy base, then one prompt by five writers. No network."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from adapterkit.cli.output import common, emit, gain, signed, table
from adapterkit.files import human_size

if TYPE_CHECKING:
    from adapterkit.registry.version import Version

STYLES = (("shanty", "songs"), ("noir", "scenes"), ("ledger", "entries"))
PROMPT, SEED, TOKENS = "The sea was", 7, 32
BLEND = "shanty=0.5,noir=0.5"


@click.command("demo")
@common
def demo_verb(registry: str | None, as_json: bool, quiet: bool) -> None:
    """A minute, no network: three adapters on the toy base."""
    begun = time.monotonic()
    say = (lambda text="": None) if as_json or quiet else click.echo
    say(
        "A toy GPT-2 of 5 million parameters comes with the package. It learns three styles now, then writes in each.\n"
    )
    from adapterkit.generation.generator import Generator  # torch loads here
    from adapterkit.registry.store import Registry

    store = Registry(registry)
    with Generator("embedded", registry=store, device="cpu") as generator:
        before = generator(PROMPT, seed=SEED, max_new_tokens=TOKENS)
        say(f"  before    {PROMPT} {click.style(_flat(before.text), bold=True)} ...\n")
        versions = [
            _learn(store, name, unit, f"{i}/{len(STYLES)}", say) for i, (name, unit) in enumerate(STYLES, 1)
        ]
        writers = ["base", *(v.ref for v in versions), BLEND]
        made = generator.compare(PROMPT, writers, seed=SEED, max_new_tokens=TOKENS)
    if as_json:
        emit({"versions": [{"ref": v.ref, "size": v.size, "metrics": asdict(v.metrics)} for v in versions],
              "completions": [{"adapter": c.adapter, "text": c.full_text} for c in made],
              "seconds": time.monotonic() - begun})  # fmt: skip
        return
    click.echo("\nOne prompt, five writers (same seed, same settings)")
    for name, completion in zip(
        ["base", *(s for s, _ in STYLES), "0.5 shanty + 0.5 noir"], made, strict=True
    ):
        gap = "\n           " if len(name) > 8 else " "
        click.echo(f"  {name:<8}{gap}{PROMPT} {click.style(_flat(completion.text), bold=True)} ...")
    click.echo("\n" + _table(versions))
    click.echo(
        f"\nThat was a toy, in {time.monotonic() - begun:.0f} s. The same with your text and real GPT-2 (548 MB, once):"
    )
    click.echo("  adapterkit train stories/")
    click.echo('Or play:  adapterkit chat shanty     adapterkit generate noir=0.6 "Rain"     adapterkit list')


def _learn(store: Any, name: str, unit: str, count: str, say: Any) -> Version:
    """Train one style with a bar, or take the version that is there."""
    from adapterkit.recipe import load as recipes
    from adapterkit.training import run as training

    bar = _Bar(f"{count} {name:<7}", say)
    path = recipes.packaged(name)
    assert path is not None, name
    loaded = recipes.from_file(path, {"train.device": "cpu"})
    version = training.run(loaded, registry=store, on_event=bar.tell)
    data, change = version.manifest["data"], version.metrics.gain or 0.0
    how = f"{bar.seconds:.0f} s" if not bar.existed else "there already"
    better = f"unseen lines get {signed(change).lstrip('−')} easier" if change < 0 else "no better"
    bar.close(
        f"{count} {name:<7} {data['documents']:>4} {unit:<8} {data['words']:>6,} words   {how:<14} {better}"
    )
    return version


class _Bar:
    """One line a style, with a bar while it learns on a terminal."""

    def __init__(self, label: str, say: Any) -> None:
        self.existed, self.seconds, self._label, self._say = False, 0.0, label, say
        self._bar: Any = None

    def tell(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "Begun" and sys.stderr.isatty() and self._say is click.echo:
            from tqdm import tqdm

            shape = "{desc} {bar:20} {elapsed}<{remaining}"
            self._bar = tqdm(total=event.steps, desc=self._label, bar_format=shape, ascii=" ━", leave=False)
        elif kind == "Stepped" and self._bar is not None:
            self._bar.update(event.step - self._bar.n)
        elif kind == "Finished":
            self.existed, self.seconds = event.existed, event.seconds

    def close(self, line: str) -> None:
        if self._bar is not None:
            self._bar.close()
        self._say(line)


def _flat(text: str) -> str:
    return " / ".join(line.strip() for line in text.strip().split("\n") if line.strip())


def _table(versions: list[Version]) -> str:
    rows = [["adapter", "size", "perplexity on unseen text", "ends by itself", "copied at most"]]
    for v in versions:
        m = v.metrics
        ends = f"{m.stops:.0%}" if m.stops is not None else "not expected"
        rows.append([v.ref, human_size(v.size), gain(m), ends, f"{m.copied_words} words"])
    return table(rows, indent="  ")
