"""The one adapter that is merged. No tensor library, so that a slip is answered at once."""

from __future__ import annotations

from adapterkit.errors import Unsupported, UsageProblem
from adapterkit.files import shown
from adapterkit.refs import parse_adapter
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version


def one(store: Registry, ref: str | Version) -> Version:
    """The one LoRA version that is merged.

    Raises:
        UsageProblem, Unsupported, NotFound: see ``merge``.
    """
    if isinstance(ref, str):
        ref = store[_single(ref)]
    if ref.kind == "full":
        raise Unsupported(
            f"{ref.ref} is a full fine-tune: there is nothing to merge, its folder is a whole model already.",
            hint=f"cp -r {shown(ref.path)} FOLDER",
            code="merged",
        )
    return ref


def _single(text: str) -> str:
    """The ref, unless it is a mix, a strength or the base."""
    names = [part.partition("=")[0].strip() for part in text.split(",") if part.strip()]
    if len(names) > 1 or "=" in text:
        raise _mix(text, names)
    if not parse_adapter(text):
        raise UsageProblem(
            "'base' is plain GPT-2: there is no adapter to merge.", hint="adapterkit merge REF --to DIR"
        )
    return text


def _mix(text: str, names: list[str]) -> UsageProblem:
    has_weights = all("=" in part for part in text.split(",") if part.strip())
    mix = text if has_weights else ",".join(f"{n}={1 / len(names):.2g}" for n in names)
    return UsageProblem(
        "merge puts one adapter into the base.", hint=f"to mix: adapterkit blend {mix} --name c, then merge c"
    )
