"""Which text is kept out of training to test on.

Held out are the documents (or passages) whose hash of text position ranks
lowest, until the share of tokens is reached: never empty by luck, the same on
every machine, and stable when documents are added or a typo is mended. With
fewer than twenty documents passages are held out, cut at paragraph ends and
never adjacent, so that one novel works.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from adapterkit.data.documents import Document
from adapterkit.data.encode import Encoder, Piece, Tokens, slices

FEW_DOCUMENTS = 20
MOST = 1.5  # times the share asked for; a unit that would exceed it is passed over
PASSAGE = 750  # tokens, in a text long enough for forty of them


@dataclass(frozen=True)
class Split:
    """Pieces to learn from and to test on; ``unit`` says what was held out."""

    train: list[Piece]
    held_out: list[Piece]
    unit: str  # documents or passages
    units: int  # how many of them are held out


def split(documents: list[Document], tokens: list[Tokens], share: float, encoder: Encoder) -> Split:
    """Hold out about ``share`` of the tokens; 0 holds out nothing."""
    whole = [Piece(t, i) for i, t in enumerate(tokens)]
    if share <= 0:
        return Split(whole, [], "documents", 0)
    if len(documents) >= FEW_DOCUMENTS:
        groups = _copies(documents)
        keys = [_key(documents[g[0]].source, documents[g[0]].index) for g in groups]
        sizes = [sum(whole[i].targets for i in g) for g in groups]
        chosen = {i for n in _lowest(keys, sizes, share, apart=False) for i in groups[n]}
        if sum(whole[i].targets for i in chosen) < share * sum(sizes) / 2:
            return _by_passage(documents, tokens, share, encoder)  # a few long documents are most of the text
        train = [p for i, p in enumerate(whole) if i not in chosen]
        return Split(train, [p for i, p in enumerate(whole) if i in chosen], "documents", len(chosen))
    return _by_passage(documents, tokens, share, encoder)


def _copies(documents: list[Document]) -> list[list[int]]:
    """Indexes of documents with the same words: copies must fall on one side of the split."""
    groups: dict[str, list[int]] = {}
    for i, document in enumerate(documents):
        groups.setdefault(" ".join(document.text.split()), []).append(i)
    return list(groups.values())


def _by_passage(documents: list[Document], tokens: list[Tokens], share: float, encoder: Encoder) -> Split:
    size = int(np.clip(sum(map(len, tokens)) // 40, 32, PASSAGE))
    passages: list[Piece] = []
    keys: list[bytes] = []
    for i, (doc, ids) in enumerate(zip(documents, tokens, strict=True)):
        cut = slices(ids, i, _bounds(doc.text, len(ids), size, encoder))
        keys += [_key(doc.source, doc.index, n) for n in range(len(cut))]
        passages += cut
    chosen = _lowest(keys, [p.targets for p in passages], share, apart=True)
    train: list[Piece] = []
    for i, passage in enumerate(passages):
        if i in chosen:
            continue
        joins = i and i - 1 not in chosen and train and train[-1].document == passage.document
        if joins:
            train[-1] = Piece(np.concatenate([train[-1].tokens, passage.tokens[1:]]), passage.document)
        else:
            train.append(passage)
    return Split(train, [passages[i] for i in sorted(chosen)], "passages", len(chosen))


def _bounds(text: str, length: int, size: int, encoder: Encoder) -> list[int]:
    """Target positions at which passages of about ``size`` tokens begin: paragraph ends where there are some."""
    _, starts = encoder.offsets(text)  # starts[k]: character where token k of the text begins
    at = np.array(starts)
    for pattern in (r"\n[ \t]*\n\s*", r"\n", r"(?<=[.!?])\s", r"\s"):
        ends = np.array([m.end() for m in re.finditer(pattern, text)])
        if len(ends) * size * 2 > length:  # enough of them that a passage need not grow past twice its size
            break
    else:  # a script without spaces: any token may begin a passage
        ends = at[size::size]
    cuts = np.unique(np.searchsorted(at, ends)) + 1  # + 1: the start token
    bounds = [1]
    for cut in cuts.tolist():
        if cut - bounds[-1] >= size and length - cut >= size // 2:
            bounds.append(cut)
    return [*bounds, length]


def _lowest(keys: list[bytes], sizes: list[int], share: float, *, apart: bool) -> set[int]:
    """Indexes in rank order of their key until the share of the sizes is reached, leaving at least one out."""
    wanted, got, chosen = share * sum(sizes), 0, set[int]()
    for i in sorted(range(len(keys)), key=lambda i: keys[i]):
        if got >= wanted or len(chosen) >= len(keys) - 1:
            break
        if apart and (i - 1 in chosen or i + 1 in chosen):
            continue
        too_much = got + sizes[i] > MOST * wanted
        if too_much and (chosen or len(keys) >= FEW_DOCUMENTS):
            continue
        chosen.add(i)
        got += sizes[i]
    return chosen


def _key(source: str, *position: int) -> bytes:
    return hashlib.sha256(repr((source, *position)).encode()).digest()
