"""Which files can be read, and why the others can't: by their endings and their first bytes.

Three sorts: kinds with a reader, writing without one (a PDF holds text that
somebody meant to be learned, so it stops the run), and what plainly is no
text (a picture is only named). Nothing here opens a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from adapterkit.errors import DataError

PLAIN = "txt"
OFFICE = frozenset({"docx", "odt", "epub"})
TABLES = frozenset({"jsonl", "json", "csv", "tsv", "parquet"})
READ = {
    "": "txt", ".txt": "txt", ".text": "txt", ".md": "txt", ".markdown": "txt",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".docx": "docx", ".odt": "odt", ".epub": "epub",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
WRITING = {
    ".pdf": "PDF", ".rtf": "RTF", ".doc": "an old Word file", ".dot": "an old Word file",
    ".docm": "Word with macros", ".dotx": "a template of Word", ".pages": "Pages", ".wpd": "WordPerfect",
    ".wps": "Works", ".sxw": "StarOffice", ".fodt": "flat ODF", ".gdoc": "a link to Google Docs",
    ".scriv": "Scrivener", ".mobi": "Kindle", ".azw": "Kindle", ".azw3": "Kindle", ".fb2": "FictionBook",
    ".djvu": "DjVu", ".ps": "PostScript",
}  # fmt: skip
OTHER = {
    "not text": """jpg jpeg png gif bmp tif tiff webp svg heic avif ico psd ai eps indd xcf cr2 nef
        mp3 wav flac ogg oga opus m4a aac aiff wma mid midi mp4 mov avi mkv webm wmv m4v mpg mpeg flv
        ttf otf woff woff2 eot exe dll so dylib bin o a obj pyc pyo class jar apk msi deb rpm
        db sqlite sqlite3 mdb pkl pickle npy npz pt pth ckpt safetensors gguf onnx h5 hdf5 arrow feather
        iso dmg img swf lnk url webloc torrent ds_store""",
    "slides": "ppt pptx pps ppsx odp key",
    "a spreadsheet": "xls xlsx xlsm xlsb ods numbers",
    "an archive": "tar tgz tbz txz 7z rar bz2 xz zst lz4 lzma cab",
}
NOT_TEXT = {f".{suffix}": reason for reason, suffixes in OTHER.items() for suffix in suffixes.split()}
# Only marks that no text begins with; other binary data shows by its zeros.
MAGIC = (
    (b"%PDF-", "PDF"),
    (b"{\\rtf", "RTF"),
    (b"%!PS", "PostScript"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file, or one with a password"),
    (b"PK\x03\x04", "a zip, or a kind of document that is one"),
    (b"\x1f\x8b", "packed with gzip"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF89a", "a picture"),
)
# ".5" of "Chapter 1.5" and ". The sea" of "1. The sea" are part of a name, not an ending
ENDING = re.compile(r"\.(?=\w*[a-z])\w{1,10}")
ALL_SUFFIXES = frozenset({*READ, *WRITING, *NOT_TEXT, ".gz", ".zip"}) - {""}


class Unreadable(DataError):
    """One file can't be read; the message is only the reason, as it is put behind the file's name."""

    default_code = "unreadable-text"


@dataclass(frozen=True)
class Kind:
    """What the name of a file says of it: a reader, or a reason why there is none."""

    reader: str = ""
    reason: str = ""
    stops: bool = False  # it is writing, so that leaving it out is for a person to decide
    packed: bool = False  # with gzip
    known: bool = True  # by its ending

    @property
    def is_zip(self) -> bool:
        return self.reader == "zip"


def kind_of(name: str, told: str = "auto") -> Kind:
    """The kind of a file.

    Args:
        name: of the file, with or without folders.
        told: ``data.format``; it takes the place of what the ending says.
    """
    base = PurePosixPath(name).name.lower()
    packed = base.endswith(".gz")
    suffix = _suffix(base.removesuffix(".gz"))
    if base.startswith("~$"):
        return Kind(reason="a lock file of Word")
    if suffix in NOT_TEXT:
        return Kind(reason=NOT_TEXT[suffix])
    if suffix == ".zip":
        return Kind(reason="a zip in a gz") if packed else Kind("zip")
    if told != "auto":
        return Kind(told, packed=packed)
    if suffix in WRITING:
        return Kind(reason=WRITING[suffix], stops=True)
    if suffix in READ:
        return Kind(READ[suffix], packed=packed)
    if suffix == "~":
        return Kind(PLAIN, "a backup copy", packed=packed, known=False)
    return Kind(PLAIN, f"{suffix} is no ending of a text", packed=packed, known=False)


def _suffix(base: str) -> str:
    if base.endswith("~"):
        return "~"
    suffix = PurePosixPath(base).suffix
    return suffix if suffix in ALL_SUFFIXES or ENDING.fullmatch(suffix) else ""


def magic(head: bytes) -> str:
    """What the first bytes of a file give away, or nothing."""
    return next((reason for start, reason in MAGIC if head.startswith(start)), "")
