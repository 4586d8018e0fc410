"""How the cells of one row become text, once it is known what the columns mean.

Whole is a text, Pair a prompt and what is learned after it, Chat a list of
turns. Each tells the recipe keys that would read the same again. Cells are
taken as they are, but for their line ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from adapterkit.data.reading.decode import one_line_end
from adapterkit.data.template import Prompt, Template, Turn
from adapterkit.data.text import Spans
from adapterkit.errors import DataError

Row = Mapping[str, object]

TEXT = "text"  # a column of this name needs no words
SPEAKERS = (("role", "content"), ("from", "value"))  # OpenAI's keys of a turn, ShareGPT's


class Reader(Protocol):
    """Text and context of a row; no text is ``""``."""

    @property
    def resolved(self) -> dict[str, str]: ...
    @property
    def said(self) -> str: ...
    def lacks(self, row: Row) -> str:
        """A column that the row should have and has not, not even blank; else ``""``."""
        ...

    def __call__(self, row: Row, where: str) -> tuple[str, Spans]: ...


@dataclass(frozen=True)
class Whole:
    """A column that is the text."""

    column: str

    @property
    def resolved(self) -> dict[str, str]:
        return {} if self.column == TEXT else {"text": self.column}

    @property
    def said(self) -> str:
        return "" if self.column == TEXT else f"column {self.column!r}"

    def lacks(self, row: Row) -> str:
        return "" if self.column in row else self.column

    def __call__(self, row: Row, where: str) -> tuple[str, Spans]:
        return cell(row, self.column, where), ()


@dataclass(frozen=True)
class Pair:
    """Columns that are read, and one that is learned after them."""

    prompt: Prompt
    completion: str

    @property
    def resolved(self) -> dict[str, str]:
        return {"prompt": self.prompt.text, "completion": self.completion}

    @property
    def said(self) -> str:
        names = [repr(c) for c in self.prompt.columns]
        read = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names) or "the prompt"
        return f"{read} {'are' if names[1:] else 'is'} read, {self.completion!r} is learned"

    def lacks(self, row: Row) -> str:
        if self.completion not in row:
            return self.completion
        read = self.prompt.columns  # of several one may be left out, as an instruction's input often is
        return read[0] if read and not any(c in row for c in read) else ""

    def __call__(self, row: Row, where: str) -> tuple[str, Spans]:
        completion = cell(row, self.completion, where).rstrip()
        if not completion.strip():
            return "", ()
        prompt = self.prompt.fill({c: cell(row, c, where) for c in self.prompt.columns})
        return prompt + completion, ((0, len(prompt)),) if prompt else ()


@dataclass(frozen=True)
class Chat:
    """A column with a list of turns."""

    column: str
    template: Template

    @property
    def resolved(self) -> dict[str, str]:
        return {"template": self.template.text}

    @property
    def said(self) -> str:
        return f"a chat in {self.column!r}; what the assistant says is learned"

    def lacks(self, row: Row) -> str:
        return "" if self.column in row else self.column

    def __call__(self, row: Row, where: str) -> tuple[str, Spans]:
        turns = row.get(self.column)
        if turns is None:
            return "", ()
        if not is_chat(turns):
            raise DataError(
                f"{where}: {self.column!r} is {json.dumps(turns, default=str)[:40]}, not a list of turns.",
                hint='a turn is an object such as {"role": "user", "content": "..."}',
            )
        return self.template.render([_turn(t, where) for t in turns])


def is_chat(value: object) -> TypeGuard[list[Row]]:
    """A list of turns, also an empty one."""
    return isinstance(value, list) and all(isinstance(t, Mapping) and _keys_of(t) for t in value)


def _keys_of(turn: Row) -> tuple[str, str] | None:
    return next((keys for keys in SPEAKERS if all(k in turn for k in keys)), None)


def _turn(turn: Row, where: str) -> Turn:
    role, content = _keys_of(turn) or SPEAKERS[0]
    return cell(turn, role, where), cell(turn, content, where).strip()


def cell(row: Row, column: str, where: str) -> str:
    """A cell as text; a number becomes one, None is blank."""
    value = row.get(column)
    if isinstance(value, list | tuple | dict | bytes):
        raise DataError(
            f"{where}: {column!r} is {json.dumps(value, default=str)[:40]}, not text.",
            hint="make it a string, or name another column",
        )
    return "" if value is None else one_line_end(str(value))
