"""Which documents are copies or near-copies of each other, such as drafts of one chapter.

Compared are runs of eight tokens, each token without its spaces and capitals, so
line breaks and headings do not matter. Two documents belong together when half
of the shorter one's runs occur in the other, and more of a very short one's,
where a phrase of the genre is much of the text. A run that many documents have
is such a phrase, and counts only where nearly all of both is alike: it tells a
hundred drafts from as many form letters. Up to a million tokens every run is
compared; beyond that a fixed fraction of them, chosen by their hash
(FracMinHash, Irber et al. 2022), so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapterkit.data.corpus import Corpus
from adapterkit.data.encode import Encoder, Tokens
from adapterkit.data.pieces import Pieces

Labels = NDArray[np.int32]
Ints = NDArray[np.int64]

WIDTH = 8  # tokens in a run
SHORT = 32  # tokens; below it a text counts as a copy only when all of it is
MANY = 20  # documents; a run in more of them is a phrase of the genre, or of very many drafts
ALL_UP_TO = 1 << 20  # tokens of which every run is compared
TOGETHER, TOGETHER_SHORT, MORE = (
    0.5,
    0.8,
    10,
)  # of the shorter document's runs, plus ten runs, at most four fifths
FRAMED, FRAMED_FROM = 0.7, 100  # of the runs, phrases of the genre counted, in documents of so many
SAME = 0.8  # of the runs of both: near-duplicates
BLOCK = 1 << 20  # tokens hashed at once
CROSSED = 10_000  # pairs that one run may make of what is learned and what is tested on


def exact(marks: NDArray[np.uint64]) -> Labels:
    """A label a document, the index of the first with the same mark."""
    _, first, member = np.unique(marks, return_index=True, return_inverse=True)
    return first[member].astype(np.int32)


def groups(corpus: Corpus, encoder: Encoder) -> Labels:
    """A label a document, equal for copies and near-copies: the index of the group's first."""
    labels = exact(corpus.marks)
    pairs = _compare(corpus, encoder, labels)
    runs = np.minimum(pairs.of_a, pairs.of_b)
    framed = (pairs.common >= FRAMED * runs) & (runs >= FRAMED_FROM / pairs.one_in)
    return _joined(labels, pairs, (pairs.rare >= _enough(runs, pairs.one_in)) | framed)


def alike(corpus: Corpus, encoder: Encoder) -> Labels:
    """As ``groups``, for documents that are nearly the same as a whole (Jaccard similarity)."""
    labels = exact(corpus.marks)
    pairs = _compare(corpus, encoder, labels)
    return _joined(labels, pairs, pairs.common >= SAME * (pairs.of_a + pairs.of_b - pairs.common))


def leaks(train: Pieces, held_out: Pieces, encoder: Encoder) -> list[tuple[int, int, float]]:
    """Pieces to learn from that hold half of one that is tested on.

    Returns:
        (index in train, index in held_out, share of the held-out piece's runs), worst first.
    """
    first = len(train)
    texts = (
        (k if side is train else first + k, side.tokens(k))
        for side in (train, held_out)
        for k in range(len(side))
    )
    runs = _runs_of(texts, int(train.sizes.sum() + held_out.sizes.sum()), first + len(held_out), encoder)
    keys, common = np.unique(_crossed(runs, first), return_counts=True)
    learned, tested = keys // max(len(held_out), 1), keys % max(len(held_out), 1)
    of = runs.sizes[first:][tested]
    enough = common >= _enough(of, runs.one_in)
    found = zip(
        learned[enough].tolist(), tested[enough].tolist(), (common / of)[enough].tolist(), strict=True
    )
    return sorted(found, key=lambda told: (-told[2], told[0], told[1]))


def _enough(runs: Ints, one_in: int) -> NDArray[np.float64]:
    """Runs in common from which a document of so many is a near-copy."""
    found: NDArray[np.float64] = np.minimum(TOGETHER_SHORT * runs, TOGETHER * runs + MORE / one_in)
    return found


# --- comparing ----------------------------------------------------------------


@dataclass(frozen=True)
class _Runs:
    """Every run of a document once, sorted by run, then document."""

    hashes: NDArray[np.uint64]
    documents: Ints
    sizes: Ints  # runs of each document
    one_in: int  # one run in so many is held

    @property
    def times(self) -> Ints:
        """In how many documents each run is."""
        begins = np.flatnonzero(np.append(True, self.hashes[1:] != self.hashes[:-1])[: len(self.hashes)])
        return np.diff(np.append(begins, len(self.hashes)))


@dataclass(frozen=True)
class _Pairs:
    """Documents a < b with runs in common: how many in all, how many that few others have, how many each has."""

    a: Ints
    b: Ints
    common: Ints
    rare: Ints
    of_a: Ints
    of_b: Ints
    one_in: int


def _compare(corpus: Corpus, encoder: Encoder, labels: Labels) -> _Pairs:
    """Pairs among the first ones of each set of copies."""
    firsts = np.flatnonzero(labels == np.arange(len(labels)))
    long = firsts[corpus.lengths[firsts] >= SHORT]
    texts = ((i, corpus.tokens(i)) for i in long.tolist())
    runs = _runs_of(texts, int(corpus.lengths[long].sum()), len(corpus), encoder)
    times, count = runs.times, len(corpus)
    is_rare = np.repeat(times <= MANY, times)
    h, o = runs.hashes[is_rare], runs.documents[is_rare]
    rare = np.concatenate([_linked(h, o, k, count) for k in range(1, MANY)])
    framed = _linked(runs.hashes[~is_rare], runs.documents[~is_rare], 1, count)
    keys, member = np.unique(np.concatenate([rare, framed]), return_inverse=True)
    a, b = keys // max(count, 1), keys % max(count, 1)
    few = np.bincount(member[: len(rare)], minlength=len(keys))
    common = np.bincount(member, minlength=len(keys))
    return _Pairs(a, b, common, few, runs.sizes[a], runs.sizes[b], runs.one_in)


