"""The whole way from a source to rows, with what to tell a person about it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapterkit.data import copies
from adapterkit.data.corpus import Corpus
from adapterkit.data.encode import Encoder
from adapterkit.data.gather import Facts, Gathered, Progress, fingerprint, gather
from adapterkit.data.held_out import Leaks, name_of, parted, refuse_nothing
from adapterkit.data.notes import notes
from adapterkit.data.pack import Rows, pack
from adapterkit.data.pieces import Index, Pieces
from adapterkit.data.sources import Documents
from adapterkit.data.split import Split
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

ENOUGH_WORDS = 2_000  # to learn a style and still test it
MOST_MASKED = 0.05  # of the pieces; when more have nothing to learn, the prompt takes all the room
NAMED, LISTED = 1000, 20  # groups of copies that are kept, and members of each


@dataclass(frozen=True)
class Prepared:
    """Rows to learn from and to test on, and the facts about the text."""

    documents: Corpus
    facts: Facts
    split: Split
    train: Rows
    held_out: Rows
    groups: tuple[tuple[str, ...], ...]  # names of documents that are copies or near-copies
    near: bool  # near-copies were looked for
    duplicates: int  # documents left out by the near-duplicates rule
    leaks: Leaks
    long: int  # pairs and chats longer than a row
    refusal: DataError | None  # what training would say instead of starting
    held_out_fingerprint: str | None

    @property
    def how(self) -> str:
        """What one document is, resolved."""
        return self.facts.how

    @property
    def fingerprint(self) -> str:
        """Of what is learned from and tested on."""
        return self.facts.fingerprint

    @property
    def revision(self) -> str | None:
        return self.facts.revision

    @property
    def words(self) -> int:
        return int(self.documents.words.sum())

    @property
    def train_tokens(self) -> int:
        return int(self.split.train.targets.sum())

    @property
    def held_out_tokens(self) -> int:
        return int(self.split.held_out.targets.sum())

    @property
    def said(self) -> tuple[str, ...]:
        return tuple(notes(self))


def prepare(
    spec: DataSpec, encoder: Encoder, length: int, folder: Path | None = None, memory: Documents | None = None, *,
    cache: Path | None = None, progress: Progress | None = None, strict: bool = True,
) -> Prepared:  # fmt: skip
    """Read, cut, clean, split, encode and pack.

    Args:
        spec: the ``data`` part of a recipe.
        encoder: the base's tokenizer.
        length: tokens in a row.
        folder: of the recipe file; relative sources are looked up there.
        memory: texts that take the place of ``data.source``.
        cache: folder for prepared text; None prepares in memory.
        progress: told how many documents and characters were read so far.
        strict: refuse text that is too little to learn from; False for a look at it.

    Raises:
        DataError: nothing to read, no text in it, or too little to test honestly.
    """

    def read(wanted: DataSpec, only: str | None = None) -> Gathered:
        texts = None if only or wanted is not spec else memory
        return gather(wanted, encoder, folder, texts, only=only, cache=cache, progress=progress)

    found = read(spec)
    refuse_nothing(found)
    kept = _kept(spec, found, encoder)
    words = int(found.corpus.words[kept].sum())
    refusal = None
    if isinstance(spec.validation, float) and words < ENOUGH_WORDS:
        refusal = too_little(found.facts.name, words, len(kept))
        if strict:
            raise refusal
    parts, leaks = parted(spec, found, kept, encoder, folder, read)
    train, held_out = (
        pack(p, length, encoder.end, mode=spec.packing, pad_to=spec.pad_to, truncate=spec.truncate)
        for p in (parts.train, parts.held_out)
    )
    refusal = refusal or _too_masked(train, found)
    if len(parts.held_out) and not len(held_out):
        refusal = refusal or _too_masked(held_out, found)
    if strict and refusal:
        raise refusal
    return Prepared(
        documents=found.corpus,
        facts=found.facts,
        split=parts,
        train=train,
        held_out=held_out,
        groups=_groups(found),
        near=found.near,
        duplicates=len(found.corpus) - len(kept),
        leaks=leaks,
        long=int((found.corpus.has_context & (found.corpus.lengths > length)).sum()),
        refusal=refusal,
        held_out_fingerprint=_fingerprint(parts.held_out) if len(parts.held_out) else None,
    )


def _kept(spec: DataSpec, found: Gathered, encoder: Encoder) -> Index:
    everything = np.arange(len(found.corpus))
    if "near-duplicates" not in spec.clean:
        return everything
    return np.unique(copies.alike(found.corpus, encoder)).astype(np.int64)  # the first of each label


# --- refusals -----------------------------------------------------------------


def _too_masked(rows: Rows, found: Gathered) -> DataError | None:
    pieces = len(rows.pieces) + rows.masked
    if len(rows) and rows.masked <= MOST_MASKED * pieces:
        return None
    return DataError(
        f"{rows.masked:,} of {pieces:,} stretches of {found.facts.name} have nothing to learn: "
        f"prompts fill whole rows of {rows.length:,} tokens.",
        hint="a longer row (--max-length), or shorter prompts",
        code="masked",
    )


def too_little(name: str, words: int, count: int) -> DataError:
    pasted = "-" if name == "stdin" else shlex.quote(name) if ", " not in name else "TEXTS"
    return DataError(
        f"{name} has {words:,} words in {count:,} document{'s' * (count != 1)}; "
        f"about {ENOUGH_WORDS:,} are needed to learn a style and still test it honestly.",
        hint=f"add text, or try it untested: adapterkit train {pasted} --validation none     (it may copy you word for word)",
        code="too-little-text",
        details={"words": words, "documents": count, "needed": ENOUGH_WORDS},
    )


def _groups(found: Gathered) -> tuple[tuple[str, ...], ...]:
    order = np.argsort(found.groups, kind="stable")
    _, begins, counts = np.unique(found.groups[order], return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)[:NAMED]
    members = (order[begins[k] : begins[k] + min(counts[k], LISTED)].tolist() for k in several)
    return tuple(tuple(name_of(found.corpus[i]) for i in m) for m in members)


def _fingerprint(pieces: Pieces) -> str:
    return fingerprint(pieces.tokens(k).tobytes() + pieces.learned(k).tobytes() for k in range(len(pieces)))
