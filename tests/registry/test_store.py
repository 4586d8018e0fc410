"""The registry: numbers are never shared or reused, a version you can see is whole."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from adapterkit import files
from adapterkit.errors import AdapterKitError, Damaged, NotFound, Unsupported
from adapterkit.registry import slots, tensorfile
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from tests.versions import FINGERPRINTS, manifest_of, publish, tensors


def _alias(registry: Registry, v: Version, alias: str) -> Path:
    """An alias as the format says: one file, sealed by its own sha256."""
    path = registry.path / v.name / "aliases" / alias
    path.parent.mkdir(exist_ok=True)
    body = {"version": v.number, "digest": v.digest}
    path.write_bytes(files.canonical_json({**body, "sha256": files.sha256_bytes(files.canonical_json(body))}))
    return path


def _delete(v: Version) -> None:
    (v.path / "deleted").touch()


# --- numbers ---


def test_versions_are_numbered_from_one(registry: Registry) -> None:
    assert [publish(registry, "noir", seed=i).number for i in range(3)] == [1, 2, 3]


def test_names_count_apart(registry: Registry) -> None:
    publish(registry, "noir")
    assert publish(registry, "shanty", seed=1).number == 1


def test_the_number_of_a_deleted_version_is_not_used_again(registry: Registry) -> None:
    publish(registry, "noir")
    _delete(publish(registry, "noir", seed=1))
    assert publish(registry, "noir", seed=2).number == 3


def test_the_number_of_a_version_without_weights_is_not_used_again(registry: Registry) -> None:
    """gc removes the weights of a deleted version and keeps the manifest."""
    v = publish(registry, "noir")
    _delete(v)
    (v.path / "adapter_model.safetensors").unlink()
    assert publish(registry, "noir", seed=2).number == 2


def test_numbers_past_nine_are_ordered_as_numbers(registry: Registry) -> None:
    for i in range(11):
        publish(registry, "noir", seed=i)
    assert [v.number for v in registry.versions("noir")] == list(range(1, 12))


# --- the same content ---


def test_the_same_content_published_again_is_the_same_version(registry: Registry) -> None:
    first = publish(registry, "noir")
    again = publish(registry, "noir", note="again")
    assert (again, [v.number for v in registry.versions("noir")]) == (first, [1])


def test_fresh_publishes_the_same_content_under_a_new_number(registry: Registry) -> None:
    publish(registry, "noir")
    assert publish(registry, "noir", fresh=True).number == 2


def test_the_same_weights_for_another_base_are_another_version(registry: Registry) -> None:
    publish(registry, "noir")
    other = publish(registry, "noir", base_fingerprints=FINGERPRINTS | {"tokenizer": "66" * 32})
    assert other.number == 2


def test_the_same_content_under_another_name_is_a_version_of_that_name(registry: Registry) -> None:
    publish(registry, "noir")
    assert publish(registry, "shanty").ref == "shanty@1"


def test_deleted_content_can_be_published_again(registry: Registry) -> None:
    _delete(publish(registry, "noir"))
    assert publish(registry, "noir").number == 2


# --- refs ---


def test_a_bare_name_is_the_latest(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    second = publish(registry, "noir", seed=2)
    assert registry["noir"] == registry["noir@latest"] == registry.latest("noir") == second


def test_a_number_names_a_version(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    assert registry["noir@1"] == first


def test_a_digest_names_a_version_by_any_seven_digits_or_more(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    assert all(registry[f"noir@{first.digest[:n]}"] == first for n in (7, 8, 64))


def test_an_alias_names_a_version(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    _alias(registry, first, "prod")
    assert (registry["noir@prod"], registry.aliases("noir")) == (first, {"prod": 1})


def test_a_damaged_alias_says_which(registry: Registry) -> None:
    path = _alias(registry, publish(registry, "noir"), "prod")
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(Damaged, match="alias 'prod' of noir is damaged") as caught:
        registry["noir@prod"]
    assert caught.value.hint == f"rm {path}"


def test_an_alias_that_carries_another_digest_is_damaged(registry: Registry) -> None:
    v = publish(registry, "noir")
    path = registry.path / "noir" / "aliases" / "prod"
    path.parent.mkdir()
    body = {"version": v.number, "digest": "00" * 32}
    path.write_bytes(files.canonical_json({**body, "sha256": files.sha256_bytes(files.canonical_json(body))}))
    with pytest.raises(Damaged, match="prod"):
        registry["noir@prod"]


def test_best_is_the_lowest_loss_on_the_held_out_text_of_the_latest(registry: Registry) -> None:
    publish(registry, "noir", seed=1, loss=2.0, held_out="aa" * 32)  # lower, but on other text
    second = publish(registry, "noir", seed=2, loss=2.9)
    publish(registry, "noir", seed=3, loss=3.1)
    assert registry["noir@best"] == registry.best("noir") == second


def test_best_compares_only_versions_of_the_same_base(registry: Registry) -> None:
    other = FINGERPRINTS | {"weights": "99" * 32}
    publish(registry, "noir", seed=1, loss=2.0, base_fingerprints=other)
    second = publish(registry, "noir", seed=2, loss=2.9)
    assert registry["noir@best"] == second


def test_best_knows_scores_taken_later(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1, loss=4.0, held_out="aa" * 32)
    publish(registry, "noir", seed=2, loss=2.9)
    score = {"digest": first.digest, "held_out": "44" * 32, "loss": 2.5}
    files.append_line(registry.path / "noir" / "evaluations.jsonl", score)
    assert registry["noir@best"] == first


def test_best_of_equals_is_the_newest(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    second = publish(registry, "noir", seed=2)
    assert registry["noir@best"] == second


def test_best_without_any_test_is_the_latest(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    second = publish(registry, "noir", seed=2, loss=None)
    assert registry["noir@best"] == second


def test_a_deleted_version_is_neither_latest_nor_best(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1, loss=3.0)
    _delete(publish(registry, "noir", seed=2, loss=2.0))
    assert registry["noir"] == registry["noir@best"] == first


def test_a_deleted_version_is_not_found_by_its_number(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    _delete(publish(registry, "noir", seed=2))
    with pytest.raises(NotFound, match=r"noir@2 was deleted\.") as caught:
        registry["noir@2"]
    assert caught.value.hint == "adapterkit restore noir@2"


def test_a_deleted_version_is_listed_when_asked_for(registry: Registry) -> None:
    _delete(publish(registry, "noir"))
    assert ([v.ref for v in registry.versions(deleted=True)], registry.versions()) == (["noir@1"], [])


def test_a_restored_version_is_there_again(registry: Registry) -> None:
    v = publish(registry, "noir")
    _delete(v)
    (v.path / "deleted").unlink()
    assert registry["noir"] == v


@pytest.mark.parametrize("ref", ["noir@0", "noir@7", "noir@nope", "noir@00000000"])
def test_a_version_that_is_not_there_names_those_that_are(registry: Registry, ref: str) -> None:
    publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    with pytest.raises(NotFound, match=r"it has 1, 2\.") as caught:
        registry[ref]
    assert caught.value.hint == "adapterkit list noir --all"


def test_a_name_that_is_not_there_suggests_the_nearest(registry: Registry) -> None:
    publish(registry, "stories")
    with pytest.raises(NotFound, match="no adapter named 'storys' in ") as caught:
        registry["storys"]
    assert caught.value.hint.startswith("did you mean 'stories'?")


def test_a_name_that_is_not_there_counts_what_the_home_folder_has(registry: Registry) -> None:
    publish(registry, "noir")
    publish(Registry(Path.home() / ".adapterkit" / "adapters"), "stories")
    with pytest.raises(NotFound) as caught:
        registry["stories"]
    assert caught.value.hint == "adapterkit show stories --registry ~/.adapterkit/adapters"
    with pytest.raises(NotFound) as caught:
        registry["nothing"]
    assert caught.value.hint == "adapterkit list --all     (~/.adapterkit/adapters has 1 more)"


def test_an_empty_registry_says_how_to_begin(registry: Registry) -> None:
    with pytest.raises(NotFound) as caught:
        registry["noir"]
    assert caught.value.hint == "train one: adapterkit train FOLDER-OR-FILE"


@pytest.mark.parametrize("ref", ["../noir", "noir/1", "/etc/passwd", "noir@../1", "", "noir@", "NOIR", "."])
def test_a_ref_is_never_a_path(registry: Registry, ref: str) -> None:
    publish(registry, "noir")
    with pytest.raises(NotFound, match="not a version of an adapter"):
        registry[ref]


def test_in_asks_whether_a_ref_is_there(registry: Registry) -> None:
    publish(registry, "noir")
    assert ("noir" in registry, "noir@1" in registry, "noir@2" in registry, "x" in registry) == (
        True,
        True,
        False,
        False,
    )


def test_best_of_a_name_that_is_not_there_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound, match="no adapter named 'noir'"):
        registry.best("noir")


# --- listing ---


def test_names_are_sorted(registry: Registry) -> None:
    for name in ("shanty", "2nd", "noir", "a-b", "a_b"):
        publish(registry, name)
    assert registry.names() == sorted(["shanty", "2nd", "noir", "a-b", "a_b"])


def test_folders_of_the_registry_itself_are_no_names(registry: Registry) -> None:
    publish(registry, "noir")
    (registry.path / ".runs").mkdir()
    assert registry.names() == ["noir"]


def test_the_versions_of_all_names_come_by_name_and_number(registry: Registry) -> None:
    publish(registry, "shanty")
    publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    assert [v.ref for v in registry.versions()] == ["noir@1", "noir@2", "shanty@1"]


def test_the_note_stays_with_its_version(registry: Registry) -> None:
    publish(registry, "noir", seed=1, note="first try")
    publish(registry, "noir", seed=2)
    assert [v.note for v in registry.versions("noir")] == ["first try", ""]


def test_the_log_says_what_was_published(registry: Registry) -> None:
    publish(registry, "noir", note="first try")
    told = [(e.what, e.version, e.more["note"]) for e in registry.log("noir")]
    assert told == [("published", 1, "first try")]


def test_a_log_line_torn_by_a_crash_is_passed_over(registry: Registry) -> None:
    publish(registry, "noir", note="first try")
    with (registry.path / "noir" / "log.jsonl").open("ab") as log:
        log.write(b'{"what": "publ')
    assert [v.note for v in registry.versions("noir")] == ["first try"]


def test_a_line_after_a_torn_one_is_not_lost(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    with (registry.path / "noir" / "log.jsonl").open("ab") as log:
        log.write(b'{"what": "publ')
    assert publish(registry, "noir", seed=2, note="second").note == "second"


# --- one damaged version ---


def _damage(v: Version) -> None:
    path = v.path / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(b"{}")


def test_a_damaged_version_says_so(registry: Registry) -> None:
    _damage(publish(registry, "noir"))
    with pytest.raises(Damaged, match="noir@1 is damaged"):
        registry["noir"]


def test_a_damaged_version_does_not_hide_the_others(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1)
    second = publish(registry, "noir", seed=2)
    _damage(first)
    assert registry["noir@2"] == second


def test_publishing_goes_on_beside_a_damaged_version(registry: Registry) -> None:
    """The hint of the error says: make it again with train --fresh."""
    _damage(publish(registry, "noir", seed=1))
    assert publish(registry, "noir", seed=2, fresh=True).number == 2


def test_a_damaged_name_is_no_harm_to_an_error_about_another(registry: Registry) -> None:
    _damage(publish(registry, "noir"))
    publish(registry, "stories")
    with pytest.raises(NotFound, match="no adapter named 'storys'"):
        registry["storys"]


# --- the commit ---


def test_published_files_are_read_only_in_an_open_folder(registry: Registry) -> None:
    v = publish(registry, "noir")
    modes = {p.relative_to(v.path).as_posix(): stat.S_IMODE(p.stat().st_mode) for p in v.path.rglob("*")}
    expected = {n: 0o755 if (v.path / n).is_dir() else 0o444 for n in modes}
    assert (modes, stat.S_IMODE(v.path.stat().st_mode)) == (expected, 0o755)


def test_every_file_is_digested_but_the_private_ones_and_the_manifest(registry: Registry) -> None:
    v = publish(registry, "noir")
    assert sorted(v.manifest["files"]) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "recipe.json",
    ]


def test_nothing_is_left_behind_by_publishing(registry: Registry) -> None:
    publish(registry, "noir")
    publish(registry, "noir")
    assert list((registry.path / ".staging").iterdir()) == []


def test_a_staging_that_fails_leaves_nothing(registry: Registry) -> None:
    def stop_half_way() -> None:
        with registry.staging() as folder:
            (folder / "private").mkdir()
            (folder / "private" / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert (list((registry.path / ".staging").iterdir()), registry.names()) == ([], [])


def test_staging_makes_the_registry(tmp_path: Path) -> None:
    with Registry(tmp_path / "new").staging():
        assert (tmp_path / "new" / "registry.json").is_file()


def test_a_publish_that_fails_at_the_rename_leaves_no_version(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setattr(slots.Home, "take", refuse)
        with pytest.raises(Unsupported, match="may not be written"):
            publish(registry, "noir")
    assert (registry.versions("noir"), list((registry.path / ".staging").iterdir())) == ([], [])


def test_a_publish_that_fails_leaves_no_name(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setattr(slots.Home, "take", refuse)
        with pytest.raises(Unsupported, match="may not be written"):
            publish(registry, "noir")
    assert registry.names() == []


def test_a_full_disk_is_one_clear_error(registry: Registry) -> None:
    with pytest.raises(AdapterKitError, match="no space left on the disk") as caught, registry.staging():
        raise OSError(28, "No space left on device")
    assert caught.value.code == "out-of-space"


def test_a_writer_that_loses_the_number_takes_the_next(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer commits between the look at the numbers and the rename."""
    take = slots.Home.take
    raced: list[bool] = []

    def race(home: slots.Home, folder: Path, number: int) -> None:
        if not raced:
            raced.append(True)
            publish(Registry(registry.path), "noir", seed=9)
        take(home, folder, number)

    monkeypatch.setattr(slots.Home, "take", race)
    v = publish(registry, "noir", seed=1)
    assert (v.number, [w.manifest["version"] for w in registry.versions("noir")]) == (2, [1, 2])


