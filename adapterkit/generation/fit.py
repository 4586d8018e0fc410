"""Whether a version was made on a base, and whether it may be forced onto it."""

from __future__ import annotations

import shlex

from adapterkit.errors import BaseMismatch
from adapterkit.model.base import Base, recall
from adapterkit.model.hub import ALIASES as SIZES_OF_GPT2
from adapterkit.registry.plainjson import spoken
from adapterkit.registry.strict import fits
from adapterkit.registry.version import Version


def check_base(version: Version, base: Base, *, force: bool = False) -> bool:
    """Refuse an adapter of another base.

    Args:
        force: take it nevertheless where its shapes fit; what it does there is anybody's guess.

    Returns:
        Whether it was forced: the base is another one.

    Raises:
        BaseMismatch: weights, config or tokenizer differ; or the sizes do, which nothing helps.
        Damaged, Unsupported: its files would fit no base.
    """
    told, have = version.manifest["base"], base.fingerprints
    differs = [k for k in ("config", "tokenizer", "weights") if told[k] != getattr(have, k)]
    if not differs:
        return False
    has_room = _has_room(version, base, same_config="config" not in differs)
    if force and has_room:
        return True
    layers = told.get("layers")
    sizes = f", which has {base.dims.layers} layers, not {layers}"
    why = (
        sizes
        if layers and layers != base.dims.layers
        else f", whose {differs[0]} differ{'' if differs[0] == 'weights' else 's'}"
    )
    rest = "(or --force-base: on this base all the same)" if has_room else _NO_FORCE
    raise BaseMismatch(
        f"{version.ref} was trained on {spoken(told['id'])} ({told['weights'][:8]}); this base is {base.id} "
        f"({have.weights[:8]}){why}.",
        hint=f'adapterkit generate {version.ref} "..." --base {_place_of(version)}     {rest}',
        details={"ref": version.ref, "base": told["id"], "differs": differs[0], "can_force": has_room},
    )


_NO_FORCE = "(--force-base can't help: the sizes differ)"


def _has_room(version: Version, base: Base, *, same_config: bool) -> bool:
    """Whether the base has the sizes of a version's own."""
    if same_config or version.is_collected:
        return same_config
    return version.kind == "lora" and fits(version, base.dims)


def _place_of(version: Version) -> str:
    """A version's own base as it can be pasted: where it lies here, or its Hub id; a folder's name alone is no path."""
    told = version.manifest["base"]
    place, name = recall(told["weights"]), spoken(told["id"], 200)
    on_hub = told.get("revision") or "/" in name or name in ("embedded", *SIZES_OF_GPT2)
    return shlex.quote(place or (name if on_hub else f"PATH/TO/{name}"))
