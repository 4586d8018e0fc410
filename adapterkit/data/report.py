"""What would be learned from a text, in numbers that add up, and as samples.

Counts come from the arrays of the corpus, so ten million documents take no
longer to report than to sort. Every token of the text is in exactly one of
``tokens.learned``, ``held_out``, ``context`` and ``dropped``.
"""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any

from adapterkit.data import tally
from adapterkit.data.advice import Advice, advise, tokenizer_hint
from adapterkit.data.encode import Encoder
from adapterkit.data.excerpts import Sample, samples
from adapterkit.data.prepare import Prepared
from adapterkit.data.tally import Copies, DocumentCounts, HeldOut, Lengths, Names, RowCounts, TokenCounts


@dataclass(frozen=True)
class DataReport:
    """Everything a person should see before an hour is spent; ``as_dict`` is the same as plain values.

    Attributes:
        source: name of the text.
        files: how many were read.
        document: what one document is, resolved: line, blank-line, file, row, article or a delimiter.
        revision: commit of a dataset on the Hub.
        documents: see ``tally.DocumentCounts``.
        characters_read: of all files or cells, before cutting and cleaning.
        characters: of the documents after cleaning; words and bytes (UTF-8) too.
        tokens: see ``tally.TokenCounts``.
        rows: of training; held_out_rows of the test: see ``tally.RowCounts``.
        held_out: see ``tally.HeldOut``; None when nothing is.
        lengths: see ``tally.Lengths``.
        cleaning: a record a rule that was asked for, see ``clean.Done``.
        copies: see ``tally.Copies``.
        unreadable: files left out; bad_rows: malformed ones; both with the first names.
        reflowed: file -> column at which its lines had been broken.
        unpaired: documents without the separator in a text of pairs.
        split_documents: pairs and chats longer than a row.
        masked: slices left out because nothing in them is learned.
        bytes_per_token: UTF-8 bytes a token; start and end are none.
        tokenizer_hint: a sentence when that is so little that the base hardly knows the language.
        advice: see ``advice.Advice``.
        refused: what training would say instead of starting, else None.
        samples: see ``excerpts.Sample``.
    """

    source: str
    files: int
    document: str
    revision: str | None
    documents: DocumentCounts
    characters_read: int
    characters: int
    words: int
    bytes: int
    tokens: TokenCounts
    rows: RowCounts
    held_out_rows: RowCounts
    held_out: HeldOut | None
    lengths: Lengths
    cleaning: tuple[dict[str, Any], ...]
    copies: Copies
    unreadable: Names
    bad_rows: Names
    reflowed: dict[str, int]
    unpaired: int
    split_documents: int
    masked: int
    bytes_per_token: float
    tokenizer_hint: str
    advice: Advice
    refused: str | None
    samples: tuple[Sample, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the names above."""
        return asdict(self)

    def _repr_html_(self) -> str:
        told = {
            "documents": f"{self.documents.kept:,} of {self.documents.read:,} read",
            "learned": f"{self.tokens.learned:,} tokens in {self.rows.rows:,} rows, {self.rows.fill:.1%} full",
            "held out": f"{self.tokens.held_out:,} tokens",
            "only read": f"{self.tokens.context:,} tokens",
            "dropped": f"{sum(self.tokens.dropped.values()):,} tokens",
            "a document": f"median {self.lengths.median:,}, longest {self.lengths.longest:,} tokens",
            "a token": f"{self.bytes_per_token:.1f} bytes",
            "advice": f"context {self.advice.context}, up to {self.advice.epochs} passes",
        }
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in told.items())
        return f"<table><caption>{html.escape(self.source)}</caption>{rows}</table>"


def report(
    prepared: Prepared, encoder: Encoder, length: int, *, samples: int = 3, context: int | None = None
) -> DataReport:
    """The report on prepared text.

    Args:
        prepared: the text as rows.
        encoder: the tokenizer that it was prepared with.
        length: tokens in a row.
        samples: how many documents to show.
        context: positions of the base, the most that can be advised; the row's length when left out.
    """
    p, facts, corpus = prepared, prepared.facts, prepared.documents
    tokens = tally.tokens(p)
    size = corpus.size
    of_text = int((corpus.lengths - 2).sum())
    per_token = round(size / of_text, 2) if of_text else 0.0
    return DataReport(
        source=tally.pathless(facts.name),
        files=facts.files,
        document=facts.how,
        revision=facts.revision,
        documents=tally.documents(p),
        characters_read=facts.characters_read,
        characters=int(corpus.characters.sum()),
        words=p.words,
        bytes=size,
        tokens=tokens,
        rows=tally.rows(p.train),
        held_out_rows=tally.rows(p.held_out),
        held_out=tally.held_out(p, tokens),
        lengths=tally.lengths(corpus.lengths),
        cleaning=tuple(facts.done),
        copies=tally.copies(p),
        unreadable=tally.names(facts.unreadable),
        bad_rows=tally.names(facts.bad_rows),
        reflowed=facts.reflowed,
        unpaired=facts.unpaired,
        split_documents=p.long,
        masked=p.train.masked + p.held_out.masked,
        bytes_per_token=per_token,
        tokenizer_hint=tokenizer_hint(per_token),
        advice=advise(corpus.lengths, tokens, context or length),
        refused=None,
        samples=_samples(p, encoder, samples),
    )


def _samples(p: Prepared, encoder: Encoder, count: int) -> tuple[Sample, ...]:
    # what truncation cut is not shown as learned; else documents are shown whole, not as slices of rows
    train, held = (
        rows.pieces if rows.cut else pieces
        for rows, pieces in ((p.train, p.split.train), (p.held_out, p.split.held_out))
    )
    return samples(train, held, encoder, count)
