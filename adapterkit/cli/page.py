"""What ``show`` prints of one version; what nobody knows of an import is said to be unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from adapterkit.cli.output import age, gain
from adapterkit.cli.record import Marks, record
from adapterkit.errors import AdapterKitError, NotFound
from adapterkit.files import human_size, shown
from adapterkit.registry import curve
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version

UNKNOWN = "unknown"
GENERATIONS = 50  # of a lineage that are followed at once; show of the last one goes on
MADE = {
    "train": "trained",
    "import": "imported",
    "half": "halved",
    "blend": "blended",
    "extract": "extracted",
    "merge": "merged",
}


class Lineages:
    """Parents by digest, and theirs; the registry is read once, and only if somebody has parents."""

    def __init__(self, store: Registry) -> None:
        self._store = store

    def of(self, v: Version) -> list[dict[str, Any]]:
        """Each parent: ``digest ref state parents``, where state is here, deleted, collected, damaged or missing."""
        return self._parents(v, {v.digest})

    def _parents(self, v: Version, seen: set[str], depth: int = 1) -> list[dict[str, Any]]:
        return [self._told(digest, seen, depth) for digest in v.lineage.parents]

    def _told(self, digest: str, seen: set[str], depth: int) -> dict[str, Any]:
        found = self._by_digest.get(digest)
        if found is None:
            return {"digest": digest, "ref": None, "how": None, "state": "missing", "parents": []}
        state = "collected" if found.is_collected else "deleted" if found.deleted else "here"
        is_new = digest not in seen and depth < GENERATIONS  # one that is told above is not told again
        seen.add(digest)
        try:
            how, parents = found.lineage.how, self._parents(found, seen, depth + 1) if is_new else []
        except AdapterKitError:
            how, parents, state = None, [], "damaged"
        return {"digest": digest, "ref": found.ref, "how": how, "state": state, "parents": parents}

    @cached_property
    def _by_digest(self) -> dict[str, Version]:
        every = sorted(self._store.versions(deleted=True), key=lambda v: -(v.deleted + v.is_collected))
        return {v.digest: v for v in every}  # a living one is the last that is put there


def as_dict(v: Version, marks: Marks, lineages: Lineages) -> dict[str, Any]:
    """``show --json``: the record, the whole manifest, where its values came from, and its parents."""
    return record(v, marks) | {
        "manifest": v.manifest,
        "origins": _origins(v) or {},
        "parents": lineages.of(v),
    }


def recipe_file(v: Version) -> str:
    """The recipe as YAML 1.2.

    Raises:
        NotFound: nothing of it is known.
    """
    from adapterkit.recipe import yaml12

    told = v.manifest.get("recipe")
    if not told:
        raise NotFound(
            f"{v.ref} has no recipe: it was made elsewhere and came without.", hint=f"adapterkit show {v.ref}"
        )
    if "train" not in told:
        return f"# {v.ref} {v.digest[:8]}, as far as it is known\n{yaml12.dump(told)}"
    return f"# {v.ref} {v.digest[:8]}, every value resolved\n{yaml12.dump(v.recipe.model_dump(mode='json'))}"


def page(v: Version, marks: Marks, lineages: Lineages) -> str:
    lines = [f"{v.ref}  {v.digest}  {marks.words(v)}".rstrip()]
    lines += [f"  {name:<15} {value}" for name, value in _facts(v, lineages) if value]
    lines += _recipe(v)
    for s in v.samples()[:2]:
        lines += ["", f"  {s.prompt}{s.text}".replace("\n", "\n  ")]
    return "\n".join(lines)


def _facts(v: Version, lineages: Lineages) -> list[tuple[str, str]]:
    m = v.metrics
    since = age(v.created)
    is_import = v.manifest.get("data") is None
    ends = UNKNOWN if is_import else "not expected: long documents"
    return [
        ("note", v.note),
        ("kind", "LoRA adapter" if v.kind == "lora" else "full fine-tune"),
        ("made", "just now" if since == "now" else f"{v.created:%Y-%m-%d %H:%M} UTC, {since} ago"),
        *(("made from" if i == 0 else "", line) for i, line in enumerate(_tree(lineages.of(v)))),
        ("", "which was made on another base (--force-base)" if _is_forced(v) else ""),
        ("came from", _imported(v)),
        ("half of", _half(v)),
        ("blended", _blend(v)),
        ("base", _base(v)),
        ("text", _text(v)),
        ("", _of_text(v)),
        ("unseen text", _unseen(v)),
        ("while learning", _curve(v)),
        ("ends by itself", f"{m.stops:.0%} of samples" if m.stops is not None else ends),
        ("copied at most", f"{m.copied_words} words" if m.copied_words is not None else UNKNOWN),
        ("files", f"{human_size(v.size)} in {shown(v.path)}"),
    ]


def _tree(parents: list[dict[str, Any]], indent: str = "") -> Iterator[str]:
    """A line for each parent, its own parents below it."""
    for parent in parents:
        digest = parent["digest"][:8]
        if parent["ref"] is None:
            yield f"{indent}{digest}, not here"
            continue
        state = "" if parent["state"] == "here" else f", {parent['state']}"
        yield f"{indent}{parent['ref']} {digest}, {MADE.get(parent['how'], parent['how'] or UNKNOWN)}{state}"
        yield from _tree(parent["parents"], indent + "  ")


def _is_forced(v: Version) -> bool:
    """Whether training began with weights of another base."""
    return bool(v.manifest["lineage"].get("forced_base"))


def _imported(v: Version) -> str:
    told = v.manifest.get("imported") or {}
    source = told.get("ref") or told.get("from")
    if not source or told.get("digest") in v.lineage.parents:  # which is told beside
        return ""
    changes = [f"{told[k]} modules {k}" for k in ("filled", "padded", "folded") if told.get(k)]
    revision = f"revision {str(told['revision'])[:8]}" if told.get("revision") else ""
    digest = str(told.get("digest") or "")[:8]
    return ", ".join(p for p in (f"{source} {digest}".strip(), revision, *changes) if p)


def _half(v: Version) -> str:
    told = v.manifest.get("half") or {}
    if not told:
        return ""
    change = told.get("difference")
    parents = v.lineage.parents
    return (
        f"{told.get('of', UNKNOWN)} {parents[0][:8] if parents else ''}".rstrip()
        + ", in fp16"
        + (f", which changed it by {100 * change:.2g} %" if change is not None else "")
    )


def _blend(v: Version) -> str:
    """``0.7 + 0.3 of them by ties, density 0.5; lost 12 %``, in the order of the lines above."""
    told = v.manifest["lineage"]
    if not told.get("weights"):
        return ""
    sizes = " + ".join(f"{w:g}" for w in told["weights"]).replace("+ -", "− ")
    more = "".join(f", {key} {told[key]:g}" for key in ("density", "seed") if key in told)
    return (
        f"{sizes} of them by {told.get('method', UNKNOWN)}{more}; lost {100 * told.get('residual', 0):.2g} %"
    )


def _base(v: Version) -> str:
    base = v.manifest["base"]
    told = f"{base['id']}  weights {base['weights'][:8]}"
    told += f"  revision {base['revision'][:8]}" if base.get("revision") else ""
    return told + (
        f"  forced: it was made for {base.get('named') or 'another'}" if base.get("forced") else ""
    )


def _text(v: Version) -> str:
    data = v.manifest.get("data")
    if not data:
        return UNKNOWN
    return (
        f"{_source(data.get('source', UNKNOWN))}: {_count(data, 'documents')} documents, "
        f"{_count(data, 'words')} words, {_count(data, 'train_tokens')} tokens learned from"
    )


def _count(data: dict[str, Any], key: str) -> str:
    return f"{data[key]:,}" if isinstance(data.get(key), int) else UNKNOWN


def _source(source: Any) -> str:
    return str(source) if not isinstance(source, list) else f"{source[0]} and {len(source) - 1} more"


def _of_text(v: Version) -> str:
    """What the report on the text has beyond the manifest; only the rows when the version came without it."""
    data = v.manifest.get("data") or {}
    rows = f"{data['rows']:,} rows, {100 * data['fill']:.1f} % full" if data.get("fill") else ""
    try:
        told = json.loads((v.path / "private" / "data.json").read_text(encoding="utf-8"))
        dropped = sum(told["tokens"]["dropped"].values())
        more = [
            f"{told['tokens']['context']:,} tokens only read" if told["tokens"]["context"] else "",
            f"{dropped:,} dropped" if dropped else "nothing dropped",
            f"a document has {told['lengths']['median']:,} tokens in the middle, {told['lengths']['longest']:,} at most",
        ]
    except (OSError, ValueError, KeyError):
        return rows
    return ", ".join(p for p in (rows, *more) if p)


def _unseen(v: Version) -> str:
    m, held_out = v.metrics, (v.manifest.get("data") or {}).get("held_out")
    if not m.tokens:
        return UNKNOWN if v.manifest.get("data") is None else "not tested"
    units = f" ({held_out['count']} {held_out['unit']})" if held_out else ""
    return f"{gain(m)}  on {m.tokens:,} tokens{units}"


def _curve(v: Version) -> str:
    """The tests of the run as a line of bars; nothing when there were too few to see a shape."""
    told = curve.lines(v.history())
    if len(told.held_out) < 3 or told.best is None:
        return ""
    losses = [loss for _, loss in told.held_out]
    return (
        f"test loss {losses[0]:.2f} {curve.sparkline(losses)} {losses[-1]:.2f}, "
        f"best {told.best[1]:.2f} at step {told.best[0]:,} of {told.last_step:,}"
    )


# --- the recipe ---------------------------------------------------------------


def _recipe(v: Version) -> list[str]:
    recipe, origins = v.manifest.get("recipe"), _origins(v)
    if not recipe:
        return [f"  recipe          {UNKNOWN}"]
    if "train" not in recipe:
        known = sorted((k, value) for k, value in flat(recipe).items())
        return ["  recipe          (what is known of it)", *(f"    {k:<22} {_shown(x)}" for k, x in known)]
    if origins is None:
        return [
            f"  recipe          adapterkit show {v.ref} --recipe     (where its values came from: {UNKNOWN})"
        ]
    lines = ["  recipe          (origin of each value that is not a default or resolved from auto)"]
    values = flat(recipe)
    told = sorted((k, o) for k, o in origins.items() if k != "data.source")
    return lines + [f"    {k:<22} {_shown(values.get(k, UNKNOWN)):<16} {origin}" for k, origin in told]


def _origins(v: Version) -> dict[str, str] | None:
    """By key where its value came from; None when that never came along."""
    try:
        told: dict[str, str] = json.loads((v.path / "recipe.json").read_text(encoding="utf-8"))["origins"]
        return dict(told)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def flat(recipe: dict[str, Any], head: str = "") -> dict[str, Any]:
    """Values by key: ``{"lora": {"r": 8}}`` becomes ``{"lora.r": 8}``."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        found |= flat(value, f"{head}{key}.") if isinstance(value, dict) else {head + key: value}
    return found


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
