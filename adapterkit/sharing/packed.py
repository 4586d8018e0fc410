"""One file that holds a version: ``NAME-VERSION.adapter.safetensors``.

A safetensors file. Its tensors are the version's own, and its header's text
part says the rest::

    format                   pt
    adapterkit               1, the layout told here
    adapterkit.manifest      manifest.json, canonical
    adapterkit.ref           NAME@N, as the adapter was called when it was packed
    adapterkit.file.<name>   each small text file
    adapterkit.sha256        of all the others, as canonical JSON

A file over 64 KiB, or not UTF-8, is a tensor of bytes of that same name, so
that the header stays small. The same version gives the same bytes anywhere.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from adapterkit import files
from adapterkit.errors import Damaged, NameTaken, NotFound, Unsupported, UsageProblem
from adapterkit.files import canonical_json, sha256_bytes, sha256_file
from adapterkit.refs import check_name, parse_ref
from adapterkit.registry import tensorfile
from adapterkit.registry.store import Registry
from adapterkit.sharing import leaks, pieces, shipment
from adapterkit.sharing.pieces import Piece
from adapterkit.sharing.shipment import MAX_TEXT, TEXTS, Shipment, again, manifest_of

LAYOUT = 1
SUFFIX = ".adapter.safetensors"
KEY = "adapterkit"
FILE = f"{KEY}.file."
SUM = f"{KEY}.sha256"
SMALL = 64 << 10  # bytes of a text that goes into the header


def pack(registry: Registry, ref: str, *, to: Path = Path("."), half: bool = False) -> Path:
    """Write a version as one file.

    Args:
        to: the folder for it, made if it is not there.
        half: its weights in fp16, as a version of its own named NAME-half.

    Returns:
        The file; the one that is there when it is the same to the byte.

    Raises:
        NotFound, Damaged: no such version, or not the one that was published.
        NameTaken: another file of that name is there.
        Unsupported: it holds something private, or fp16 can't hold its weights.
    """
    version = registry[ref]
    made = shipment.of_version(version)
    leaks.check(made.texts, made.manifest, version.path, version.ref)
    if half:
        from adapterkit.sharing.half import halved  # numpy's work only when asked for

        made = halved(made)
    return write(made, to)


def write(made: Shipment, to: Path) -> Path:
    """The packed file of a shipment in a folder: whole, or not there."""
    if to.exists() and not to.is_dir():
        raise UsageProblem(f"{to} is a file; --to names a folder.", hint=f"--to {to.parent}")
    path = to / f"{made.name}-{made.number}{SUFFIX}"
    aside = to / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with files.writing(to):
            _make_folder(to)
            pieces.write(aside, _tensors(made), _metadata(made))
            _put(aside, path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
    files.sync_folder(to)
    return path


def _make_folder(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as e:
        raise UsageProblem(f"the folder {to} can't be made ({e.strerror}).", hint="--to DIR") from None


def read(path: Path) -> Shipment:
    """What a packed file holds, after every part was compared with its manifest.

    Raises:
        NotFound: no such file.
        Damaged: half copied, or changed.
        Unsupported: a newer layout, or no packed file at all.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}.", hint="adapterkit import FILE, FOLDER or hub:ID")
    header = tensorfile.read_header(path)
    _check_layout(header.metadata, path.name)
    _check_words(path, header)
    manifest = manifest_of(header.metadata.get(f"{KEY}.manifest", "").encode(), path.name)
    name = _name(header.metadata.get(f"{KEY}.ref", ""), int(manifest["version"]), path.name)
    every = pieces.of_header(path, header)
    weights = {n: p for n, p in every.items() if not n.startswith(FILE)}
    texts = _texts(header.metadata, every, manifest["kind"], path.name)
    made = Shipment(name, manifest, texts, weights, path.name)
    made.check()
    return made


# --- the parts ----------------------------------------------------------------


