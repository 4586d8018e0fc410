"""A GPT-2 tokenizer as llama.cpp wants it: tokens by id, their kinds, and the merges in order.

llama.cpp cuts a text by GPT-2's own pattern and then merges bytes. A tokenizer
that normalises, or cuts in another way, would give other ids there, so it is
refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterkit.errors import AdapterKitError, Damaged, Unsupported
from adapterkit.model.tokenizer import END

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.h, enum llama_token_type
# What a byte-level BPE may say beside its tokens and merges: nothing.
PLAIN = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens are in GPT-2's alphabet of bytes; those that were added are plain text."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]  # "left right"
    end: int  # the id that begins and ends a document


def read(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of the tokenizer in a folder; ids up to ``size`` that mean nothing are unused.

    Raises:
        Unsupported: no tokenizer, or not one that llama.cpp cuts texts like.
        Damaged: its files can't be read.
    """
    try:
        told = _files(folder)
        tokens = {int(i): str(token) for token, i in told["model"]["vocab"].items()}
        kinds = dict.fromkeys(tokens, NORMAL)
        for added in told.get("added_tokens") or []:
            tokens[added["id"]] = added["content"]
            kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
        merges = [m if isinstance(m, str) else " ".join(m) for m in told["model"]["merges"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise Damaged(
            f"the tokenizer in {folder} can't be read: {e}.",
            hint="fetch or save the tokenizer again",
            code="tokenizer",
        ) from e
    _check(told, tokens, merges, folder, size)
    end = next(i for i, token in tokens.items() if token == END)
    kinds[end] = CONTROL
    return Vocabulary(
        [tokens.get(i, f"[PAD{i}]") for i in range(size)],
        [kinds.get(i, UNUSED) for i in range(size)],
        merges,
        end,
    )


def _files(folder: Path) -> dict[str, Any]:
    """tokenizer.json, or what it would hold."""
    if (folder / "tokenizer.json").is_file():
        told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return dict(told)
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    return {"model": {"vocab": vocab, "merges": merges}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}  # fmt: skip


def _check(told: dict[str, Any], tokens: dict[int, str], merges: list[str], folder: Path, size: int) -> None:
    model, cut = told["model"], told.get("pre_tokenizer") or {}
    if model.get("type", "BPE") != "BPE" or any(model.get(key) for key in PLAIN):
        raise _other(folder, "it is no plain byte-level BPE")
    if told.get("normalizer"):
        raise _other(folder, "it changes a text before it cuts it")
    if cut.get("type") != "ByteLevel" or not cut.get("use_regex", True) or cut.get("add_prefix_space", True):
        raise _other(folder, "it does not cut words as GPT-2 does")
    if END not in tokens.values():
        raise _other(folder, f"it has no {END}")
    if not merges:
        raise _other(folder, "it merges nothing")
    if max(tokens) >= size:
        raise _other(folder, f"it has the id {max(tokens)}, and the base has {size} words")


def _other(folder: Path, why: str) -> AdapterKitError:
    return Unsupported(
        f"llama.cpp would cut texts in another way than the tokenizer in {folder}: {why}.",
        hint="use the tokenizer of a GPT-2",
        code="tokenizer",
    )
