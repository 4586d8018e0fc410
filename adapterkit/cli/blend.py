"""``blend``: several adapters become one. Never imports numpy before it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adapterkit.cli.output import common, emit
from adapterkit.files import human_size, shown
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from adapterkit.merging.blended import Blended


@click.command("blend")
@click.argument("adapter", nargs=-1, required=True, metavar="NAME=WEIGHT,...")
@click.option("--name", required=True, help="Name of the blend; its next version when it is there.")
@click.option("--rank", type=int, help="At most this rank, and say what is lost.  [what the sum needs]")
@click.option(
    "--method", default="exact", metavar="METHOD", help="exact, ties, dare-ties or magnitude.  [exact]"
)
@click.option(
    "--density", type=float, help="Share of numbers that ties, dare-ties and magnitude keep.  [0.5]"
)
@click.option("--seed", type=int, help="Of what dare-ties drops.  [0]")
@click.option("--note", default="", help="A few words kept with the version.")
@common
def blend_verb(
    adapter: tuple[str, ...], name: str, rank: int | None, method: str, density: float | None, seed: int | None,
    note: str, registry: str | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Several adapters of one base as one, such as noir=0.7,shanty=0.3.

    exact is the weighted sum, which others call linear. ties takes the mean of what
    agrees, so its weights are shares; dare-ties and magnitude add up.
    """
    from adapterkit.merging.blend import blend_of
    from adapterkit.merging.blended import Asked

    asked = Asked(name, rank, method, density, seed, note)
    made = blend_of(",".join(adapter), asked, Registry(registry))
    if as_json:
        emit(_told(made))
    else:
        click.echo(made.version.ref if quiet else _screen(made))


def _told(made: Blended) -> dict[str, Any]:
    v = made.version
    parts = [
        {"ref": p.ref, "digest": p.digest, "weight": weight, "rank": r}
        for (p, weight), r in zip(made.parents, made.ranks, strict=True)
    ]
    return {
        "ref": v.ref,
        "digest": v.digest,
        "existed": made.existed,
        "path": str(v.path),
        "size": v.size,
        "parts": parts,
        "rank": made.r,
        "method": made.method,
        "density": made.density,
        "seed": made.seed,
        "residual": made.residual,
        "worst": made.worst,
        "residuals": made.residuals,
    }


def _screen(made: Blended) -> str:
    v, names = made.version, [p.ref for p, _ in made.parents]
    state = "that is" if made.existed else "blended"
    already = " already" if made.existed else ""
    mixed = " + ".join(f"{weight:g} {p.ref}" for p, weight in made.parents).replace("+ -", "− ")
    return "\n".join(
        (
            f"{state} {v.ref} {v.digest[:8]}{already}   {mixed}",
            f"  how     {_how(made)}",
            f"  rank    {made.r}, of {' + '.join(map(str, made.ranks))}",
            f"  lost    {_lost(made)}",
            f"  files   {human_size(v.size)} in {shown(v.path)}",
            f"next    adapterkit chat {v.name}",
            f'        adapterkit compare {" ".join([*names, v.ref])} "..."',
        )
    )


def _how(made: Blended) -> str:
    if made.method == "exact":
        return "the weighted sum" if made.is_sum else "the weighted sum, as near as its rank allows"
    seed = "" if made.seed is None else f", seed {made.seed}"
    return f"{made.method} with density {made.density:g}{seed}, as near as its rank allows"


def _lost(made: Blended) -> str:
    """``12 % of its size, most in h.3.mlp.c_fc (20 %)``."""
    if made.is_sum:
        return f"nothing but rounding ({made.residual:.1g} of its size)"
    return f"{_percent(made.residual)} of its size, most in {made.worst} ({_percent(made.residuals[made.worst])})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
