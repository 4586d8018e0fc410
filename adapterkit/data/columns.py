"""What the columns of a table mean: a text, a pair of prompt and completion, or a chat.

Decided once for a table, at its first row that is not blank (a later row with
other columns is refused, not passed over), from the recipe's
``data.text``, ``data.prompt`` and ``data.completion`` where they are given,
else from the columns' names and lengths; what was decided is said. Also finds
the pairs that lines of plain text hold, ``setup<>punchline``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from adapterkit.data.cells import TEXT, Chat, Pair, Reader, Row, Whole, is_chat
from adapterkit.data.reading.decode import one_line_end
from adapterkit.data.template import Prompt, Template
from adapterkit.data.text import Spans, Text
from adapterkit.errors import DataError, nearest
from adapterkit.recipe.schema import DataSpec

CHATS = ("messages", "conversations")
PAIRS = (
    ("prompt", "completion"), ("question", "answer"), ("instruction", "output"),
    ("setup", "punchline"), ("prompt", "response"), ("input", "output"),
)  # fmt: skip
TEXTS = (TEXT, "content", "story", "body")
NUMBER = re.compile(r"[-+]?[\d.,]*%?")  # a CSV has text only; also an empty cell
LONG = 100  # characters; a column this long, and LONGER times any other, is the text
LONGER = 4
NAME = 60  # characters; a longer name is the first row of a table without a header
KEYED = re.compile(r"\.(?:jsonl?|ndjson|parquet)(?:\.\w+)?$", re.IGNORECASE)  # these have no header to forget
ELSEWHERE = "give all rows the same columns, or name one that all have: --data-text COLUMN"
SEPARATOR = "<>"
MOST, ENOUGH = 0.95, 20  # of the lines hold the separator, and so many lines at least


class Columns:
    """What the columns of one table mean; decided at its first row that is not blank.

    Raises:
        DataError: keys of the recipe that do not go together.
    """

    def __init__(self, spec: DataSpec, name: str) -> None:
        _check(spec)
        self._spec, self._name = spec, name
        self._reader: Reader | None = None
        self.said = ""
        self.resolved: dict[str, str] = {}

    def text(self, row: object, index: int) -> Text | None:
        """The text of a row; None where there is none.

        Raises:
            DataError: no column has the text, a row has other columns than the first, or is none.
        """
        content, context = self._content(row, f"{self._name} row {index + 1}")
        # WikiText comes line by line, and its blank ones show where an article begins
        if not content.strip() and self._spec.document != "article":
            return None
        return Text(f"{self._name}[{index}]", content, is_row=True, context=context)

    def _content(self, row: object, where: str) -> tuple[str, Spans]:
        if isinstance(row, str):
            return one_line_end(row), ()
        if not isinstance(row, Mapping):
            raise DataError(
                f"{where} is {json.dumps(row, default=str)[:40]}, neither text nor a row with columns.",
                hint='rows are objects such as {"text": "..."}, or plain strings',
            )
        # csv puts cells beyond the header under None
        fields = {k: v for k, v in row.items() if k is not None}
        if self._reader is None:
            if all(v is None or v == "" for v in fields.values()):
                return "", ()  # shows nothing of what the columns mean
            self._reader = self._decided(fields)
        if (lacking := self._reader.lacks(fields)) and _has_words(fields):
            raise _no_column(fields, lacking, where, ELSEWHERE)
        return self._reader(fields, where)

    def _decided(self, row: Row) -> Reader:
        reader, otherwise = _decide(row, self._spec, self._name)
        self.said = f"{self._name}: {reader.said}{otherwise}" if reader.said else ""
        self.resolved = reader.resolved
        return reader


def split_pair(text: str, separator: str) -> tuple[str, Spans] | None:
    """``setup<>punchline`` as two lines, the first not learned; None when it is not exactly one pair."""
    if not separator or text.count(separator) != 1:
        return None
    setup, punchline = (side.strip() for side in text.split(separator))
    if not setup or not punchline:
        return None
    return f"{setup}\n{punchline}", ((0, len(setup) + 1),)


def finds_separator(lines: Iterable[str]) -> bool:
    """Whether nearly all lines that are not blank are pairs with ``<>`` between."""
    held = [split_pair(line, SEPARATOR) is not None for line in lines if line.strip()]
    return len(held) >= ENOUGH and sum(held) >= MOST * len(held)


# --- deciding -----------------------------------------------------------------


def _check(spec: DataSpec) -> None:
    if spec.text and (spec.prompt or spec.completion):
        raise DataError(
            "data.text is learned whole, data.prompt and data.completion are a pair; the recipe has both.",
            hint="leave out data.text, or the other two",
        )
    if spec.prompt and not spec.completion:
        raise DataError(
            f"data.prompt is {spec.prompt!r}, but nothing is said to be learned after it.",
            hint="name that column: --data-completion COLUMN",
        )
    if spec.completion and not spec.prompt:
        raise DataError(
            f"data.completion is {spec.completion!r}, but nothing is said to be read before it.",
            hint=f"--data-prompt COLUMN, or learn it by itself: --data-text {shlex.quote(spec.completion)}",
        )


def _decide(row: Row, spec: DataSpec, name: str) -> tuple[Reader, str]:
    """How rows like this one are read, and which option would read them otherwise."""
    if spec.prompt and spec.completion:
        return _asked_pair(row, spec.prompt, spec.completion, name), ""
    wanted = (spec.text,) if spec.text else CHATS
    if found := next((c for c in wanted if is_chat(row.get(c))), None):
        return Chat(found, Template(spec.template)), ""
    if spec.text:
        if spec.text not in row:
            raise _no_column(row, spec.text, name, _remedy(row))
        return Whole(spec.text), ""
    known = {c.strip().lower(): c for c in row}
    if pair := _found_pair(known):
        return pair, f" (else: --data-text {shlex.quote(pair.completion)})"
    if column := next((known[n] for n in TEXTS if n in known), None):
        return Whole(column), ""
    return _longest(row, name)


def _asked_pair(row: Row, prompt: str, completion: str, name: str) -> Pair:
    pair = Pair(Prompt(prompt if "{" in prompt else f"{{{prompt}}}\n"), completion)
    for column in (*pair.prompt.columns, completion):
        if column not in row:
            close = nearest(column, row)
            hint = f"did you mean {close!r}?" if close else "--data-prompt and --data-completion name columns"
            raise _no_column(row, column, name, hint)
    return pair


def _found_pair(known: Mapping[str, str]) -> Pair | None:
    for names in PAIRS:
        if all(n in known for n in names):
            prompt, completion = (known[n] for n in names)
            also = [known["input"]] if names == ("instruction", "output") and "input" in known else []
            return Pair(Prompt("".join(f"{{{c}}}\n" for c in (prompt, *also))), completion)
    return None


def _longest(row: Row, name: str) -> tuple[Whole, str]:
    """The only column of words, or the one that is by far the longest."""
    texts = _texts(row) or [c for c in row if len(row) == 1 and isinstance(row[c], str)]
    longest, *others = sorted(texts, key=lambda c: -len(str(row[c]))) or [""]
    if (len(longest) > NAME or re.search(r"[\r\n]", longest)) and not KEYED.search(name):
        raise _no_header(name)
    if texts and not others:
        return Whole(longest), ""
    if texts and len(str(row[longest])) >= max(LONG, LONGER * len(str(row[others[0]]))):
        return Whole(longest), f", by far the longest (else: --data-text {shlex.quote(others[0])})"
    raise _no_column(row, TEXT, name, _remedy(row))


def _texts(row: Row) -> list[str]:
    """Columns of words, in the table's order."""
    return [c for c, v in row.items() if isinstance(v, str) and not NUMBER.fullmatch(v.strip())]