def _linked(h: NDArray[np.uint64], o: Ints, k: int, count: int) -> Ints:
    """Each document with the k-th next one that has the same run, as one number."""
    same = h[k:] == h[:-k]
    found: Ints = o[:-k][same] * count + o[k:][same]  # owners ascend within a run
    return found


def _crossed(runs: _Runs, first: int) -> Ints:
    """Each piece to learn from with each piece to test on that has the same run, as one number."""
    times = runs.times
    ends = np.cumsum(times)
    is_tested = runs.documents >= first
    tested = np.add.reduceat(is_tested, ends - times).astype(np.int64) if len(times) else times
    learned = times - tested
    wanted = np.repeat(learned * tested <= CROSSED, times) & is_tested
    of_run = np.repeat(np.arange(len(times)), times)[wanted]
    each = learned[of_run]  # owners ascend, so those to learn from come first in a run
    begins = np.repeat((ends - times)[of_run], each)
    nth = np.arange(int(each.sum())) - np.repeat(np.cumsum(each) - each, each)
    width = max(len(runs.sizes) - first, 1)
    found: Ints = runs.documents[begins + nth] * width + np.repeat(runs.documents[wanted] - first, each)
    return found


def _runs_of(texts: Iterable[tuple[int, Tokens]], total: int, count: int, encoder: Encoder) -> _Runs:
    one_in = 1 << max(0, (max(total, 1) - 1).bit_length() - ALL_UP_TO.bit_length() + 1)
    table = _canonical(encoder)
    hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for tokens, owner in _blocks(texts):
        h, o = _runs(table[tokens], owner, one_in)
        hashes.append(h)
        owners.append(o)
    h, o = _distinct(np.concatenate(hashes), np.concatenate(owners))
    return _Runs(h, o, np.bincount(o, minlength=count), one_in)


def _blocks(texts: Iterable[tuple[int, Tokens]]) -> Iterator[tuple[Tokens, NDArray[np.int64]]]:
    """Tokens of many texts end to end, with whose they are."""
    tokens: list[Tokens] = []
    owners: list[int] = []
    size = 0
    for owner, ids in texts:
        tokens.append(ids)
        owners.append(owner)
        size += len(ids)
        if size >= BLOCK:
            yield np.concatenate(tokens), np.repeat(owners, [len(t) for t in tokens])
            tokens, owners, size = [], [], 0
    if tokens:
        yield np.concatenate(tokens), np.repeat(owners, [len(t) for t in tokens])


def _canonical(encoder: Encoder) -> NDArray[np.int64]:
    """Token id to a number that is equal for tokens that differ in spaces and capitals; -1 for those without a word."""
    numbers: dict[str, int] = {}
    table = np.empty(encoder.size, np.int64)
    for i in range(encoder.size):
        word = encoder.decode([i]).strip().casefold()
        if "\ufffd" in word:  # part of a character, which stays itself
            table[i] = i
        else:
            table[i] = numbers.setdefault(word, i) if any(map(str.isalnum, word)) else -1
    return table


def _runs(
    tokens: NDArray[np.int64], owner: NDArray[np.int64], one_in: int
) -> tuple[NDArray[np.uint64], Ints]:
    """Hashes of the runs that lie within one text, one in so many of them."""
    kept = tokens >= 0
    ids, owner = tokens[kept].astype(np.uint64), owner[kept]
    n = max(len(ids) - WIDTH + 1, 0)
    h = np.zeros(n, np.uint64)
    for k in range(WIDTH if n else 0):
        h = h * np.uint64(1_099_511_628_211) + ids[k : n + k] + np.uint64(17)  # FNV's prime
    h ^= h >> np.uint64(31)
    h *= np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, so that low bits depend on all
    h ^= h >> np.uint64(29)
    wanted = (owner[:n] == owner[len(owner) - n :]) & (h % np.uint64(one_in) == 0)
    return h[wanted], owner[:n][wanted]


def _distinct(h: NDArray[np.uint64], o: NDArray[np.int64]) -> tuple[NDArray[np.uint64], Ints]:
    """Each run of a text once, sorted by run, then by text."""
    order = np.argsort(h, kind="stable")  # texts come in ascending order
    h, o = h[order], o[order]
    new = np.ones(len(h), np.bool_)
    new[1:] = (h[1:] != h[:-1]) | (o[1:] != o[:-1])
    return h[new], o[new]


def _joined(labels: Labels, pairs: _Pairs, which: NDArray[np.bool_]) -> Labels:
    """Labels after some pairs were put together, each the lowest index of its group."""
    if not which.any():
        return labels
    parent = labels.tolist()

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in zip(pairs.a[which].tolist(), pairs.b[which].tolist(), strict=True):
        x, y = sorted((root(a), root(b)))
        parent[y] = x
    return np.array([root(i) for i in parent], dtype=np.int32)
