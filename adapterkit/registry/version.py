"""One version of an adapter, as its manifest tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from adapterkit.errors import Damaged, NotFound, Unsupported
from adapterkit.files import canonical_json, sha256_bytes, sha256_file
from adapterkit.recipe.schema import Recipe
from adapterkit.refs import is_name

SCHEMA = 1
MAX_MANIFEST = 16 << 10
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Metrics:
    """Scores on the held-out text; None where nothing was held out or measured."""

    loss: float | None = None  # nats a token, fp32
    base_loss: float | None = None
    perplexity: float | None = None
    base_perplexity: float | None = None
    tokens: int | None = None  # that were scored
    held_out: str | None = None  # fingerprint of the held-out text
    stops: float | None = None  # share of samples that end by themselves
    copied_words: int | None = None  # longest run of words copied from the training text

    @property
    def gain(self) -> float | None:
        """Change of perplexity against the base: -0.32 is 32 % better."""
        if not self.perplexity or not self.base_perplexity:
            return None
        return self.perplexity / self.base_perplexity - 1

    @property
    def improvement(self) -> float | None:
        """The share by which perplexity is lower than the base's, the ``gain`` of every JSON: 0.32 is 32 % better."""
        return None if self.gain is None else -self.gain


@dataclass(frozen=True)
class Lineage:
    how: str = "train"  # train, blend, extract, import
    parents: tuple[str, ...] = ()  # digests


@dataclass(frozen=True)
class Point:
    """One point of the training curve."""

    step: int
    tokens: int
    loss: float | None
    held_out: float | None
    learning_rate: float | None
    seconds: float


@dataclass(frozen=True)
class Sample:
    prompt: str
    text: str
    base_text: str | None = None


@dataclass(frozen=True, eq=False)
class Version:
    """An immutable version in a registry. Two are equal when their digests are."""

    name: str
    number: int
    digest: str
    path: Path
    created: datetime
    kind: Literal["lora", "full"]
    base: str
    manifest: dict[str, Any] = field(repr=False)
    note: str = ""
    deleted: bool = False

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def recipe(self) -> Recipe:
        return Recipe.model_validate(self.manifest["recipe"])

    @property
    def metrics(self) -> Metrics:
        return Metrics(**self.manifest["metrics"])

    @property
    def lineage(self) -> Lineage:
        told = self.manifest["lineage"]
        return Lineage(told["how"], tuple(told["parents"]))

    @property
    def size(self) -> int:
        """Bytes of the files that ship."""
        return sum(f["size"] for f in self.manifest["files"].values())

    def history(self) -> list[Point]:
        """The training curve; empty for a version that was not trained here."""
        path = self.path / "history.json"
        return [Point(**p) for p in json.loads(path.read_text())] if path.exists() else []

    def samples(self) -> list[Sample]:
        """Texts written right after training, the base's beside them; empty where they never came along."""
        path = self.path / "private" / "samples.json"
        return [Sample(**s) for s in json.loads(path.read_text())] if path.exists() else []

    def report(self) -> Path:
        """The page that training wrote, to be opened in a browser.

        Raises:
            NotFound: an import, or a version of before there were reports.
        """
        path = self.path / "private" / "report.html"
        if not path.exists():
            raise NotFound(
                f"{self.ref} has no report: it is written by training and stays where that was done.",
                hint=f"adapterkit show {self.ref}     (its numbers)",
                details={"ref": self.ref},
            )
        return path

    def _repr_html_(self) -> str:
        from adapterkit.registry import rich  # which builds on this module

        return rich.version(self)

    def verify(self, only: str = "") -> None:
        """Hash the files against the manifest (all, or the one named).

        Raises:
            Damaged: a file is missing or not the one that was published.
        """
        for name, told in self.manifest["files"].items():
            if only and name != only:
                continue
            path = self.path / name
            found = sha256_file(path) if path.is_file() else "missing"
            if found != told["sha256"]:
                raise Damaged(
                    f"{self.ref} is damaged: {name} is not the file that was published "
                    f"(sha256 {found[:8]}, should be {told['sha256'][:8]}).",
                    hint=f"train it again from its text: adapterkit train SOURCE --name {self.name} --fresh",
                    details={"ref": self.ref, "file": name, "sha256": found, "expected": told["sha256"]},
                )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        return f"{self.ref} {self.digest[:8]}"


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with its own digest."""
    body = {k: v for k, v in manifest.items() if k != "digest"}
    return {**body, "digest": sha256_bytes(canonical_json(body))}


def read(folder: Path, note: str = "") -> Version:
    """The version in a folder, after its manifest was checked against its own digest.

    Raises:
        Damaged: the manifest is missing, torn or changed.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise ValueError("too long")
        raw = path.read_bytes()
        manifest = json.loads(raw)
        whole = canonical_json(seal(manifest)) == raw
        if whole and manifest["min_reader"] > SCHEMA:
            raise Unsupported(
                f"{path} was written by a newer AdapterKit (format {manifest['schema']}, this one reads {SCHEMA}).",
                hint="pip install -U adapterkit",
            )
        if not whole or not is_name(manifest["name"]):
            raise ValueError("changed")
        if folder.name != str(manifest["version"]) and folder.parent.name != ".staging":
            raise ValueError(f"it says it is version {manifest['version']}")
        return Version(
            name=manifest["name"],
            number=int(manifest["version"]),
            digest=manifest["digest"],
            path=folder,
            created=datetime.fromisoformat(manifest["created"]),
            kind=manifest["kind"],
            base=manifest["base"]["id"],
            manifest=manifest,
            note=note,
            deleted=(folder / "deleted").exists(),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        where = f"{folder.parent.name}@{folder.name}"
        raise Damaged(
            f"{where} is damaged: its manifest can't be read ({type(e).__name__}: {e}).",
            hint=f"train it again from its text: adapterkit train SOURCE --name {folder.parent.name} --fresh",
        ) from e
