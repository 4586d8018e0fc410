"""What one document is: a line, a paragraph, a file, a row, an article, or what stands between delimiters.

Texts come one by one and leave as documents one by one: a large file arrives
in stretches, and only the document that is not finished yet is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise

from adapterkit.data.columns import finds_separator, split_pair
from adapterkit.data.reflow import reflow
from adapterkit.data.text import Document, Text

SPLITTERS: dict[str, Callable[[str], list[str]]] = {
    "line": lambda text: text.split("\n"),
    "blank-line": lambda text: re.split(r"\n[ \t]*\n", text),
}
WHOLE = ("file", "row")
# How WikiText begins an article: a title between blank lines. Formulas have such lines too, but no blank ones around.
TITLE = re.compile(r"^ ?= [^=\s][^=\n]* = ?$(?=\n ?\n)", re.MULTILINE)
WORDS = {
    "line": "One line is one document",
    "blank-line": "Blank lines part the documents",
    "file": "One file is one document",
    "row": "One row is one document",
    "article": "One article is one document",
    "<eos>": "A story ends at <eos>",
}
APART = {"row": "rows", "line": "lines of pairs", "<eos>": "stories with <eos>"}  # in files beside whole ones
HEAD = 4 << 20  # characters of a large file that the guess looks at


@dataclass
class Cut:
    """How texts are cut; its counts fill up while the documents are taken."""

    how: str
    separator: str | None  # between the halves of a pair; None where there are no pairs
    guessed: bool
    blank: int = 0  # cut away as blank
    unpaired: int = 0  # documents without the separator in a text of pairs
    reflowed: dict[str, int] = field(default_factory=dict)  # file -> column its lines were broken at
    ways: set[str] = field(default_factory=set)  # of several files, where each decided for itself

    @property
    def said(self) -> str:
        words = WORDS.get(self.how, f"{self.how!r} parts the documents")
        if len(self.ways) > 1:
            words += f", apart from {' and '.join(w for way, w in APART.items() if way in self.ways)}"
        others = ", ".join(w for w in ("line", "blank-line", "file") if w != self.how)
        return f"{words}{f' (else: --document {others})' if self.guessed else ''}."


def cut(
    texts: Iterable[Text], how: str, *, files: int = 1, wrapped: bool = True, separator: str = "none"
) -> tuple[Cut, Iterator[Document]]:
    """Texts as documents.

    Args:
        texts: in their order.
        how: auto, line, blank-line, file, row, article, or a delimiter.
        files: how many there are; under auto each of several decides for itself, and is whole
            unless it has rows, pairs or marks.
        wrapped: join the lines of prose that was wrapped at a column.
        separator: of pairs within a document; auto looks for ``<>``, none has no pairs.
    """
    stream = iter(texts)
    first = next(stream, None)
    if first is None:
        return Cut("file" if how == "auto" else how, None, how == "auto"), iter(())
    whole = chain([first], stream)
    if how == "auto" and files > 1:
        told = Cut("file", None, guessed=True)
        return told, _each_by_itself(whole, told, files, wrapped, separator)
    told = _decided(first, how, files, separator)
    return told, _taken(whole, told, wrapped)


def _decided(first: Text, how: str, files: int, separator: str) -> Cut:
    """By the first text, or the first stretch of it."""
    chosen = guess(first, files) if how == "auto" else how
    parts = "none" if first.is_row else separator
    if parts == "auto":
        parts = "<>" if finds_separator(first.content[:HEAD].split("\n")) else "none"
        if how == "auto" and parts != "none":
            chosen = "line"  # that nearly every line is a pair says more than how long it is
    return Cut(chosen, None if parts == "none" else parts, how == "auto")


def _taken(texts: Iterable[Text], told: Cut, wrapped: bool) -> Iterator[Document]:
    reflows = wrapped and told.how in ("file", "blank-line")
    return _documents(_reflowed(texts, told) if reflows else texts, told)


def _each_by_itself(
    texts: Iterator[Text], told: Cut, files: int, wrapped: bool, separator: str
) -> Iterator[Document]:
    """Every file cut as it asks for; ``told.how`` is what they have in common, else ``file``."""
    for first in texts:
        own = _decided(first, "auto", files, separator)
        if first.goes_on or first.content.strip():  # a blank file shows nothing
            told.ways.add(own.how)
        told.how = next(iter(told.ways)) if len(told.ways) == 1 else "file"
        told.separator = own.separator or told.separator
        yield from _taken(_stretches(first, texts), own, wrapped)
        told.blank += own.blank
        told.unpaired += own.unpaired
        told.reflowed |= own.reflowed


def _stretches(text: Text | None, others: Iterator[Text]) -> Iterator[Text]:
    """A file whole: the text and the stretches that follow it."""
    while text is not None:
        yield text
        text = next(others, None) if text.goes_on else None


def guess(first: Text, files: int) -> str:
    """The rule of ``auto``: rows are rows, written delimiters count, several files one each, one file a line a document or whole."""
    head = first.content[:HEAD]
    if first.is_row:
        return "row"
    if "<sos>" in head and "<eos>" in head:
        return "<eos>"
    if files > 1:
        return "file"
    return "line" if _is_a_line_each(head) else "file"


def _is_a_line_each(text: str) -> bool:
    """No blank lines, few lines that run on into the next, nearly all short, and at least fifty."""
    lines = text.strip("\n").split("\n")
    if len(lines) < 50 or any(not line.strip() for line in lines):
        return False
    long = [i for i, line in enumerate(lines[:-1]) if len(line) >= 50]
    run_on = sum(lines[i + 1][:1].islower() for i in long)
    short = sum(len(line) <= 300 for line in lines)
    return run_on < 0.05 * max(len(long), 1) and short >= 0.95 * len(lines)


def _reflowed(texts: Iterable[Text], told: Cut) -> Iterator[Text]:
    for text in _with_whole_paragraphs(texts, told.how == "file"):
        if not text.is_row:
            joined, column = reflow(text.content)
            if column:
                told.reflowed[text.name] = column
                text = replace(text, content=joined)
        yield text


def _with_whole_paragraphs(texts: Iterable[Text], whole: bool) -> Iterator[Text]:
    """Files whole, as they are held anyway; else stretches that end at a blank line."""
    held: list[str] = []
    for text in texts:
        held.append(text.content)
        if text.goes_on and (whole or "\n\n" not in text.content):
            continue
        content = "".join(held)
        end = content.rindex("\n\n") + 2 if text.goes_on else len(content)
        held = [content[end:]]
        yield replace(text, content=content[:end])


def _documents(texts: Iterable[Text], told: Cut) -> Iterator[Document]:
    for document in _cut(texts, told.how):
        if document.context:  # a row that is a pair or a chat already, written as it will be asked
            yield document
            continue
        stripped = document.text.strip()
        if not stripped:
            told.blank += 1
        elif told.separator is None:
            yield replace(document, text=stripped)
        elif pair := split_pair(stripped, told.separator):
            yield replace(document, text=pair[0], context=pair[1])
        else:
            told.unpaired += 1
            yield replace(document, text=stripped)


def _cut(texts: Iterable[Text], how: str) -> Iterator[Document]:
    if how == "article":
        return _articles(texts)
    if how in WHOLE:
        return _whole(texts)
    return _between(texts, how)


def _whole(texts: Iterable[Text]) -> Iterator[Document]:
    parts: list[str] = []
    for text in texts:
        parts.append(text.content)
        if not text.goes_on:
            yield Document(text.name, 0, "".join(parts), text.context)
            parts = []


def _between(texts: Iterable[Text], how: str) -> Iterator[Document]:
    carry, index = "", 0
    for text in texts:
        if text.context:
            yield Document(text.name, 0, text.content, text.context)
            continue
        parts = _split(carry + text.content, how)
        carry = parts.pop() if text.goes_on else ""
        for part in parts:
            yield Document(text.name, index, _unmarked(part) if how == "<eos>" else part)
            index += 1
        index = index if text.goes_on else 0


def _split(text: str, how: str) -> list[str]:
    return SPLITTERS[how](text) if how in SPLITTERS else text.split(how)


def _unmarked(story: str) -> str:
    """``<sos> ... <nl> ...``: a story on a line, with marks in place of its line breaks."""
    return re.sub(r" ?<nl> ?", "\n", story.replace("<sos>", ""))


def _articles(texts: Iterable[Text]) -> Iterator[Document]:
    """WikiText comes as rows or files of lines; a ``= Title =`` line begins an article."""
    name, parts = "", []
    for document in _whole(texts):
        name = name or document.source.partition("[")[0]
        parts.append(document.text.rstrip("\n") + "\n")
    whole = "".join(parts)
    bounds = [0, *(m.start() for m in TITLE.finditer(whole)), len(whole)]
    return (Document(name, i, whole[a:b]) for i, (a, b) in enumerate(pairwise(bounds)))
