"""What a manifest's parts are: checked once, so that nothing behind it meets a number where a table should be.

A seal says that nobody changed a manifest, not that we wrote it: anyone can seal.
Keys that are not known are passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]


# Controls, line ends and marks that turn the direction of what follows.
UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def line(text: str) -> str:
    """A text as one line that moves no cursor when it is shown."""
    return UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split("\n")))


def _text(value: Any) -> bool:
    return isinstance(value, str) and UNSHOWN.search(value) is None


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _sha(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _source(value: Any) -> bool:
    return _text(value) or (_texts(value) and bool(value))


# Path of a key -> what it must be. A key that ends in ? may be absent; below an absent or null table nothing is asked.
KEYS: dict[str, Check] = {
    "name": _text,
    "version": _whole,
    "created": _text,
    "kind": lambda value: value in ("lora", "full"),
    "content": _sha,
    "base": _table,
    "base.id": _text,
    "base.revision?": _or_none(_text),
    "base.layers?": _or_none(_whole),
    "base.weights": _sha,
    "base.config": _sha,
    "base.tokenizer": _sha,
    "base.named?": _or_none(_text),
    "lora?": _or_none(_table),
    "lora.r": _whole,
    "lora.alpha": _number,
    "lora.targets": _texts,
    "data?": _or_none(_table),
    "data.source": _source,
    "data.fingerprint": _text,
    "data.documents": _whole,
    "data.words": _whole,
    "data.train_tokens": _whole,
    "data.rows?": _or_none(_whole),
    "data.fill?": _or_none(_number),
    "data.revision?": _or_none(_text),
    "data.licence?": _or_none(_text),
    "data.held_out": _table,
    "data.held_out.unit": _text,
    "data.held_out.count": _whole,
    "data.held_out.tokens": _whole,
    "recipe?": _or_none(_table),
    "made_from?": _or_none(_sha),
    "environment?": _or_none(lambda value: _table(value) and all(map(_text, value.values()))),
    "metrics": _table,
    "metrics.loss?": _or_none(_number),
    "metrics.base_loss?": _or_none(_number),
    "metrics.perplexity?": _or_none(_number),
    "metrics.base_perplexity?": _or_none(_number),
    "metrics.tokens?": _or_none(_whole),
    "metrics.held_out?": _or_none(_text),
    "metrics.stops?": _or_none(_number),
    "metrics.copied_words?": _or_none(_whole),
    "lineage": _table,
    "lineage.how": _text,
    "lineage.parents": lambda value: isinstance(value, list) and all(map(_sha, value)),
    "lineage.weights?": lambda value: isinstance(value, list) and all(map(_number, value)),
    "lineage.method?": _text,
    "lineage.density?": _number,
    "lineage.seed?": _whole,
    "lineage.residual?": _number,
    "lineage.largest?": _number,
    "half?": _or_none(_table),
    "half.of": _text,
    "half.difference?": _or_none(_number),
    "half.largest?": _or_none(_number),
    "imported?": _or_none(_table),
    "imported.ref?": _or_none(_text),
    "imported.digest?": _or_none(_sha),
    "imported.from?": _or_none(_text),
    "imported.revision?": _or_none(_text),
    "imported.sha256?": _or_none(_sha),
    "imported.filled?": _or_none(_whole),
    "imported.padded?": _or_none(_whole),
    "imported.folded?": _or_none(_whole),
    "files": lambda value: _table(value) and all(map(_file, value.values())),
}
PLACES = {key: (tuple(key.rstrip("?").split(".")), key.endswith("?"), check) for key, check in KEYS.items()}


def _file(told: Any) -> bool:
    return isinstance(told, dict) and _whole(told.get("size")) and _sha(told.get("sha256"))


def check(manifest: dict[str, Any]) -> None:
    """Raise ValueError for the first key that is not what the format says."""
    for key, ((*way, last), may_lack, is_right) in PLACES.items():
        table: Any = manifest
        for step in way:
            table = table.get(step) if isinstance(table, dict) else None
        if not isinstance(table, dict) or (may_lack and last not in table):
            continue
        if not is_right(table.get(last)):
            raise ValueError(f"its {key.rstrip('?')!r} is not what it should be")
