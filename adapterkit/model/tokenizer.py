"""GPT-2's byte-level BPE, through the tokenizers library directly.

``<|endoftext|>`` inside a text is text: it is encoded as its characters, so
that no document can carry an end in its middle. The end token is only ever
added by position.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers

from adapterkit.errors import Unsupported

END = "<|endoftext|>"


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

    def encode(self, text: str) -> list[int]:
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [list(e.ids) for e in self._fast.encode_batch(texts, add_special_tokens=False)]

    def offsets(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and the character at which each of them begins."""
        e = self._fast.encode(text, add_special_tokens=False)
        return list(e.ids), [begin for begin, _ in e.offsets]

    def decode(self, ids: list[int]) -> str:
        """Text of ids; the end token is left out."""
        return str(self._fast.decode(ids, skip_special_tokens=True))


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
