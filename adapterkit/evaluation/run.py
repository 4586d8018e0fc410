"""One evaluation: which adapters, on which text, over which base; then the scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from adapterkit.data.gather import LATER
from adapterkit.data.sources import Documents
from adapterkit.errors import UsageProblem, nearest
from adapterkit.evaluation import texts
from adapterkit.evaluation.bench import Bench
from adapterkit.evaluation.chosen import Bases, Chosen, choose
from adapterkit.evaluation.events import Listener, Said, ignore
from adapterkit.evaluation.table import Score, Table
from adapterkit.evaluation.texts import Passage
from adapterkit.generation.fit import check_base
from adapterkit.generation.generator import Adapter
from adapterkit.model.base import Base
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe import load as recipes
from adapterkit.recipe.given import load_sources
from adapterkit.recipe.keys import keys as recipe_keys
from adapterkit.recipe.load import Loaded
from adapterkit.registry import evaluations
from adapterkit.registry.evaluations import Evaluation, Yardstick
from adapterkit.registry.store import Registry

Source = str | Path | Documents | Sequence[str | Path]
DATA_KEYS = tuple(k for k in recipe_keys() if k.startswith("data.") and k.removeprefix("data.") not in LATER)


def evaluate(
    adapters: Sequence[Adapter],
    data: Source | None = None,
    *,
    registry: Registry | Path | str | None = None,
    base: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    force_base: bool = False,
    on_event: Listener | None = None,
    **keys: Any,
) -> Table:
    """Score adapters on unseen text, the base beside each on the same tokens.

    Args:
        adapters: refs, versions, blends, or None for the base.
        data: text to score all of: a file, folder, glob, Hub id, list of files, or
            ``Documents``; None scores each version on its own held-out text.
        registry: a Registry, its folder, or None for the usual search.
        base: where the base is, when it is not where the versions say.
        device: auto, cpu, cuda, cuda:N; the arithmetic is float32 on any.
        batch_size: rows computed at once, which changes no number.
        force_base: score adapters of another base of the same sizes too; each row says so.
        on_event: told what happens, see ``adapterkit.evaluation.events``.
        keys: how ``data`` is read, as flags: ``document="line", data_text="body"``.

    Returns:
        A row an adapter. Scores of versions are kept in the registry, so that
        ``best`` knows them.

    Raises:
        DataError: a version's text is gone or has changed, or ``data`` is too little.
        BaseMismatch, Damaged, NotFound, Unsupported, UsageProblem.
    """
    loaded, memory = _understand(data, keys, on_event or ignore)
    store = registry if isinstance(registry, Registry) else Registry(registry)
    wanted = None if base is None else str(base)
    return run(
        adapters, loaded, memory, registry=store, base=wanted, device=device, batch_size=batch_size, force_base=force_base,
        on_event=on_event,
    )  # fmt: skip


def run(
    adapters: Sequence[Adapter],
    loaded: Loaded | None = None,
    memory: Documents | None = None,
    *,
    registry: Registry,
    base: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    force_base: bool = False,
    on_event: Listener | None = None,
) -> Table:
    """``evaluate`` for text as a loaded recipe; None takes each version's own."""
    tell = on_event or ignore
    chosen = [choose(registry, a) for a in adapters]
    if not chosen:
        raise UsageProblem("no adapter was named.", hint="adapterkit evaluate NAME")
    found = Bases(registry, base, lambda line: tell(Said(line)), force_base=force_base)
    based = [found.of(c, chosen) for c in chosen]
    source = _Texts(loaded, memory, tell)
    tasks = [_Task(c, b, source.of(c, b, chosen)) for c, b in zip(chosen, based, strict=True)]
    for task in tasks:
        _warn(task, tell)
    scores: dict[int, Score] = {}
    for each in {t.base.folder: t.base for t in tasks}.values():
        bench = Bench(each, device, batch_size, tell)
        scores |= {i: _score(t, bench) for i, t in enumerate(tasks) if t.base.folder == each.folder}
    table = Table(tuple(scores[i] for i in range(len(tasks))))
    for task, score in zip(tasks, table, strict=True):
        _record(registry, task, score, tell)
    return table


# --- text ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    chosen: Chosen
    base: Base
    text: Passage


