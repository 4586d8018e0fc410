"""The body of an OpenDocument text (LibreOffice); without notes, comments and tracked deletions."""

from __future__ import annotations

import re
from typing import Any
from xml.sax.handler import ContentHandler

from adapterkit.data.reading.flow import Flow, Part
from adapterkit.data.reading.kinds import Unreadable
from adapterkit.data.reading.office import Names, Package

OASIS = "urn:oasis:names:tc:opendocument:xmlns:"
PARTS: dict[str, Part] = {
    "text:p": "paragraph",
    "text:h": "paragraph",
    "table:table": "table",
    "table:table-row": "row",
    "table:table-cell": "cell",
}
PASSED_OVER = frozenset(
    {
        "text:tracked-changes",  # holds what was deleted
        "text:note",
        "text:ruby-text",
        "office:annotation",
        "office:forms",
        "office:binary-data",
        "svg-compatible:title",
        "svg-compatible:desc",
        "table:covered-table-cell",
        "MathML",
    }
)
SIGNS = {"text:tab": "\t", "text:line-break": "\n"}
KEPT = "\0"  # a blank that is written as such; XML has no zeros
MOST_BLANKS = 1000


def text_of(package: Package) -> str:
    if "META-INF/manifest.xml" in package and b"encryption-data" in package.read("META-INF/manifest.xml"):
        raise Unreadable("it has a password")
    handler = _Body()
    package.parse("content.xml", handler)
    return handler.flow.text()


def _tidy(paragraph: str) -> str:
    return re.sub(" +", " ", paragraph).strip(" ").replace(KEPT, " ")


class _Body(ContentHandler):
    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow(_tidy)
        self._over = 0  # open elements from one that is passed over

    def startElementNS(self, name: Names, qname: str | None, attrs: Any) -> None:
        tag = _tag(name)
        if self._over or tag in PASSED_OVER:
            self._over += 1
        elif tag in PARTS:
            self.flow.begin(PARTS[tag])
        elif tag == "text:s":
            told = attrs.get((f"{OASIS}text:1.0", "c"), "1")
            self.flow.write(KEPT * min(int(told) if told.isdecimal() else 1, MOST_BLANKS))
        elif tag in SIGNS:
            self.flow.write(SIGNS[tag])

    def endElementNS(self, name: Names, qname: str | None) -> None:
        if self._over:
            self._over -= 1
        elif _tag(name) in PARTS:
            self.flow.end()

    def characters(self, content: str) -> None:
        if not self._over:
            self.flow.write(re.sub(r"[ \t\r\n]+", " ", content))


def _tag(name: Names) -> str:
    space, local = name
    if space and space.endswith("/MathML"):
        return "MathML"
    return f"{(space or '').removeprefix(OASIS).rpartition(':')[0]}:{local}"
