"""One version of an adapter, as its manifest tells it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapterkit.errors import Damaged, NotFound
from adapterkit.files import sha256_file
from adapterkit.registry.manifest import COLLECTED as COLLECTED
from adapterkit.registry.manifest import DELETED as DELETED
from adapterkit.registry.manifest import MANIFEST as MANIFEST
from adapterkit.registry.manifest import MAX_MANIFEST as MAX_MANIFEST
from adapterkit.registry.manifest import PRIVATE as PRIVATE
from adapterkit.registry.manifest import SCHEMA as SCHEMA
from adapterkit.registry.manifest import is_inside as is_inside
from adapterkit.registry.manifest import parse_manifest as parse_manifest
from adapterkit.registry.manifest import read_manifest as read_manifest
from adapterkit.registry.manifest import seal as seal
from adapterkit.registry.manifest import unreadable as unreadable

if TYPE_CHECKING:  # pydantic takes half of the start of `list`
    from adapterkit.recipe.schema import Recipe

COPIED = 30  # words in a row of the training text: a quotation is shorter, a page is longer


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


@dataclass(frozen=True)
class Yardstick:
    """What must be equal for two losses to be comparable."""

    held_out: str  # fingerprint of the targets
    base: str  # of the weights
    tokenizer: str
    length: int  # tokens of a row: a long document is cut there and loses what came before
    packing: str


@dataclass(frozen=True)
class Facts:
    """What lists, sorts and finds versions, taken from a manifest."""

    created: datetime
    kind: Literal["lora", "full"]
    base: str
    content: str  # sha256 of kind, base and weights
    size: int  # bytes of the files that ship
    metrics: Metrics
    by: Yardstick | None  # None where nothing was held out
    made_from: str | None  # of recipe, text and base, by which training finds it again


@dataclass(frozen=True, eq=False)
class Version:
    """An immutable version in a registry. Two are equal when their digests are.

    Attributes:
        name: of the adapter as it is called now.
        deleted: hidden, by ``delete``.
        is_collected: ``gc`` has taken its files; the manifest stays.
    """

    name: str
    number: int
    digest: str
    home: Path  # the name's folder
    facts: Facts = field(repr=False)
    note: str = ""
    deleted: bool = False
    is_collected: bool = False
    staged_as: str = ""  # its folder before it has a number

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The whole manifest.

        Raises:
            Damaged: it is not the one that was published, or gone.
        """
        return read_manifest(self.path, self.digest)

    @property
    def path(self) -> Path:
        return self.home / (self.staged_as or str(self.number))

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def created(self) -> datetime:
        return self.facts.created

    @property
    def kind(self) -> Literal["lora", "full"]:
        return self.facts.kind

    @property
    def base(self) -> str:
        return self.facts.base

    @property
    def recipe(self) -> Recipe:
        from adapterkit.recipe.schema import Recipe

        try:
            return Recipe.model_validate(self.manifest.get("recipe") or {})
        except ValueError as e:
            raise Damaged(
                f"{self.ref} holds a recipe that this AdapterKit can't read ({str(e).splitlines()[0]}).",
                hint="pip install -U adapterkit",
                details={"ref": self.ref},
            ) from None

    @property
    def metrics(self) -> Metrics:
        return self.facts.metrics

    @property
    def lineage(self) -> Lineage:
        told = self.manifest["lineage"]
        return Lineage(told["how"], tuple(told["parents"]))

    @property
    def size(self) -> int:
        """Bytes of the files that ship."""
        return self.facts.size

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

    def verify(self, only: str = "", *, but: Collection[str] = ()) -> None:
        """Hash the files against the manifest: all, or the one named.

        Args:
            but: files that the caller hashes as it reads them.

        Raises:
            Damaged: a file is missing, a link, or not the one that was published; or one is there that was not.
        """
        for name, told in self.manifest["files"].items():
            if (only and name != only) or name in but:
                continue
            path = self.path / name
            found = sha256_file(path) if _is_plain(path) else "missing"
            if found != told["sha256"]:
                raise Damaged(
                    f"{self.ref} is damaged: {name} is not the file that was published "
                    f"(sha256 {found[:8]}, should be {told['sha256'][:8]}).",
                    hint=self.remedy,
                    details={"ref": self.ref, "file": name, "sha256": found, "expected": told["sha256"]},
                )
        if not only and (strange := self._strange()):
            raise Damaged(
                f"{self.ref} is damaged: {strange} was not published with it.",
                hint=f"look at it, then: rm {self.path / strange}",
                details={"ref": self.ref, "file": strange},
            )

    @property
    def remedy(self) -> str:
        """How a damaged version is had again."""
        made = "adapterkit train --repeat" if self.manifest["lineage"]["how"] == "train" else ""
        again = f", or make it again: {made} {self.ref}" if made else ""
        return f"adapterkit import {self.name}-{self.number}.adapter.safetensors{again}"

    def _strange(self) -> str | None:
        """A file in the folder that a loader might take for a part of the version."""
        known = {*self.manifest["files"], MANIFEST, DELETED, COLLECTED, PRIVATE}
        top = {name.split("/")[0] for name in known}
        return next(
            (n for n in sorted(os.listdir(self.path)) if n not in top and not n.startswith(".")), None
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        return f"{self.ref} {self.digest[:8]}"


def read(folder: Path, note: str = "") -> Version:
    """The version in a folder, after its manifest was checked against its own digest.

    Raises:
        Damaged: the manifest is missing, torn or changed.
        Unsupported: it was written by a newer AdapterKit.
    """
    manifest = read_manifest(folder)
    is_staged = folder.parent.name == ".staging"
    try:
        if folder.name != str(manifest["version"]) and not is_staged:
            raise ValueError(f"it says it is version {manifest['version']}")
        marks = {m for m in (DELETED, COLLECTED) if (folder / m).exists()}
        version = Version(
            name=manifest["name"] if is_staged else folder.parent.name,
            number=int(manifest["version"]),
            digest=manifest["digest"],
            home=folder.parent,
            facts=_facts(manifest),
            note=note,
            deleted=bool(marks),
            is_collected=COLLECTED in marks,
            staged_as=folder.name if is_staged else "",
        )
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise unreadable(folder, e) from e
    version.__dict__["manifest"] = manifest  # as the property would read it
    return version


def _facts(manifest: dict[str, Any]) -> Facts:
    metrics = Metrics(**{f.name: manifest["metrics"].get(f.name) for f in fields(Metrics)})
    return Facts(
        created=datetime.fromisoformat(manifest["created"]),
        kind=manifest["kind"],
        base=manifest["base"]["id"],
        content=manifest["content"],
        size=sum(f["size"] for f in manifest["files"].values()),
        metrics=metrics,
        by=_yardstick(manifest, metrics),
        made_from=manifest.get("made_from"),
    )


def _yardstick(manifest: dict[str, Any], metrics: Metrics) -> Yardstick | None:
    """Of the score in a manifest."""
    recipe = manifest.get("recipe")
    if metrics.held_out is None or not recipe:
        return None
    length = recipe.get("train", {}).get("max_length")
    return Yardstick(
        held_out=metrics.held_out,
        base=manifest["base"]["weights"],
        tokenizer=manifest["base"]["tokenizer"],
        length=length if isinstance(length, int) else 0,
        packing=str(recipe.get("data", {}).get("packing")),
    )


def _is_plain(path: Path) -> bool:
    """A file of its own: a link may lead anywhere, and mean another file tomorrow."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
