"""The chapters of an EPUB in their order, each read as HTML."""

from __future__ import annotations

import io
import posixpath
from typing import Any
from urllib.parse import unquote
from xml.sax.handler import ContentHandler

from adapterkit.data.reading import markup
from adapterkit.data.reading.kinds import Unreadable
from adapterkit.data.reading.office import Names, Package

CONTAINER, LOCKS = "META-INF/container.xml", "META-INF/encryption.xml"
PAGES = frozenset({"application/xhtml+xml", "text/html", "text/x-oeb1-document"})


def text_of(package: Package) -> str:
    chapters = [markup.read_html(io.BytesIO(package.read(name)))[0] for name in _chapters(package)]
    return "\n\n".join(chapter for chapter in chapters if chapter.strip())


def _chapters(package: Package) -> list[str]:
    """Names of the pages that are read one after the other; the table of contents is none."""
    files = [
        e["full-path"] for tag, e in _elements(package, CONTAINER) if tag == "rootfile" and "full-path" in e
    ]
    if not files:
        raise Unreadable("damaged, it does not say what is in it")
    book = _elements(package, files[0])
    items = {e["id"]: e for tag, e in book if tag == "item" and "id" in e and "href" in e}
    spine = [items[e["idref"]] for tag, e in book if tag == "itemref" and e.get("idref") in items]
    folder = posixpath.dirname(files[0])
    names = [
        posixpath.normpath(posixpath.join(folder, unquote(e["href"].partition("#")[0])))
        for e in spine
        if e.get("media-type", "text/html") in PAGES and "nav" not in e.get("properties", "").split()
    ]
    if not names:
        raise Unreadable("damaged, it names no chapters")
    _refuse_locked(package, names)
    return names


def _refuse_locked(package: Package, names: list[str]) -> None:
    """Fonts may be scrambled; chapters that are come from a shop."""
    if LOCKS not in package:
        return
    locked = {unquote(e.get("URI", "")) for tag, e in _elements(package, LOCKS) if tag == "CipherReference"}
    if locked & set(names):
        raise Unreadable("it is protected against copying")


def _elements(package: Package, name: str) -> list[tuple[str, dict[str, str]]]:
    handler = _Elements()
    package.parse(name, handler)
    return handler.found


class _Elements(ContentHandler):
    """Every element with its attributes, in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def startElementNS(self, name: Names, qname: str | None, attrs: Any) -> None:
        self.found.append((name[1], {local: value for (_, local), value in attrs.items()}))
