"""The registry itself: find versions by ref, publish new ones, keep them.

Layout under the root, normally ``adapters/``::

    registry.json            marks the folder
    renames.jsonl            names that changed
    <name>/<n>/              one version, committed by one rename, never edited
    <name>/aliases/<alias>   {"version", "digest", "sha256"}
    <name>/log.jsonl         what happened, when (notes too)
    <name>/evaluations.jsonl scores taken later
    .runs/<name>-<hex>/      unfinished training
    .staging/<hex>/          every write begins here, on the same file system

How a folder becomes a version: ``commit``; markers: ``keeping``; leftovers:
``collect``. No correctness from locks. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.errors import Damaged, NotFound, Unsupported
from adapterkit.refs import Ref, check_name, parse_ref
from adapterkit.registry import (
    aliases,
    check,
    collect,
    commit,
    journal,
    keeping,
    missing,
    place,
    renames,
    shelf,
    slots,
    version,
)
from adapterkit.registry.check import Problem
from adapterkit.registry.collect import GcReport
from adapterkit.registry.reading import Reader
from adapterkit.registry.slots import Slot
from adapterkit.registry.version import Version

WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}


class Registry(Reader):
    """Versions of adapters in a folder.

    Args:
        path: the folder; None looks for it (``--registry``'s rule). It is created
            by the first write, never by reading.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        super().__init__(path)
        self._contents: dict[tuple[str, int, int], str] = {}  # by name, number, inode: neither ever changes

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to fill and then ``publish``; removed if that does not happen."""
        with ExitStack() as left:
            with files.writing(self.path):
                place.create(self.path)
                folder = left.enter_context(files.staged(self.path))
            with files.no_space(self.path):
                yield folder

    def publish(
        self,
        folder: Path,
        manifest: dict[str, Any],
        *,
        note: str = "",
        fresh: bool = False,
        number: int | None = None,
        sealed: bool = False,
        name: str | None = None,
    ) -> Version:
        """Commit a filled staging folder as a version of ``manifest["name"]``.

        The same content published again returns the version that exists.

        Args:
            folder: from ``staging``; its files outside ``private/`` are digested.
            manifest: all but schema, version, created, files and digest.
            fresh: commit a new number even when the content is there already.
            number: commit exactly this one; None takes the next.
            sealed: the manifest is whole and kept byte for byte, as an import's is.
            name: another than the manifest's: what an adapter is called now.

        Raises:
            NameTaken: the number is another version's.
            Damaged: a sealed manifest does not fit the files.
        """
        name = check_name(name or manifest["name"])
        whole = _checked(folder, manifest) if sealed else _described(folder, manifest)

        def same(listed: list[Slot]) -> int | None:
            return None if fresh else self._same(name, whole, listed, number)

        with files.writing(self.path):
            work = commit.Work(self.path, name, folder, whole, number, sealed, same)
            number, digest = commit.commit(work)
        if not digest:
            return self._numbered(Ref(name), number)
        v = self._committed(name, number, digest)
        what = "imported" if sealed or whole["lineage"]["how"] == "import" else "published"
        journal.record_done(self.path, v.name, what, v.number, note=note)
        return shelf.noted(v, note)

    def record(self, name: str, what: str, number: int | None = None, **more: Any) -> None:
        """Note in a name's log what was done."""
        journal.record_done(self.path, name, what, number, **more)

    def alias(self, ref: str, alias: str) -> Version:
        """Set or move an alias to the version a ref means."""
        aliases.check(alias)
        v = self[ref]
        with self._changing(v.name):
            aliases.write(self.path, v.name, alias, aliases.Target(v.number, v.digest))
        journal.record_done(self.path, v.name, "alias", v.number, alias=alias)
        return v

    def unalias(self, name: str, alias: str) -> None:
        """Take an alias away, also one that is damaged."""
        if not aliases.exists(self.path, name, alias):
            raise missing.alias(self, name, alias)
        with files.writing(self.path), suppress(FileNotFoundError):
            aliases.remove(self.path, name, alias)
        journal.record_done(self.path, name, "alias-removed", alias=alias)

    def note(self, ref: str, text: str) -> Version:
        """Write a note beside a version; an empty one takes it away."""
        v = self[ref]
        with self._changing(v.name):
            journal.record(self.path, v.name, "note", v.number, note=text)
        return shelf.noted(v, text) if text else self[v.ref]

    def rename(self, name: str, new: str) -> list[Version]:
        """Call an adapter otherwise, with all its versions, aliases, scores and log."""
        check_name(new, typed=f"adapterkit rename {name}")
        slots.refuse_link(self.path / name)
        if not slots.slots(self.path / name):
            raise missing.name(self, Ref(name))
        with files.writing(self.path):
            renames.rename(self.path, name, new)
        journal.record_done(self.path, new, "renamed", None, **{"from": name})
        return self.versions(new)

    def delete(self, ref: str, *, force: bool = False) -> str:
        """Hide a version, to be undone by ``restore`` for seven days.

        One that is too damaged to be read is hidden by its number.

        Args:
            force: also when an alias means it; the alias is removed.

        Returns:
            Its ref, NAME@N.

        Raises:
            Unsupported: an alias is in the way.
        """
        hidden = keeping.named(self, ref)
        with self._changing(hidden.name):
            keeping.delete(self.path, hidden, force)
        return str(hidden)

    def restore(self, ref: str) -> Version:
        """Undo ``delete``; a bare name means the version of it that was deleted last.

        Raises:
            NotFound: no such version, or gc has taken its files.
        """
        hidden = keeping.deleted(self, parse_ref(ref))
        with self._changing(hidden.name):
            keeping.restore(self.path, hidden)
        return self[str(hidden)]

    def gc(self, *, dry_run: bool = False, now: bool = False, runs: bool = False) -> GcReport:
        """Remove leftovers: torn writes, and the files of versions deleted more than seven days ago.

        Args:
            dry_run: only say what would go.
            now: also versions deleted since.
            runs: also unfinished training runs that nobody is training.
        """
        with files.writing(self.path):
            return collect.collect(self.path, self.shelves(), dry_run=dry_run, now=now, runs_too=runs)

    def verify(self, ref: str | None = None) -> list[Problem]:
        """Every byte against the manifests: of one version, or of all that gc has not taken."""
        return check.verify(self, ref)

    # --- doors to adapterkit.sharing, which lies above: a foreign adapter's base has to be found and read ---

    def pack(self, ref: str, *, to: Path | str = Path(), half: bool = False) -> Path:
        """One file to give away: ``NAME-VERSION.adapter.safetensors``."""
        packed: Path = import_module("adapterkit.sharing.packed").pack(self, ref, to=Path(to), half=half)
        return packed

    def add(
        self,
        source: str | Path,
        *,
        name: str | None = None,
        sha256: str | None = None,
        base: str | None = None,
        force_base: bool = False,
        revision: str | None = None,
    ) -> Version:
        """Import a packed file, a PEFT folder or ``hub:ID``."""
        added: Version = import_module("adapterkit.sharing.incoming").add(
            self, source, name=name, sha256=sha256, base=base, force_base=force_base, revision=revision
        )
        return added

    def _committed(self, name: str, number: int, digest: str) -> Version:
        """What was published, also when the name was changed, or used anew, at that very moment."""
        for now in (name, renames.now_called(self.path, name)):
            with suppress(NotFound, Damaged):
                if now and (v := self._numbered(Ref(now), number)).digest == digest:
                    return v
        found = self.find(digest)
        if found is None:
            raise missing.gone(name)
        return found

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """A change of something that was there a moment ago."""
        try:
            with files.writing(self.path):
                yield
        except FileNotFoundError:
            raise missing.gone(name) from None

    def _same(self, name: str, whole: dict[str, Any], listed: list[Slot], number: int | None) -> int | None:
        """The newest version with this content; for a number that is wanted only the very same manifest."""
        if number is not None:
            there = [s for s in listed if s.number == number]
            return number if there and self._digest(there[0]) == whole.get("digest") else None
        for slot in reversed(listed):
            key = (name, slot.number, slot.inode)
            if key not in self._contents and (found := self._content(name, slot)):
                self._contents[key] = found
            is_hidden = any((slot.path / m).exists() for m in (version.DELETED, version.COLLECTED))
            if self._contents.get(key) == whole["content"] and not is_hidden and self._is_whole(slot):
                return slot.number
        return None

    def _content(self, name: str, slot: Slot) -> str:
        known = self._index.get(name, slot)
        with suppress(Damaged, Unsupported):
            return known.facts.content if known else str(version.read_manifest(slot.path)["content"])
        return ""

    def _is_whole(self, slot: Slot) -> bool:
        """A twin that is damaged is no reason to publish nothing."""
        with suppress(Damaged, Unsupported):
            version.read(slot.path).verify()
            return True
        return False

    def _digest(self, slot: Slot) -> str | None:
        with suppress(Damaged, Unsupported):
            v = version.read(slot.path)
            return None if v.deleted else v.digest
        return None


def _described(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with what is found out about the files."""
    weights = files.sha256_file(folder / WEIGHTS[manifest["kind"]])
    return {
        **manifest,
        "schema": version.SCHEMA,
        "min_reader": version.SCHEMA,
        "created": manifest.get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
        "content": content(manifest["kind"], manifest["base"], weights),
        "files": commit.digests(folder),
    }


def content(kind: str, base: dict[str, Any], weights: str) -> str:
    """sha256 of what makes two versions the same: kind, fingerprints of the base, sha256 of the weights' file."""
    prints = {k: base[k] for k in ("weights", "config", "tokenizer")}
    return files.sha256_bytes(files.canonical_json([kind, prints, weights]))


def _checked(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """A whole manifest, if the files are those it tells of."""
    if (
        version.seal(manifest)["digest"] != manifest.get("digest")
        or commit.digests(folder) != manifest["files"]
    ):
        raise Damaged(
            f"the files of {manifest.get('name')}@{manifest.get('version')} are not those of its manifest.",
            hint="fetch or copy them again",
        )
    return manifest
