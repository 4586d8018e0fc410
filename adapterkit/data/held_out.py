"""What is tested on: a share of the text, a split of a Hub dataset, a file, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapterkit.data import copies
from adapterkit.data.corpus import Corpus
from adapterkit.data.encode import Encoder
from adapterkit.data.gather import Gathered
from adapterkit.data.pieces import Index, Pieces
from adapterkit.data.split import Split, split
from adapterkit.data.text import Document
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

COLUMNS = ("text", "prompt", "completion")


@dataclass(frozen=True)
class Leaks:
    """Training documents that hold most of a held-out one, and whether they were left out."""

    found: tuple[tuple[str, str, float], ...]  # training document, held-out document, share of it
    removed: bool


def parted(spec: DataSpec, found: Gathered, kept: Index, encoder: Encoder, folder: Path | None,
           read: Callable[..., Gathered]) -> tuple[Split, Leaks]:  # fmt: skip
    if not isinstance(spec.validation, str) or spec.validation == "none":
        share = 0.0 if isinstance(spec.validation, str) else spec.validation
        return split(found.corpus, found.groups, kept, share, encoder), Leaks((), False)
    path = next((p for p in _candidates(spec.validation, folder) if p.exists()), None)
    if path is not None:
        other = _read_alike(spec, found, str(path), read)
        if _holds(spec, folder, path):  # it lies in the folder that is learned from
            kept = kept[~np.isin(found.corpus.marks[kept], other.corpus.marks)]
    elif found.facts.revision:
        other = read(spec.model_copy(update={"split": spec.validation}))
    else:
        raise DataError(
            f"there is no file {spec.validation!r} to test on.",
            hint="--validation FILE, a split of a Hub dataset, a share such as 0.1, or none",
            code="no-such-text",
        )
    refuse_nothing(other)
    kept, leaks = _without_leaks(spec, found, kept, other, encoder)
    if not len(kept):
        raise DataError(
            f"all of {found.facts.name} is in {spec.validation}, so nothing is left to learn from.",
            hint="--validation with another file, or a share such as 0.1",
        )
    train, held_out = Pieces.whole(found.corpus, kept), _whole(other.corpus)
    return Split(train, held_out, f"documents of {Path(spec.validation).name}", len(held_out)), leaks


def _read_alike(spec: DataSpec, found: Gathered, path: str, read: Callable[..., Gathered]) -> Gathered:
    """A file read and cut as what is learned: a few lines alone would be taken for one document."""
    facts = found.facts
    resolved = dict(facts.resolved)
    if "text" in resolved and "prompt" in resolved:  # of tables that differ: each goes by its own columns
        resolved = {k: v for k, v in resolved.items() if k not in COLUMNS}
    if facts.how == "row":
        return read(spec.model_copy(update=resolved), only=path)
    if spec.document == "auto" and facts.how == "file" and facts.files > 1:
        # each of several files decided for itself, and so does this one; but plain lines were no documents
        own = {k: v for k, v in resolved.items() if k != "separator"}
        other = read(spec.model_copy(update=own), only=path)
        if other.facts.how != "line" or (spec.separator == "auto" and "separator" in other.facts.resolved):
            return other
    return read(spec.model_copy(update=resolved | {"document": facts.how}), only=path)


def _without_leaks(spec: DataSpec, found: Gathered, kept: Index, other: Gathered,
                   encoder: Encoder) -> tuple[Index, Leaks]:  # fmt: skip
    """What is learned, and which of it holds most of a document that is tested on."""
    mine, theirs = found.corpus.marks[kept], other.corpus.marks
    first = {int(m): j for j, m in reversed(list(enumerate(theirs.tolist())))}
    copied = np.flatnonzero(np.isin(mine, theirs)).tolist()
    shares = {(i, first[int(mine[i])]): 1.0 for i in copied}
    if found.near and other.near:
        near = copies.leaks(Pieces.whole(found.corpus, kept), _whole(other.corpus), encoder)
        shares = {(i, j): share for i, j, share in near} | shares
    worst = sorted(shares, key=lambda pair: -shares[pair])
    told = tuple(
        (name_of(found.corpus[int(kept[i])]), name_of(other.corpus[j]), shares[i, j]) for i, j in worst
    )
    if removes := "leaks" in spec.clean:
        kept = np.delete(kept, sorted({i for i, _ in shares}))
    return kept, Leaks(told, removes)


def _whole(corpus: Corpus) -> Pieces:
    return Pieces.whole(corpus, np.arange(len(corpus)))


def _candidates(path: str, folder: Path | None) -> list[Path]:
    given = Path(path).expanduser()
    return [folder / path, given] if folder is not None and not given.is_absolute() else [given]


def _holds(spec: DataSpec, folder: Path | None, path: Path) -> bool:
    many = [spec.source] if isinstance(spec.source, str) else spec.source
    places = [p.resolve() for s in many if s for p in _candidates(s, folder) if p.exists()]
    return any(path.resolve().is_relative_to(p) for p in places) or any("*" in s for s in many)


def name_of(document: Document) -> str:
    return document.source if document.index == 0 else f"{document.source} #{document.index + 1}"


def refuse_nothing(found: Gathered) -> None:
    if len(found.corpus):
        return
    rule = max(found.facts.done, key=lambda d: int(d["dropped"]), default=None)
    why = f": the rule {rule['rule']} left out {rule['dropped']:,}" if rule else ""
    raise DataError(
        f"no document of {found.facts.name} is left after cleaning ({found.facts.documents_read:,} were read){why}.",
        hint="change data.clean, and look at what it does: adapterkit data SOURCE",
        code="nothing-left",
    )