@dataclass
class _Texts:
    """The text for each adapter, each read once for a tokenizer."""

    loaded: Loaded | None
    memory: Documents | None
    tell: Listener
    _found: dict[tuple[str, str], Passage] = field(default_factory=dict)

    def of(self, chosen: Chosen, base: Base, others: Sequence[Chosen]) -> Passage:
        if self.loaded is not None:
            loaded = self.loaded
            return self._once("", base, lambda t: texts.given(loaded, self.memory, base, t, self.tell))
        owner = chosen.version or _shared(chosen, others)
        yard = evaluations.yardstick(owner)
        key = owner.digest if yard is None else f"{yard.held_out} {yard.length} {yard.packing}"
        return self._once(key, base, lambda t: texts.own(owner, base, t, self.tell))

    def _once(self, key: str, base: Base, make: Callable[[Tokenizer], Passage]) -> Passage:
        place = key, str(base.folder)
        if place not in self._found:
            self._found[place] = make(Tokenizer(base.folder))
        return self._found[place]


def _shared(chosen: Chosen, others: Sequence[Chosen]) -> Any:
    """The version whose text a base or blend is scored on: that of its parts or neighbours, if it is one."""
    around = [v for v, _ in chosen.parts] or [v for c in others for v, _ in c.parts]
    if len({evaluations.yardstick(v) for v in around}) == 1:
        return around[0]
    what = (
        "the base has no text of its own"
        if not chosen.parts
        else f"the parts of {chosen.text} have different texts"
    )
    names = " ".join(dict.fromkeys(c.text for c in others))
    raise UsageProblem(f"{what}.", hint=f"adapterkit evaluate {names} --data SOURCE")


def _understand(
    data: Source | None, words: Mapping[str, Any], tell: Listener
) -> tuple[Loaded | None, Documents | None]:
    flags = _flags(words)
    if data is None:
        if words:
            raise UsageProblem(
                f"{next(iter(words))} says how a text is read, but no text was given.",
                hint="evaluate(adapters, data)",
            )
        return None, None
    if isinstance(data, Documents):
        return recipes.from_flags(flags, name=data.name), data
    given = [str(data)] if isinstance(data, str | Path) else [str(s) for s in cast(Sequence[Any], data)]
    return load_sources(given, flags, lambda text: tell(Said(text)))[0], None


def _flags(words: Mapping[str, Any]) -> dict[str, Any]:
    """Python keywords to the recipe keys that decide how a text is read."""
    known = {recipe_keys()[k].flag.removeprefix("--").replace("-", "_"): k for k in DATA_KEYS}
    for word in words:
        if word not in known:
            close = nearest(word, known)
            raise UsageProblem(
                f"evaluate() has no key {word!r}.",
                hint=f"did you mean {close}?" if close else f"there are {', '.join(known)}",
            )
    return {known[word]: value for word, value in words.items()}


def _warn(task: _Task, tell: Listener) -> None:
    """A score on text that was learned from is no test."""
    for version, _ in task.chosen.parts:
        if count := texts.known(task.text, version):
            of = len(task.text.marks)
            tell(
                Said(
                    f"{version.ref} has seen {count:,} of the {of:,} documents of {task.text.name}, "
                    "to learn from or to be tested on: its score there may be no test on unseen text."
                )
            )


# --- scores -------------------------------------------------------------------


def _score(task: _Task, bench: Bench) -> Score:
    chosen, text, version = task.chosen, task.text, task.chosen.version
    alone, of = bench.alone(text.rows), bench.loss(chosen, text.rows)
    return Score(
        adapter=chosen.text,
        digests=tuple(v.digest for v, _ in chosen.parts),
        base=task.base.id,
        text=text.name,
        held_out=text.fingerprint,
        length=text.length,
        tokens=of.n,
        words=text.words,
        bytes=text.bytes,
        loss=of.mean,
        base_loss=alone.mean,
        stops=version.metrics.stops if version else None,
        copied_words=version.metrics.copied_words if version else None,
        forced_base=any(check_base(v, task.base, force=True) for v, _ in chosen.parts),
    )


def _record(registry: Registry, task: _Task, score: Score, tell: Listener) -> None:
    version = task.chosen.version
    if version is None:
        return
    fingerprints = task.base.fingerprints
    by = Yardstick(
        score.held_out, fingerprints.weights, fingerprints.tokenizer, score.length, task.text.rows.mode
    )
    try:
        evaluations.record(
            registry.path, version.name, Evaluation(version.digest, score.loss, score.tokens, "fp32", by)
        )
    except OSError as e:
        tell(Said(f"the score of {version.ref} is not kept in the registry: {e.strerror or e}"))
