"""Text made readable: mojibake, HTML and odd blanks. Words are never changed."""

from __future__ import annotations

import html
import re

from adapterkit.errors import DataError

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ODD_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
BLOCK = re.compile(
    r"</?(?:article|blockquote|body|center|d[dlt]|div|form|h[1-6r]|head|html|li|[ou]l|p|pre|script|section"
    r"|style|table|tbody|t[dhr]|title)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
BREAK = re.compile(r"<br(?:\s[^<>]*)?/?>\n?", re.IGNORECASE)
INLINE = re.compile(
    r"</?(?:a|abbr|b|big|cite|code|del|em|font|i|img|ins|mark|q|s|small|span|strike|strong|su[bp]|tt|u)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def mended(text: str) -> str:
    """Mojibake repaired, control characters gone, one form of each accented letter; curly quotes stay."""
    if text.isascii() and not CONTROL.search(text):
        return text
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_character_width=False,
        normalization="NFC",
        explain=False,
    )
    return str(ftfy.fix_text(text, config))


def tidy(text: str) -> str:
    """Plain spaces, one between words, none at line ends, at most one blank line."""
    spaced = LINE_END.sub("\n", text if text.isascii() else ODD_SPACE.sub(" ", text.replace("\ufeff", "")))
    lines = "\n".join(line.rstrip() for line in spaced.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?<=\S) {2,}", " ", lines)).strip()


def plain(text: str) -> str:
    """HTML as text; where tags only style the words, line breaks stay as they are."""
    if BLOCK.search(text):
        from adapterkit.data.reading.markup import to_text

        try:
            return to_text(text)
        except DataError:  # nested too deep to follow
            text = BLOCK.sub("\n", text)
    text = INLINE.sub("", BREAK.sub("\n", text))
    return ENTITY.sub(lambda m: html.unescape(m[0]), text)
