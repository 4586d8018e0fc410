"""``import``: a packed file, a folder of ours or of PEFT, or ``hub:ID`` becomes a version of the registry.

What a source is, is told from what it holds, never from its name alone.
Everything about it is checked before a reader could see any of it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterkit.errors import BaseMismatch, Damaged, NotFound, Unsupported, UsageProblem
from adapterkit.files import sha256_file
from adapterkit.model.base import locate
from adapterkit.registry import strict, tensorfile
from adapterkit.registry.store import WEIGHTS, Registry
from adapterkit.registry.version import MANIFEST, MAX_MANIFEST, Version
from adapterkit.sharing import foreign, own, packed, refusals, shipment
from adapterkit.sharing.foreign import Asked, Origin
from adapterkit.sharing.shipment import Shipment, again, inside

HUB = "hub:"


def add(
    registry: Registry,
    source: str | Path,
    *,
    name: str | None = None,
    sha256: str | None = None,
    base: str | None = None,
    force_base: bool = False,
    revision: str | None = None,
    note: str = "",
    say: Callable[[str], None] | None = None,
) -> Version:
    """Bring a version in.

    Args:
        source: a packed file, a folder, or ``hub:ID`` (``hub:ID@REVISION``).
        name: of the adapter here; its own, or the folder's, when left out.
        sha256: that the file, or the folder's weights, must have.
        base: that a LoRA trained elsewhere is for; what its config names when left out.
        force_base: bring it in for a base of another name; recorded.
        revision: branch, tag or commit on the Hub.
        say: told what was changed on the way in.

    Returns:
        The version; the one that is there when it is the same by its digest.

    Raises:
        NotFound, Unreachable: there is no such source.
        Damaged: half a file, or not what its manifest or ``sha256`` says.
        Unsupported: a pickle, another method or task, a newer format.
        BaseMismatch: made for another base.
        NameTaken: its name and number mean something else here.
    """
    asked = Asked(name, base, force_base, note, say)
    expected = _digest(sha256)
    text = str(source)
    if text.startswith(HUB):
        return _from_hub(registry, text.removeprefix(HUB), revision, asked, expected)
    if revision is not None:
        raise UsageProblem(
            "--revision is for the Hub.", hint=f"adapterkit import {HUB}OWNER/NAME --revision {revision}"
        )
    path, typed = Path(source).expanduser(), shlex.quote(text)
    if not text or not _is_there(path):
        raise _absent(text[:200])
    if path.is_dir():
        name = path.resolve().name or "adapter"
        return _from_folder(registry, path, Origin(path.name or typed, name, source=typed), asked, expected)
    return _from_file(registry, path, typed, asked, expected)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for any file
        return False


def _from_file(registry: Registry, path: Path, source: str, asked: Asked, expected: str) -> Version:
    if not path.is_file():
        raise Unsupported(
            f"{source} is neither a file nor a folder.", hint="adapterkit import FILE, FOLDER or hub:ID"
        )
    refusals.check_file(path)
    if expected:
        tensorfile.read_header(path)  # before gigabytes are hashed
    _check_sha256(path, expected)
    made = packed.read(path)
    _check_base(made, asked)
    return own.receive(registry, made, name=asked.name, note=asked.note, source=source)


def _from_folder(registry: Registry, folder: Path, origin: Origin, asked: Asked, expected: str) -> Version:
    refusals.check_folder(folder)
    is_own = _is_own(folder, origin.label)
    if not is_own and not (folder / strict.CONFIG).is_file():
        raise _no_adapter(folder, origin)
    if expected:
        names = [n for n in WEIGHTS.values() if (folder / n).is_file()]
        _check_sha256(inside(folder, names[0] if names else strict.WEIGHTS, origin.label), expected)
    if not is_own:
        return foreign.receive(registry, folder, origin, asked)
    made = shipment.of_folder(folder, origin.label)
    _check_base(made, asked)
    return own.receive(registry, made, name=asked.name, note=asked.note, source=origin.source)


def _from_hub(registry: Registry, text: str, revision: str | None, asked: Asked, expected: str) -> Version:
    from adapterkit.sharing import hub  # huggingface_hub loads only for the Hub

    repo, _, pinned = text.partition("@")
    if revision and pinned and revision != pinned:
        raise UsageProblem(
            f"{text!r} names one revision and --revision {revision} another.",
            hint=f"adapterkit import {HUB}{text}",
        )
    folder, commit = hub.fetch(repo, revision or pinned or None)
    origin = Origin(f"{HUB}{repo}", repo.split("/")[-1], repo, commit, f"{HUB}{text}")
    return _from_folder(registry, folder, origin, asked, expected)


# --- checks -------------------------------------------------------------------


def _digest(given: str | None) -> str:
    """A sha256 as it is compared, from the ways people write one; empty for none."""
    if given is None:
        return ""
    plain = given.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise UsageProblem(
            f"{given[:80]!r} is no sha256: that is 64 digits of 0-9 and a-f.", hint="sha256sum FILE shows it"
        )
    return plain


def _check_sha256(path: Path, expected: str) -> None:
    if expected and (found := sha256_file(path)) != expected:
        raise Damaged(
            f"{path.name} is not the file that was asked for: its sha256 is {found[:16]}, should be {expected[:16]}.",
            hint=again(path.name),
            details={"file": path.name, "sha256": found, "expected": expected},
        )


def _check_base(made: Shipment, asked: Asked) -> None:
    """One of ours brings the fingerprints of its base; a base that is given has to be that one."""
    if asked.base is None:
        return
    base, told = locate(asked.base, on_download=asked.say), made.manifest["base"]
    have = base.fingerprints
    if (told["weights"], told["config"], told["tokenizer"]) != (have.weights, have.config, have.tokenizer):
        raise BaseMismatch(
            f"{made.label} was trained on {told['id']} ({told['weights'][:8]}); {base.id} ({have.weights[:8]}) is another base.",
            hint="leave --base out: it is brought in for its own base, which is checked when it is loaded",
            details={"base": told["id"]},
        )


def _is_own(folder: Path, label: str) -> bool:
    """Whether a folder has a manifest of ours; another tool's manifest.json is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    raw = inside(folder, MANIFEST, label).read_bytes()[: MAX_MANIFEST + 1]
    try:
        told: Any = json.loads(raw)
    except (ValueError, RecursionError):
        if b'"min_reader"' not in raw and b'"digest"' not in raw:
            return False
        raise Damaged(f"{label} is damaged: its {MANIFEST} is torn.", hint=again(label)) from None
    return isinstance(told, dict) and {"min_reader", "digest"} <= told.keys()


def _absent(text: str) -> NotFound:
    looks_hub = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None
    return NotFound(
        f"there is no file or folder {text!r}.",
        hint=f"from the Hub it is: adapterkit import {HUB}{text}"
        if looks_hub
        else "adapterkit import FILE, FOLDER or hub:ID",
    )


def _no_adapter(folder: Path, origin: Origin) -> NotFound | Unsupported:
    if (folder / "config.json").is_file():
        return Unsupported(
            f"{origin.label} is a whole model, not an adapter.",
            hint=f"use it as a base: adapterkit train SOURCE --base {origin.repo or folder}",
        )
    inner = sorted(p.parent.name for p in folder.glob(f"*/{strict.CONFIG}"))
    files = sorted(p.name for p in folder.glob(f"*{packed.SUFFIX}"))
    hint = next(
        (f"adapterkit import {folder}/{n}" for n in [*inner, *files]),
        "adapterkit import FILE, FOLDER or hub:ID",
    )
    return NotFound(f"{origin.label} holds no adapter: there is no {strict.CONFIG}.", hint=hint)
