"""What of a version travels: its manifest, its text files and its tensors; nothing of ``private/``.

The same whether it comes from the registry, from a packed file or from a
folder that was copied; each way in builds one, ``check`` compares it with its
manifest, ``fill`` makes a folder of it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterkit.errors import Damaged, Unsupported
from adapterkit.files import sha256_bytes
from adapterkit.registry import tensorfile
from adapterkit.registry.store import WEIGHTS, content
from adapterkit.registry.version import MANIFEST, MAX_MANIFEST, Version, parse_manifest
from adapterkit.sharing import pieces
from adapterkit.sharing.pieces import PLAIN, Piece

# Whatever else lies in a folder never travels: neither pickles nor code have a name here.
TEXTS = {
    "lora": ("README.md", "adapter_config.json", "history.json", "recipe.json"),
    "full": (
        "README.md",
        "config.json",
        "generation_config.json",
        "history.json",
        "merges.txt",
        "recipe.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ),
}
MAX_TEXT = 16 << 20  # bytes of all text files that do not fit a header; GPT-2's tokenizer has 4 MB
MAX_NUMBER = 99_999  # of a version that comes in: its name must have numbers left


@dataclass(frozen=True)
class Shipment:
    """A version on its way.

    Attributes:
        name: of the adapter where it comes from; its manifest keeps the name at publication.
        manifest: whole and sealed.
        texts: file name -> bytes.
        weights: tensor name -> where its bytes are.
        label: what messages call it.
    """

    name: str
    manifest: dict[str, Any]
    texts: Mapping[str, bytes]
    weights: Mapping[str, Piece]
    label: str

    @property
    def number(self) -> int:
        return int(self.manifest["version"])

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def weights_name(self) -> str:
        return WEIGHTS[self.manifest["kind"]]

    def check(self) -> None:
        """Every file against the manifest.

        Raises:
            Damaged: one is missing, too many, or not the one that was published.
        """
        told = self.manifest["files"]
        found = {name: (len(data), sha256_bytes(data)) for name, data in self.texts.items()}
        if missing := sorted(told.keys() - found.keys() - {self.weights_name}):
            raise Damaged(f"{self.label} lacks {', '.join(missing)}.", hint=again(self.label))
        found[self.weights_name] = pieces.measure(self.weights, PLAIN)
        for name, (size, sha) in sorted(found.items()):
            expected = told.get(name, {})
            if (expected.get("size"), expected.get("sha256")) != (size, sha):
                raise Damaged(
                    f"{self.label} is damaged: its {name} is not the file that was published "
                    f"(sha256 {sha[:8]}, should be {str(expected.get('sha256'))[:8]}).",
                    hint=again(self.label),
                    details={"file": name, "sha256": sha, "expected": expected.get("sha256")},
                )

    def fill(self, folder: Path) -> None:
        """Its files, without the manifest, in an empty folder."""
        for name, data in self.texts.items():
            (folder / name).write_bytes(data)
        pieces.write(folder / self.weights_name, self.weights, PLAIN)


def of_version(version: Version) -> Shipment:
    """A version of the registry, after its files were hashed.

    Raises:
        Damaged: a file is not the one that was published.
        Unsupported: it holds a file that does not travel, or weights of another writer.
    """
    if version.is_collected:
        raise Unsupported(
            f"{version.ref} was deleted and its files are gone; only its manifest is kept.",
            hint=f"adapterkit list {version.name} --all",
        )
    version.verify()
    return _of_folder(version.path, version.manifest, version.name, version.ref)


def of_folder(folder: Path, label: str) -> Shipment:
    """A version's folder that was copied elsewhere, or fetched from the Hub.

    Raises:
        Damaged, Unsupported: as ``manifest_of`` and ``check``.
    """
    path = inside(folder, MANIFEST, label)
    if path.stat().st_size > MAX_MANIFEST:
        raise Damaged(f"{label}: its {MANIFEST} is over {MAX_MANIFEST:,} bytes.", hint=again(label))
    manifest = manifest_of(path.read_bytes(), label)
    made = _of_folder(folder, manifest, manifest["name"], label)
    made.check()
    return made


def _of_folder(folder: Path, manifest: dict[str, Any], name: str, label: str) -> Shipment:
    weights = inside(folder, WEIGHTS[manifest["kind"]], label)
    names = sorted(manifest["files"].keys() - {weights.name})
    if strange := [n for n in names if n not in TEXTS[manifest["kind"]]]:
        raise Unsupported(
            f"{label} holds {', '.join(strange)}, which is no part of an adapter and does not travel.",
            hint="make it again with this AdapterKit",
        )
    texts = {n: _read(inside(folder, n, label), label) for n in names}
    if not pieces.is_canonical(weights):
        raise Unsupported(
            f"{label}: {weights.name} was not written by AdapterKit, so a packed copy could not be the same file.",
            hint="bring it in once more: adapterkit import FOLDER --name NAME",
        )
    header = tensorfile.read_header(weights)
    return Shipment(name, manifest, texts, pieces.of_header(weights, header), label)


def _read(path: Path, label: str) -> bytes:
    size = path.stat().st_size
    if size > MAX_TEXT:
        raise Unsupported(f"{label}: {path.name} has {size:,} bytes, over {MAX_TEXT:,}.")
    return path.read_bytes()


def inside(folder: Path, name: str, label: str) -> Path:
    """A file of a folder that is one, and not a link that leads elsewhere.

    The Hub's cache keeps a snapshot's files as links to its own blobs; those may be followed.

    Raises:
        Damaged: it is not there.
        Unsupported: a link out of the folder.
    """
    path = folder / name
    if not path.is_file():
        raise Damaged(f"{label} has no {name}.", hint=again(label))
    real, blobs = path.resolve(), folder.resolve().parent.parent / "blobs"
    if path.is_symlink() and real.parent not in (folder.resolve(), blobs):
        raise Unsupported(
            f"{label}: {name} is a link that leads out of its folder.",
            hint=f"copy the file itself: cp -L {name}",
        )
    return path


def manifest_of(raw: bytes, label: str) -> dict[str, Any]:
    """A manifest that came from elsewhere, checked as far as this module relies on it.

    Raises:
        Damaged: torn, changed, or not a manifest.
        Unsupported: written by a newer AdapterKit.
    """
    try:
        manifest = parse_manifest(raw, label)
        _check_shape(manifest)
        _check_recipe(manifest, label)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        why = f" ({e})" if isinstance(e, ValueError) and not isinstance(e, UnicodeDecodeError) else ""
        raise Damaged(
            f"{label} is damaged: its manifest is not the one that was published{why}.", hint=again(label)
        ) from None
    return manifest


def _check_shape(manifest: dict[str, Any]) -> None:
    """Raises what ``manifest_of`` turns into Damaged."""
    kind, files, base = manifest["kind"], manifest["files"], manifest["base"]
    if kind not in WEIGHTS or WEIGHTS[kind] not in files:
        raise ValueError(f"its kind is {str(kind)[:20]!r}")
    if not 0 < manifest["version"] <= MAX_NUMBER:
        raise ValueError("its version is a number that nobody reached")
    if strange := files.keys() - {WEIGHTS[kind], *TEXTS[kind]}:
        raise ValueError(f"it lists {sorted(strange)[0][:40]!r}, which is no part of an adapter")
    if len(base["id"]) > 300:
        raise ValueError("a base without a name")
    if manifest["content"] != content(kind, base, files[WEIGHTS[kind]]["sha256"]):
        raise ValueError("its content is not that of its files")


def _check_recipe(manifest: Mapping[str, Any], label: str) -> None:
    """Refuse a recipe that would fail where it is read, long after."""
    from adapterkit.recipe.schema import Recipe  # pydantic takes half of the start of ``pack``

    try:
        Recipe.model_validate(manifest["recipe"])
    except ValueError as e:
        raise Unsupported(
            f"{label} has a recipe with keys or values that this AdapterKit does not know ({type(e).__name__}).",
            hint="pip install -U adapterkit",
            code="newer",
        ) from None


def again(label: str) -> str:
    return f"fetch or copy {label} again"
