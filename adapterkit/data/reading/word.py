"""The body of a Word document.

Tracked insertions are kept, deletions are not. Comments, notes, headers and
footers are parts of their own that are never opened; instructions of fields and
second copies of text boxes, for older versions of Word, are passed over.
"""

from __future__ import annotations

import posixpath
from typing import Any
from xml.sax.handler import ContentHandler

from adapterkit.data.reading.flow import Flow, Part
from adapterkit.data.reading.kinds import Unreadable
from adapterkit.data.reading.office import Names, Package

# each in the spelling of ISO "transitional" and "strict"
WORD = frozenset(
    {
        "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "http://purl.oclc.org/ooxml/wordprocessingml/main",
    }
)
MATHS = frozenset(
    {
        "http://schemas.openxmlformats.org/officeDocument/2006/math",
        "http://purl.oclc.org/ooxml/officeDocument/math",
    }
)
COMPATIBILITY = "http://schemas.openxmlformats.org/markup-compatibility/2006"
# deletions, instructions, properties (in which w:tab is a stop of the ruler), readings above Japanese
PASSED_OVER = frozenset({
    "del", "moveFrom", "delText", "delInstrText", "instrText", "fldData", "rt",
    "pPr", "rPr", "sdtPr", "sectPr", "tblPr", "trPr", "tcPr",
})  # fmt: skip
PARTS: dict[str, Part] = {"p": "paragraph", "tbl": "table", "tr": "row", "tc": "cell"}
SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def text_of(package: Package) -> str:
    handler = _Body()
    package.parse(_main_part(package), handler)
    return handler.flow.text()


def _main_part(package: Package) -> str:
    """Mostly word/document.xml, but some programs number it."""
    found = _Relations()
    if "_rels/.rels" in package:
        package.parse("_rels/.rels", found)
    name = posixpath.normpath(found.document.lstrip("/")) if found.document else "word/document.xml"
    if name not in package:
        raise Unreadable("damaged, there is no document in it")
    return name


class _Relations(ContentHandler):
    document = ""

    def startElementNS(self, name: Names, qname: str | None, attrs: Any) -> None:
        if attrs.get((None, "Type"), "").endswith("/officeDocument"):
            self.document = attrs.get((None, "Target"), "")


class _Body(ContentHandler):
    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow()
        self._over: list[str] = []  # open elements from one that is passed over
        self._in_text = False
        self._fields: list[bool] = []  # of each open field: it is still in its instruction
        self._chosen: list[bool] = []  # of each open choice: one was taken
        self._struck: list[bool] = []  # of each open paragraph: its end is deleted

    def startElementNS(self, name: Names, qname: str | None, attrs: Any) -> None:
        space, local = name
        if self._over or self._is_passed_over(space, local):
            self._over.append(local)
            if self._over[-3:] == ["pPr", "rPr", "del"] and self._struck:
                self._struck[-1] = True
        elif space in WORD:
            self._start(local, attrs)
        elif space in MATHS:
            self._in_text = local == "t"
        elif (space, local) == (COMPATIBILITY, "AlternateContent"):
            self._chosen.append(False)

    def endElementNS(self, name: Names, qname: str | None) -> None:
        space, local = name
        self._in_text = False
        if self._over:
            self._over.pop()
        elif space in WORD and local in PARTS:
            self._end(local)
        elif (space, local) == (COMPATIBILITY, "AlternateContent"):
            self._chosen.pop()

    def characters(self, content: str) -> None:
        if self._in_text and not self._over and not any(self._fields):
            self.flow.write(content.replace("\n", " "))  # a line break in the XML is a blank on the page

    def _is_passed_over(self, space: str | None, local: str) -> bool:
        if space in WORD:
            return local in PASSED_OVER
        if space != COMPATIBILITY or local not in ("Choice", "Fallback") or not self._chosen:
            return False
        taken, self._chosen[-1] = self._chosen[-1], True
        return taken

    def _start(self, local: str, attrs: Any) -> None:
        if local in PARTS:
            self.flow.begin(PARTS[local])
            if local == "p":
                self._struck.append(False)
        elif local == "t":
            self._in_text = True
        elif local in SIGNS:
            self.flow.write(SIGNS[local])
        elif local == "fldChar":
            self._field(next((v for (_, n), v in attrs.items() if n == "fldCharType"), ""))

    def _end(self, local: str) -> None:
        self.flow.end(carry=local == "p" and self._struck.pop())
        if local == "p":
            # an instruction ends with its paragraph, also where a broken file never says so
            self._fields = [False] * len(self._fields)

    def _field(self, step: str) -> None:
        if step == "begin":
            self._fields.append(True)
        elif self._fields and step == "separate":
            self._fields[-1] = False
        elif self._fields and step == "end":
            self._fields.pop()
