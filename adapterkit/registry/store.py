"""The registry itself: find versions by ref, publish new ones.

Layout under the root, normally ``adapters/``::

    registry.json            marks the folder
    <name>/<n>/              one version, committed by one rename, never edited
    <name>/aliases/<alias>   {"version", "digest", "sha256"}
    <name>/log.jsonl         what happened, when (notes too)
    <name>/evaluations.jsonl scores taken later
    .staging/<hex>/          every write begins here, on the same file system

The rename of a finished folder onto a name that must not exist is the commit:
a folder that is there is never empty, so the rename fails and the writer takes
the next number. No correctness from locks. Never imports torch.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.errors import Damaged, NotFound, nearest
from adapterkit.refs import NAME, Ref, looks_like_digest, parse_ref
from adapterkit.registry import place, version
from adapterkit.registry.version import MANIFEST, Version

WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}


class Registry:
    """Versions of adapters in a folder.

    Args:
        path: the folder; None looks for it (``--registry``'s rule). It is created
            by the first write, never by reading.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = place.find(path)
        place.check(self.path)

    def __repr__(self) -> str:
        return f"Registry({str(self.path)!r})"

    def __contains__(self, ref: str) -> bool:
        try:
            self[ref]
        except NotFound:
            return False
        return True

    def __getitem__(self, ref: str) -> Version:
        """The version a ref means.

        Raises:
            NotFound: no such name, version or alias.
            Damaged: its manifest is torn or changed.
        """
        wanted = parse_ref(ref)
        found = self.versions(wanted.name, deleted=True)
        alive = [v for v in found if not v.deleted]
        if not alive:
            raise self._no_name(wanted)
        match = self._match(wanted, alive, found)
        if match is None:
            there = ", ".join(str(v.number) for v in alive)
            raise NotFound(
                f"{wanted.name} has no version {wanted.version!r}; it has {there}.",
                hint=f"adapterkit list {wanted.name} --all",
                details={"name": wanted.name, "versions": [v.number for v in alive]},
            )
        return match

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(p.name for p in self.path.iterdir() if NAME.fullmatch(p.name) and p.is_dir())

    def versions(self, name: str | None = None, *, deleted: bool = False) -> list[Version]:
        """All versions by name and number; the deleted ones only when asked for."""
        if name is None:
            return [v for each in self.names() for v in self.versions(each, deleted=deleted)]
        notes = self._notes(name)
        found = [version.read(folder, notes.get(number, "")) for number, folder in self._folders(name)]
        return [v for v in found if deleted or not v.deleted]

    def latest(self, name: str) -> Version:
        return self[name]

    def best(self, name: str) -> Version:
        """Lowest held-out loss among those scored on the text and base that ``latest`` was scored on."""
        alive = self.versions(name)
        latest = alive[-1]
        comparable = [(s, v) for v in alive if (s := self._score(v, latest)) is not None]
        return min(comparable, key=lambda pair: (pair[0], -pair[1].number))[1] if comparable else latest

    def aliases(self, name: str) -> dict[str, int]:
        """The user's own aliases of a name and the numbers they mean."""
        folder = self.path / name / "aliases"
        if not folder.is_dir():
            return {}
        return {p.name: self._alias(p) for p in sorted(folder.iterdir()) if not p.name.startswith(".")}

    def log(self, name: str) -> list[dict[str, Any]]:
        return files.read_lines(self.path / name / "log.jsonl")

    # --- writing ---

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to fill and then ``publish``; removed if that does not happen."""
        place.create(self.path)
        with files.no_space(self.path), files.staged(self.path) as folder:
            yield folder

    def publish(
        self, folder: Path, manifest: dict[str, Any], *, note: str = "", fresh: bool = False
    ) -> Version:
        """Commit a filled staging folder as the next version of ``manifest["name"]``.

        The same content published again returns the version that exists.

        Args:
            folder: from ``staging``; its files outside ``private/`` are digested.
            manifest: all but schema, version, created, files and digest.
            fresh: commit a new number even when the content is there already.
        """
        name = manifest["name"]
        weights = files.sha256_file(folder / WEIGHTS[manifest["kind"]])
        base = {k: manifest["base"][k] for k in ("weights", "config", "tokenizer")}
        content = files.sha256_bytes(files.canonical_json([manifest["kind"], base, weights]))
        same = [v for v in self.versions(name) if v.manifest["content"] == content]
        if same and not fresh:
            return same[-1]
        whole = manifest | {
            "schema": version.SCHEMA,
            "min_reader": version.SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "content": content,
            "files": _digests(folder),
        }
        number = self._commit(folder, whole)
        event = {"at": whole["created"], "what": "published", "version": number, "note": note}
        files.append_line(self.path / name / "log.jsonl", event)
        return self[f"{name}@{number}"]

    def _commit(self, folder: Path, manifest: dict[str, Any]) -> int:
        home = self.path / manifest["name"]
        home.mkdir(exist_ok=True)
        while True:
            number = max((n for n, _ in self._folders(manifest["name"])), default=0) + 1
            sealed = version.seal(manifest | {"version": number})
            path = folder / MANIFEST
            with suppress(FileNotFoundError):
                path.unlink()
            path.write_bytes(files.canonical_json(sealed))
            files.sync_tree(folder, file_mode=0o444)
            try:
                os.rename(folder, home / str(number))
            except OSError as e:
                if e.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another writer took the number between the look and the rename
                raise
            files.sync_folder(home)
            files.sync_folder(self.path)
            return number

    # --- looking up ---

    def _folders(self, name: str) -> list[tuple[int, Path]]:
        home = self.path / name
        if not home.is_dir():
            return []
        return sorted((int(p.name), p) for p in home.iterdir() if p.name.isascii() and p.name.isdigit())

    def _notes(self, name: str) -> dict[int, str]:
        return {e["version"]: e["note"] for e in self.log(name) if e.get("note") and "version" in e}

    def _match(self, wanted: Ref, alive: list[Version], every: list[Version]) -> Version | None:
        which = wanted.version
        if which in (None, "latest"):
            return alive[-1]
        if which == "best":
            return self.best(wanted.name)
        assert which is not None
        if which.isdigit() and len(which) < 7:
            return next((v for v in alive if v.number == int(which)), None)
        if which in (aliases := self.aliases(wanted.name)):
            return next((v for v in every if v.number == aliases[which]), None)
        if looks_like_digest(which):
            return next((v for v in alive if v.digest.startswith(which)), None)
        return None

    def _alias(self, path: Path) -> int:
        try:
            told = json.loads(path.read_bytes())
            whole = told.pop("sha256") == files.sha256_bytes(files.canonical_json(told))
            number = int(told["version"])
        except (ValueError, KeyError, AttributeError, TypeError):
            whole, number = False, 0
        if not whole:
            raise Damaged(
                f"the alias {path.name!r} of {path.parent.parent.name} is damaged.", hint=f"rm {path}"
            )
        return number

    def _score(self, v: Version, latest: Version) -> float | None:
        text, weights = latest.metrics.held_out, latest.manifest["base"]["weights"]
        if text is None or v.manifest["base"]["weights"] != weights:
            return None
        if v.metrics.held_out == text:
            return v.metrics.loss
        later = files.read_lines(self.path / v.name / "evaluations.jsonl")
        scores = [e["loss"] for e in later if e.get("digest") == v.digest and e.get("held_out") == text]
        return scores[-1] if scores else None

    def _no_name(self, wanted: Ref) -> NotFound:
        names = [n for n in self.names() if self.versions(n)]
        close = nearest(wanted.name, names)
        elsewhere = Registry(place.home()) if self.path != place.home() and place.home().is_dir() else None
        more = len([n for n in elsewhere.names() if elsewhere.versions(n)]) if elsewhere else 0
        also = f"; {place.home()} has {more} more" if more else ""
        hint = f"adapterkit list --all{also}" if names else "train one: adapterkit train FOLDER-OR-FILE"
        return NotFound(
            f"no adapter named {wanted.name!r} in {self.path}.",
            hint=f"did you mean {close!r}? (all: adapterkit list{also})" if close else hint,
            details={"name": wanted.name, "known": names, "nearest": close},
        )


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file that ships; ``private/`` is not digested."""
    shipped = [
        p for p in sorted(folder.rglob("*")) if p.is_file() and p.relative_to(folder).parts[0] != "private"
    ]
    return {
        p.relative_to(folder).as_posix(): {"size": p.stat().st_size, "sha256": files.sha256_file(p)}
        for p in shipped
        if p.name != MANIFEST
    }