def test_the_same_content_committed_meanwhile_is_not_committed_twice(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = slots.Home.take
    raced: list[bool] = []

    def race(home: slots.Home, folder: Path, number: int) -> None:
        if not raced:
            raced.append(True)
            publish(Registry(registry.path), "noir", seed=1)
        take(home, folder, number)

    monkeypatch.setattr(slots.Home, "take", race)
    publish(registry, "noir", seed=1)
    assert [v.number for v in registry.versions("noir")] == [1]


def test_threads_publishing_at_once_never_share_a_number(registry: Registry) -> None:
    together = Barrier(4)

    def work(i: int) -> list[Version]:
        together.wait()
        return [publish(Registry(registry.path), "noir", seed=10 * i + k) for k in range(3)]

    with ThreadPoolExecutor(4) as pool:
        made = [v for versions in pool.map(work, range(4)) for v in versions]
    assert sorted(v.number for v in made) == list(range(1, 13))
    assert len({v.digest for v in registry.versions("noir")}) == 12


PUBLISH = """
import sys
from pathlib import Path
from adapterkit.registry.store import Registry
from tests.versions import publish

for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 5):
    print(publish(Registry(Path(sys.argv[1])), "noir", seed=seed).number)
"""


def test_processes_publishing_at_once_never_share_a_number(registry: Registry) -> None:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", PUBLISH, str(registry.path)]
    running = [
        subprocess.Popen([*argv, str(100 * i)], stdout=subprocess.PIPE, cwd=root, text=True) for i in range(2)
    ]
    numbers = [int(n) for p in running for n in p.communicate(timeout=60)[0].split()]
    assert sorted(numbers) == list(range(1, 11))


def test_publishing_never_changes_a_version_that_is_there(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.path.rglob("*") if p.is_file()}
    publish(registry, "noir", seed=2)
    publish(registry, "noir", seed=1, fresh=True)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.path.rglob("*") if p.is_file()} == before


