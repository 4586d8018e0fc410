"""A version of our own that comes in: the same name, number and digest, or under another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterkit.errors import Damaged, NameTaken
from adapterkit.files import canonical_json
from adapterkit.refs import check_name
from adapterkit.registry import card, full, gpt2, lora_config, renames, strict
from adapterkit.registry.store import Registry
from adapterkit.registry.version import MANIFEST, Version, read
from adapterkit.sharing import mending
from adapterkit.sharing.shipment import Shipment, again


def receive(registry: Registry, made: Shipment, *, name: str | None, note: str, source: str) -> Version:
    """The version in the registry.

    What is there already by its digest is returned, under whichever name:
    mended if it is damaged, restored if it was deleted. Otherwise it keeps its
    name and number.

    Args:
        made: compared with its manifest already.
        name: another name to bring it in under; it then has a digest of its own.
        source: as the person wrote it, for hints.

    Raises:
        NameTaken: its name and number mean something else here.
        Damaged: its tensors are not those of an adapter.
    """
    if name is not None:
        check_name(name)
    found = registry.find(made.digest)
    if found is None and name in (None, made.name) and mending.mend_manifest(registry, made):
        found = registry.find(made.digest)
    if found is not None and name in (None, found.name):
        return _present(registry, found, made, source)
    if name is not None and name != made.name:
        return _publish_as(registry, made, name, note)
    _refuse_taken(registry, made, source)
    with registry.staging() as folder:
        _fill(made, folder)
        return registry.publish(
            folder, made.manifest, note=note, number=made.number, sealed=True, name=made.name
        )


def _present(registry: Registry, found: Version, made: Shipment, source: str) -> Version:
    if found.is_collected:
        raise NameTaken(
            f"{found.ref} was this very version; it was deleted and gc has taken its files, its number stays taken.",
            hint=f"adapterkit import {source} --name {_other(registry, found.name)}",
            details={"ref": found.ref},
        )
    mending.mend(registry, found, made)
    return registry.restore(found.ref) if found.deleted else found


def _refuse_taken(registry: Registry, made: Shipment, source: str) -> None:
    there = next((v for v in registry.versions(made.name, deleted=True) if v.number == made.number), None)
    if there is None and (registry.path / made.name / str(made.number)).exists():
        raise NameTaken(
            f"{made.ref} is here already, too damaged to tell whether it is the same version.",
            hint=f"adapterkit import {source} --name {_other(registry, made.name)}",
            details={"ref": made.ref, "digest": made.digest},
        )
    if there is None and made.number <= renames.floor(registry.path, made.name):
        raise NameTaken(
            f"{made.ref} was another version here, before {made.name!r} was renamed.",
            hint=f"adapterkit import {source} --name {_other(registry, made.name)}",
            details={"ref": made.ref, "digest": made.digest},
        )
    if there is None:
        return
    state = " (deleted)" if there.deleted else ""
    raise NameTaken(
        f"{made.ref} is another version here{state}: {there.digest[:8]}, the one that comes in is {made.digest[:8]}.",
        hint=f"adapterkit import {source} --name {_other(registry, made.name)}",
        details={"ref": made.ref, "digest": made.digest, "there": there.digest},
    )


def _other(registry: Registry, name: str) -> str:
    """A name that is free and close to the one that is not."""
    taken = set(registry.names())
    return next(n for i in range(2, 10**6) if (n := f"{name[:57]}-{i}") not in taken)


def _publish_as(registry: Registry, made: Shipment, name: str, note: str) -> Version:
    """The same content under another name, whose lineage says where it comes from."""
    with registry.staging() as folder:
        _fill(made, folder)
        manifest: dict[str, Any] = {
            **made.manifest,
            "name": name,
            "lineage": {"how": "import", "parents": [made.digest]},
            "imported": {"ref": made.ref, "digest": made.digest},
        }
        readme = folder / "README.md"
        if readme.is_file():
            readme.write_text(card.again(manifest, readme.read_text("utf-8", "replace")), encoding="utf-8")
        return registry.publish(folder, manifest, note=note, number=_number(registry, made, name))


def _number(registry: Registry, made: Shipment, name: str) -> int | None:
    """Its own number where that is free; None takes the next, or finds the same content."""
    there = registry.versions(name, deleted=True)
    is_free = all(v.number != made.number and v.facts.content != made.manifest["content"] for v in there)
    is_free &= not (registry.path / name / str(made.number)).exists()
    return made.number if is_free and made.number > renames.floor(registry.path, name) else None


def _fill(made: Shipment, folder: Path) -> None:
    """The files in a staging folder, read there with the suspicion of every load."""
    made.fill(folder)
    manifest = folder / MANIFEST
    manifest.write_bytes(canonical_json(made.manifest))
    read(folder)  # as a reader of the registry will
    manifest.unlink()
    if made.manifest["kind"] == "full":
        config = gpt2.read_config((folder / full.CONFIG).read_bytes(), made.label)
        for _ in full.read_folder(folder, config, made.label):
            pass
        return
    lora = strict.read_lora(folder, _dims(made), made.label)
    told = made.manifest.get("lora") or {}
    if (told.get("r"), sorted(told.get("targets") or [])) != (lora.r, sorted(lora.targets)):
        raise Damaged(
            f"{made.label}: its manifest tells of another LoRA than the one it holds.", hint=again(made.label)
        )


def _dims(made: Shipment) -> strict.Dims:
    """Sizes of the base, told from layers and shapes: the base itself may not be on this computer.

    Raises:
        Damaged: there is no first layer to tell them from.
    """
    shapes = {n: p.shape for n, p in made.weights.items()}
    found: dict[str, int] = {}
    for target in sorted(lora_config.KNOWN):
        a, b = (shapes.get(strict.tensor_name(0, target, side), ()) for side in "AB")
        if len(a) != 2 or len(b) != 2:
            continue
        if target.startswith("attn."):
            found["width"] = a[1]
        else:
            found["width"], found["inner"] = (a[1], b[0]) if target == "mlp.c_fc" else (b[0], a[1])
    layers = made.manifest["base"].get("layers")
    if "width" not in found or type(layers) is not int or not 0 < layers <= gpt2.MAX_LAYERS:
        raise Damaged(f"{made.label} holds no LoRA of a GPT-2.", hint=again(made.label))
    return strict.Dims(layers, found["width"], found.get("inner", 4 * found["width"]))
