"""Words of a command that name versions: all are looked up before anything is changed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from adapterkit.errors import UsageProblem
from adapterkit.refs import Ref, parse_ref
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version


def versions(store: Registry, refs: Sequence[str], verb: str) -> list[Version]:
    """The versions that refs mean, each once, in their order.

    Raises:
        UsageProblem: a mix, or the base.
        NotFound, Damaged: as the registry says.
    """
    for text in refs:
        refuse_mix(text, verb)
    return list({v.ref: v for v in (store[text] for text in refs)}.values())


def version(store: Registry, ref: str, verb: str, rest: str = "") -> Version:
    """The one version of a verb that takes one.

    Args:
        rest: what is typed behind the ref, for the hint.
    """
    refuse_mix(ref, verb, rest)
    return store[ref]


def name(text: str, verb: str, rest: str = "") -> str:
    """A name without a version."""
    refuse_mix(text, verb, rest)
    ref = parse_ref(text)
    if ref.version is not None:
        raise UsageProblem(
            f"{text!r} is one version; {verb} is about an adapter with all of them.",
            hint=" ".join(["adapterkit", verb, ref.name, rest]).strip(),
        )
    return ref.name


def refuse_mix(text: str, verb: str, rest: str = "") -> Ref:
    """The ref, unless it is the base or a mix such as ``noir=0.7,shanty=0.3``."""
    parts = [part.partition("=")[0].strip() for part in text.split(",") if part.strip()]
    if ("," in text or "=" in text) and parts:
        each = [shlex.quote(p) for p in (parts[:1] if rest else parts)]
        raise UsageProblem(
            f"{text!r} is a mix; {verb} takes versions, each by itself.",
            hint=" ".join(["adapterkit", verb, *each, rest]).strip(),
        )
    if text.partition("@")[0].strip() == "base":
        raise UsageProblem(
            "'base' is plain GPT-2: it is no version of this registry.", hint="adapterkit list"
        )
    return parse_ref(text)
