"""Bytes as text: decoded, with line ends of one kind; large files in pieces.

A file up to LARGE is decoded whole and strictly. A larger one is told by its
first piece and decoded as it is read, so it is never in memory whole. What is
not plainly UTF-8 is said.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from typing import BinaryIO

from adapterkit.data.reading.encoding import STRAY, Encoding, encoding_of, is_binary
from adapterkit.data.reading.kinds import Unreadable

LARGE = 64 << 20  # bytes; a larger file is decoded in pieces
PIECE = 8 << 20


class Decoded:
    """A file as text, once: take ``pieces``, then ask ``said``."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._encoding = Encoding("utf-8")
        self.strays = 0  # bytes of a UTF-8 file that were Windows-1252

    @property
    def said(self) -> str:
        """What follows "was read as" if a person should know; ``{}`` stands for the strays."""
        return "UTF-8, but for {} as Windows-1252" if self.strays else self._encoding.said

    def text(self) -> str:
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """The text: one piece, or several of a file over LARGE.

        Raises:
            Unreadable: it is no text, or in no encoding that can be told.
        """
        blocks = iter(lambda: self._stream.read(PIECE), b"")
        head = _taken(blocks, LARGE + 1)
        if len(head) > LARGE:
            yield from self._decoded(chain(_sliced(head), blocks), encoding_of(head[:PIECE], cut=True))
        else:
            self._encoding = encoding_of(head)
            yield one_line_end(self._mended(self._whole(head[self._encoding.mark :])))

    def _whole(self, raw: bytes) -> str:
        try:
            return raw.decode(self._encoding.codec, "surrogateescape" if self._encoding.mends else "strict")
        except UnicodeDecodeError as e:
            raise self._broken(e.start) from None

    def _decoded(self, blocks: Iterator[bytes], encoding: Encoding) -> Iterator[str]:
        # the first piece does not show whether all of it is UTF-8
        self._encoding = replace(encoding, mends=encoding.codec == "utf-8")
        decoder = codecs.getincrementaldecoder(encoding.codec)(
            "surrogateescape" if self._encoding.mends else "strict"
        )
        ends = io.IncrementalNewlineDecoder(None, translate=True)  # keeps a \r until it knows what follows
        done = 0
        block = next(blocks)[encoding.mark :]
        while True:
            following = next(blocks, b"")
            if not encoding.codec.startswith(("utf-16", "utf-32")) and is_binary(block):
                raise Unreadable(f"binary data from byte {done:,} on")
            try:
                text = decoder.decode(block, final=not following)
            except UnicodeDecodeError as e:
                raise self._broken(done + e.start) from None
            yield ends.decode(self._mended(text), final=not following)
            if not following:
                return
            done += len(block)
            block = following

    def _broken(self, at: int) -> Unreadable:
        return Unreadable(
            f"{self._encoding.name or 'UTF-8'}, but broken at byte {at + self._encoding.mark:,}"
        )

    def _mended(self, text: str) -> str:
        if self._encoding.mends and not text.isascii():
            text, strays = STRAY.subn(_western, text)
            self.strays += strays
        return text.replace("\0", "") if "\0" in text else text


def one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _western(stray: re.Match[str]) -> str:
    return bytes([ord(stray[0]) - 0xDC00]).decode("cp1252", "replace")


def _taken(blocks: Iterator[bytes], size: int) -> bytes:
    held: list[bytes] = []
    total = 0
    while total < size and (block := next(blocks, b"")):
        held.append(block)
        total += len(block)
    return b"".join(held)


def _sliced(raw: bytes) -> Iterator[bytes]:
    for begin, end in pairwise([*range(0, len(raw), PIECE), len(raw)]):
        yield raw[begin:end]
