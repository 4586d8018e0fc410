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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.errors import AdapterKitError, Damaged, NotFound, Unsupported, nearest
from adapterkit.refs import NAME, Ref, check_name, looks_like_digest, parse_ref
from adapterkit.registry import evaluations, place, version
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
            Damaged: its manifest, or the alias, is torn or changed.
        """
        wanted = parse_ref(ref)
        found, damaged = self._read(wanted.name)
        alive = [v for v in found if not v.deleted]
        self._refuse_damaged(wanted, alive, damaged)
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
        """All whole versions by name and number; the deleted ones only when asked for.

        A damaged one does not stand in the way of the others: ``problems`` names
        it, and asking for it raises.
        """
        if name is None:
            return [v for each in self.names() for v in self.versions(each, deleted=deleted)]
        return [v for v in self._read(name)[0] if deleted or not v.deleted]

    def problems(self, name: str | None = None) -> list[AdapterKitError]:
        """What is wrong with versions and aliases that can't be read."""
        found: list[AdapterKitError] = []
        for each in [name] if name else self.names():
            found += [*self._read(each)[1].values(), *self._read_aliases(each)[1]]
        return found

    def latest(self, name: str) -> Version:
        return self[name]

    def best(self, name: str) -> Version:
        """Lowest held-out loss among those scored on the text and base that ``latest`` was scored on."""
        alive = self.versions(name)
        if not alive:
            raise self._no_name(Ref(name))
        return evaluations.best_of(self.path, alive)

    def aliases(self, name: str) -> dict[str, int]:
        """The user's own aliases of a name and the numbers they mean, without damaged ones."""
        return self._read_aliases(name)[0]

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
        name = check_name(manifest["name"])
        weights = files.sha256_file(folder / WEIGHTS[manifest["kind"]])
        base = {k: manifest["base"][k] for k in ("weights", "config", "tokenizer")}
        content = files.sha256_bytes(files.canonical_json([manifest["kind"], base, weights]))
        whole = manifest | {
            "schema": version.SCHEMA,
            "min_reader": version.SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "content": content,
            "files": _digests(folder),
        }
        number, is_new = self._commit(folder, whole, fresh)
        if not is_new:
            return self[f"{name}@{number}"]
        event = {"at": whole["created"], "what": "published", "version": number, "note": note}
        files.append_line(self.path / name / "log.jsonl", event)
        return self[f"{name}@{number}"]

    def _commit(self, folder: Path, manifest: dict[str, Any], fresh: bool) -> tuple[int, bool]:
        """The number under which it stands now, and whether it is new."""
        home = self.path / manifest["name"]
        while True:
            if not fresh and (same := self._same(manifest["name"], manifest["content"])):
                return same, False  # looked up in every round: another writer may have published it meanwhile
            number = max((n for n, _ in self._folders(manifest["name"])), default=0) + 1
            sealed = version.seal(manifest | {"version": number})
            path = folder / MANIFEST
            with suppress(FileNotFoundError):
                path.unlink()
            data = files.canonical_json(sealed)
            if len(data) > version.MAX_MANIFEST:
                raise Unsupported(
                    f"the manifest would be {len(data):,} bytes, over {version.MAX_MANIFEST:,}.",
                    hint="fewer or shorter sources and sample.prompts in the recipe",
                )
            path.write_bytes(data)
            files.sync_tree(folder, file_mode=0o444)
            home.mkdir(exist_ok=True)
            try:
                os.rename(folder, home / str(number))
            except OSError as e:
                with suppress(OSError):
                    home.rmdir()  # a name without a version; a folder that holds anything stays
                if e.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another writer took the number between the look and the rename
                raise
            files.sync_folder(home)
            files.sync_folder(self.path)
            return number, True

    def _same(self, name: str, content: str) -> int | None:
        return max((v.number for v in self.versions(name) if v.manifest["content"] == content), default=None)

    # --- looking up ---

    def _folders(self, name: str) -> list[tuple[int, Path]]:
        home = self.path / name
        if not home.is_dir():
            return []
        return sorted((int(p.name), p) for p in home.iterdir() if p.name.isascii() and p.name.isdigit())

    def _notes(self, name: str) -> dict[int, str]:
        return {e["version"]: e["note"] for e in self.log(name) if e.get("note") and "version" in e}

    def _read(self, name: str) -> tuple[list[Version], dict[int, AdapterKitError]]:
        """The versions of a name, and by number the errors of those that can't be read."""
        notes, found = self._notes(name), []
        damaged: dict[int, AdapterKitError] = {}
        for number, folder in self._folders(name):
            try:
                found.append(version.read(folder, notes.get(number, "")))
            except (Damaged, Unsupported) as e:  # unsupported: written by a newer AdapterKit
                if not (folder / "deleted").exists():
                    damaged[number] = e
        return found, damaged

    def _read_aliases(self, name: str) -> tuple[dict[str, int], list[AdapterKitError]]:
        folder, found = self.path / name / "aliases", {}
        damaged: list[AdapterKitError] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith("."):
                continue
            try:
                found[path.name] = self._alias(path)
            except Damaged as e:
                damaged.append(e)
        return found, damaged

    def _refuse_damaged(
        self, wanted: Ref, alive: list[Version], damaged: Mapping[int, AdapterKitError]
    ) -> None:
        """A ref to a version that can't be read must not quietly mean another one."""
        which = wanted.version
        if which in (None, "latest", "best") or not alive:
            number = max([*damaged, *(v.number for v in alive)], default=0)
        elif which is not None and which.isdigit() and len(which) < 7:
            number = int(which)
        else:
            number = self.aliases(wanted.name).get(which or "", 0)
        if number in damaged:
            raise damaged[number]

    def _match(self, wanted: Ref, alive: list[Version], every: list[Version]) -> Version | None:
        which = wanted.version
        if which in (None, "latest"):
            return alive[-1]
        if which == "best":
            return self.best(wanted.name)
        assert which is not None
        if which.isdigit() and len(which) < 7:
            return next((v for v in alive if v.number == int(which)), None)
        if (self.path / wanted.name / "aliases" / which).is_file():
            return self._aliased(wanted.name, which, every)
        if looks_like_digest(which):
            return next((v for v in alive if v.digest.startswith(which)), None)
        return None

    def _aliased(self, name: str, alias: str, every: list[Version]) -> Version | None:
        """The version an alias means, if it is the very one the alias was set for."""
        path = self.path / name / "aliases" / alias
        number, digest = self._alias(path), json.loads(path.read_bytes()).get("digest")
        found = next((v for v in every if v.number == number), None)
        if found is not None and digest is not None and found.digest != digest:
            raise Damaged(
                f"the alias {name}@{alias} was set for another version than {found.ref} is now.",
                hint=f"rm {path}",
            )
        return found

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

    def _no_name(self, wanted: Ref) -> NotFound:
        names = [n for n in self.names() if self.versions(n)]
        close = nearest(wanted.name, names)
        elsewhere = Registry(place.home()) if self.path != place.home() and place.home().is_dir() else None
        more = len([n for n in elsewhere.names() if elsewhere.versions(n)]) if elsewhere else 0
        also = f"; {files.shown(place.home())} has {more} more" if more else ""
        hint = f"adapterkit list --all{also}" if names else "train one: adapterkit train FOLDER-OR-FILE"
        return NotFound(
            f"no adapter named {wanted.name!r} in {files.shown(self.path)}.",
            hint=f"did you mean {close!r}?     (all: adapterkit list{also})" if close else hint,
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
