"""What samples tell: do they end by themselves, and do they copy the training text?"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

SEED = 3  # words; shorter runs are everybody's


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def longest_copied(samples: Iterable[str], training: Iterable[str]) -> int:
    """The longest run of words that a sample has in common with one training document.

    Case and punctuation do not count. 0 when not even three words agree.
    """
    told = [words(s) for s in samples]
    starts: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for i, sample in enumerate(told):
        for j in range(len(sample) - SEED + 1):
            starts[tuple(sample[j : j + SEED])].append((i, j))
    longest = 0
    for document in training:
        text = words(document)
        for k in range(len(text) - SEED + 1):
            for i, j in starts.get(tuple(text[k : k + SEED]), ()):
                longest = max(longest, _run(text, k, told[i], j))
    return longest


def _run(a: list[str], i: int, b: list[str], j: int) -> int:
    n = 0
    while i + n < len(a) and j + n < len(b) and a[i + n] == b[j + n]:
        n += 1
    return n
