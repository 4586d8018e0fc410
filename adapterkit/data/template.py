r"""How pairs and chats are written as text: the form that is learned, and asked in again.

``Prompt`` is what stands before the completion of a pair, ``"{question}\n"``.
``Template`` is a turn of a chat, ``"{role}: {content}\n"``; a rendered chat ::

    System: Be brief.\nUser: Hi\nAssistant: Hello.\nUser: Bye\nAssistant: Bye.
                                           ^^^^^^^^^^^^^^                ^^^^^ learned

A prompt ends in ``Assistant:``, without the blank: GPT-2's tokens begin with
it. What is learned runs on to the tag of the next turn, so that the adapter
stops with ``\nUser:``. Text only; nothing here reads a file or knows a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from adapterkit.data.text import Spans
from adapterkit.errors import DataError

AUTO = "{role}: {content}\n"
ASSISTANT = "Assistant"
OTHERS = ("User", "System")  # who may speak after the assistant
KNOWN = {
    ASSISTANT: ("assistant", "gpt", "chatgpt", "bot", "model", "ai"),
    "User": ("user", "human", "prompter"),
    "System": ("system",),
}
FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}(\n?)|[{}]")

Turn = tuple[str, str]  # who speaks (any spelling), what is said


class Prompt:
    r"""A text with ``{columns}`` in it; ``{{`` and ``}}`` are braces, a typed ``\n`` is a line break."""

    def __init__(self, text: str) -> None:
        self.text = _with_breaks(text)
        found = list(FIELD.finditer(self.text))
        if lone := next((m for m in found if m[0] in ("{", "}")), None):
            raise DataError(
                f"the prompt {text!r} has a {lone[0]!r} that names no column.",
                hint=f"write it {lone[0] * 2!r} to have a brace in the text",
            )
        self.columns = tuple(dict.fromkeys(m[1] for m in found if m[1] is not None))

    @property
    def asked(self) -> str | None:
        """The column that typed words stand for: the only one, or an instruction without its input."""
        alone = [c.lower() for c in self.columns] == ["instruction", "input"] or len(self.columns) == 1
        return self.columns[0] if alone else None

    def ask(self, words: str) -> str:
        """The prompt that a person's words make; as they are when there are several columns to fill."""
        return self.fill(dict.fromkeys(self.columns, "") | {self.asked: words}) if self.asked else words

    def fill(self, row: Mapping[str, str]) -> str:
        """The text with values in place; a line that is only a column is left out when that is blank."""
        return FIELD.sub(lambda m: self._value(m, row), self.text)

    def _value(self, m: re.Match[str], row: Mapping[str, str]) -> str:
        if m[1] is None:
            return m[0][0]
        value = row[m[1]]
        if not m[2]:
            return value
        begins_line = m.start() == 0 or self.text[m.start() - 1] == "\n"
        return "" if begins_line and not value.strip() else value.rstrip() + "\n"


class Template:
    """How a turn is written.

    Raises:
        DataError: ``{role}`` and ``{content}`` are not there once each, in this
            order, or nothing parts two turns.
    """

    def __init__(self, text: str = "auto") -> None:
        self.text = AUTO if text == "auto" else _with_breaks(text)
        before, role, rest = self.text.partition("{role}")
        between, content, after = rest.partition("{content}")
        if not (role and content) or "{role}" in between + after or "{content}" in before + after:
            raise _wrong(f"the template {text!r} needs {{role}} and then {{content}}, once each.")
        if not before + after:
            raise _wrong(f"the template {text!r} has nothing between one turn and the next.")
        self._before, self._between, self._after = before, between, after

    def opening(self, role: str) -> str:
        """What stands before the words of a turn, ``Assistant:``; the blank after it is the first word's."""
        return f"{self._before}{named(role)}{self._between}".rstrip(" ")

    def turn(self, role: str, content: str) -> str:
        return f"{self._before}{named(role)}{self._between}{content}{self._after}"

    @property
    def stop(self) -> list[str]:
        """What ends the assistant's turn: a written mark such as ``<|im_end|>``, else that another one speaks."""
        if mark := self._after.strip():
            return [mark]
        return [self._after + self.opening(role) for role in OTHERS]

    def ask(self, said: str, before: str = "") -> str:
        """A chat so far, as the assistant is asked to go on with it; nothing said is one more turn of its own."""
        spoken = self.turn("user", said) if said else ""
        return self.closed(before) + spoken + self.opening(ASSISTANT)

    def closed(self, before: str) -> str:
        """A chat so far, with the end of its last turn."""
        return before.rstrip() + self._after if before.strip() else ""

    def next_turn(self, text: str, at: int) -> int:
        """Where the first turn of the user at or after ``at`` begins; -1 when there is none."""
        found = text.find(self._after + self.opening(OTHERS[0]), at)
        return found if found < 0 else found + len(self._after)

    def render(self, messages: Sequence[Turn]) -> tuple[str, Spans]:
        """A chat as text, with the spans that are not learned.

        Only what the assistant says is learned. Blank turns, and those after
        its last one, are left out; ``("", ())`` when it says nothing.
        """
        spoken = [m for m in messages if m[1].strip()]
        last = max((i for i, (role, _) in enumerate(spoken) if is_assistant(role)), default=-1)
        spans: list[tuple[int, int]] = []
        text, begin = "", 0  # where what is not learned begins
        for i, (role, content) in enumerate(spoken[: last + 1]):
            opened, whole = self.opening(role), self.turn(role, content)
            if is_assistant(role):
                if begin < len(text) + len(opened):
                    spans.append((begin, len(text) + len(opened)))
                following = len(self.opening(spoken[i + 1][0])) if i < last else 0
                begin = len(text) + len(whole) + following
            text += whole
        return text.rstrip(), tuple(spans)


def form_of(recipe: Mapping[str, Any]) -> Template | Prompt | None:
    """The form that a stored recipe was learned in; None for plain text.

    Args:
        recipe: of a manifest. Its ``data`` has the keys as they were decided.
    """
    data = recipe.get("data") or {}
    with suppress(DataError):  # a template that no chat was written by need not be one
        if data.get("template", "auto") != "auto":
            return Template(data["template"])
        if data.get("prompt") and data.get("completion"):
            return Prompt(data["prompt"])
        if data.get("separator", "auto") not in ("auto", "none"):
            return Prompt("{line}\n")  # as split_pair writes it
    return None


def named(role: str) -> str:
    """``user`` and ``human`` are ``User``; a name of one's own keeps its spelling after the first letter."""
    role = role.strip()
    known = (name for name, others in KNOWN.items() if role.lower() in others)
    return next(known, role[:1].upper() + role[1:])


def is_assistant(role: str) -> bool:
    return named(role) == ASSISTANT


def _with_breaks(text: str) -> str:
    r"""A shell and YAML's single quotes leave ``\n`` as two characters."""
    return text.replace("\\n", "\n")


def _wrong(message: str) -> DataError:
    return DataError(message, hint=f"such as {AUTO!r}: --data-template {AUTO!r}")