def _no_column(row: Row, wanted: str, name: str, hint: str) -> DataError:
    return DataError(
        f"{name} has no column {wanted!r}. It has: {', '.join(row)}.",
        hint=hint,
        code="no-text-column",
        details={"columns": list(row)},
    )


def _has_words(row: Row) -> bool:
    """Whether something would be lost with the row: a text, or a chat."""
    return any(v.strip() if isinstance(v, str) else v and is_chat(v) for v in row.values())


def _no_header(name: str) -> DataError:
    return DataError(
        f"{name} has no header: its first row is text.",
        hint="put a line such as: text above it; a header as long as that is named: --data-text COLUMN",
        code="no-header",
    )


def _remedy(row: Row) -> str:
    texts = _texts(row)
    hint = f"--data-text {shlex.quote(_likeliest(row, texts))}"
    if len(texts) == 2:
        read, learned = map(shlex.quote, texts)
        hint += f", or learn the answers only: --data-prompt {read} --data-completion {learned}"
    return hint


def _likeliest(row: Row, texts: Sequence[str]) -> str:
    """The last column that is about as long as the longest: the answer, not the question or a score."""
    longest = max((len(str(row[c])) for c in texts), default=0)
    return next((c for c in reversed(texts) if 2 * len(str(row[c])) >= longest), list(row)[-1])
