"""Paragraphs and tables of a document, put together as plain text.

Paragraphs are parted by a blank line, empty ones leave no trace. A row of a
table is a line, its cells parted by tabs; a row of one cell, as letterheads
have it, flows like the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

Part = Literal["body", "paragraph", "table", "row", "cell"]


class Flow:
    """Text as it is written, part in part. Every ``begin`` has its ``end``.

    Args:
        tidy: applied to each whole paragraph.
    """

    def __init__(self, tidy: Callable[[str], str] = lambda text: text) -> None:
        self._tidy = tidy
        self._open: list[tuple[Part, list[str]]] = [("body", [])]
        self._carried = ""  # a paragraph whose end was struck out

    def begin(self, part: Part) -> None:
        self._open.append((part, []))
        if part == "paragraph" and self._carried:
            self.write(self._carried)
            self._carried = ""

    def write(self, text: str) -> None:
        """Into the paragraph that is open; text outside of one is no text."""
        part, held = self._open[-1]
        if part == "paragraph":
            held.append(text)

    def end(self, *, carry: bool = False) -> None:
        """Close what was begun last; ``carry`` puts a paragraph before the next one."""
        part, held = self._open.pop()
        if carry and part == "paragraph":
            self._carried = "".join(held)
        elif (text := self._joined(part, held)) or part == "cell":
            self._home(part).append(text)

    def text(self) -> str:
        if self._carried:
            self.begin("paragraph")
            self.end()
        return "\n\n".join(self._open[0][1])

    def _joined(self, part: Part, held: list[str]) -> str:
        if part == "paragraph":
            lines = self._tidy("".join(held)).split("\n")
            return "\n".join(line.rstrip() for line in lines).strip("\n")
        if part == "row":
            cells = held if len(held) == 1 else [re.sub(r"\s*\n\s*", " ", cell) for cell in held]
            return "\t".join(cells) if any(cell.strip() for cell in cells) else ""
        return ("\n" if part == "table" else "\n\n").join(held)

    def _home(self, part: Part) -> list[str]:
        """Where a part goes: a text box stands within a paragraph, but is none of its words."""
        if part in ("row", "cell"):
            return self._open[-1][1]
        return next(held for outer, held in reversed(self._open) if outer != "paragraph")