# --- what must not be published ---


def _publish_raw(registry: Registry, name: str, changes: dict[str, object]) -> Version:
    manifest = manifest_of(name, "lora", "tiny", FINGERPRINTS, Metrics(loss=3.0)) | changes
    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", tensors(0), {})
        return registry.publish(folder, manifest)


@pytest.mark.parametrize("name", ["../evil", "best", "base", "Noir", "a b", "con", ""])
def test_a_name_that_is_not_allowed_is_refused_before_anything_is_written(
    registry: Registry, name: str
) -> None:
    before = sorted(registry.path.parent.rglob("*"))
    with pytest.raises(AdapterKitError, match=r"not a name|reserved"):
        _publish_raw(registry, name, {})
    assert sorted(registry.path.parent.rglob("*")) == before


def test_a_manifest_that_would_be_too_long_to_read_is_not_committed(registry: Registry) -> None:
    with pytest.raises(AdapterKitError):
        _publish_raw(registry, "noir", {"environment": {"long": "x" * 20_000}})
    assert registry.versions("noir") == []


def test_full_weights_are_published_beside_adapters(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    v = publish(registry, "noir", seed=1, kind="full")
    assert (v.number, v.kind, "model.safetensors" in v.manifest["files"]) == (2, "full", True)


def test_a_manifest_is_written_as_json_that_any_reader_knows(registry: Registry) -> None:
    v = publish(registry, "noir")
    assert json.loads((v.path / "manifest.json").read_text(encoding="utf-8"))["name"] == "noir"
