"""What one document is: a line, a paragraph, a file, a row, an article, or what stands between delimiters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from adapterkit.data.sources import Text
from adapterkit.errors import DataError

SPLITTERS: dict[str, Callable[[str], list[str]]] = {
    "line": lambda text: text.split("\n"),
    "blank-line": lambda text: re.split(r"\n[ \t]*\n", text),
    "file": lambda text: [text],
    "row": lambda text: [text],
}
# How WikiText begins an article: a title between blank lines. Formulas have such lines too, but no blank ones around.
TITLE = re.compile(r"^ ?= [^=\s][^=\n]* = ?$(?=\n ?\n)", re.MULTILINE)
WORDS = {
    "line": "One line is one document",
    "blank-line": "Blank lines part the documents",
    "file": "One file is one document",
    "row": "One row is one document",
    "article": "One article is one document",
}


@dataclass(frozen=True)
class Document:
    """One text with a true beginning and end."""

    source: str
    index: int  # within its source
    text: str


@dataclass(frozen=True)
class Cut:
    """The documents, how they were cut, and the sentence that says so."""

    documents: list[Document]
    how: str
    said: str
    empty: int  # cut away as blank


def cut(texts: list[Text], how: str) -> Cut:
    """Cut texts into documents.

    Args:
        texts: in their order.
        how: auto, line, blank-line, file, row, article, or a delimiter.
    """
    chosen = guess(texts) if how == "auto" else how
    parts = _articles(texts) if chosen == "article" else _each(texts, chosen)
    kept = [Document(source, i, text) for source, i, text in parts if text]
    if not kept:
        raise DataError("there is no text in it: every document is blank.", hint="give a file with text")
    words = WORDS.get(chosen, f"{chosen!r} parts the documents")
    others = ", ".join(w for w in ("line", "blank-line", "file") if w != chosen)
    override = f" (else: --document {others})" if how == "auto" else ""
    return Cut(kept, chosen, f"{words}{override}.", len(parts) - len(kept))


def guess(texts: list[Text]) -> str:
    """The rule of ``auto``: rows are rows, written delimiters count, several files one each, one file a line a document or whole."""
    if all(t.is_row for t in texts):
        return "row"
    if any("<sos>" in t.content and "<eos>" in t.content for t in texts):
        return "<eos>"
    if len(texts) > 1:
        return "file"
    return "line" if _is_a_line_each(texts[0].content) else "file"


def _is_a_line_each(text: str) -> bool:
    """No blank lines, few lines that run on into the next, nearly all short, and at least fifty."""
    lines = text.strip("\n").split("\n")
    if len(lines) < 50 or any(not line.strip() for line in lines):
        return False
    long = [i for i, line in enumerate(lines[:-1]) if len(line) >= 50]
    run_on = sum(lines[i + 1][:1].islower() for i in long)
    short = sum(len(line) <= 300 for line in lines)
    return run_on < 0.05 * max(len(long), 1) and short >= 0.95 * len(lines)


def _each(texts: list[Text], how: str) -> list[tuple[str, int, str]]:
    def split(text: str) -> list[str]:
        if how in SPLITTERS:
            return SPLITTERS[how](text)
        # <sos> ... <nl> ... <eos>: a story a line, with marks in place of its line breaks
        marked = text.replace("<sos>", "").replace("<nl>", "\n") if how == "<eos>" else text
        return marked.split(how)

    return [(t.name, i, part.strip()) for t in texts for i, part in enumerate(split(t.content))]


def _articles(texts: list[Text]) -> list[tuple[str, int, str]]:
    """WikiText comes as rows or files of lines; a ``= Title =`` line begins an article."""
    whole = "\n".join(t.content.rstrip("\n") for t in texts)
    starts = [m.start() for m in TITLE.finditer(whole)]
    bounds = [0, *starts, len(whole)]
    name = texts[0].name.partition("[")[0]
    return [(name, i, whole[a:b].strip()) for i, (a, b) in enumerate(pairwise(bounds))]
