"""Which text is kept out of training to test on.

Held out are the documents (or passages) whose hash of name and position ranks
lowest, until the share of tokens is reached: never empty by luck, the same on
every machine, and stable when documents are added or a typo is mended. Copies
and near-copies always fall on one side. With fewer than twenty documents
passages are held out, cut at paragraph ends and never adjacent, so that one
novel works.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from adapterkit.data import copies
from adapterkit.data.corpus import Corpus
from adapterkit.data.encode import Encoder
from adapterkit.data.pieces import Index, Pieces, Span, shorten

FEW_DOCUMENTS = 20
MOST = 1.5  # times the share asked for; a unit that would exceed it is passed over
SLICES = 6  # of a passage, to look for in drafts
PASSAGE = 750  # tokens, in a text long enough for forty of them; a passage has two to four thirds of it
# Where a passage may end, best first: paragraph, line, sentence, word. The blank before a word is part of its token.
ENDS = tuple(re.compile(p) for p in (r"\n[ \t]*\n(?:\s*\n)?", r"\n", r"(?<=[.!?])(?=\s)", r"(?=\s)"))


@dataclass(frozen=True)
class Split:
    """Pieces to learn from and to test on; ``unit`` says what was held out."""

    train: Pieces
    held_out: Pieces
    unit: str  # documents, passages, or what was named
    units: int  # how many of them are held out
    dropped: int = 0  # tokens of near-copies of held-out passages, which are not trained on


def split(corpus: Corpus, groups: NDArray[np.int32], kept: Index, share: float, encoder: Encoder) -> Split:
    """Hold out about ``share`` of the tokens of the documents ``kept``; 0 holds out nothing.

    Args:
        corpus: all documents.
        groups: (documents,) a label each; equal for copies and near-copies.
        kept: indexes of the documents to use, ascending.
        share: of the tokens.
        encoder: the corpus's own.
    """
    if share <= 0:
        return Split(Pieces.whole(corpus, kept), Pieces.whole(corpus, kept[:0]), "documents", 0)
    if len(kept) >= FEW_DOCUMENTS and (found := _by_document(corpus, groups, kept, share)):
        return found
    return _by_passage(corpus, groups, kept, share, encoder)


def _by_document(corpus: Corpus, groups: NDArray[np.int32], kept: Index, share: float) -> Split | None:
    """None when a few long documents are most of the text, so that none of them fits the share."""
    labels, first, member = np.unique(groups[kept], return_index=True, return_inverse=True)
    targets = Pieces.whole(corpus, kept).targets
    sizes = np.bincount(member, weights=targets, minlength=len(labels)).astype(np.int64)
    keys = _keys(corpus)[kept[first]]
    chosen = np.isin(member, list(_lowest(keys, sizes, share, apart=False)))
    if targets[chosen].sum() < share * targets.sum() / 2:
        return None
    train, held_out = Pieces.whole(corpus, kept[~chosen]), Pieces.whole(corpus, kept[chosen])
    return Split(train, held_out, "documents", int(chosen.sum()))


def _by_passage(
    corpus: Corpus, groups: NDArray[np.int32], kept: Index, share: float, encoder: Encoder
) -> Split:
    size = int(np.clip(int(corpus.lengths[kept].sum()) // 40, 32, PASSAGE))
    passages = Pieces.of(corpus, _passages(corpus, kept, size, encoder))
    keys = np.array([_key(*place, n) for place, n in _numbered(corpus, passages)], dtype=np.uint64)
    labels, first, counts = np.unique(groups[kept], return_index=True, return_counts=True)
    may = np.isin(groups[passages.document], labels[counts == 1])
    chosen = _chosen(keys, passages.targets, share, may)
    near = bool((counts > 1).any() and passages.targets[chosen].sum() < share * passages.targets.sum() / 2)
    if near:
        # nearly every document has a draft: hold out of one each, and drop what is like it in the others
        chosen = _chosen(keys, passages.targets, share, np.isin(passages.document, kept[first]))
    train, held_out = passages.take(~chosen), passages.take(chosen)
    learned = _without_copies(train, held_out, size // SLICES, encoder) if near else train
    lost = int(train.targets.sum() - learned.targets.sum())
    return Split(_joined(learned), held_out, "passages", len(held_out), lost)


def _chosen(
    keys: NDArray[np.uint64], sizes: Index, share: float, may: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    chosen = np.zeros(len(keys), np.bool_)
    chosen[list(_lowest(keys, sizes, share, apart=True, may=may))] = True
    return chosen


def _without_copies(train: Pieces, held_out: Pieces, longest: int, encoder: Encoder) -> Pieces:
    """What is learned, in slices, without those that are for the most part in what is held out.

    Passages of two drafts are not cut at the same places, so slices of them are
    looked for. Something always stays, also of a text that holds itself alone.
    """
    tested = {held_out.tokens(k)[1:].tobytes() for k in range(len(held_out))}
    same = np.array([train.tokens(k)[1:].tobytes() in tested for k in range(len(train))])
    slices = shorten(train.take(~same), longest)
    copied = np.zeros(len(slices), np.bool_)
    copied[[j for _, j, _ in copies.leaks(held_out, slices, encoder)]] = True
    return slices.take(~copied) if not copied.all() else train


def _passages(corpus: Corpus, kept: Index, size: int, encoder: Encoder) -> Iterator[Span]:
    for i in kept.tolist():
        length = int(corpus.lengths[i])
        if corpus.has_context[i]:  # a pair or a chat is kept whole
            yield i, 0, length
            continue
        starts = encoder.starts(corpus.tokens(i)[1:-1])
        for a, b in pairwise(_bounds(corpus[i].text, starts, size)):
            yield i, a - 1, b


def _numbered(corpus: Corpus, passages: Pieces) -> Iterator[tuple[tuple[str, int], int]]:
    """Source and index of each passage's document, and which of its passages it is."""
    n, last = 0, -1
    for i in passages.document.tolist():
        n = n + 1 if i == last else 0
        if i != last:
            document = corpus[i]
        last = i
        yield (document.source, document.index), n


