"""A reader and a writer made from docs/format.md alone: the standard library, and nothing of ours."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from adapterkit.registry.store import Registry
from tests.versions import publish


def canonical(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def unsealed(value: dict[str, Any], key: str) -> str:
    return sha256(canonical({k: v for k, v in value.items() if k != key}))


def tensors(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, list[int], bytes]]]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + length])
    words, data = table.pop("__metadata__", {}), raw[8 + length :]
    return words, {n: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for n, e in table.items()}


def weights_file(held: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """Written in the one way."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(held):
        dtype, shape, data = held[name]
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    header = canonical(table)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + b"".join(held[n][2] for n in sorted(held))


# --- reading ---


def test_a_version_reads_as_the_document_says(registry: Registry) -> None:
    v = publish(registry, "noir")
    raw = (v.path / "manifest.json").read_bytes()
    told = json.loads(raw)
    assert canonical(told) == raw
    assert unsealed(told, "digest") == told["digest"] == v.digest
    found = {p.name: p.read_bytes() for p in v.path.iterdir() if p.is_file() and p.name != "manifest.json"}
    assert told["files"] == {n: {"size": len(d), "sha256": sha256(d)} for n, d in found.items()}
    base = {k: told["base"][k] for k in ("config", "tokenizer", "weights")}
    weights = told["files"]["adapter_model.safetensors"]["sha256"]
    assert told["content"] == sha256(canonical([told["kind"], base, weights]))


def test_the_weights_are_written_in_the_one_way(registry: Registry) -> None:
    path = publish(registry, "noir").path / "adapter_model.safetensors"
    assert weights_file(tensors(path)[1]) == path.read_bytes()


def test_registry_json_and_aliases_are_sealed(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.alias("noir", "prod")
    marker = json.loads((registry.path / "registry.json").read_bytes())
    alias = json.loads((registry.path / "noir" / "aliases" / "prod").read_bytes())
    assert [unsealed(x, "sha256") == x["sha256"] for x in (marker, alias)] == [True, True]
    assert (alias["version"], alias["digest"]) == (1, v.digest)


def test_a_packed_file_unpacks_to_the_version(registry: Registry, tmp_path: Path) -> None:
    v = publish(registry, "noir")
    words, held = tensors(registry.pack("noir", to=tmp_path / "out"))
    told = json.loads(words["adapterkit.manifest"])
    files = {k.removeprefix("adapterkit.file."): t.encode() for k, t in words.items() if ".file." in k}
    large = [n for n in held if n.startswith("adapterkit.file.")]
    files |= {n.removeprefix("adapterkit.file."): held.pop(n)[2] for n in large}
    files["adapter_model.safetensors"] = weights_file(held)
    assert words["adapterkit.sha256"] == unsealed(words, "adapterkit.sha256")
    assert (words["format"], words["adapterkit"], words["adapterkit.ref"]) == ("pt", "1", "noir@1")
    assert {n: (v.path / n).read_bytes() for n in told["files"]} == files


def test_the_fingerprints_of_a_base_are_those_of_the_document(tiny_base: Path) -> None:
    from adapterkit.model.base import Base

    _, held = tensors(tiny_base / "model.safetensors")
    digest = hashlib.sha256()
    short = {n.removeprefix("transformer."): t for n, t in held.items() if n != "lm_head.weight"}
    for name in sorted(n for n in short if not n.endswith((".attn.bias", ".attn.masked_bias"))):
        dtype, shape, data = short[name]
        digest.update(canonical([name, shape, dtype]) + data)
    told = json.loads((tiny_base / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = dict(told["model"]["vocab"]) | {t["content"]: t["id"] for t in told["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in told["model"]["merges"]]
    prints = Base("tiny", tiny_base).fingerprints
    assert prints.weights == digest.hexdigest()
    assert prints.tokenizer == sha256(canonical([sorted(vocab.items()), merges]))


# --- writing ---


def test_what_another_writer_publishes_is_a_version(registry: Registry) -> None:
    v = publish(registry, "noir")
    staging = registry.path / ".staging" / f"00ff.{os.getpid()}.elsewhere"
    staging.mkdir()
    told = json.loads((v.path / "manifest.json").read_bytes())
    for name in told["files"]:
        (staging / name).write_bytes((v.path / name).read_bytes())
    (staging / "README.md").write_bytes(b"# by hand\n")
    told["files"]["README.md"] = {"size": 10, "sha256": sha256(b"# by hand\n")}
    told |= {"version": 2, "created": "2026-11-21T12:00:00+00:00"}
    told["digest"] = unsealed(told, "digest")
    (staging / "manifest.json").write_bytes(canonical(told))
    os.rename(staging, registry.path / "noir" / "2")
    assert (registry["noir"].digest, registry.verify()) == (told["digest"], [])


@pytest.mark.parametrize("key", ["schema", "min_reader", "colour"])
def test_a_key_a_reader_does_not_know_is_no_harm_and_a_newer_format_is_refused(
    registry: Registry, key: str
) -> None:
    from adapterkit.errors import Unsupported

    v = publish(registry, "noir")
    told = json.loads((v.path / "manifest.json").read_bytes()) | {key: 2}
    told["digest"] = unsealed(told, "digest")
    (v.path / "manifest.json").chmod(0o644)
    (v.path / "manifest.json").write_bytes(canonical(told))
    if key == "min_reader":
        with pytest.raises(Unsupported, match="written by a newer AdapterKit"):
            registry["noir"]
    else:
        assert registry["noir"].digest == told["digest"]
