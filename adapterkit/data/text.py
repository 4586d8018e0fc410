"""The two records that flow through this layer: what was read, and what is learned.

    source --read--> Text --cut--> Document --clean--> Document --encode--> tokens

``context`` marks stretches that are read but not learned (the prompt of a pair,
what the other side of a chat says): spans ``(begin, end)`` of characters,
ascending and apart. Everything outside them is a target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Text:
    """One file, one row, or one stretch of a large file, decoded; line ends are ``\\n``."""

    name: str  # of the file, relative; rows are "jokes.csv[3]"; never a path of this machine
    content: str
    is_row: bool = False
    context: Spans = ()
    goes_on: bool = False  # the next Text is more of the same file


@dataclass(frozen=True)
class Document:
    """One text with a true beginning and end."""

    source: str
    index: int  # within its source
    text: str
    context: Spans = ()

    def segments(self) -> list[tuple[str, bool]]:
        """The text in stretches, each with whether it is learned."""
        cuts: list[tuple[str, bool]] = []
        at = 0
        for begin, end in (*self.context, (len(self.text), len(self.text))):
            cuts += [(self.text[at:begin], True), (self.text[begin:end], False)]
            at = end
        return [c for c in cuts if c[0]]

    def rebuilt(self, segments: list[tuple[str, bool]]) -> Document:
        """The same document from changed segments."""
        spans: list[tuple[int, int]] = []
        at = 0
        for text, learned in segments:
            if not learned and text:
                joins = spans and spans[-1][1] == at
                spans[-1:] = (
                    [(spans[-1][0], at + len(text))] if joins else [*spans[-1:], (at, at + len(text))]
                )
            at += len(text)
        return replace(self, text="".join(t for t, _ in segments), context=tuple(spans))
