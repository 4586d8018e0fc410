"""JSON from a stranger, read without surprises.

Two readers of one file must see one thing, so a key that comes twice is refused,
as are numbers that no other reader takes (``NaN``, ``1e999``, a thousand digits)
and text that can't be written as UTF-8. Never runs or looks up anything.
"""

from __future__ import annotations

import json
import math
from typing import Any

DIGITS = 20  # of a whole number; 64 bits need no more


class NotPlain(ValueError):
    """Why the bytes are not plain JSON; ``code`` is a word for programs."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def parse(raw: bytes) -> Any:
    """The value of a JSON text that the caller has bounded.

    Raises:
        NotPlain: ``encoding``, ``json``, ``nesting``, ``duplicate-key`` or ``number``.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_once, parse_float=_finite, parse_int=_bounded, parse_constant=_constant
        )
        json.dumps(
            value, ensure_ascii=False
        ).encode()  # half a surrogate pair fails here, not where it is shown
    except NotPlain:
        raise
    except UnicodeError:
        raise NotPlain("encoding", "it is not UTF-8") from None
    except RecursionError:
        raise NotPlain("nesting", "it is nested too deeply") from None
    except ValueError as e:
        raise NotPlain("json", str(e)[:80]) from None
    return value


def spoken(value: object, limit: int = 60) -> str:
    """A value from a stranger as a message may hold it: short, and nothing that moves a cursor."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise NotPlain("duplicate-key", f"it has the key {spoken(twice, 40)!r} twice")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotPlain("number", f"{text[:20]} is no finite number")
    return number


def _bounded(text: str) -> int:
    if len(text) > DIGITS:
        raise NotPlain("number", f"it has a number of {len(text):,} digits")
    return int(text)


def _constant(text: str) -> float:
    raise NotPlain("number", f"{text} is no finite number")