def _joined(pieces: Pieces) -> Pieces:
    """Neighbouring passages as one piece again."""
    spans: list[Span] = []
    for document, begin, end in pieces:
        if spans and spans[-1][0] == document and spans[-1][2] == begin + 1:
            spans[-1] = (document, spans[-1][1], end)
        else:
            spans.append((document, begin, end))
    return Pieces.of(pieces.corpus, spans)


def _bounds(text: str, starts: Index, size: int) -> list[int]:
    """Target positions at which passages of about ``size`` tokens begin, and the end.

    Args:
        text: of a document.
        starts: the character at which each token of the text begins.
    """
    length = len(starts) + 2
    ends = _Ends(text, starts)
    least, most = size * 2 // 3, size * 4 // 3
    bounds = [1]
    while length - bounds[-1] > most:
        here = bounds[-1]
        low, high = here + least, min(here + most, length - least)
        wanted = min(here + size, high)
        ways = (_nearest(ends[k], wanted, low, high) for k in range(len(ENDS)))
        bounds.append(next((cut for cut in ways if cut), wanted))
    return [*bounds, length]


class _Ends(dict[int, Index]):
    """Target positions right after each kind of end, looked for when one is wanted."""

    def __init__(self, text: str, starts: Index) -> None:
        super().__init__()
        self._text, self._starts = text, starts

    def __missing__(self, kind: int) -> Index:
        found = np.array([m.end() for m in ENDS[kind].finditer(self._text)], dtype=np.int64)
        self[kind] = np.unique(np.searchsorted(self._starts, found)) + 1  # + 1: the start token
        return self[kind]


def _nearest(cuts: Index, wanted: int, low: int, high: int) -> int:
    """The cut nearest to ``wanted`` from low to high; 0 when there is none."""
    inside = cuts[np.searchsorted(cuts, low) : np.searchsorted(cuts, high, side="right")]
    return int(inside[np.abs(inside - wanted).argmin()]) if len(inside) else 0


def _lowest(keys: NDArray[np.uint64], sizes: Index, share: float, *, apart: bool,
            may: NDArray[np.bool_] | None = None) -> set[int]:  # fmt: skip
    """Indexes in rank order of their key until the share of the sizes is reached, leaving at least one out."""
    wanted, got, chosen = share * int(sizes.sum()), 0, set[int]()
    for i in np.argsort(keys, kind="stable").tolist():
        if got >= wanted or len(chosen) >= len(keys) - 1:
            break
        if (may is not None and not may[i]) or (apart and (i - 1 in chosen or i + 1 in chosen)):
            continue
        size = int(sizes[i])
        too_much = got + size > MOST * wanted
        if too_much and (chosen or len(keys) >= FEW_DOCUMENTS):
            continue
        chosen.add(i)
        got += size
    allowed = np.arange(len(keys)) if may is None else np.flatnonzero(may)
    if not chosen and len(keys) > 1 and len(allowed):  # every unit is more than was asked for: the smallest
        chosen.add(int(allowed[sizes[allowed].argmin()]))
    return chosen


def _keys(corpus: Corpus) -> NDArray[np.uint64]:
    return np.fromiter((_key(*place) for place in corpus.places()), np.uint64, len(corpus))


def _key(source: str, *position: int) -> int:
    return int.from_bytes(
        hashlib.sha256(repr((source, *position)).encode("utf-8", "surrogateescape")).digest()[:8], "big"
    )
