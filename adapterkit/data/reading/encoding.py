"""Which encoding bytes are in.

UTF-8 and the forms of Unicode that show by themselves come first. Western text
from before Unicode is told by where its letters stand, as a statistical guess
is at a loss with a short poem; only the rest is left to ``charset_normalizer``.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from adapterkit.data.reading.kinds import Unreadable, magic

SAMPLE = 1 << 16  # bytes around letters beyond ASCII that an encoding is told by
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8", ""),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
CONTROLS = bytes(
    c for c in range(32) if c not in b"\t\n\v\f\r\x1a\x1b"
)  # 1a ends a file of DOS, 1b begins a colour
STRAY = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as Python's surrogateescape notes it
BEYOND_ASCII = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")  # a line
# What other encodings look like when they are read as Windows-1252: signs and capitals within words, ...
WITHIN = re.compile(r"(?<=[a-zà-ÿ])[‚„“”†‡ˆ‰‹¡¢£¤¥¦§¨¬¯±²³¶¸¹¼½¾¿À-ÖØ-ÞŸŽŠ](?=[a-zà-ÿ])")
# ... letters beyond ASCII side by side (dashes and the like may be), ...
RUN = re.compile(r"[^\x00-\x7f–—…•·°\xa0]{3,}")
# ... and letters that no Western language has together: in truth Czech, Hungarian, Turkish.
APART = (
    ("ø", "ì", "cp1250"),
    ("è", "ž", "cp1250"),
    ("ì", "ž", "cp1250"),
    ("õ", "û", "cp1250"),
    ("þ", "ü", "cp1254"),
    ("ý", "ü", "cp1254"),
    ("ð", "ç", "cp1254"),
)
ASKED = (
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "mac_roman", "cp850", "cp866",
    "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr",
)  # fmt: skip
NAMES = {
    "koi8_r": "KOI8-R",
    "mac_roman": "Mac Roman",
    "shift_jis": "Shift JIS",
    "euc_jp": "EUC-JP",
    "euc_kr": "EUC-KR",
    "big5": "Big5",
    "gb18030": "GB18030",
}


@dataclass(frozen=True)
class Encoding:
    """How a file is read."""

    codec: str
    name: str = ""  # for a person; nothing for plain UTF-8
    mark: int = 0  # bytes of a byte order mark
    mends: bool = False  # UTF-8 with bytes of Windows-1252 in it

    @property
    def said(self) -> str:
        """What follows "was read as"."""
        return f"{self.name}{'' if self.codec.startswith('utf') else ', as it is not UTF-8'}"


def encoding_of(raw: bytes, *, cut: bool = False) -> Encoding:
    """How these bytes are meant.

    Args:
        raw: a file, or its beginning.
        cut: they may end within a character.

    Raises:
        Unreadable: they are no text, or of no encoding that can be told.
    """
    for mark, codec, name in MARKS:
        if raw.startswith(mark) and not (codec.startswith("utf-32") and len(raw) % 4):
            return Encoding(codec, name, len(mark), mends=codec == "utf-8" and not _is_utf8(raw, cut))
    if what := magic(raw):
        raise Unreadable(what)
    if codec := _utf16(raw):
        return Encoding(codec, "UTF-16")
    if is_binary(raw):
        raise Unreadable("binary data")
    if _is_utf8(raw, cut):
        return Encoding("utf-8")
    sample = b"".join(_lines_beyond_ascii(raw))
    return Encoding("utf-8", mends=True) if _is_mostly_utf8(sample) else _legacy(sample)


def check_text(head: bytes) -> None:
    """Find at once what the beginning of a file gives away.

    Raises:
        Unreadable: it is no text.
    """
    if any(head.startswith(mark) for mark, _, _ in MARKS):
        return
    if what := magic(head):
        raise Unreadable(what)
    if not _utf16(head[: len(head) & ~1]) and is_binary(head):
        raise Unreadable("binary data")


def is_binary(raw: bytes) -> bool:
    """Zeros or control characters; a few in a long text are a slip, a share of them is not."""
    return raw.count(0) * 1000 > len(raw) or (len(raw) - len(raw.translate(None, CONTROLS))) * 50 > len(raw)


def _utf16(raw: bytes) -> str:
    """UTF-16 without a mark shows by zeros in every other byte, at least for its blanks."""
    head = raw[:SAMPLE]
    low, high = head[0::2].count(0), head[1::2].count(0)
    rare, often = sorted((low, high))
    if len(raw) < 4 or len(raw) % 2 or often * 40 < len(head) or rare * 20 > often:
        return ""
    codec = "utf-16-le" if high > low else "utf-16-be"
    text = head.decode(codec, "replace")
    printable = sum(c.isprintable() or c in "\t\r\n\f" for c in text)
    return codec if printable * 100 >= len(text) * 95 else ""


def _is_utf8(raw: bytes, cut: bool) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw, final=not cut)
    except UnicodeDecodeError:
        return False
    return True


def _is_mostly_utf8(sample: bytes) -> bool:
    text = sample.decode("utf-8", "surrogateescape")
    strays = len(STRAY.findall(text))
    sound = len(re.findall("[^\x00-\x7f\udc80-\udcff]", text))
    # two bytes may look like UTF-8 by chance, as the É» of a French capital before a quote; three of a quote do not
    marks = len(re.findall("[\u2010-\u203f]", text))
    return sound > 0 and (sound >= strays or marks * 10 >= strays)


def _legacy(sample: bytes) -> Encoding:
    """An encoding from before Unicode."""
    codec = _by_letters(sample)
    if not codec:
        import charset_normalizer  # only odd files pay for it

        best = charset_normalizer.from_bytes(sample, cp_isolation=list(ASKED)).best()
        if best is None:
            raise Unreadable("no encoding fits it")
        codec = best.encoding
    return Encoding(
        codec, NAMES.get(codec) or codec.replace("cp125", "Windows-125").replace("cp", "code page ")
    )


def _by_letters(sample: bytes) -> str:
    """The encoding, if the letters show it when they are read as Windows-1252."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    beyond = sum(c > "\x7f" for c in text)
    in_runs = sum(len(run) for run in RUN.findall(text))
    if in_runs * 2 > beyond:  # another script
        return ""
    for a, b, codec in APART:
        few, many = sorted((text.count(a), text.count(b)))
        if few * 5 >= many > 0:  # not for a name from abroad
            return codec
    return "cp1252" if (len(WITHIN.findall(text)) + in_runs) * 10 <= beyond else ""


def _lines_beyond_ascii(raw: bytes) -> Iterator[bytes]:
    taken = 0
    for match in BEYOND_ASCII.finditer(raw):
        yield match[0][:SAMPLE]
        taken += len(match[0])
        if taken > SAMPLE:
            return
