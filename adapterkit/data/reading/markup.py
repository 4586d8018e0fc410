"""HTML as text, through ``inscriptis``: paragraphs stay apart, scripts and styles go.

The parser's own limits would cut long or deeply nested pages short without a
word; here such a page is refused instead.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import Any, BinaryIO

from adapterkit.data.reading.decode import Decoded, one_line_end
from adapterkit.data.reading.encoding import MARKS
from adapterkit.data.reading.kinds import Unreadable

LARGEST = 256 << 20  # bytes; a page is held as a tree, of about ten times the size
DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
# <title/> is whole in XHTML; read as HTML it would swallow what follows
CLOSED = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)(\w+)((?:\s[^<>]*)?)/>",
    re.IGNORECASE,
)
BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+\n")
UNSEEN = ("template", "svg", "select", "textarea", "button", "audio", "video", "iframe", "object", "rt", "rp")


def read_html(stream: BinaryIO) -> tuple[str, Decoded | None]:
    """Text of a page, and how its bytes were read if it did not say so itself."""
    raw = stream.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise Unreadable(f"over {LARGEST >> 20} MB of HTML")
    if (told := _as_declared(raw)) is not None:
        return to_text(told), None
    decoded = Decoded(io.BytesIO(raw))
    return to_text(decoded.text()), decoded


def to_text(html: str) -> str:
    """What a person would see of a page.

    Raises:
        Unreadable: it is nested deeper than can be followed.
    """
    import lxml.html  # comes with inscriptis
    from inscriptis.html_engine import Inscriptis

    html = CLOSED.sub(r"<\1\2></\1>", XML_DECLARATION.sub("", html, count=1))
    if not html.strip():
        return ""
    parser = lxml.html.HTMLParser(huge_tree=True)
    try:
        tree = lxml.html.document_fromstring(html, parser=parser)
        if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
            raise Unreadable("its HTML is nested too deep")
        text = Inscriptis(tree, _config()).get_text()
    except RecursionError:
        raise Unreadable("its HTML is nested too deep") from None
    except lxml.etree.ParserError:  # nothing but comments
        return ""
    return _tidy(one_line_end(text))


def _tidy(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return BLANK_LINES.sub("\n\n", lines).strip("\n")


def _as_declared(raw: bytes) -> str | None:
    """A page of before Unicode that names its encoding, read so."""
    if raw.startswith(tuple(mark for mark, _, _ in MARKS)) or (found := DECLARED.search(raw[:4096])) is None:
        return None
    name = found[1].decode("ascii", "replace").lower()
    # what browsers do: pages that say latin-1 are Windows-1252
    name = "cp1252" if name in ("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii") else name
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        try:
            if codecs.lookup(name).name.startswith("utf"):
                return None
            return one_line_end(raw.decode(name))
        except (LookupError, UnicodeError):
            return None
    return None


def _config() -> Any:
    from inscriptis.css_profiles import CSS_PROFILES
    from inscriptis.html_properties import Display
    from inscriptis.model.config import ParserConfig
    from inscriptis.model.html_element import HtmlElement

    css = dict(CSS_PROFILES["strict"])
    css |= {tag: HtmlElement(display=Display.block) for tag in ("ul", "ol")}  # without an indent
    css |= {tag: HtmlElement(display=Display.none) for tag in UNSEEN}
    return ParserConfig(css=css)
