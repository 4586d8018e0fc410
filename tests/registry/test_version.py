"""One version: whole or refused, equal by digest, and verify names the file."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapterkit.errors import Damaged, NotFound, Unsupported
from adapterkit.files import canonical_json, sha256_bytes
from adapterkit.registry import version
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Point, Sample, Version
from tests.versions import publish


def _change(v: Version, name: str, raw: bytes) -> None:
    """Change a published file as a disk or a person would: in place, in spite of its mode."""
    path = v.path / name
    path.chmod(0o644)
    path.write_bytes(raw)


def _reseal(v: Version, changes: dict[str, Any]) -> None:
    _change(v, "manifest.json", canonical_json(version.seal(v.manifest | changes)))


# --- the manifest ---


def test_the_digest_is_the_sha256_of_the_canonical_manifest_without_it(registry: Registry) -> None:
    v = publish(registry, "noir")
    told = json.loads((v.path / "manifest.json").read_bytes())
    del told["digest"]
    raw = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert v.digest == sha256_bytes(raw)


def test_the_manifest_is_canonical_and_at_most_4_kb(registry: Registry) -> None:
    raw = (publish(registry, "noir").path / "manifest.json").read_bytes()
    assert (raw == canonical_json(json.loads(raw)), len(raw) <= 4096) == (True, True)


def test_any_flipped_byte_of_the_manifest_is_found(registry: Registry) -> None:
    v = publish(registry, "noir")
    raw = (v.path / "manifest.json").read_bytes()
    missed = []
    for at in range(0, len(raw), 7):
        bit = 1 << (at % 8)
        _change(v, "manifest.json", raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
        try:
            version.read(v.path)
            missed.append((at, raw[at : at + 1], bit))
        except Damaged:
            pass
    assert missed == []


@pytest.mark.parametrize(("there", "here"), [(b"5e-05", b"5E-05"), (b"{", b"{ "), (b"noir", b"no\\u0069r")])
def test_another_spelling_of_the_same_manifest_is_found(
    registry: Registry, there: bytes, here: bytes
) -> None:
    v = publish(registry, "noir")
    _reseal(v, {"environment": {"rate": 5e-05}})
    raw = (v.path / "manifest.json").read_bytes()
    _change(v, "manifest.json", raw.replace(there, here, 1))
    with pytest.raises(Damaged, match="noir@1 is damaged"):
        version.read(v.path)


def test_a_manifest_cut_short_is_found(registry: Registry) -> None:
    v = publish(registry, "noir")
    _change(v, "manifest.json", (v.path / "manifest.json").read_bytes()[:-1])
    with pytest.raises(Damaged, match="noir@1 is damaged: its manifest can't be read"):
        version.read(v.path)


def test_a_version_without_a_manifest_is_damaged(registry: Registry) -> None:
    v = publish(registry, "noir")
    (v.path / "manifest.json").unlink()
    with pytest.raises(Damaged, match="noir@1 is damaged"):
        version.read(v.path)


@pytest.mark.parametrize("raw", [b"[]", b"3", b"null", b"", b"{}", b"\xff\xfe"])
def test_a_manifest_that_is_something_else_is_damaged(registry: Registry, raw: bytes) -> None:
    v = publish(registry, "noir")
    _change(v, "manifest.json", raw)
    with pytest.raises(Damaged, match="noir@1 is damaged"):
        version.read(v.path)


def test_a_manifest_nested_deeply_is_damaged(registry: Registry) -> None:
    v = publish(registry, "noir")
    _change(v, "manifest.json", b"[" * 16_000)
    with pytest.raises(Damaged, match="noir@1 is damaged"):
        version.read(v.path)


def test_a_manifest_that_is_too_long_is_not_parsed(registry: Registry) -> None:
    v = publish(registry, "noir")
    _change(v, "manifest.json", b" " * (version.MAX_MANIFEST + 1))
    with pytest.raises(Damaged, match="too long"):
        version.read(v.path)


def test_a_resealed_manifest_with_a_name_that_is_a_path_is_refused(registry: Registry) -> None:
    v = publish(registry, "noir")
    _reseal(v, {"name": "../noir"})
    with pytest.raises(Damaged):
        version.read(v.path)


def test_a_manifest_of_a_newer_format_says_what_to_do(registry: Registry) -> None:
    v = publish(registry, "noir")
    _reseal(v, {"schema": version.SCHEMA + 1, "min_reader": version.SCHEMA + 1})
    with pytest.raises(Unsupported, match="format 2, this one reads 1") as caught:
        version.read(v.path)
    assert caught.value.hint == "pip install -U adapterkit"


def test_a_newer_manifest_that_this_reader_will_do_for_is_read(registry: Registry) -> None:
    v = publish(registry, "noir")
    _reseal(v, {"schema": version.SCHEMA + 1, "min_reader": version.SCHEMA})
    assert version.read(v.path).number == 1


def test_a_folder_copied_under_another_number_is_refused(registry: Registry) -> None:
    v = publish(registry, "noir")
    shutil.copytree(v.path, v.path.with_name("2"))
    with pytest.raises(Damaged, match="noir@2"):
        registry["noir@2"]


# --- verify ---


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "recipe.json", "README.md"]
)
def test_verify_names_the_file_with_a_flipped_bit(registry: Registry, name: str) -> None:
    v = publish(registry, "noir")
    raw = bytearray((v.path / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    _change(v, name, bytes(raw))
    with pytest.raises(
        Damaged, match=f"noir@1 is damaged: {name} is not the file that was published"
    ) as caught:
        v.verify()
    assert caught.value.details["file"] == name


def test_verify_names_a_missing_file(registry: Registry) -> None:
    v = publish(registry, "noir")
    (v.path / "recipe.json").unlink()
    with pytest.raises(Damaged, match=r"recipe\.json .*sha256 missing"):
        v.verify()


def test_verify_passes_what_was_published(registry: Registry) -> None:
    assert publish(registry, "noir").verify() is None


def test_verify_looks_only_at_the_file_asked_for(registry: Registry) -> None:
    v = publish(registry, "noir")
    _change(v, "README.md", b"changed")
    assert v.verify("adapter_model.safetensors") is None


def test_verify_does_not_look_at_private_files(registry: Registry) -> None:
    v = publish(registry, "noir")
    shutil.rmtree(v.path / "private")
    assert v.verify() is None


# --- what it tells ---


def test_versions_are_equal_when_their_digests_are(registry: Registry, tmp_path: Path) -> None:
    v = publish(registry, "noir")
    shutil.copytree(registry.path, tmp_path / "elsewhere")
    copy = Registry(tmp_path / "elsewhere")["noir@1"]
    assert (v == copy, len({v, copy}), v.path == copy.path) == (True, 1, False)


def test_versions_with_other_weights_are_not_equal(registry: Registry) -> None:
    assert publish(registry, "noir", seed=1) != publish(registry, "noir", seed=2)


def test_a_version_is_equal_to_nothing_else(registry: Registry) -> None:
    v = publish(registry, "noir")
    assert v != v.digest


def test_a_version_says_its_ref_and_digest(registry: Registry) -> None:
    v = publish(registry, "noir")
    assert (v.ref, str(v)) == ("noir@1", f"noir@1 {v.digest[:8]}")


def test_created_is_now_with_a_time_zone(registry: Registry) -> None:
    assert abs(datetime.now(UTC) - publish(registry, "noir").created) < timedelta(minutes=1)


def test_size_counts_what_ships_and_nothing_private(registry: Registry) -> None:
    v = publish(registry, "noir")
    shipped = [p for p in v.path.iterdir() if p.is_file() and p.name != "manifest.json"]
    assert v.size == sum(p.stat().st_size for p in shipped)


def test_samples_come_from_the_private_folder(registry: Registry) -> None:
    assert publish(registry, "noir").samples() == [Sample("The sea", " was calm.")]


def test_a_version_without_samples_or_history_has_none(registry: Registry) -> None:
    v = publish(registry, "noir")
    shutil.rmtree(v.path / "private")
    assert (v.samples(), v.history()) == ([], [])


def test_a_version_without_a_report_says_how_to_see_it(registry: Registry) -> None:
    with pytest.raises(NotFound, match="noir@1 has no report") as caught:
        publish(registry, "noir").report()
    assert caught.value.hint == "adapterkit show noir@1     (its numbers)"


def test_a_report_is_found_where_training_put_it(registry: Registry) -> None:
    v = publish(registry, "noir")
    (v.path / "private" / "report.html").write_text("<p>")
    assert v.report().read_text() == "<p>"


def test_history_is_a_list_of_points(registry: Registry) -> None:
    v = publish(registry, "noir")
    point = {"step": 1, "tokens": 9, "loss": 3.0, "held_out": None, "learning_rate": 1e-3, "seconds": 0.5}
    (v.path / "history.json").write_text(json.dumps([point]))
    assert v.history() == [Point(1, 9, 3.0, None, 1e-3, 0.5)]


def test_the_recipe_and_lineage_come_back_typed(registry: Registry) -> None:
    v = publish(registry, "noir")
    assert (v.recipe.data.source, v.lineage.how, v.lineage.parents) == ("noir.txt", "train", ())


def test_the_gain_is_the_change_of_perplexity() -> None:
    assert Metrics(perplexity=27.9, base_perplexity=41.2).gain == pytest.approx(-0.3228, abs=1e-4)


def test_there_is_no_gain_without_a_test() -> None:
    assert Metrics().gain is None