def _metadata(made: Shipment) -> dict[str, str]:
    told = {
        "format": "pt",
        KEY: str(LAYOUT),
        f"{KEY}.manifest": canonical_json(made.manifest).decode(),
        f"{KEY}.ref": made.ref,
    }
    told |= {FILE + name: data.decode() for name, data in made.texts.items() if _is_small(data)}
    return told | {SUM: words_sum(told)}


def words_sum(metadata: Mapping[str, str]) -> str:
    """sha256 of a header's text part, which the manifest's own sums do not cover."""
    return sha256_bytes(canonical_json({k: v for k, v in metadata.items() if k != SUM}))


def _tensors(made: Shipment) -> dict[str, Piece]:
    large = {FILE + name: pieces.of_bytes(data) for name, data in made.texts.items() if not _is_small(data)}
    return {**made.weights, **large}


def _is_small(data: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        return len(data) <= SMALL and data.decode().encode() == data
    return False


def _put(aside: Path, path: Path) -> None:
    """The finished file under its name, never over another one."""
    with suppress(OSError):  # a file system without links: the look below has to do
        if not path.exists():
            os.link(aside, path)
            return
    if not path.exists():
        os.rename(aside, path)
        return
    if not path.is_file() or sha256_file(path) != sha256_file(aside):
        raise NameTaken(
            f"{path} is there already, and another file.",
            hint=f"--to ANOTHER-FOLDER, or: rm {path}",
            details={"path": str(path)},
        )


def _check_layout(metadata: Mapping[str, str], label: str) -> None:
    told = metadata.get(KEY, "")
    if not told:
        raise Unsupported(
            f"{label} holds tensors, but not an adapter with its manifest.",
            hint="import the folder it lies in, with its adapter_config.json: adapterkit import FOLDER",
        )
    if not told.isdecimal() or len(told) > 9:
        raise Damaged(f"{label} says its layout is {told[:20]!r}.", hint=again(label))
    if int(told) > LAYOUT:
        raise Unsupported(
            f"{label} was written by a newer AdapterKit (layout {told}, this one reads {LAYOUT}).",
            hint="pip install -U adapterkit",
            code="newer",
        )


def _check_words(path: Path, header: tensorfile.Header) -> None:
    """The header has to be the one that ``pack`` wrote, to the bit."""
    head = pieces.head_bytes(pieces.of_header(path, header), header.metadata)
    with path.open("rb") as file:
        is_ours = file.read(len(head)) == head and header.metadata.get(SUM) == words_sum(header.metadata)
    if not is_ours:
        raise Damaged(
            f"{path.name} is damaged: its header is not the one that was written.", hint=again(path.name)
        )


def _name(ref: str, number: int, label: str) -> str:
    """The adapter's name; the ref's number has to be the manifest's."""
    try:
        told = parse_ref(ref)
        if told.version != str(number):
            raise Damaged(f"{label} says it is {ref[:80]!r}, its manifest says {number}.", hint=again(label))
        return check_name(told.name)
    except (NotFound, UsageProblem):
        raise Damaged(f"{label} says it is {ref[:80]!r}, which is no version.", hint=again(label)) from None


def _texts(
    metadata: Mapping[str, str], tensors: Mapping[str, Piece], kind: str, label: str
) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    large = sum(p.size for name, p in tensors.items() if name.startswith(FILE))
    if large > MAX_TEXT:
        raise Damaged(f"{label} holds {large:,} bytes of texts, over {MAX_TEXT:,}.", hint=again(label))
    for key in sorted(k for k in (*metadata, *tensors) if k.startswith(FILE)):
        name = key.removeprefix(FILE)
        if name not in TEXTS[kind] or name in found:
            raise Damaged(f"{label} holds a file {name[:40]!r} that has no place there.", hint=again(label))
        if key in metadata:
            found[name] = metadata[key].encode()
        elif tensors[key].dtype == "U8":
            found[name] = tensors[key].read()
        else:
            raise Damaged(f"{label} holds {name} in a form it is not written in.", hint=again(label))
    return found
