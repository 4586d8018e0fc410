"""The text that is scored: a version's own held-out part, found again, or any other as a whole.

The own text is read and split as training did, and must have the fingerprint
that the manifest tells: a score on other text would look like one on this.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adapterkit.cache import text_folder
from adapterkit.data.gather import fingerprint
from adapterkit.data.pack import Rows
from adapterkit.data.pieces import Pieces
from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.sources import Documents
from adapterkit.data.split import Split
from adapterkit.data.words import count_words
from adapterkit.errors import DataError
from adapterkit.evaluation import places
from adapterkit.evaluation.events import Listener, Read, Said
from adapterkit.model.base import Base
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.load import Loaded
from adapterkit.recipe.schema import DataSpec
from adapterkit.recipe.source import STDIN
from adapterkit.registry.version import Version

LEAST_WORDS = (
    50  # with fewer, perplexity is a third off by chance: losses of single tokens scatter by about 3 nats
)


@dataclass(frozen=True)
class Passage:
    """Rows to score, and what they are."""

    name: str
    rows: Rows
    fingerprint: str  # of the targets, as a manifest's metrics.held_out
    tokens: int
    words: int
    bytes: int  # of UTF-8
    length: int  # of the base's view, at which long documents are cut
    marks: frozenset[str] = frozenset()  # of the documents, as a version keeps them; empty for its own text


def own(version: Version, base: Base, tokenizer: Tokenizer, tell: Listener) -> Passage:
    """A version's held-out text, found again from its recipe.

    Raises:
        DataError: nothing was held out, or the text is gone or has changed.
    """
    wanted = version.metrics.held_out
    if wanted is None:
        raise DataError(
            f"{version.ref} kept no text out of training to test on.",
            hint=_remedy(version),
            code="no-held-out",
        )
    recipe, spec = version.recipe, _pinned(version)
    length = min(base.context, 1024) if recipe.train.max_length == "auto" else recipe.train.max_length
    reasons: list[str] = []
    for candidate, folder in places.candidates(wanted, spec):
        found = _read(candidate, folder, tokenizer, length, tell, reasons)
        if found is None:
            continue
        if found.held_out_fingerprint == wanted:
            return _passage(_named(found.split), found.split.held_out, found.held_out, tokenizer, length)
        reasons.append(f"{found.facts.name} has changed since {version.ref} was trained")
    raise DataError(
        f"the text that {version.ref} was tested on can't be found again: {_why(version, reasons)}.",
        hint=_remedy(version),
        code="no-held-out",
        details={
            "ref": version.ref,
            "source": version.manifest["recipe"]["data"]["source"],
            "held_out": wanted,
        },
    )


def given(
    loaded: Loaded, memory: Documents | None, base: Base, tokenizer: Tokenizer, tell: Listener
) -> Passage:
    """All of a text, in rows as long as the base can see.

    Raises:
        DataError: it can't be read, or has next to no words.
    """
    spec = loaded.recipe.data.model_copy(
        update={"validation": "none", "packing": "isolated", "pad_to": None, "truncate": False}
    )
    length = min(base.context, 1024)
    found = prepare(
        spec, tokenizer, length, loaded.folder, memory, cache=text_folder(), progress=_counter(tell)
    )
    for line in found.facts.said:
        tell(Said(line))
    passage = _passage(found.facts.name, found.split.train, found.train, tokenizer, length)
    passage = replace(passage, marks=frozenset(f"{m:016x}" for m in found.documents.marks))
    if passage.words < LEAST_WORDS:
        raise DataError(
            f"{found.facts.name} has {passage.words:,} word{'s' * (passage.words != 1)}; "
            f"a score needs at least {LEAST_WORDS} to mean anything.",
            hint="--data with a longer text",
            code="too-little-text",
            details={"words": passage.words, "needed": LEAST_WORDS},
        )
    return passage


def known(passage: Passage, version: Version) -> int:
    """How many documents of a text a version has in common with what it was trained and tested on.

    Of a large training text only a part is remembered, and of an imported version nothing.
    """
    path = version.path / "private" / "marks.json"
    return len(passage.marks.intersection(json.loads(path.read_text()))) if path.exists() else 0


def fingerprint_of(pieces: Pieces) -> str:
    """Of what is scored, as ``prepare`` takes it of the held-out part."""
    return fingerprint(pieces.tokens(k).tobytes() + pieces.learned(k).tobytes() for k in range(len(pieces)))


# --- reading ------------------------------------------------------------------


def _pinned(version: Version) -> DataSpec:
    """The recipe's data; a dataset of the Hub at the commit that was read."""
    spec, revision = version.recipe.data, version.manifest["data"].get("revision")
    return spec.model_copy(update={"revision": revision}) if revision else spec


def _read(
    spec: DataSpec,
    folder: Path | None,
    tokenizer: Tokenizer,
    length: int,
    tell: Listener,
    reasons: list[str],
) -> Prepared | None:
    """The text as this candidate finds it; what stands in the way is added to the reasons."""
    if spec.source in ("", STDIN, [STDIN]):
        reasons.append("it came from a program or a pipe, and is not kept")
        return None
    if folder is not None and not _is_there(spec, folder):
        return None
    try:
        return prepare(
            spec, tokenizer, length, folder, cache=text_folder(), progress=_counter(tell), strict=False
        )
    except DataError as e:
        reasons.append(e.message.rstrip("."))
        return None


def _is_there(spec: DataSpec, folder: Path) -> bool:
    many = [spec.source] if isinstance(spec.source, str) else spec.source
    return all((folder / s).exists() or any(folder.glob(s)) for s in many if not os.path.isabs(s))


def _named(split: Split) -> str:
    if split.unit not in ("documents", "passages"):  # a file or a split that was named
        return split.unit
    return f"{split.units} unseen {split.unit if split.units != 1 else split.unit[:-1]}"


def _counter(tell: Listener) -> Any:
    return lambda documents, characters: tell(Read(documents, characters))


def _why(version: Version, reasons: list[str]) -> str:
    """The reason that says most: a text that was found but has changed, else what was missing."""
    changed = [r for r in reasons if "has changed" in r]
    return (changed or reasons or [f"{version.ref} names no text"])[0]


def _remedy(version: Version) -> str:
    return (
        f"adapterkit evaluate {version.ref} --data SOURCE     "
        "(any text it was not trained on; or run it in the folder where the text lies)"
    )


# --- measuring ----------------------------------------------------------------


def _passage(name: str, pieces: Pieces, rows: Rows, tokenizer: Tokenizer, length: int) -> Passage:
    # truncated rows hold less than the pieces; else a piece cut in two would count a word twice
    counted = rows.pieces if rows.cut else pieces
    words, size = 0, 0
    for text in _learned_texts(counted, tokenizer):
        words += count_words(text)
        size += len(text.encode("utf-8", "surrogatepass"))
    return Passage(name, rows, fingerprint_of(pieces), rows.targets, words, size, length)


def _learned_texts(pieces: Pieces, tokenizer: Tokenizer) -> Iterator[str]:
    """Text of every stretch of targets."""
    for k in range(len(pieces)):
        tokens, learned = pieces.tokens(k), pieces.learned(k)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], learned.astype(np.int8), [0]])))
        for a, b in edges.reshape(-1, 2).tolist():
            yield tokenizer.decode(tokens[a:b].tolist())
