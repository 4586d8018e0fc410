"""``merge``: one adapter put into its base. Never imports torch before it must."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from adapterkit.cli.output import common, emit, force_base_option, note
from adapterkit.files import human_size, shown
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from adapterkit.merging.verify import Differences


@click.command("merge")
@click.argument("refs", nargs=-1, required=True, metavar="REF")
@click.option("--to", required=True, metavar="DIR", help="The new folder; it must not be there, or be empty.")
@click.option("--register", is_flag=True, help="Keep it as a version too, NAME-merged, with its lineage.")
@click.option("--name", help="What that version is called.  [NAME-merged]")
@click.option("--base", metavar="BASE", help="Where the base is.  [what the version says]")
@force_base_option
@common
def merge_verb(
    refs: tuple[str, ...], to: str, register: bool, name: str | None, base: str | None, force_base: bool,
    registry: str | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """One adapter put into its base: a plain transformers folder.

    It appears when it was compared with the live adapter, by transformers in a
    process of its own; below 2e-3 in every logit it is published, else nothing is.
    """
    store = Registry(registry)
    from adapterkit.merging.single import one

    version = one(store, ",".join(refs))
    from adapterkit.merging.merge import merge  # torch loads here, not for a slip

    written = merge(
        version, to=to, register=register, name=name, registry=store, base=base, force_base=force_base,
        say=lambda text: note(text, quiet or as_json),
    )  # fmt: skip
    if as_json:
        emit(
            {
                "ref": version.ref,
                "path": str(written.path),
                "bytes": written.bytes,
                "differences": asdict(written.differences),
                "version": written.version.ref if written.version else None,
            }
        )
        return
    click.echo(str(written.path) if quiet else f"{shown(written.path)}   {human_size(written.bytes)}")
    if quiet:
        return
    note(f"{version.ref} in float32, opened and compared by transformers: {_compared(written.differences)}")
    if written.version:
        note(f"kept as {written.version.ref}")


def _compared(found: Differences) -> str:
    return (
        f"no logit differs by more than {found.logits:.1g} on {found.positions} positions "
        f"(the adapter moves them by up to {found.effect:.2g}), "
        f"{found.agreement:.0%} of the {found.counted} clear choices are the same"
    )
