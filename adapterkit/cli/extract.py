"""``extract``: a LoRA from a full fine-tune. Never imports torch before it must."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from adapterkit.cli.output import common, emit, note, table
from adapterkit.files import human_size
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from adapterkit.merging.extracted import Extracted


@click.command("extract")
@click.argument("model", metavar="MODEL")
@click.option("--base", metavar="BASE", help="What it was trained from.  [what the version says]")
@click.option("--name", required=True, help="Name of the new adapter.")
@click.option("--rank", type=int, metavar="R", help="Rank of the adapter.  [16]")
@click.option("--energy", type=float, metavar="X", help="Keep this share of the change, such as 0.99.")
@common
def extract_verb(
    model: str, base: str | None, name: str, rank: int | None, energy: float | None,
    registry: str | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """A LoRA adapter from a full fine-tune.

    MODEL is a version that was trained with --method full, or a transformers
    folder. What the adapter lacks is told, and what no LoRA can hold.
    """
    store = Registry(registry)
    from adapterkit.merging.extract import extract_of
    from adapterkit.merging.extracted import Asked

    made = extract_of(model, Asked(name, rank, energy), base=base, registry=store,
                      say=lambda text: note(text, quiet or as_json))  # fmt: skip
    if as_json:
        emit(_told(made))
    elif quiet:
        click.echo(made.version.ref)
    else:
        _show(made)


def _told(made: Extracted) -> dict[str, object]:
    return {
        "ref": made.version.ref,
        "digest": made.version.digest,
        "path": str(made.version.path),
        "rank": made.r,
        "residual": made.residual,
        "residuals": made.residuals,
        "left": [asdict(x) | {"kind": x.kind} for x in made.left],
        "perplexity": asdict(made.perplexity) | {"kept": made.perplexity.kept} if made.perplexity else None,
    }


def _show(made: Extracted) -> None:
    from adapterkit.merging.extracted import left_by_kind

    worst = max(made.residuals, key=lambda m: made.residuals[m])
    click.echo(f"{made.version.ref}   rank {made.r}   {human_size(made.version.size)}")
    click.echo(
        f"  not kept of the matrices' change: {made.residual:.1%} (most in {worst}: {made.residuals[worst]:.1%})"
    )
    for kind, (change, share) in left_by_kind(made.left).items():
        click.echo(f"  no LoRA can hold: {kind}, changed by {change:.3g} ({share:.1%} of their size)")
    if (p := made.perplexity) is not None:
        kept = f"{p.kept:.0%} of the gain" if p.kept is not None else "no gain to keep"
        rows = [
            ("perplexity", "base", "full", made.version.ref, "kept"),
            (f"{p.tokens:,} tokens", f"{p.base:.2f}", f"{p.full:.2f}", f"{p.extracted:.2f}", kept),
        ]
        click.echo(table(rows, indent="  "))
