"""GPT-2's byte-level BPE, through the tokenizers library directly.

``<|endoftext|>`` inside a text is text: it is encoded as its characters, so
that no document can carry an end in its middle. The end token is only ever
added by position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers

from adapterkit.errors import Unsupported

END = "<|endoftext|>"
STRETCH = 2000  # characters encoded at a time
WORDS = 1 << 16  # whose tokens are remembered


def _bytes() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are themselves, the others the characters from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


BYTE_OF = _bytes()


class Tokenizer:
    """Text to ids and back; ids are those of the base's vocabulary."""

    def __init__(self, folder: Path) -> None:
        self._fast = _load(folder)
        self._fast.encode_special_tokens = True
        self._fast.no_truncation()
        self._fast.no_padding()
        end = self._fast.token_to_id(END)
        if end is None:
            raise Unsupported(f"the tokenizer in {folder} has no {END}.", hint="use the tokenizer of a GPT-2")
        self.end: int = end
        self.size: int = self._fast.get_vocab_size()
        self._may_cut = _is_gpt2s(self._fast)
        self._fast.model._resize_cache(WORDS)  # the default forgets most of a large text's words

    def encode(self, text: str) -> list[int]:
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text; long texts are cut where GPT-2 cuts them anyway, as short ones go faster."""
        parts = [list(_stretches(t)) if self._may_cut and len(t) > STRETCH else [t] for t in texts]
        flat = [p for cut in parts for p in cut]
        # the fast form keeps no offsets, which nobody asks for here
        ids = iter([e.ids for e in self._fast.encode_batch_fast(flat, add_special_tokens=False)])
        return [next(ids) if len(cut) == 1 else [i for _ in cut for i in next(ids)] for cut in parts]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything that decides how a text is cut."""
        return hashlib.sha256(self._fast.to_str().encode()).hexdigest()

    def starts(self, ids: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """The character at which each token of a text begins; one amid a character counts as its beginning."""
        begun, amid = self._characters
        ids = np.asarray(ids, dtype=np.int64)
        counts = begun[ids]
        found: NDArray[np.int64] = np.cumsum(counts) - counts - amid[ids]
        return found

    def offsets(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and the character at which each of them begins."""
        ids = self.encode_batch([text])[0]
        return ids, self.starts(ids).tolist()

    @cached_property
    def _characters(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each token: how many characters begin in it, and 1 if it begins amid one."""
        begun, amid = np.zeros((2, self.size), np.int64)
        for token, i in self._fast.get_vocab(with_added_tokens=False).items():
            raw = bytes(BYTE_OF.get(c, 0) for c in token)
            begun[i] = sum(b & 0xC0 != 0x80 for b in raw)  # all but continuation bytes of UTF-8
            amid[i] = bool(raw) and raw[0] & 0xC0 == 0x80
        return begun, amid

    def decode(self, ids: list[int]) -> str:
        """Text of ids; the end token is left out."""
        return str(self._fast.decode(ids, skip_special_tokens=True))


def _is_gpt2s(fast: Fast) -> bool:
    """Whether words are found by GPT-2's own pattern, whose words never run on over a space."""
    told = json.loads(fast.pre_tokenizer.__getstate__()) if fast.pre_tokenizer else {}
    plain = (told.get("type"), told.get("use_regex"), told.get("add_prefix_space")) == (
        "ByteLevel",
        True,
        False,
    )
    return plain and fast.normalizer is None


def _stretches(text: str) -> Iterator[str]:
    """A text cut before spaces that follow a letter or digit: there a new word begins in any case."""
    at = 0
    while len(text) - at > STRETCH:
        cut = text.find(" ", at + STRETCH)
        while cut > 0 and not text[cut - 1].isalnum():
            cut = text.find(" ", cut + 1)
        if cut < 0:
            break
        yield text[at:cut]
        at = cut
    yield text[at:]


def _load(folder: Path) -> Fast:
    if (folder / "tokenizer.json").is_file():
        return Fast.from_file(str(folder / "tokenizer.json"))
    if not (folder / "vocab.json").is_file() or not (folder / "merges.txt").is_file():
        raise Unsupported(f"{folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt).")
    fast = Fast(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    if END in json.loads((folder / "vocab.json").read_text(encoding="utf-8")):
        fast.add_special_tokens([END])
    return fast
