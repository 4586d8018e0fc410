"""What samples tell: do they end by themselves, and do they copy the training text?"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

SEED = 3  # words; shorter runs are everybody's
AT_ONCE = 1 << 20  # words of training text looked at together
PART = 1 << 22  # characters of a document whose words are found together

Ids = NDArray[np.int64]


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def longest_copied(samples: Iterable[str], training: Iterable[str]) -> int:
    """The longest run of words that a sample has in common with one training document.

    Case and punctuation do not count. 0 when not even three words agree. A
    hundred megabytes of training text take about ten seconds, half of them for
    finding its words.
    """
    told = [words(s) for s in samples]
    number = {word: i for i, word in enumerate(sorted({w for t in told for w in t}), 1)}
    ids = [np.array([number[w] for w in t], np.int64) for t in told]
    search = _Search([i for i in ids if len(i) >= SEED], len(number) + 1)
    for stretch in _stretches(training, number, overlap=max(map(len, ids), default=0)):
        search.look_in(stretch)
    return search.longest


class _Search:
    """Samples by the triples of words that they hold.

    A run of n words is n - 2 triples one after the other, each of which a sample
    holds. Such stretches of triples are found with arrays, and only where one is
    long enough to beat the longest run so far are the words compared one by one.
    """

    def __init__(self, samples: list[Ids], size: int) -> None:
        self.longest = 0
        self._samples, self._size = samples, size
        self._starts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for i, sample in enumerate(samples):
            for j, key in enumerate(self._triples(sample).tolist()):
                self._starts[key].append((i, j))
        self._keys = np.array(sorted(self._starts), np.int64)

    def look_in(self, text: Ids) -> None:
        """Update the longest run by a text; 0 stands for words that no sample has and for ends of documents."""
        if not len(self._keys) or len(text) < SEED:
            return
        keys = self._triples(text)
        known = (text[:-2] > 0) & (text[1:-1] > 0) & (text[2:] > 0)
        held = np.zeros(len(keys), np.int8)
        held[known] = np.isin(keys[known], self._keys)
        edges = np.flatnonzero(np.diff(held, prepend=np.int8(0), append=np.int8(0))).reshape(-1, 2)
        for begin, end in edges.tolist():
            if end - begin + SEED - 1 > self.longest:
                self._compare(text, keys, begin, end)

    def _compare(self, text: Ids, keys: Ids, begin: int, end: int) -> None:
        for k in range(begin, end):
            if end - k + SEED - 1 <= self.longest:
                return  # what is left is too short
            for i, j in self._starts[int(keys[k])]:
                self.longest = max(self.longest, _run(text[k:], self._samples[i][j:]))

    def _triples(self, ids: Ids) -> Ids:
        """One number for each three words in a row; vocabularies of samples are far below 2^21."""
        return (ids[:-2] * self._size + ids[1:-1]) * self._size + ids[2:]


def _stretches(training: Iterable[str], number: dict[str, int], overlap: int) -> Iterator[Ids]:
    """Word numbers of the training text; documents are parted by a 0.

    Each stretch begins with the last ``overlap`` words of the one before, so that no run is cut in two.
    """
    held: list[str] = []
    for document in training:
        for part in _parts(document):
            held += words(part)
            if len(held) >= AT_ONCE + overlap:
                yield _numbers(held, number)
                held = held[-overlap:] if overlap else []
        held.append("")  # no word, so its number is 0
    yield _numbers(held, number)


def _parts(document: str) -> Iterator[str]:
    """A document cut at spaces, which no word holds, so that one of a gigabyte needs no more room than others."""
    at = 0
    while len(document) - at > PART:
        space = re.compile(r"\s").search(document, at + PART)
        if space is None:
            break
        yield document[at : space.start()]
        at = space.start()
    yield document[at:]


def _numbers(held: list[str], number: dict[str, int]) -> Ids:
    return np.fromiter(map(number.get, held, repeat(0)), np.int64, len(held))


def _run(a: Ids, b: Ids) -> int:
    """How many words two texts have in common from their beginnings on."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
