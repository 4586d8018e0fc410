"""What an evaluation found: a row an adapter, the base's numbers always in the same row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, overload

from adapterkit.errors import CheckFailed
from adapterkit.evaluation.require import Check

HEADER = ("ADAPTER", "BASE", "TEXT", "TOKENS", "PERPLEXITY", "A WORD", "BITS A BYTE")
BIGGEST = 700.0  # whose exponential is still a float


@dataclass(frozen=True)
class Score:
    """One adapter on one text, and its base on the very same tokens.

    Losses are nats a token in float32 arithmetic. Perplexity of a word and of a
    byte spreads the same sum over the text's words and its bytes of UTF-8, so
    that models with other tokenizers can be compared.
    """

    adapter: str  # as resolved: "noir@3", "noir@3=0.7,shanty@1=0.3", "base"
    digests: tuple[str, ...]
    base: str
    text: str  # what was scored, for a person
    held_out: str  # fingerprint of the scored targets
    length: int  # tokens of a row
    tokens: int
    words: int
    bytes: int
    loss: float
    base_loss: float
    stops: float | None = None  # as measured after training, None for a blend or the base
    copied_words: int | None = None
    forced_base: bool = False  # scored on another base than it was made on

    @property
    def perplexity(self) -> float:
        return _exp(self.loss)

    @property
    def base_perplexity(self) -> float:
        return _exp(self.base_loss)

    @property
    def word_perplexity(self) -> float | None:
        return self._spread(self.loss, self.words)

    @property
    def base_word_perplexity(self) -> float | None:
        return self._spread(self.base_loss, self.words)

    @property
    def byte_perplexity(self) -> float | None:
        return self._spread(self.loss, self.bytes)

    @property
    def base_byte_perplexity(self) -> float | None:
        return self._spread(self.base_loss, self.bytes)

    @property
    def bits_per_byte(self) -> float | None:
        return self.loss * self.tokens / self.bytes / math.log(2) if self.bytes else None

    @property
    def base_bits_per_byte(self) -> float | None:
        return self.base_loss * self.tokens / self.bytes / math.log(2) if self.bytes else None

    @property
    def gain(self) -> float:
        """Share by which perplexity is lower than the base's: 0.32 is 32 % better."""
        return 1 - _exp(self.loss - self.base_loss)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; a perplexity too large for a float is None."""
        names = (
            *("adapter", "digests", "base", "text", "held_out", "length", "tokens", "words", "bytes"),
            *("loss", "base_loss", "perplexity", "base_perplexity", "gain"),
            *("word_perplexity", "base_word_perplexity", "byte_perplexity", "base_byte_perplexity"),
            *("bits_per_byte", "base_bits_per_byte", "stops", "copied_words", "forced_base"),
        )
        return {name: _plain(getattr(self, name)) for name in names}

    def cells(self) -> tuple[str, ...]:
        """The row as a person reads it: pair and gain stand together."""
        pair = f"{_number(self.base_perplexity)} → {_number(self.perplexity)}  {_change(self.gain)}"
        a_word = f"{_number(self.base_word_perplexity)} → {_number(self.word_perplexity)}"
        a_byte = f"{_number(self.base_bits_per_byte, 3)} → {_number(self.bits_per_byte, 3)}"
        if not self.digests:
            pair, a_word = _number(self.perplexity), _number(self.word_perplexity)
            a_byte = _number(self.bits_per_byte, 3)
        return (self.adapter, self.base, self.text, f"{self.tokens:,}", pair, a_word, a_byte)

    def _spread(self, loss: float, over: int) -> float | None:
        return _exp(loss * self.tokens / over) if over else None


@dataclass(frozen=True)
class Table(Sequence[Score]):
    """Rows in the order in which the adapters were named."""

    rows: tuple[Score, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Score: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Score]: ...
    def __getitem__(self, index: int | slice) -> Score | Sequence[Score]:
        return self.rows[index]

    def __iter__(self) -> Iterator[Score]:
        return iter(self.rows)

    @property
    def is_one_text(self) -> bool:
        """Whether all rows were scored on the same text, so that they can be compared with each other."""
        return len({(r.held_out, r.length) for r in self.rows}) == 1

    def as_dict(self) -> dict[str, Any]:
        return {"scores": [row.as_dict() for row in self.rows]}

    def cells(self) -> list[tuple[str, ...]]:
        return [HEADER, *(row.cells() for row in self.rows)]

    def require(self, checks: Sequence[Check]) -> None:
        """Refuse numbers that miss a condition. A base beside adapters is not checked.

        Raises:
            CheckFailed: with every miss.
        """
        adapters = [r for r in self.rows if r.digests] or self.rows
        misses = [(r, c) for r in adapters for c in checks if not c.holds(_plain(getattr(r, c.metric)))]
        if not misses:
            return
        told = [f"{r.adapter}: {c} is asked, it is {_told(r, c.metric)}" for r, c in misses]
        total = len(adapters) * len(checks)
        raise CheckFailed(
            f"{len(misses)} of {total} check{'s' * (total != 1)} failed: {'; '.join(told)}.",
            hint="more text or more passes, or a lower bar",
            details={
                "failed": [
                    {"adapter": r.adapter, "check": str(c), "value": _plain(getattr(r, c.metric))}
                    for r, c in misses
                ]
            },
        )

    def __str__(self) -> str:
        rows = self.cells()
        widths = [max(len(r[i]) for r in rows) for i in range(len(HEADER))]
        return "\n".join(
            "   ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in rows
        )

    def _repr_html_(self) -> str:
        head, *body = self.cells()
        top = "".join(f"<th>{escape(c.capitalize())}</th>" for c in head)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in r)}</tr>" for r in body)
        return f"<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"


def _exp(x: float) -> float:
    return math.exp(x) if x < BIGGEST else math.inf


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None, places: int = 1) -> str:
    if value is None:
        return "-"
    return f"{value:,.{places}f}" if value < 1e6 else f"{value:.2g}"


def _change(gain: float) -> str:
    """A gain as the change of perplexity: lower is better."""
    return f"{'−' if gain > 0 else '+'}{abs(gain) * 100:.0f} %"


def _told(row: Score, metric: str) -> str:
    value = _plain(getattr(row, metric))
    if value is None:
        return "not known"
    return f"{value:.4g}"
