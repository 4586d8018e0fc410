"""Word, OpenDocument and EPUB files as one text each; only what a reader of the page sees.

All three are zips of XML. The XML is read as a stream with ``defusedxml``, and
anything that defines entities or unpacks to a bomb is refused.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler, feature_namespaces

from adapterkit.data.reading.archives import LARGEST, guard, open_zip, problems
from adapterkit.data.reading.kinds import Unreadable, magic

Names = tuple[str | None, str]  # namespace, local name


def read_office(stream: BinaryIO, kind: str) -> str:
    """The text of a document.

    Args:
        stream: it must be seekable.
        kind: docx, odt or epub.

    Raises:
        Unreadable: damaged, locked, or none of its kind.
    """
    from adapterkit.data.reading import epub, opendocument, word

    readers: dict[str, Callable[[Package], str]] = {
        "docx": word.text_of,
        "odt": opendocument.text_of,
        "epub": epub.text_of,
    }
    with package(stream, kind) as opened:
        return readers[kind](opened)


def check_office(stream: BinaryIO, kind: str) -> None:
    """Find at once what can be found without reading.

    Raises:
        Unreadable: no zip, or without the part that holds the text.
    """
    with package(stream, kind) as opened:
        needed = {"docx": "", "odt": "content.xml", "epub": "META-INF/container.xml"}[kind]
        if needed not in opened and not (kind == "docx" and any(n.startswith("word/") for n in opened.names)):
            raise Unreadable(f"no {kind} document in it")


class Package:
    """The parts of one document."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = frozenset(archive.namelist())

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        with self.open(name) as stream:
            return bytes(stream.read())

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        if name not in self.names:
            raise Unreadable(f"damaged, {name} is missing")
        info = self._archive.getinfo(name)
        guard(info, LARGEST)
        with self._archive.open(info) as stream:
            yield stream

    def parse(self, name: str, handler: ContentHandler) -> None:
        """Send the elements of one XML part to a handler."""
        with self.open(name) as stream:
            _parse(stream, handler)


@contextmanager
def package(stream: BinaryIO, kind: str) -> Iterator[Package]:
    with problems():
        start = stream.read(8)
        stream.seek(0)
        if not start.startswith(b"PK"):
            raise Unreadable(magic(start) or (f"damaged, no {kind} file" if start else "empty"))
        with open_zip(stream) as archive:
            yield Package(archive)


def _parse(stream: Any, handler: ContentHandler) -> None:
    from defusedxml.common import DefusedXmlException
    from defusedxml.sax import make_parser

    parser = make_parser()
    parser.forbid_dtd = True
    parser.setFeature(feature_namespaces, True)
    parser.setContentHandler(handler)
    try:
        parser.parse(stream)
    except DefusedXmlException:
        raise Unreadable("its XML defines entities, which can be an attack") from None
    except (SAXParseException, UnicodeError, LookupError) as e:
        at = f" line {e.getLineNumber()}" if isinstance(e, SAXParseException) else ""
        raise Unreadable(f"damaged, its XML breaks off or is mixed up{at}") from None
