"""The whole way from a source to rows, with what to tell a person about it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adapterkit.data import documents, encode, pack, sources
from adapterkit.data.documents import Document
from adapterkit.data.encode import Encoder
from adapterkit.data.pack import Row
from adapterkit.data.sources import Documents
from adapterkit.data.split import Split, split
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

ENOUGH_WORDS = 2_000  # to learn a style and still test it


@dataclass(frozen=True)
class Prepared:
    """Rows to learn from and to test on, and the facts about the text."""

    documents: list[Document]
    split: Split
    train: list[Row]
    held_out: list[Row]
    how: str  # what one document is, resolved
    said: tuple[str, ...]
    words: int
    fingerprint: str  # of the documents' texts
    held_out_fingerprint: str | None
    revision: str | None  # commit of a Hub dataset

    @property
    def train_tokens(self) -> int:
        return sum(p.targets for p in self.split.train)

    @property
    def held_out_tokens(self) -> int:
        return sum(p.targets for p in self.split.held_out)


def prepare(
    spec: DataSpec, encoder: Encoder, length: int, folder: Path | None = None, memory: Documents | None = None
) -> Prepared:
    """Read, cut, split, encode and pack.

    Raises:
        DataError: nothing to read, no text in it, or too little to test honestly.
    """
    read = sources.read(spec, folder, memory)
    cut = documents.cut(read.texts, spec.document)
    words = sum(len(d.text.split()) for d in cut.documents)
    name = memory.name if memory else str(spec.source if isinstance(spec.source, str) else spec.source[0])
    share = 0.0 if spec.validation == "none" else float(spec.validation)
    if share and words < ENOUGH_WORDS:
        raise too_little(name, words, len(cut.documents))
    tokens = encode.encode(cut.documents, encoder)
    parts = split(cut.documents, tokens, share, encoder)
    files = read.files
    said = (
        f"Reading {name}: {files} file{'s' * (files != 1)}, {len(cut.documents):,} "
        f"document{'s' * (len(cut.documents) != 1)}, {words:,} words. {cut.said}",
        *(f"  {line}" for line in read.said),
    )
    return Prepared(
        documents=cut.documents,
        split=parts,
        train=pack.pack(parts.train, length, spec.packing),
        held_out=pack.pack(parts.held_out, length, spec.packing),
        how=cut.how,
        said=said,
        words=words,
        fingerprint=fingerprint(d.text for d in cut.documents),
        held_out_fingerprint=fingerprint(p.tokens.tobytes().hex() for p in parts.held_out)
        if parts.held_out
        else None,
        revision=read.revision,
    )


def too_little(name: str, words: int, count: int) -> DataError:
    return DataError(
        f"{name} has {words:,} words in {count:,} document{'s' * (count != 1)}; "
        f"about {ENOUGH_WORDS:,} are needed to learn a style and still test it honestly.",
        hint=f"add text, or try it untested: adapterkit train {name} --validation none     (it may copy you word for word)",
        code="too-little-text",
        details={"words": words, "documents": count, "needed": ENOUGH_WORDS},
    )


def fingerprint(texts: Iterable[str]) -> str:
    """sha256 over texts in their order, each with its length, so that no two lists run together."""
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()
