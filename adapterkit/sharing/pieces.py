"""Safetensors files put together from parts of other files, a chunk at a time.

Writes the very bytes that ``tensorfile.write`` would, without holding the
tensors in memory: sorted names, canonical header, one file at the end. Nothing
here knows what the tensors mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterkit.errors import Damaged
from adapterkit.files import CHUNK, canonical_json, sync_file
from adapterkit.registry import tensorfile

PLAIN = {"format": "pt"}  # all that a version's own weights say about themselves


@dataclass(frozen=True)
class Piece:
    """One tensor to be written: its type and shape, and where its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    source: Path | bytes
    begin: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """Its bytes.

        Raises:
            Damaged: the file became shorter since its header was read.
        """
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb") as file:
            file.seek(self.begin)
            left = self.size
            while left:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise Damaged(f"{self.source.name} was cut while it was read.", hint="copy it again")
                left -= len(chunk)
                yield chunk

    def read(self) -> bytes:
        return b"".join(self.chunks())


def of_bytes(data: bytes) -> Piece:
    """Any bytes as a tensor of U8."""
    return Piece("U8", (len(data),), data, 0, len(data))


def of_tensor(dtype: str, shape: tuple[int, ...], data: bytes) -> Piece:
    return Piece(dtype, shape, data, 0, len(data))


def of_header(path: Path, header: tensorfile.Header) -> dict[str, Piece]:
    """The tensors of a file whose header was checked."""
    return {
        name: Piece(e.dtype, e.shape, path, header.data_start + e.begin, e.end - e.begin)
        for name, e in header.entries.items()
    }


def is_canonical(path: Path) -> bool:
    """Whether a file can be had again, byte for byte, from its tensors alone."""
    head = head_bytes(of_header(path, tensorfile.read_header(path)), PLAIN)
    with path.open("rb") as file:
        return file.read(len(head)) == head


def head_bytes(pieces: Mapping[str, Piece], metadata: Mapping[str, str]) -> bytes:
    """Length and header of the file, as ``tensorfile.write`` spells them."""
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in sorted(pieces):
        piece = pieces[name]
        table[name] = {
            "dtype": piece.dtype,
            "shape": list(piece.shape),
            "data_offsets": [at, at + piece.size],
        }
        at += piece.size
    head = canonical_json(table)
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head


def stream(pieces: Mapping[str, Piece], metadata: Mapping[str, str]) -> Iterator[bytes]:
    """The bytes of the file from its beginning."""
    yield head_bytes(pieces, metadata)
    for name in sorted(pieces):
        yield from pieces[name].chunks()


def write(path: Path, pieces: Mapping[str, Piece], metadata: Mapping[str, str]) -> None:
    """Write the file and make it durable; its mode is what the umask leaves of 0666."""
    with path.open("xb") as file:
        for chunk in stream(pieces, metadata):
            file.write(chunk)
        file.flush()
        sync_file(file.fileno())


def measure(pieces: Mapping[str, Piece], metadata: Mapping[str, str]) -> tuple[int, str]:
    """Size and sha256 of the file, without writing it."""
    size, digest = 0, hashlib.sha256()
    for chunk in stream(pieces, metadata):
        size += len(chunk)
        digest.update(chunk)
    return size, digest.hexdigest()
